//! The node level: one machine inside this one, made of namespaces that end with its process 1.
//!
//! ```text
//! client 198.51.100.20 --veth-- 198.51.100.10 node -- cni0 198.18.0.1/24 -- pods 198.18.0.0/24
//!   route 203.0.113.0/24 via the node       Services 198.19.0.0/16, external addresses 203.0.113.1-250
//! ```
//!
//! Nothing has a name on the machine: networks are held open by processes alone, so a killed `up` cannot leave one
//! behind. Only cgroups outlive their processes; [`remove_cgroups`] finds them by a name made from the directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::output;
use crate::component::Component;
use crate::launch::{last_words, mark, marked_command, require_alive};
use crate::marked::{self, Marked};
use crate::member::PAUSE_IMAGE;
use crate::progress::Progress;
use crate::site::{CLIENT_IP, LB_NETWORK, NODE_IP, NODE_PODS, PODS, Site};

/// The mark of process 1.
const NODE: &str = "node";
/// The mark of the process that holds the client's network open.
const CLIENT: &str = "client";

/// All pods together: a runaway test must not take the machine with it.
const MEMORY_LIMIT: &str = "4G";

const CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"];

/// Configuration files, cgroups and namespaces.
pub(crate) fn prepare(site: &Site, progress: &Progress) -> Result<()> {
    require_fitting(site)?;
    configure(site)?;
    make_cgroups(&site.cgroup())?;
    for sub in ["run", "var-lib", "var-log"] {
        fs::create_dir_all(site.dir.join("fs").join(sub))?;
    }
    let init = site.config("node-init.sh");
    fs::write(&init, include_str!("../config/node-init.sh"))?;
    marked_command(&site.dir, NODE, Path::new("unshare"))?
        .args(["--net", "--mount", "--propagation", "private", "--uts", "--ipc"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--", "/bin/sh", &init])
        .arg(&site.dir)
        .arg(&site.name)
        .arg(&site.tools.member)
        .args([NODE_IP, CLIENT_IP, LB_NETWORK])
        .spawn()
        .context("cannot start unshare")?;
    progress.wait("the node's namespaces made", Duration::from_secs(30), || {
        let made = site.dir.join("node.up").exists();
        if !made && !marked::find(&site.dir).iter().any(|process| process.component == NODE) {
            bail!("the namespaces could not be made:\n    {}", last_words(site, NODE));
        }
        Ok(made)
    })
}

/// What the kernel and the directory must offer.
fn require_fitting(site: &Site) -> Result<()> {
    for hidden in ["/run", "/var/lib", "/var/log"] {
        for path in [&site.dir, &site.tools.bin] {
            ensure!(
                !path.starts_with(hidden),
                "{} lies under {hidden}, which the node replaces by its own: choose another --dir or XDG_CACHE_HOME",
                path.display()
            );
        }
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.contains("overlay") {
        load_module("overlay");
    }
    if !Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
        load_module("br_netfilter");
    }
    ensure!(
        Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists(),
        "the kernel has no bridge netfilter, so Services would not work between pods: run `modprobe br_netfilter`, or \
         use LEVEL=control-plane"
    );
    Ok(())
}

/// Best effort: kernels without modules have it built in or not at all.
fn load_module(name: &str) {
    let _ = Command::new("modprobe").arg(name).output();
}

fn configure(site: &Site) -> Result<()> {
    fs::create_dir_all(site.config("cni"))?;
    let dir = site.dir.display().to_string();
    let fill = |template: &str| {
        template
            .replace("{DIR}", &dir)
            .replace("{NAME}", &site.name)
            .replace("{CGROUP}", &site.cgroup())
            .replace("{DEBIAN}", &site.tools.debian.display().to_string())
            .replace("{PAUSE_IMAGE}", PAUSE_IMAGE)
            .replace("{NODE_PODS}", NODE_PODS)
            .replace("{PODS}", PODS)
    };
    for (file, template) in [
        ("containerd.toml", include_str!("../config/containerd.toml")),
        ("cni/10-local-cluster.conflist", include_str!("../config/cni.conflist")),
        ("kubelet.yaml", include_str!("../config/kubelet.yaml")),
        ("kube-proxy.yaml", include_str!("../config/kube-proxy.yaml")),
    ] {
        fs::write(site.config(file), fill(template))?;
    }
    Ok(())
}

/// A command that becomes a component inside the node.
pub(crate) fn entering(site: &Site, component: Component, program: &Path) -> Result<Command> {
    let mut command = marked_command(&site.dir, component.as_str(), Path::new("nsenter"))?;
    command.env("PATH", path(site)).args(node_namespaces(site)?).arg("--").arg(program);
    Ok(command)
}

fn path(site: &Site) -> String {
    let debian = site.tools.debian.display();
    format!("{debian}/wrapped:{debian}/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// By `nsenter`, not by `ip netns exec`: the latter mounts /sys anew and hides the cgroups.
fn node_namespaces(site: &Site) -> Result<Vec<String>> {
    let init = holder(site, NODE)?;
    let mut args = vec!["--target".to_owned(), init.pid.to_string()];
    args.extend(["--net", "--mount", "--pid", "--uts", "--ipc"].map(str::to_owned));
    Ok(args)
}

fn holder(site: &Site, mark: &str) -> Result<Marked> {
    marked::find(&site.dir)
        .into_iter()
        .find(|process| process.component == mark && process.exe == site.tools.member)
        .with_context(|| {
            format!("the {mark} of cluster '{}' does not run: start it with `local-cluster up`", site.name)
        })
}

/// See [`crate::Cluster::in_node`].
pub(crate) fn in_node(site: &Site, program: &str) -> Result<Command> {
    let mut command = Command::new("nsenter");
    mark(&mut command, &site.dir).env("PATH", path(site)).args(node_namespaces(site)?).arg("--").arg(program);
    Ok(command)
}

/// See [`crate::Cluster::in_client`].
pub(crate) fn in_client(site: &Site, program: &str) -> Result<Command> {
    let client = holder(site, CLIENT)?;
    let mut command = Command::new("nsenter");
    mark(&mut command, &site.dir).args(["--target", &client.pid.to_string(), "--net", "--", program]);
    Ok(command)
}

/// Once containerd answers, gives it the images every cluster has.
pub(crate) fn import_images(site: &Site, progress: &Progress) -> Result<()> {
    progress.wait("containerd answers", Duration::from_secs(60), || {
        require_alive(site, &[Component::Containerd])?;
        Ok(in_node(site, "ctr")?.arg("version").output()?.status.success())
    })?;
    for image in ["pause.tar", "member.tar"] {
        load_image(site, &site.tools.images.join(image))?;
    }
    progress.say("images imported");
    Ok(())
}

/// See [`crate::Cluster::load_image`].
pub(crate) fn load_image(site: &Site, archive: &Path) -> Result<()> {
    let archive =
        archive.canonicalize().with_context(|| format!("no image archive {}", archive.display()))?;
    let mut ctr = in_node(site, "ctr")?;
    ctr.args(["-n", "k8s.io", "images", "import", "--snapshotter", "overlayfs"]);
    // By standard input: the file may lie where the node has directories of its own.
    ctr.arg("-").stdin(fs::File::open(&archive)?);
    output(&mut ctr, None).map(drop).with_context(|| format!("cannot import {}", archive.display()))
}

/// kube-proxy is healthy once it has written its rules.
pub(crate) fn wait_for_proxy(site: &Site, progress: &Progress, limit: Duration) -> Result<()> {
    let member = site.tools.member.display().to_string();
    progress.wait("kube-proxy healthy", limit, || {
        require_alive(site, &[Component::KubeProxy])?;
        Ok(in_node(site, &member)?.args(["get", "127.0.0.1:10256/healthz"]).output()?.status.success())
    })
}

/// A cgroup for all pods, in every hierarchy.
fn make_cgroups(name: &str) -> Result<()> {
    let top = Path::new("/sys/fs/cgroup");
    if top.join("cgroup.controllers").exists() {
        // Version 2: one hierarchy. A controller that cannot be switched on is one the machine does not have.
        let group = top.join(name);
        for parent in [top, &group] {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
            for controller in ["cpuset", "cpu", "io", "memory", "pids"] {
                let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        let _ = fs::write(group.join("memory.max"), MEMORY_LIMIT);
        return Ok(());
    }
    let present: Vec<PathBuf> =
        CONTROLLERS.iter().map(|controller| top.join(controller)).filter(|dir| dir.is_dir()).collect();
    ensure!(
        present.iter().any(|dir| dir.ends_with("memory")),
        "no cgroups are mounted under /sys/fs/cgroup: mount them, or use LEVEL=control-plane"
    );
    for hierarchy in present {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).with_context(|| format!("cannot create {}", group.display()))?;
        // A new cpuset is empty and takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(hierarchy.join(file)) {
                fs::write(group.join(file), all)?;
            }
        }
        let _ = fs::write(group.join("memory.limit_in_bytes"), MEMORY_LIMIT);
    }
    Ok(())
}

/// Removes the cgroup everywhere. Its processes have been killed: they may take a moment to be gone.
pub(crate) fn remove_cgroups(name: &str) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(15);
    let begun = Instant::now();
    loop {
        let left = cgroups(name);
        if left.is_empty() {
            return Ok(());
        }
        for group in &left {
            remove_tree(group);
        }
        if begun.elapsed() > LIMIT {
            bail!("these cgroups cannot be removed (see cgroup.procs in them): {left:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn cgroups(name: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let mut places = vec![top.join(name)];
    places.extend(fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path().join(name)));
    places.retain(|place| place.is_dir());
    places
}

/// Deepest first; the files in a cgroup go with it.
fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
