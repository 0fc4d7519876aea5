//! What a cluster can leave on a machine, looked for without the tool's own code.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// What is known about a running cluster, to look for it when it should be gone.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    dir: PathBuf,
    cgroups: BTreeSet<String>,
    namespaces: BTreeSet<PathBuf>,
    ports: BTreeSet<u16>,
    links: BTreeSet<String>,
    named_networks: BTreeSet<String>,
}

impl Seen {
    /// The machine before: the cluster is not there.
    pub(crate) fn before(dir: &Path) -> Self {
        assert!(!dir.exists(), "{} is there already", dir.display());
        Self {
            dir: dir.to_owned(),
            links: entries("/sys/class/net"),
            named_networks: entries("/run/netns"),
            ..Self::default()
        }
    }

    /// Looks at another directory from now on.
    pub(crate) fn look_at(&mut self, dir: &Path) {
        dir.clone_into(&mut self.dir);
    }

    /// Notes what belongs to the cluster at this moment. Anything may be missing: it is starting or being killed.
    pub(crate) fn note(&mut self) {
        let read = |file: &str| fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        for line in read("config/kubelet.yaml").lines() {
            self.cgroups.extend(line.strip_prefix("cgroupRoot: /").map(str::to_owned));
        }
        let state: serde_json::Value = serde_json::from_str(&read("local-cluster.json")).unwrap_or_default();
        if let Some(ports) = state["ports"].as_object() {
            self.ports.extend(ports.values().filter_map(|port| u16::try_from(port.as_u64()?).ok()));
        }
        let mine = namespaces(Path::new("/proc/self"));
        for process in processes() {
            let of_cluster = holds(&process.join("environ"), &self.dir)
                || self.cgroups.iter().any(|cgroup| holds(&process.join("cgroup"), Path::new(cgroup)));
            if of_cluster {
                self.namespaces.extend(namespaces(&process).difference(&mine).cloned());
            }
        }
    }

    /// Whether anything real was noted, so that "nothing left" means something.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.ports.len(), self.namespaces.len(), self.cgroups.len())
    }

    /// Everything of the cluster that is still on the machine.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut lock = self.dir.clone().into_os_string();
        lock.push(".lock");
        for path in [self.dir.clone(), lock.into()] {
            if path.exists() {
                left.push(format!("file {}", path.display()));
            }
        }
        for process in processes() {
            for file in ["environ", "cmdline", "mountinfo"] {
                if holds(&process.join(file), &self.dir) {
                    left.push(format!("{}: {file} of {}", process.display(), name_of(&process)));
                }
            }
            for namespace in namespaces(&process).intersection(&self.namespaces) {
                left.push(format!("{}: namespace {}", process.display(), namespace.display()));
            }
        }
        left.extend(
            cgroups().into_iter().filter(|path| self.cgroups.iter().any(|name| path.contains(name.as_str()))),
        );
        for port in &self.ports {
            if let Err(error) = TcpListener::bind(("127.0.0.1", *port)) {
                left.push(format!("port {port}: {error}"));
            }
        }
        left.extend(entries("/sys/class/net").difference(&self.links).map(|link| format!("link {link}")));
        let named = entries("/run/netns");
        left.extend(named.difference(&self.named_networks).map(|name| format!("network {name}")));
        left
    }
}

fn processes() -> Vec<PathBuf> {
    let me = std::process::id().to_string();
    entries("/proc")
        .into_iter()
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()) && *name != me)
        .map(|name| Path::new("/proc").join(name))
        .filter(|process| !has_ended(process))
        .collect()
}

/// A zombie is an exit status that its parent (of orphans: the machine's process 1) has not fetched yet.
fn has_ended(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" Z") || rest.starts_with(" X"))
}

fn name_of(process: &Path) -> String {
    fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned()
}

fn namespaces(process: &Path) -> BTreeSet<PathBuf> {
    ["net", "mnt", "pid", "uts", "ipc"]
        .iter()
        .flat_map(|kind| fs::read_link(process.join("ns").join(kind)))
        .collect()
}

fn holds(file: &Path, text: &Path) -> bool {
    let text = text.as_os_str().as_encoded_bytes();
    fs::read(file).is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text))
}

/// All cgroups: the tree is at most a few hundred directories.
fn cgroups() -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path().display().to_string());
                todo.push(entry.path());
            }
        }
    }
    found
}

fn entries(dir: &str) -> BTreeSet<String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
