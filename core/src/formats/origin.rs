//! The document of external-ip-proxy (2017), as its clients parse it: pairs `in:out` of IPv4 addresses.
//!
//! ```yaml
//! external-ips: {namespace: data, dynamic-ips: true}
//! cluster: {labels: {app: infinispan-server}, ports: [11222]}
//! runtime-configuration:
//!   service-ip: 203.0.113.9
//!   external-mapping:
//!   - 198.18.0.5:203.0.113.1
//! ```
//!
//! A pair cannot carry ports or IPv6: entries it cannot express are left out and counted in `left-out`, a field that
//! old clients do not look at and that is only there when there is something to count.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use crate::mapping::{ClusterMapping, Entry, EntryState, Mapping};

/// The origin's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginDocument {
    /// YAML.
    pub text: String,
    /// Routed entries that the form cannot express.
    pub left_out: usize,
}

/// The document over all clusters. `service_ip` is the address the mapping itself is published at, where it has one.
pub fn document(mapping: &Mapping, service_ip: Option<IpAddr>) -> OriginDocument {
    let mut text = String::new();
    let mut clusters = mapping.values();
    match (clusters.next(), clusters.next()) {
        (Some(only), None) => one_cluster(only, &mut text),
        _ => several_clusters(mapping, &mut text),
    }
    let mut pairs = String::new();
    let mut left_out = 0;
    let routed = mapping.values().flat_map(|c| &c.entries).filter(|e| e.state == EntryState::Routed);
    for entry in routed {
        match pair(entry) {
            // never a number to YAML 1.1: an address has dots before the colon
            Some((inside, outside)) => put(&mut pairs, format_args!("  - {inside}:{outside}\n")),
            None => left_out += 1,
        }
    }
    text.push_str("runtime-configuration:\n");
    if let Some(ip) = service_ip {
        put(&mut text, format_args!("  service-ip: {}\n", scalar_ip(ip)));
    }
    if left_out > 0 {
        put(&mut text, format_args!("  left-out: {left_out}\n"));
    }
    text.push_str(if pairs.is_empty() { "  external-mapping: []\n" } else { "  external-mapping:\n" });
    text.push_str(&pairs);
    OriginDocument { text, left_out }
}

/// The addresses of an entry, where a pair of IPv4 addresses says all of it.
fn pair(entry: &Entry) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let ports_stay = entry.ports.iter().all(|port| port.internal == port.external);
    let external = entry.external.as_ref().filter(|_| ports_stay)?;
    Some((first_ipv4(&entry.internal.ips)?, first_ipv4(&external.ips)?))
}

fn first_ipv4(ips: &[IpAddr]) -> Option<Ipv4Addr> {
    ips.iter().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    })
}

fn one_cluster(cluster: &ClusterMapping, text: &mut String) {
    let namespace = scalar(&cluster.namespace);
    put(text, format_args!("external-ips: {{namespace: {namespace}, dynamic-ips: true}}\n"));
    put(text, format_args!("cluster: {{labels: {}, ports: {}}}\n", labels(cluster), ports(cluster)));
}

fn several_clusters(mapping: &Mapping, text: &mut String) {
    if mapping.is_empty() {
        return text.push_str("clusters: []\n");
    }
    text.push_str("clusters:\n");
    for cluster in mapping.values() {
        let (namespace, name) = (scalar(&cluster.namespace), scalar(&cluster.name));
        let (labels, ports) = (labels(cluster), ports(cluster));
        put(
            text,
            format_args!("- {{namespace: {namespace}, name: {name}, labels: {labels}, ports: {ports}}}\n"),
        );
    }
}

fn labels(cluster: &ClusterMapping) -> String {
    let pairs: Vec<String> =
        cluster.selector.iter().map(|(key, value)| format!("{}: {}", scalar(key), scalar(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// The ports of all entries.
fn ports(cluster: &ClusterMapping) -> String {
    let ports: BTreeSet<u16> =
        cluster.entries.iter().flat_map(|entry| &entry.ports).map(|port| port.internal).collect();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!("[{}]", ports.join(", "))
}

/// A string as a YAML scalar that YAML 1.1 and 1.2 read as that string, also within `{}` and `[]`.
fn scalar(text: &str) -> String {
    /// What YAML 1.1 takes for something else than a string.
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if plain { text.to_owned() } else { quoted(text) }
}

/// A double-quoted scalar with everything but plain ASCII escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            c => put(&mut quoted, format_args!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

/// An IPv6 address may look like a map (`2001:10::`) or a number of base 60.
fn scalar_ip(ip: IpAddr) -> String {
    if ip.is_ipv4() { ip.to_string() } else { format!("\"{ip}\"") }
}

fn put(text: &mut String, piece: std::fmt::Arguments<'_>) {
    // a String takes everything
    let _ = text.write_fmt(piece);
}
