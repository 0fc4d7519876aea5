//! One cluster as data: its directory, addresses, ports and tools. Everything else is computed from it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cache;
use crate::options::{Level, Options};
use crate::ports::free_port;
use crate::tools::Tools;

// Documentation and benchmark ranges only: none of them is anybody's network.
/// The node as pods and the client outside see it.
pub(crate) const NODE_IP: &str = "198.51.100.10";
/// The client beyond the load balancer.
pub(crate) const CLIENT_IP: &str = "198.51.100.20";
/// Pod addresses of both levels; the one real node uses the first /24.
pub(crate) const PODS: &str = "198.18.0.0/16";
/// Pod addresses of the node level's only node.
pub(crate) const NODE_PODS: &str = "198.18.0.0/24";
/// Addresses of Services inside the cluster.
pub(crate) const SERVICES: &str = "198.19.0.0/16";
/// The same of IPv6, where pods are pretended: a Service that asks for both families has both, all others IPv4.
pub(crate) const SERVICES_V6: &str = "2001:db8:19::/112";
/// The API server's own: the first of [`SERVICES`].
pub(crate) const API_CLUSTER_IP: &str = "198.19.0.1";
/// Where external addresses come from.
pub(crate) const LB_NETWORK: &str = "203.0.113.0/24";
/// First and last address MetalLB gives away.
pub(crate) const LB_RANGE: (Ipv4Addr, Ipv4Addr) =
    (Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 250));

/// The same of IPv6, where pods are pretended.
pub(crate) const LB_RANGE_V6: (&str, &str) = ("2001:db8:113::1", "2001:db8:113::fa");

/// Marks a directory as ours: without it nothing is deleted.
const STATE: &str = "local-cluster.json";

/// TCP ports. At the node level only `outer_api` lies on the machine's loopback, the others inside the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) outer_api: u16,
    pub(crate) inner_api: u16,
    pub(crate) etcd: u16,
    pub(crate) etcd_peer: u16,
    pub(crate) metallb: u16,
}

/// One cluster of ours.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
    pub(crate) level: Level,
    pub(crate) ports: Ports,
    pub(crate) tools: Tools,
    pub(crate) json_store: bool,
}

impl Site {
    /// A new cluster with ports nobody uses.
    pub(crate) fn plan(options: &Options, tools: Tools) -> Result<Self> {
        let outer_api = free_port()?;
        let ports = match options.level {
            Level::ControlPlane => Ports {
                outer_api,
                inner_api: outer_api,
                etcd: free_port()?,
                etcd_peer: free_port()?,
                metallb: free_port()?,
            },
            Level::Node => Ports { outer_api, inner_api: 6443, etcd: 2379, etcd_peer: 2380, metallb: 7472 },
        };
        Ok(Self {
            dir: options.resolved_dir()?,
            name: options.name.clone(),
            level: options.level,
            ports,
            tools,
            json_store: options.json_store,
        })
    }

    /// The cluster that `up` described in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(STATE);
        let text = fs::read(&path)
            .with_context(|| format!("no cluster in {}: start one with `local-cluster up`", dir.display()))?;
        let state: Value = serde_json::from_slice(&text).with_context(|| {
            format!("{} is incomplete: run `local-cluster down`, then `up`", path.display())
        })?;
        let text =
            |key: &str| state[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in state"));
        let port = |key: &str| {
            state["ports"][key]
                .as_u64()
                .and_then(|p| u16::try_from(p).ok())
                .with_context(|| format!("no port {key}"))
        };
        Ok(Self {
            dir: dir.to_owned(),
            name: text("name")?,
            level: text("level")?.parse()?,
            ports: Ports {
                outer_api: port("outer_api")?,
                inner_api: port("inner_api")?,
                etcd: port("etcd")?,
                etcd_peer: port("etcd_peer")?,
                metallb: port("metallb")?,
            },
            tools: Tools {
                bin: text("bin")?.into(),
                debian: text("debian")?.into(),
                member: text("member")?.into(),
                images: text("images")?.into(),
            },
            json_store: state["jsonStore"] == true,
        })
    }

    /// Makes the directory and leaves the state there. Only this user may look inside: keys and tokens follow.
    pub(crate) fn write(&self) -> Result<()> {
        make_dir(&self.dir)?;
        let state = json!({
            "name": self.name,
            "level": self.level.as_str(),
            "ports": {
                "outer_api": self.ports.outer_api,
                "inner_api": self.ports.inner_api,
                "etcd": self.ports.etcd,
                "etcd_peer": self.ports.etcd_peer,
                "metallb": self.ports.metallb,
            },
            "bin": self.tools.bin,
            "debian": self.tools.debian,
            "member": self.tools.member,
            "images": self.tools.images,
            "jsonStore": self.json_store,
        });
        fs::write(self.dir.join(STATE), format!("{state:#}\n"))?;
        for sub in ["pki", "config", "logs", "users", "home"] {
            fs::create_dir_all(self.dir.join(sub))?;
        }
        Ok(())
    }

    /// Names the cluster's cgroup: two clusters of one name in two directories differ.
    pub(crate) fn cgroup(&self) -> String {
        cgroup(&self.dir)
    }

    pub(crate) fn pki(&self, file: &str) -> String {
        self.dir.join("pki").join(file).display().to_string()
    }

    pub(crate) fn config(&self, file: &str) -> String {
        self.dir.join("config").join(file).display().to_string()
    }

    /// The kubeconfig of one of the cluster's own programs: by the address that works where it runs.
    pub(crate) fn inner_kubeconfig(&self, user: &str) -> String {
        self.config(&format!("{user}.kubeconfig"))
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    pub(crate) fn etcd_data(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{component}.log"))
    }

    /// Where this process and its tests find the API server.
    pub(crate) fn outer_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.outer_api)
    }

    /// Where the cluster's own programs find it.
    pub(crate) fn inner_url(&self) -> String {
        match self.level {
            Level::ControlPlane => self.outer_url(),
            Level::Node => format!("https://{NODE_IP}:{}", self.ports.inner_api),
        }
    }
}

/// As [`Site::cgroup`], without reading the state: `down` must work after an `up` that wrote none.
pub(crate) fn cgroup(dir: &Path) -> String {
    format!("local-cluster-{}", cache::key(&[dir.as_os_str().as_encoded_bytes()]))
}

/// Whether `down` may delete `dir`: ours, or not there, or nothing in it.
pub(crate) fn is_ours(dir: &Path) -> bool {
    dir.join(STATE).exists() || fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

fn make_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_directory_is_not_ours() {
        assert!(!is_ours(Path::new("/proc")));
        assert!(is_ours(Path::new("/nowhere/at/all")));
    }
}
