//! The container runtime and the network tools of a node, unpacked (not installed) from Debian packages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::cache;
use crate::tools::{Maker, on_path};

/// containerd and what it starts; nft, iptables and conntrack for kube-proxy and kubelet; the libraries of these. A
/// package the machine has installed is unpacked all the same: only its version can differ, not its place.
const PACKAGES: [&str; 18] = [
    "containerd",
    "runc",
    "libseccomp2",
    "containernetworking-plugins",
    "nftables",
    "libnftables1",
    "libnftnl11",
    "libmnl0",
    "libjansson4",
    "libedit2",
    "libbsd0",
    "iptables",
    "libxtables12",
    "libip4tc2",
    "libip6tc2",
    "libnfnetlink0",
    "libnetfilter-conntrack3",
    "conntrack",
];

/// Programs that need the unpacked libraries.
const WRAPPED: [(&str, &str); 9] = [
    ("nft", "nft"),
    ("conntrack", "conntrack"),
    ("runc", "runc"),
    ("iptables", "xtables-nft-multi iptables"),
    ("iptables-save", "xtables-nft-multi iptables-save"),
    ("iptables-restore", "xtables-nft-multi iptables-restore"),
    ("ip6tables", "xtables-nft-multi ip6tables"),
    ("ip6tables-save", "xtables-nft-multi ip6tables-save"),
    ("ip6tables-restore", "xtables-nft-multi ip6tables-restore"),
];

/// Where the packages are unpacked; `wrapped/` there comes first on a node's PATH.
pub(crate) fn unpacked(maker: &Maker<'_>) -> Result<PathBuf> {
    let release = fs::read("/etc/os-release").unwrap_or_default();
    let dir =
        cache::root()?.join(format!("debian-{}", cache::key(&[&release, PACKAGES.join(" ").as_bytes()])));
    cache::once(&dir, "the node's Debian packages", |fresh| {
        for program in ["apt-get", "dpkg"] {
            ensure!(
                on_path(program),
                "the node level takes containerd from Debian packages and finds no '{program}': run it on Debian or \
                 Ubuntu (a container or a virtual machine will do), or use LEVEL=control-plane"
            );
        }
        maker.say(&format!("fetching {} Debian packages (once)", PACKAGES.len()));
        let archives = fresh.join("archives");
        fs::create_dir(&archives)?;
        download(&archives, maker)?;
        for archive in fs::read_dir(&archives)? {
            let status = maker.command("dpkg").arg("-x").arg(archive?.path()).arg(fresh).status()?;
            ensure!(status.success(), "dpkg -x failed: {status}");
        }
        fs::remove_dir_all(&archives)?;
        // The wrappers name the final place.
        wrap(fresh, &dir)?;
        maker.say("Debian packages unpacked");
        Ok(())
    })?;
    Ok(dir)
}

fn download(to: &Path, maker: &Maker<'_>) -> Result<()> {
    let fetch = || {
        maker
            .command("apt-get")
            .current_dir(to)
            // The default user _apt may not write here.
            .args(["download", "-q", "-o", "APT::Sandbox::User=root"])
            .args(PACKAGES)
            .output()
            .context("cannot start apt-get")
    };
    if fetch()?.status.success() {
        return Ok(());
    }
    maker.say("apt's lists are missing or old: apt-get update");
    let update = maker.command("apt-get").args(["update", "-q"]).output()?;
    if !update.status.success() {
        bail!("apt-get update failed: {}", String::from_utf8_lossy(&update.stderr).trim());
    }
    let again = fetch()?;
    ensure!(
        again.status.success(),
        "apt-get download failed: {} Is the Debian mirror in /etc/apt/sources.list reachable?",
        String::from_utf8_lossy(&again.stderr).trim()
    );
    Ok(())
}

/// Small scripts that set the library path for one program only: the machine's own programs keep theirs.
fn wrap(fresh: &Path, dir: &Path) -> Result<()> {
    let wrapped = fresh.join("wrapped");
    fs::create_dir(&wrapped)?;
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let dir = dir.display();
    for (name, call) in WRAPPED {
        let path = wrapped.join(name);
        fs::write(
            &path,
            format!(
                "#!/bin/sh\n\
                 export LD_LIBRARY_PATH={dir}/usr/lib/{triple}:{dir}/lib/{triple}\n\
                 export XTABLES_LIBDIR={dir}/usr/lib/{triple}/xtables\n\
                 exec {dir}/usr/sbin/{call} \"$@\"\n"
            ),
        )?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
