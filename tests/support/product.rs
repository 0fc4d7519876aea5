//! The product as a child process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use local_cluster::{Cluster, free_port};

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
    pub(crate) ports: Ports,
    /// Another version's program; `None` = this one's.
    pub(crate) program: Option<&'a Path>,
    /// Added to the environment.
    pub(crate) env: &'a [(&'a str, &'a Path)],
    /// Ends with this cluster where the test binary is killed.
    pub(crate) cluster: &'a Cluster,
}

/// Ports of the listeners; 0 = any free one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ports {
    pub(crate) mapping: u16,
    pub(crate) admission: u16,
    pub(crate) admin: u16,
}

impl Ports {
    /// Free ones where none was given.
    pub(crate) fn chosen(self) -> Self {
        let choose = |port: u16| if port == 0 { free_port().unwrap() } else { port };
        let Self { mapping, admission, admin } = self;
        Self { mapping: choose(mapping), admission: choose(admission), admin: choose(admin) }
    }
}

impl Product {
    pub(crate) fn start(launch: &Launch<'_>) -> Self {
        let config = launch.directory.join(format!("{}.yaml", launch.name));
        std::fs::write(&config, launch.config).unwrap();
        let log = launch.directory.join(format!("{}.log", launch.name));
        let Ports { mapping, admission, admin } = launch.ports.chosen();
        let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let child =
            Command::new(launch.program.unwrap_or(Path::new(env!("CARGO_BIN_EXE_external-ip-controller"))))
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
                .stderr(std::fs::File::options().create(true).append(true).open(&log).unwrap())
                .envs(launch.env.iter().copied())
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

    /// Ends it at once, unless it has ended; returns when it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
        self.kill();
    }
}
