//! What the tests of several modules make.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use external_ip_core::mapping::{ClusterMapping, Entry, EntryState, External, Internal, Mapping, PortPair};
use external_ip_core::names::Key;
use external_ip_core::objects::Protocol;

/// A cluster with `members` routed pods.
pub(crate) fn cluster(namespace: &str, name: &str, members: u8) -> ClusterMapping {
    ClusterMapping {
        namespace: namespace.into(),
        name: name.into(),
        class: "default".into(),
        entries: (0..members).map(|n| entry(name, n)).collect(),
        selector: BTreeMap::from([("app".into(), name.into())]),
    }
}

fn entry(cluster: &str, n: u8) -> Entry {
    Entry {
        pod: format!("{cluster}-{n}"),
        uid: format!("{cluster}-uid-{n}"),
        slot: Some(n.into()),
        state: EntryState::Routed,
        reason: None,
        message: None,
        drift: None,
        terminating: false,
        ready: true,
        reachable: None,
        internal: Internal { ips: vec![IpAddr::V4(Ipv4Addr::new(198, 18, 0, n))], names: Vec::new() },
        external: Some(External { ips: vec![IpAddr::V4(Ipv4Addr::new(203, 0, 113, n))], host: None }),
        ports: vec![PortPair { name: "p".into(), protocol: Protocol::Tcp, internal: 11222, external: 11222 }],
        told: None,
    }
}

/// A mapping of these clusters.
pub(crate) fn mapping(clusters: impl IntoIterator<Item = ClusterMapping>) -> Mapping {
    clusters.into_iter().map(|c| (Key::new(c.namespace.as_str(), c.name.as_str()), Arc::new(c))).collect()
}
