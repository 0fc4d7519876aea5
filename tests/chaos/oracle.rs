//! The oracle as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::Value;

/// It is a package of its own, so that it cannot share code with the product; cargo gives no path to another package's
/// program.
pub(crate) fn build() -> PathBuf {
    // what cargo tells a running test about its package would make it build dependencies anew
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST");
    let told = std::env::vars().map(|(name, _)| name).filter(|name| ours(name));
    let mut command = Command::new(env!("CARGO"));
    told.for_each(|name| {
        command.env_remove(name);
    });
    let status = command
        .args(["build", "--quiet", "--locked", "--package", "chaos-oracle"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.expect("cargo").success(), "the oracle does not build");
    let product = Path::new(env!("CARGO_BIN_EXE_external-ip-controller"));
    // what is tested may be a release build, the oracle is always a debug one
    let target = product.parent().and_then(Path::parent).expect("a target directory");
    target.join("debug/chaos-oracle")
}

/// A running record. Ends with this process, as its standard input does.
pub(crate) struct Recording {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Recording {
    pub(crate) fn start(
        program: &Path,
        etcd: SocketAddr,
        replicas: &[(&str, SocketAddr)],
        ca: &str,
        out: &Path,
    ) -> Self {
        let ca_file = out.join("ca.pem");
        std::fs::write(&ca_file, ca).unwrap();
        let mut command = Command::new(program);
        command
            .arg("record")
            .arg("--etcd")
            .arg(etcd.to_string())
            .arg("--ca")
            .arg(ca_file)
            .arg("--out")
            .arg(out);
        for (name, address) in replicas {
            command.arg("--replica").arg(format!("{name}={address}"));
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the oracle starts");
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "recording");
        Self { child, stdin }
    }

    /// Ends the record; waits until it is written.
    pub(crate) fn stop(mut self) {
        drop(self.stdin.take());
        assert!(self.child.wait().unwrap().success(), "the record failed");
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Judges a record, prints its table; the report.
pub(crate) fn judge(program: &Path, record: &Path) -> Value {
    let status = Command::new(program).arg("judge").arg(record).status().expect("the oracle runs");
    let report = std::fs::read_to_string(record.join("report.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(status.success(), report["clean"] == true, "the report and its exit status agree");
    report
}

/// The oracle must notice forgeries of this very record.
pub(crate) fn self_test(program: &Path, record: &Path) {
    let status = Command::new(program).arg("self-test").arg(record).status().expect("the oracle runs");
    assert!(status.success(), "the oracle does not notice a forgery");
}
