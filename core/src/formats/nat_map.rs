//! The map as drivers take it: `{"ip:port": {"host": "...", "port": N}}`, JSON. ioredis, iovalkey and node-redis read it as
//! it is; any driver with a callback looks up one key.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::mapping::{ClusterMapping, Entry, EntryState, External, Mapping};
use crate::objects::Protocol;

use super::document::to_json;

/// By internal address and port.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub(super) struct NatMap(BTreeMap<String, Target>);

/// Where a driver connects to instead.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Target {
    /// An address or a name.
    host: String,
    /// TCP port.
    port: u16,
}

/// Routed entries of one cluster. Keys are an internal address, a colon and a TCP port: the port follows the last colon,
/// IPv6 addresses stand without brackets. Addresses pair by family; a load balancer known by name only is a host for
/// both. UDP and SCTP cannot be told apart in such a key and are left out.
pub fn cluster(mapping: &ClusterMapping) -> String {
    pairs(&mapping.entries)
}

/// The same of all clusters in one. No two Routed entries have one internal address.
pub fn aggregate(mapping: &Mapping) -> String {
    pairs(mapping.values().flat_map(|cluster| &cluster.entries))
}

fn pairs<'m>(entries: impl IntoIterator<Item = &'m Entry>) -> String {
    let routed = entries.into_iter().filter(|e| e.state == EntryState::Routed);
    to_json(&NatMap(routed.flat_map(targets).collect()))
}

fn targets(entry: &Entry) -> Vec<(String, Target)> {
    let Some(external) = &entry.external else { return Vec::new() };
    let hosts = entry.internal.ips.iter().filter_map(|ip| Some((ip, host_for(ip, external)?)));
    let ports = || entry.ports.iter().filter(|p| p.protocol == Protocol::Tcp);
    hosts
        .flat_map(|(ip, host)| {
            ports().map(move |p| {
                (format!("{ip}:{}", p.internal), Target { host: host.clone(), port: p.external })
            })
        })
        .collect()
}

fn host_for(internal: &IpAddr, external: &External) -> Option<String> {
    let same_family =
        external.ips.iter().find(|ip| ip.is_ipv4() == internal.is_ipv4()).map(ToString::to_string);
    same_family.or_else(|| external.host.clone().filter(|_| external.ips.is_empty()))
}
