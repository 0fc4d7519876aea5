use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::Meta;

/// A node: where slots of exposure nodePort are reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Raw")]
pub struct Node {
    /// Name.
    pub name: Arc<str>,
    /// Resource version.
    pub version: u64,
    /// Addresses outside clients use, IPv4 first: of each family `ExternalIP` where there is one, else `InternalIP`.
    pub ips: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct Raw {
    metadata: Meta,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawStatus {
    // the API server writes null for an empty list
    addresses: Option<Vec<RawAddress>>,
}

#[derive(Deserialize)]
struct RawAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl From<Raw> for Node {
    fn from(raw: Raw) -> Self {
        let addresses = raw.status.addresses.unwrap_or_default();
        let of = |kind: &str, v6: bool| -> Vec<IpAddr> {
            let found = addresses.iter().filter(|a| a.kind == kind).filter_map(|a| a.address.parse().ok());
            found.filter(|ip: &IpAddr| ip.is_ipv6() == v6).collect()
        };
        let family = |v6| {
            let outside = of("ExternalIP", v6);
            if outside.is_empty() { of("InternalIP", v6) } else { outside }
        };
        let mut ips: Vec<IpAddr> = [family(false), family(true)].concat();
        ips.sort();
        ips.dedup();
        Self { version: raw.metadata.version(), name: raw.metadata.name.into(), ips }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_external_address_goes_before_its_internal_one_in_each_family() {
        let node = |addresses: &str| -> Vec<String> {
            let text = format!(r#"{{"metadata": {{"name": "n"}}, "status": {{"addresses": {addresses}}}}}"#);
            let node: Node = serde_json::from_str(&text).unwrap();
            node.ips.iter().map(ToString::to_string).collect()
        };
        let both = r#"[{"type": "InternalIP", "address": "198.18.0.1"}, {"type": "Hostname", "address": "n"},
            {"type": "InternalIP", "address": "2001:db8::1"}, {"type": "ExternalIP", "address": "203.0.113.9"}]"#;
        assert_eq!(node(both), ["203.0.113.9", "2001:db8::1"]);
        assert_eq!(node(r#"[{"type": "InternalIP", "address": "198.18.0.1"}]"#), ["198.18.0.1"]);
        assert!(node("null").is_empty());
    }
}
