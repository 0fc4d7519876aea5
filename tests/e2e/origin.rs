//! The old map is understood by the old clients: `SnakeYAML` in Java and yaml.v2 in Go, with their field names.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{Rig, eventually, root, say};
use crate::workload::{Map, Workload};

/// What a client understood of one document.
#[derive(Debug, Default, PartialEq, Eq)]
struct Understood {
    service_ip: String,
    mapping: Vec<(String, String)>,
}

#[test]
fn the_golden_documents_are_understood_by_old_clients() {
    let goldens = ["none", "one", "several"]
        .map(|name| root().join(format!("tests/core/golden/formats/{name}.origin.yaml")));
    let expected: Vec<Understood> = goldens.iter().map(|path| written(&read(path))).collect();
    assert_eq!(expected.iter().map(|e| e.mapping.len()).collect::<Vec<_>>(), [0, 2, 3]);
    for client in [Client::Java, Client::Go] {
        let Some(understood) = client.reads(&goldens) else { continue };
        assert_eq!(understood, expected, "{client:?}");
    }
}

#[test]
fn the_live_document_is_understood_by_old_clients() {
    let Some(rig) = Rig::installed() else { return };
    rig.namespace("origin");
    rig.kubectl(&["-n", "origin", "create", "serviceaccount", "old-client"]);
    let binding = ["create", "clusterrolebinding", "old-client", "--clusterrole=external-ip-mapping-reader"];
    rig.made("clusterrolebinding", "old-client");
    rig.kubectl(&[&binding[..], &["--serviceaccount=origin:old-client"]].concat());
    let map = Map::with_account(&rig, "origin", "old-client", "/");
    let directory = std::env::temp_dir().join(format!("origin-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let mut documents = Vec::new();
    // no cluster, one, two
    for (members, workload) in [
        (0, None),
        (2, Some(Workload::stateful_set("origin", "alone"))),
        (5, Some(Workload::stateful_set("origin", "second"))),
    ] {
        if let Some(workload) = workload {
            workload.create(&rig, if members == 2 { 2 } else { 3 });
        }
        let document = eventually(&format!("{members} addresses in /"), || {
            let answer = rig.outside.run({
                let map = map.clone();
                async move { map.fetch(&[]).await }
            })?;
            if written(&answer.body).mapping.len() == members { Ok(answer.body) } else { Err(answer.body) }
        });
        let path = directory.join(format!("{members}.yaml"));
        std::fs::write(&path, document).unwrap();
        documents.push(path);
    }
    let expected: Vec<Understood> = documents.iter().map(|path| written(&read(path))).collect();
    for client in [Client::Java, Client::Go] {
        let Some(understood) = client.reads(&documents) else { continue };
        assert_eq!(understood, expected, "{client:?}");
        assert_eq!(understood[0].service_ip, map.address.ip().to_string());
    }
    std::fs::remove_dir_all(directory).unwrap();
}

/// A program below `tests/origin-clients`.
#[derive(Debug, Clone, Copy)]
enum Client {
    Java,
    Go,
}

impl Client {
    /// `None`, after saying so, where its tool is missing and nobody requires it.
    fn reads(self, documents: &[PathBuf]) -> Option<Vec<Understood>> {
        let files: Vec<String> = documents.iter().map(|path| path.display().to_string()).collect();
        let clients = root().join("tests/origin-clients");
        let (tool, mut command) = match self {
            Self::Java => {
                let mut command = Command::new("mvn");
                command.current_dir(clients.join("java")).args(["-q", "-B", "compile", "exec:java"]);
                command.arg(format!("-Dexec.args={}", files.join(" ")));
                ("mvn", command)
            }
            Self::Go => {
                let mut command = Command::new("go");
                command.current_dir(clients.join("go")).args(["run", "."]).args(&files).env("GOFLAGS", "");
                ("go", command)
            }
        };
        let out = match command.output() {
            Ok(out) => out,
            Err(error) if std::env::var("REQUIRE_NODE").as_deref() == Ok("1") => panic!("{tool}: {error}"),
            Err(_) => {
                say(&format!("SKIPPED: the {self:?} client of the old map: install {tool}"));
                return None;
            }
        };
        let (text, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{self:?}: {text}\n{error}");
        let mut all = Vec::new();
        // Maven resets the terminal's colours, also where there is no terminal
        for line in text.replace("\u{1b}[0m", "").lines().filter(|line| !line.is_empty()) {
            match (line.split(' ').collect::<Vec<_>>().as_slice(), all.last_mut()) {
                (["document", _], _) => all.push(Understood::default()),
                (["service-ip", ip], Some(last)) => (*ip).clone_into(&mut last.service_ip),
                (["service-ip"] | ["label", ..] | ["port", _], Some(_)) => {}
                ([inside, outside], Some(last)) => {
                    last.mapping.push(((*inside).to_owned(), (*outside).to_owned()));
                }
                _ => panic!("{self:?} says: {line}"),
            }
        }
        Some(all)
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a document says, read as text.
fn written(document: &str) -> Understood {
    let ip = document.lines().find_map(|line| line.strip_prefix("  service-ip: ")).unwrap_or_default();
    let entries = document.lines().filter_map(|line| line.strip_prefix("  - ")?.split_once(':'));
    let mapping = entries.map(|(inside, outside)| (inside.to_owned(), outside.to_owned())).collect();
    Understood { service_ip: ip.to_owned(), mapping }
}
