//! What the README tells a new user to type works as it stands there.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::rig::{OWN, Rig, root, say};

/// Run by CI on their own; everything else between ```` ```sh ```` and its end is run here.
const ELSEWHERE: [&str; 2] = ["make demo\n", "make test\n"];
/// The API server as the client outside reaches it; on the machine it is at a port of the loopback.
const API_SERVER: &str = "https://198.51.100.10:6443";

#[test]
fn readme_blocks_work_word_for_word() {
    let Some(rig) = Rig::bare() else { return };
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let all = shell_blocks(&readme);
    let blocks: Vec<&String> = all.iter().filter(|block| !ELSEWHERE.contains(&block.as_str())).collect();
    assert_eq!(all.len() - blocks.len(), ELSEWHERE.len(), "{all:#?}");
    assert!(blocks.len() >= 4, "install, try, read, uninstall: {blocks:#?}");

    let terminal = Terminal::new(&rig);
    let mut said = String::new();
    for block in &blocks {
        said.push_str(&terminal.types(&rig, block));
    }
    for n in 0..3 {
        assert!(said.contains(&format!("store-ext-{n}")), "the Services are listed: {said}");
    }
    let map = said.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let map = map.or_else(|| document_in(&said)).unwrap_or_else(|| panic!("the map is printed: {said}"));
    let entries = map["entries"].as_array().unwrap();
    let routed: Vec<_> = entries.iter().filter(|e| e["state"] == "Routed").map(|e| &e["pod"]).collect();
    assert_eq!(routed, ["store-0", "store-1", "store-2"], "{map}");
    assert_eq!(map["namespace"], "external-ip-demo");
    for namespace in [OWN, "external-ip-demo"] {
        assert_eq!(rig.kubectl(&["get", "namespace", namespace, "--ignore-not-found"]), "", "uninstalled");
    }
    let ours = "app.kubernetes.io/managed-by=external-ip-controller";
    assert_eq!(rig.kubectl(&["get", "services,configmaps", "-A", "-l", ours, "-o", "name"]), "");
    say(&format!("README: {} of {} shell blocks run, the other two by CI", blocks.len(), all.len()));
}

/// Where a new user sits: a fresh checkout, kubectl, a kubeconfig, outside the cluster's network.
pub(crate) struct Terminal {
    directory: PathBuf,
}

impl Terminal {
    pub(crate) fn new(rig: &Rig) -> Self {
        static OPENED: AtomicU32 = AtomicU32::new(0);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("terminal-{}-{number}", std::process::id()));
        let checkout = directory.join("checkout");
        std::fs::create_dir_all(&checkout).unwrap();
        std::fs::create_dir_all(directory.join("bin")).unwrap();
        // the files that are installed from; what a block writes must not end up in the repository
        for part in ["manifests", "examples", "docs", "README.md"] {
            let copied = Command::new("cp").arg("-r").arg(root().join(part)).arg(&checkout).status();
            assert!(copied.unwrap().success(), "{part}");
        }
        let config = std::fs::read_to_string(rig.cluster.kubeconfig()).unwrap();
        std::fs::write(directory.join("kubeconfig"), from_outside(&config)).unwrap();
        let kubectl = rig.cluster.kubectl_command::<&str>(&[]);
        std::os::unix::fs::symlink(kubectl.get_program(), directory.join("bin/kubectl")).unwrap();
        Self { directory }
    }

    /// Gives a file of the checkout another content.
    pub(crate) fn replace(&self, file: &str, content: &str) {
        std::fs::write(self.directory.join("checkout").join(file), content).unwrap();
    }

    /// Runs a block to its end; what it printed.
    pub(crate) fn types(&self, rig: &Rig, block: &str) -> String {
        let checkout = self.directory.join("checkout");
        let out = self.shell(rig, block).current_dir(checkout).output().unwrap();
        let (said, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "this block fails:\n{block}\n{said}\n{error}");
        said.into_owned()
    }

    /// A shell that carries out `script`.
    pub(crate) fn shell(&self, rig: &Rig, script: &str) -> Command {
        let mut shell = rig.cluster.in_client("bash").unwrap();
        let path = format!("{}/bin:{}", self.directory.display(), std::env::var("PATH").unwrap());
        shell
            .args(["-euo", "pipefail", "-c", script])
            .env("PATH", path)
            .env("HOME", &self.directory)
            .env("KUBECONFIG", self.directory.join("kubeconfig"));
        shell
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The same kubeconfig with the API server's address of the node's own network.
fn from_outside(config: &str) -> String {
    let server = config.split('"').flat_map(|part| part.split_whitespace());
    let server = server.into_iter().find(|part| part.starts_with("https://127.0.0.1:")).unwrap();
    config.replace(server, API_SERVER)
}

/// The contents of every fenced block marked `sh`, in order.
pub(crate) fn shell_blocks(readme: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in readme.lines() {
        match &mut open {
            None if line == "```sh" => open = Some(String::new()),
            Some(block) if line == "```" => {
                blocks.push(std::mem::take(block));
                open = None;
            }
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None => {}
        }
    }
    assert!(open.is_none(), "a block does not end");
    blocks
}

/// The first JSON document in a text of several lines.
fn document_in(text: &str) -> Option<Value> {
    let start = text.find("{\"")?;
    serde_json::Deserializer::from_str(&text[start..]).into_iter().next()?.ok()
}
