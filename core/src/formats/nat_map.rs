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

/// Routed entries of one cluster. Keys are an internal address or DNS name, a colon and a TCP port: the port follows the
/// last colon, IPv6 addresses stand without brackets. Addresses pair by family; a name leads to the first address, IPv4
/// if there is one. Where the load balancer has a host name, that is the host: a client's own DNS follows it sooner than
/// this map. UDP and SCTP cannot be told apart in such a key and are left out.
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
    let ips = entry.internal.ips.iter();
    let by_ip = ips.filter_map(|ip| Some((ip.to_string(), host(external, |e| e.is_ipv4() == ip.is_ipv4())?)));
    // addresses stand IPv4 first
    let by_name =
        entry.internal.names.iter().filter_map(|name| Some((name.clone(), host(external, |_| true)?)));
    let ports = || entry.ports.iter().filter(|p| p.protocol == Protocol::Tcp);
    by_ip
        .chain(by_name)
        .flat_map(|(inside, host)| {
            ports().map(move |p| {
                (format!("{inside}:{}", p.internal), Target { host: host.clone(), port: p.external })
            })
        })
        .collect()
}

/// Where to go outside by an address that fits: by the host name, where there is one.
fn host(external: &External, fits: impl Fn(&IpAddr) -> bool) -> Option<String> {
    let External { ips, host } = external;
    let address = ips.iter().find(|ip| fits(ip));
    let by_name = host.clone().filter(|_| address.is_some() || ips.is_empty());
    by_name.or_else(|| address.map(ToString::to_string))
}
