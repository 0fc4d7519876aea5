//! One version of a cluster's map.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::document::{Document, Entry};

/// Which external address has an internal one: the `Routed` entries of one cluster, TCP ports only.
#[derive(Debug, Default)]
pub struct Map {
    by_ip: Index<IpAddr>,
    by_name: Index<String>,
}

/// `None` where two members claim the same: neither is right for certain.
type Index<K> = HashMap<K, Option<Arc<Member>>>;

#[derive(Debug)]
struct Member {
    ips: Vec<IpAddr>,
    host: Option<String>,
    /// Inside, outside.
    ports: Vec<(u16, u16)>,
}

/// Where a member is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Addresses to connect to, IPv4 first. Empty where the load balancer is known by its host name only.
    pub ips: Vec<IpAddr>,
    /// Host name, where there is one.
    pub host: Option<String>,
    /// Port outside.
    pub port: u16,
}

impl External {
    /// What there is to connect to without asking DNS.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.ips.iter().map(|ip| SocketAddr::new(*ip, self.port))
    }
}

/// `203.0.113.1:11222`, `[2001:db8::1]:11222` or `lb-1.example.com:11222`.
impl fmt::Display for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addresses().next(), &self.host) {
            (Some(address), _) => write!(f, "{address}"),
            (None, host) => write!(f, "{}:{}", host.as_deref().unwrap_or_default(), self.port),
        }
    }
}

impl Map {
    /// Reads the JSON of one cluster's full document.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<Document>(json).map(|d| Self::of(&d))
    }

    fn of(document: &Document) -> Self {
        let mut map = Self::default();
        for entry in document.entries.iter().filter(|e| e.routed()) {
            let Some(member) = member(entry).map(Arc::new) else { continue };
            entry.internal.ips.iter().for_each(|ip| claim(&mut map.by_ip, *ip, &member));
            entry.internal.names.iter().for_each(|name| claim(&mut map.by_name, canonical(name), &member));
        }
        map
    }

    /// By internal IP and TCP port. Addresses pair by family: an IPv4 member is never sent to an IPv6 address; a host
    /// name alone serves both. `None`: not in the map, so do not connect.
    pub fn external(&self, internal: IpAddr, port: u16) -> Option<External> {
        // what arrives at a socket of both families is the IPv4 address it stands for
        let internal = internal.to_canonical();
        let found = external(&self.by_ip, &internal, port)?;
        let ips: Vec<IpAddr> =
            found.ips.iter().copied().filter(|ip| ip.is_ipv4() == internal.is_ipv4()).collect();
        let usable = !ips.is_empty() || (found.ips.is_empty() && found.host.is_some());
        usable.then_some(External { ips, ..found })
    }

    /// By what a driver has been told: an IP, or a member's DNS name (`store-0.store.data.svc`, with or without the
    /// cluster's domain; case does not count).
    pub fn external_of(&self, internal: &str, port: u16) -> Option<External> {
        let bare = internal.strip_prefix('[').and_then(|s| s.strip_suffix(']')).unwrap_or(internal);
        match bare.parse() {
            Ok(ip) => self.external(ip, port),
            Err(_) => external(&self.by_name, &canonical(internal), port),
        }
    }

    /// Internal addresses of the members that have this port: where a driver begins whose resolver maps what it connects to.
    pub fn members(&self, port: u16) -> Vec<SocketAddr> {
        let mapped = |ip: &&IpAddr| self.external(**ip, port).is_some();
        let mut members: Vec<_> =
            self.by_ip.keys().filter(mapped).map(|ip| SocketAddr::new(*ip, port)).collect();
        members.sort();
        members
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.by_ip.is_empty()
    }
}

fn member(entry: &Entry) -> Option<Member> {
    let outside = entry.external.as_ref()?;
    let ports = entry.ports.iter().filter(|p| p.tcp()).map(|p| (p.internal, p.external)).collect();
    let mut ips = outside.ips.clone();
    ips.sort_by_key(IpAddr::is_ipv6);
    Some(Member { ips, host: outside.host.clone(), ports })
}

fn claim<K: Eq + Hash>(index: &mut Index<K>, key: K, member: &Arc<Member>) {
    index.entry(key).and_modify(|m| *m = None).or_insert_with(|| Some(Arc::clone(member)));
}

fn external<K: Eq + Hash>(index: &Index<K>, key: &K, port: u16) -> Option<External> {
    let member = index.get(key)?.as_ref()?;
    let (_, port) = member.ports.iter().find(|(inside, _)| *inside == port)?;
    Some(External { ips: member.ips.clone(), host: member.host.clone(), port: *port })
}

/// Lower case, without a final dot, without the cluster's domain: that follows `.svc`, which is the third label of a
/// Service and the fourth of a pod.
fn canonical(name: &str) -> String {
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    let labels: Vec<&str> = lower.split('.').collect();
    match labels.iter().skip(2).position(|l| *l == "svc") {
        Some(at) => labels[..at + 3].join("."),
        None => lower,
    }
}

#[cfg(test)]
mod tests;
