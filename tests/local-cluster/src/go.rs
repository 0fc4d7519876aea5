//! Builds Kubernetes, etcd, kwok and MetalLB from the Go modules that `kubernetes/` and `metallb/` pin.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cache;
use crate::options::Level;
use crate::progress::REPORT_EVERY;
use crate::tools::Maker;

/// Part of the cache key: raise it when the way of building changes.
const RECIPE: &[u8] = b"1";

/// One binary.
struct Tool {
    /// Its file name in the cache.
    name: &'static str,
    package: &'static str,
    /// The folder of the Go module that pins it.
    module: &'static str,
    /// The only level that needs it; `None` is both.
    only: Option<Level>,
}

const fn kubernetes(name: &'static str, package: &'static str, only: Option<Level>) -> Tool {
    Tool { name, package, module: "kubernetes", only }
}

/// kubectl first: it is all that is needed where the user brings a cluster.
const TOOLS: [Tool; 9] = [
    kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", None),
    kubernetes("etcd", "go.etcd.io/etcd/server/v3", None),
    kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", None),
    kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", None),
    kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", None),
    Tool { name: "metallb", package: "go.universe.tf/metallb/controller", module: "metallb", only: None },
    kubernetes("kwok", "sigs.k8s.io/kwok/cmd/kwok", Some(Level::ControlPlane)),
    kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet", Some(Level::Node)),
    kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", Some(Level::Node)),
];

/// kwok's description of how a pretended node and pod behave: no delays.
const STAGES: [&str; 5] = [
    "node/fast/node-initialize.yaml",
    "node/heartbeat/node-heartbeat.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
];

/// The folder of built binaries: `kube-apiserver`, ..., and `metallb-crds/`, `kwok-stages/` beside them.
pub(crate) fn binaries(level: Level, maker: &Maker<'_>) -> Result<PathBuf> {
    let dir = folder()?;
    let wanted = TOOLS.iter().filter(|tool| tool.only.is_none_or(|only| only == level));
    build(&dir, wanted, maker)?;
    cache::once(&dir.join("metallb-crds"), "MetalLB's types", |fresh| {
        copy_yaml(&module_source(maker, "metallb", "go.universe.tf/metallb")?.join("config/crd/bases"), fresh)
    })?;
    cache::once(&dir.join("kwok-stages"), "kwok's stages", |fresh| {
        let source = module_source(maker, "kubernetes", "sigs.k8s.io/kwok")?.join("kustomize/stage");
        let mut all = String::new();
        for stage in STAGES {
            let path = source.join(stage);
            all.push_str("---\n");
            all.push_str(&fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?);
        }
        Ok(fs::write(fresh.join("stages.yaml"), all)?)
    })?;
    Ok(dir)
}

/// Where kubectl is, built when missing.
pub(crate) fn kubectl(maker: &Maker<'_>) -> Result<PathBuf> {
    let dir = folder()?;
    build(&dir, TOOLS.iter().take(1), maker)?;
    Ok(dir.join("kubectl"))
}

