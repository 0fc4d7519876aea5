//! The product beside an API server that is pretended.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::{Process, free_address};

/// A running `external-ip-controller run`.
pub(crate) struct Product {
    pub(crate) process: Process,
    pub(crate) admission: SocketAddr,
    pub(crate) mapping: SocketAddr,
    admin: SocketAddr,
}

impl Product {
    /// Starts `binary`; its files lie in `directory`, where a certificate has been written.
    pub(crate) fn start(binary: &Path, api: SocketAddr, directory: &Path) -> Result<Self> {
        let tls = directory.display();
        let key = format!("{{certificate: {tls}/tls.crt, key: {tls}/tls.key}}");
        let config = format!(
            "version: 1\naccess: open\ntls: {{admission: {key}, mapping: {key}}}\n\
             limits: {{slotsPerCluster: 64, slotsPerNamespace: 10000, loadBalancers: 100000}}\n"
        );
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: bench\n\
             clusters: [{{name: bench, cluster: {{server: 'http://{api}'}}}}]\n\
             contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]\nusers: [{{name: bench, user: {{}}}}]\n"
        );
        let files = [("config.yaml", config), ("kubeconfig", kubeconfig)];
        for (name, text) in files {
            std::fs::write(directory.join(name), text)?;
        }
        let (admission, mapping, admin) = (free_address()?, free_address()?, free_address()?);
        let process = Process::start(
            Command::new(binary)
                .arg("run")
                .arg("--config")
                .arg(directory.join("config.yaml"))
                .args(["--listen-admission", &admission.to_string()])
                .args(["--listen-mapping", &mapping.to_string()])
                .args(["--listen-admin", &admin.to_string()])
                .env("KUBECONFIG", directory.join("kubeconfig"))
                .env("POD_NAME", "bench"),
        )?;
        Ok(Self { process, admission, mapping, admin })
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let admin = self.admin;
        self.process.until("it is ready", || is_ready(admin).unwrap_or(false))
    }
}

fn is_ready(admin: SocketAddr) -> Result<bool> {
    let mut stream = TcpStream::connect(admin)?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}
