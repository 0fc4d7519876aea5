//! The product as a child process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use local_cluster::Cluster;

use super::https::{self, Response};
use super::{eventually, within};

/// A running `external-ip-controller run`; killed when dropped.
pub(crate) struct Product {
    child: Child,
    pub(crate) mapping: SocketAddr,
    pub(crate) admission: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: PathBuf,
}

/// How to start it.
pub(crate) struct Launch<'a> {
    pub(crate) name: &'a str,
    pub(crate) kubeconfig: &'a Path,
    pub(crate) config: &'a str,
    pub(crate) directory: &'a Path,
    /// Port of the admission listener; 0 = any free one.
    pub(crate) admission_port: u16,
    /// Ends with this cluster where the test binary is killed.
    pub(crate) cluster: &'a Cluster,
}

impl Product {
    pub(crate) fn start(launch: &Launch<'_>) -> Self {
        let config = launch.directory.join(format!("{}.yaml", launch.name));
        std::fs::write(&config, launch.config).unwrap();
        let log = launch.directory.join(format!("{}.log", launch.name));
        let (mapping, admin) = (free_port(), free_port());
        let admission = if launch.admission_port == 0 { free_port() } else { launch.admission_port };
        let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let child = Command::new(env!("CARGO_BIN_EXE_external-ip-controller"))
            .arg("run")
            .arg("--config")
            .arg(&config)
            .args(["--listen-mapping", &at(mapping).to_string()])
            .args(["--listen-admission", &at(admission).to_string()])
            .args(["--listen-admin", &at(admin).to_string()])
            .env("KUBECONFIG", launch.kubeconfig)
            .env("LOCAL_CLUSTER_DIR", launch.cluster.dir().unwrap())
            .env("POD_NAME", launch.name)
            .env("RUST_LOG", "info,external_ip_controller=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .expect("the program starts");
        Self { child, mapping: at(mapping), admission: at(admission), admin: at(admin), log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn ready(&self) {
        eventually("the product is ready", async || match https::plain(self.admin, "/readyz").await {
            Ok(r) if r.status == 200 => Ok(()),
            Ok(r) => Err(format!("{}\n{}", r.body, self.log())),
            Err(e) => Err(format!("{e}\n{}", self.log())),
        })
        .await;
    }

    pub(crate) async fn admin(&self, path: &str) -> Response {
        https::plain(self.admin, path).await.expect("the admin listener answers")
    }

    /// Sends a signal by its name, for example `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self, limit: Duration) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let child = std::cell::RefCell::new(&mut self.child);
        let status = within(limit, "the product ends", async || {
            child.borrow_mut().try_wait().unwrap().ok_or_else(|| "still running".to_owned())
        })
        .await;
        (status, start.elapsed())
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- last lines of {}:", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port nobody listens on now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