fn modules() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Another pin, another folder.
fn folder() -> Result<PathBuf> {
    let mut inputs = vec![RECIPE.to_vec(), std::env::consts::ARCH.as_bytes().to_vec()];
    for module in ["kubernetes", "metallb"] {
        for file in ["go.mod", "go.sum"] {
            let path = modules().join(module).join(file);
            inputs.push(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    Ok(cache::root()?.join("bin").join(cache::key(&inputs)))
}

fn build<'a>(dir: &Path, tools: impl Iterator<Item = &'a Tool>, maker: &Maker<'_>) -> Result<()> {
    let missing: Vec<&Tool> = tools.filter(|tool| !dir.join(tool.name).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    require_go()?;
    fs::create_dir_all(dir)?;
    let lock = cache::Lock::take(&dir.join("build.lock"), || {
        maker.say("waiting: another process builds the Go binaries");
    })?;
    maker.say(&format!(
        "building {} Go binaries into {} (once; all of them take 10 minutes or more on two cores)",
        missing.len(),
        dir.display()
    ));
    for (n, tool) in missing.iter().enumerate() {
        if !dir.join(tool.name).exists() {
            build_one(dir, tool, &format!("[{}/{}] {}", n + 1, missing.len(), tool.name), maker)?;
        }
    }
    lock.remove();
    Ok(())
}

fn build_one(dir: &Path, tool: &Tool, label: &str, maker: &Maker<'_>) -> Result<()> {
    let begun = Instant::now();
    let half = dir.join(format!(".{}.new", tool.name));
    let mut flags = "-s -w".to_owned();
    if tool.module == "kubernetes" {
        // Without it the API server reports v0.0.0 and version checks of clients fail.
        let version = pinned_version("kubernetes", "k8s.io/kubernetes")?;
        let _ = write!(flags, " -X k8s.io/component-base/version.gitVersion={version}");
    }
    let mut child = go(maker, tool.module)
        .args(["build", "-v", "-trimpath", "-ldflags", &flags, "-o"])
        .arg(&half)
        .arg(tool.package)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start go")?;
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let reader = child.stderr.take().map(|stderr| {
        let lines = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Ok(mut lines) = lines.lock() {
                    lines.push(line);
                }
            }
        })
    });
    let mut reported = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if reported.elapsed() > REPORT_EVERY {
            reported = Instant::now();
            let lines = lines.lock().map(|lines| lines.clone()).unwrap_or_default();
            maker.say(&format!("{label}: {}, {} s", activity(&lines), begun.elapsed().as_secs()));
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if let Some(reader) = reader {
        let _ = reader.join();
    }
    if !status.success() {
        let lines = lines.lock().map(|lines| lines.clone()).unwrap_or_default();
        bail!(
            "go build of {} failed ({status}); its last lines:\n  {}\nAre Go's modules reachable (go env GOPROXY)?",
            tool.package,
            lines[lines.len().saturating_sub(12)..].join("\n  ")
        );
    }
    fs::rename(&half, dir.join(tool.name))?;
    maker.say(&format!("{label}: built in {} s", begun.elapsed().as_secs()));
    Ok(())
}

/// What `go build -v` is doing, from the lines it has printed: one per package compiled, one per module fetched.
fn activity(lines: &[String]) -> String {
    let fetched = lines.iter().filter(|line| line.starts_with("go: downloading")).count();
    let compiled = lines.len() - fetched;
    match lines.last() {
        None => "nothing to compile so far (linking, or reading the module graph)".to_owned(),
        Some(last) if compiled == 0 => {
            format!("{fetched} modules fetched, now {}", last.trim_start_matches("go: "))
        }
        Some(last) => format!("{compiled} packages compiled, last {last}"),
    }
}

fn go(maker: &Maker<'_>, module: &str) -> Command {
    let mut go = maker.command("go");
    // What the user has set for other work (a vendor mode, a workspace, tags) must not change these builds.
    go.current_dir(modules().join(module))
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env_remove("GOFLAGS")
        .env_remove("GOOS")
        .env_remove("GOARCH");
    go
}

fn require_go() -> Result<()> {
    let found = Command::new("go").arg("version").output().is_ok_and(|out| out.status.success());
    ensure!(
        found,
        "Go is not on the PATH, and Kubernetes is built from its Go modules: install Go 1.26 or newer \
         (https://go.dev/dl) and put its bin directory on the PATH"
    );
    Ok(())
}

fn pinned_version(module: &str, path: &str) -> Result<String> {
    let text = fs::read_to_string(modules().join(module).join("go.mod"))?;
    text.lines()
        .find_map(|line| {
            let mut words = line.split_whitespace().skip_while(|word| *word == "require");
            (words.next()? == path)
                .then(|| words.next())?
                .filter(|word| word.starts_with('v'))
                .map(str::to_owned)
        })
        .with_context(|| format!("{module}/go.mod does not pin {path}"))
}

/// Where Go keeps the unpacked module.
fn module_source(maker: &Maker<'_>, module: &str, path: &str) -> Result<PathBuf> {
    require_go()?;
    let list = || {
        go(maker, module).args(["list", "-m", "-f", "{{.Dir}}", path]).output().context("cannot run go list")
    };
    let mut out = list()?;
    if out.stdout.trim_ascii().is_empty() {
        // The build cache was warm, the module cache was cleaned.
        go(maker, module).args(["mod", "download", path]).status()?;
        out = list()?;
    }
    let dir = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    ensure!(!dir.is_empty(), "go list found no {path}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(PathBuf::from(dir))
}

fn copy_yaml(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("no {}", from.display()))? {
        let path = entry?.path();
        if let (true, Some(name)) = (path.extension().is_some_and(|e| e == "yaml"), path.file_name()) {
            // Read and write: a copy would keep the module cache's read-only mode.
            fs::write(to.join(name), fs::read(&path)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_pin_what_is_built() {
        assert!(pinned_version("kubernetes", "k8s.io/kubernetes").unwrap().starts_with("v1."));
        assert!(pinned_version("metallb", "go.universe.tf/metallb").unwrap().starts_with("v0."));
        assert!(pinned_version("metallb", "k8s.io/kubernetes").is_err());
    }

    #[test]
    fn progress_tells_fetching_from_compiling() {
        let lines = ["go: downloading a v1".to_owned(), "go: downloading b v1".to_owned()];
        assert_eq!(activity(&lines), "2 modules fetched, now downloading b v1");
        let lines = [lines[0].clone(), "k8s.io/api/core/v1".to_owned()];
        assert_eq!(activity(&lines), "1 packages compiled, last k8s.io/api/core/v1");
    }
}
