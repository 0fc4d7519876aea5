//! A store's client as a process in the network beyond the load balancer.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::images::run;
use crate::rig::{Rig, eventually};
use crate::workload::{Entry, Map};

/// Files that a client is given: they end with the test.
pub(super) struct Files(PathBuf);

impl Files {
    pub(super) fn new(store: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("{store}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Tells a client where the map is: the document of one cluster by HTTPS, as its users have it.
pub(super) fn follows(command: &mut Command, map: &Map, files: &Files) {
    command
        .env("EXTERNAL_IP_MAP", format!("https://{}{}", map.address, map.path))
        .env("EXTERNAL_IP_CA_FILE", files.write("ca.crt", &map.ca))
        .env("EXTERNAL_IP_TOKEN_FILE", files.write("token", &map.token));
}

/// A client that writes and reads in a loop.
pub(super) struct Client {
    process: Child,
    input: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

/// What a client did since the report before.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) operations: u64,
    pub(super) failed: Vec<Value>,
    pub(super) wrong: u64,
    pub(super) slowest_ms: u64,
}

impl Report {
    fn nothing_failed(&self) {
        assert!(self.failed.is_empty() && self.wrong == 0, "{self:?}");
    }
}

impl Client {
    pub(super) fn start(command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, answers) = (process.stdin.take(), process.stdout.take().unwrap());
        Self { process, input, lines: BufReader::new(answers) }
    }

    /// Its next line; panics where it has ended.
    pub(super) fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the client said {line:?}: {error}"))
    }

    pub(super) fn ready(&mut self) {
        let first = self.line();
        assert_eq!(first["ready"], true, "{first}");
    }

    /// Its answer to a line.
    pub(super) fn ask(&mut self, line: &str) -> Value {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
        self.line()
    }

    pub(super) fn report(&mut self) -> Report {
        self.does("report")
    }

    /// What it did until it has done this as well.
    fn does(&mut self, what: &str) -> Report {
        let line = self.ask(what);
        let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{line}"));
        Report {
            operations: number("operations"),
            failed: line["failed"].as_array().unwrap().clone(),
            wrong: number("wrong"),
            slowest_ms: number("slowest_ms"),
        }
    }

    /// What it did until it has done this much more; panics where an operation failed or read what was not written.
    pub(super) fn all_succeed(&mut self, operations: u64) -> Report {
        let mut sum = Report { operations: 0, failed: Vec::new(), wrong: 0, slowest_ms: 0 };
        eventually(&format!("{operations} more operations"), || {
            let report = self.report();
            sum.operations += report.operations;
            sum.failed.extend(report.failed);
            sum.wrong += report.wrong;
            sum.slowest_ms = sum.slowest_ms.max(report.slowest_ms);
            if sum.operations >= operations { Ok(()) } else { Err(format!("{sum:?}")) }
        });
        sum.nothing_failed();
        sum
    }

    /// Does nothing of its own meanwhile; what is asked for by `keys` is done.
    pub(super) fn rests<T>(&mut self, meanwhile: impl FnOnce(&mut Self) -> T) -> T {
        self.does("rest").nothing_failed();
        let answer = meanwhile(self);
        self.does("go").nothing_failed();
        answer
    }

    /// Writes and reads each of these once.
    pub(super) fn keys(&mut self, keys: &[usize]) {
        let numbers: Vec<_> = keys.iter().map(ToString::to_string).collect();
        let report = self.does(&format!("keys {}", numbers.join(" ")));
        report.nothing_failed();
        assert_eq!(report.operations, 2 * keys.len() as u64, "{report:?}");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.input.take()); // it ends with its input
        if std::thread::panicking() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// A program out there, with nothing of this process's environment that a client could take for its own.
pub(super) fn program(rig: &Rig, name: &str) -> Command {
    rig.cluster.in_client(name).unwrap()
}

/// Makes sure that internal addresses lead nowhere out there: what a client reaches, it reaches by external ones.
pub(super) fn no_route_to(rig: &Rig, members: &[Entry]) {
    for member in members {
        let out = program(rig, "ip").args(["route", "get", &member.inside]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains("unreachable"), "{}: {out:?}", member.inside);
    }
}

/// What a client says that cannot begin: because of this, and within two seconds of the attempt. Clients that load much for
/// their first one have tried twice: how long that took is told as `first_ms`, and is not limited.
pub(super) fn is_refused(client: &mut Command, because: &str) -> Value {
    let said = Client::start(client).line();
    let error = said["error"].as_str().unwrap_or_else(|| panic!("{said}"));
    assert!(error.contains(because), "{said}");
    assert!(said["after_ms"].as_u64().unwrap() < 2000, "{said}");
    said
}

/// The objects of a manifest.
pub(super) fn objects(rig: &Rig, file: &str) -> Vec<Value> {
    let objects = rig.kubectl(&["create", "--dry-run=client", "-o", "json", "-f", file]);
    serde_json::Deserializer::from_str(&objects).into_iter().map(Result::unwrap).collect()
}

/// From base64, as Secrets have it.
pub(super) fn decoded(base64: &str) -> String {
    run(Command::new("sh").args(["-c", &format!("printf %s {base64} | base64 -d")]))
}
