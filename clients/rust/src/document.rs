//! The full document of one cluster, as far as a client needs it. Fields it does not know are ignored: documents only
//! ever gain some.

use std::net::IpAddr;

use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Document {
    pub(crate) entries: Vec<Entry>,
}

#[derive(Deserialize)]
pub(crate) struct Entry {
    state: String,
    pub(crate) internal: Internal,
    pub(crate) external: Option<Outside>,
    #[serde(default)]
    pub(crate) ports: Vec<PortPair>,
}

impl Entry {
    /// Drivers may use no other.
    pub(crate) fn routed(&self) -> bool {
        self.state == "Routed"
    }
}

#[derive(Deserialize)]
pub(crate) struct Internal {
    #[serde(default)]
    pub(crate) ips: Vec<IpAddr>,
    #[serde(default)]
    pub(crate) names: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct Outside {
    #[serde(default)]
    pub(crate) ips: Vec<IpAddr>,
    #[serde(default)]
    pub(crate) host: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct PortPair {
    protocol: String,
    pub(crate) internal: u16,
    pub(crate) external: u16,
}

impl PortPair {
    pub(crate) fn tcp(&self) -> bool {
        self.protocol == "TCP"
    }
}
