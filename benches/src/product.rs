//! The product beside an API server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{Process, free_address};

/// The program runs in the environment of its image.
const DOCKERFILE: &str = include_str!("../../Dockerfile");

fn image_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    DOCKERFILE.lines().filter_map(|line| line.strip_prefix("ENV ")?.split_once('='))
}

/// Larger than what is measured.
pub(crate) const LIMITS: &str =
    "limits: {slotsPerCluster: 64, slotsPerNamespace: 10000, loadBalancers: 100000}";

/// A running `external-ip-controller run`.
pub(crate) struct Product {
    pub(crate) process: Process,
    pub(crate) admission: SocketAddr,
    pub(crate) mapping: SocketAddr,
    admin: SocketAddr,
}

impl Product {
    /// Starts `binary` beside an API server that is pretended; its files lie in `directory`, where a certificate has
    /// been written.
    pub(crate) fn start(binary: &Path, api: SocketAddr, directory: &Path) -> Result<Self> {
        let kubeconfig = directory.join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: bench\n\
             clusters: [{{name: bench, cluster: {{server: 'http://{api}'}}}}]\n\
             contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]\nusers: [{{name: bench, user: {{}}}}]\n"
        );
        std::fs::write(&kubeconfig, text)?;
        Self::beside(binary, &kubeconfig, "", directory)
    }

    /// Starts `binary` with a kubeconfig; `classes` is added to its configuration.
    pub(crate) fn beside(binary: &Path, kubeconfig: &Path, classes: &str, directory: &Path) -> Result<Self> {
        let tls = directory.display();
        let key = format!("{{certificate: {tls}/tls.crt, key: {tls}/tls.key}}");
        let config = format!(
            "version: 1\naccess: open\ntls: {{admission: {key}, mapping: {key}}}\n{LIMITS}\n{classes}\n"
        );
        std::fs::write(directory.join("config.yaml"), config)?;
        let (admission, mapping, admin) = (free_address()?, free_address()?, free_address()?);
        let process = Process::start(
            Command::new(binary)
                .arg("run")
                .arg("--config")
                .arg(directory.join("config.yaml"))
                .args(["--listen-admission", &admission.to_string()])
                .args(["--listen-mapping", &mapping.to_string()])
                .args(["--listen-admin", &admin.to_string()])
                .envs(image_environment())
                .env("KUBECONFIG", kubeconfig)
                .env("POD_NAME", "bench"),
        )?;
        Ok(Self { process, admission, mapping, admin })
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let admin = self.admin;
        self.process.until("it is ready", || get(admin, "/readyz").is_ok())
    }

    /// Waits until it writes.
    pub(crate) fn leading(&mut self) -> Result<()> {
        let admin = self.admin;
        self.process.until("it leads", || metric(admin, "external_ip_leader ").is_ok_and(|leads| leads == 1))
    }

    /// Waits until so many entries of its map are routed.
    pub(crate) fn routed(&mut self, entries: usize) -> Result<()> {
        const ROUTED: &str = "external_ip_entries{state=\"Routed\",reason=\"\"} ";
        let admin = self.admin;
        self.process
            .until("its pods are routed", || metric(admin, ROUTED).is_ok_and(|routed| routed == entries))
    }
}

/// The number behind what a line of the metrics begins with.
fn metric(admin: SocketAddr, name: &str) -> Result<usize> {
    let metrics = get(admin, "/metrics")?;
    let line = metrics.lines().find_map(|l| l.strip_prefix(name)).context("no such metric")?;
    Ok(line.parse()?)
}

/// The answer to a plain request, head and body; an error where it is not 200.
fn get(admin: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(answer)
}
