//! What a pod is told of its slot: annotations, written by the webhook at CREATE or with the lifting of the gate. Telling
//! counts as publishing; nothing reads it back as truth.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::demand::Demand;
use crate::mapping::{PortPair, SlotAddress};
use crate::names;
use crate::objects::{Pod, ServicePort};
use crate::reason::{Code, Reason};

/// What a pod was told, where it is not what its slot has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Told {
    /// The addresses it was told, as written.
    pub ips: Vec<String>,
    /// The host name it was told.
    pub host: Option<String>,
    /// What is the case and what to do.
    pub message: String,
}

/// The annotations that tell a pod with these `ports` its slot and address: each only where known.
pub fn annotations(address: &SlotAddress, ports: &[ServicePort]) -> BTreeMap<String, String> {
    let mut told = BTreeMap::from([(names::STAMP_SLOT_ANNOTATION.to_owned(), address.slot.to_string())]);
    if !address.ips.is_empty() {
        told.insert(names::STAMP_ADDRESS_ANNOTATION.to_owned(), list(&address.ips).join(","));
    }
    if let Some(host) = &address.host {
        told.insert(names::STAMP_HOST_ANNOTATION.to_owned(), host.clone());
    }
    for port in ports {
        // the slot may still have its last pod's ports: what this pod changes is not known outside yet
        if let Some(known) = outside(address, port) {
            told.insert(names::stamp_port(port.target, port.protocol), known.external.to_string());
        }
    }
    told
}

/// Whether nothing is missing: a pod that is told this need not wait.
pub fn is_whole(address: &SlotAddress, ports: &[ServicePort]) -> bool {
    let known = !address.ips.is_empty() || address.host.is_some();
    known && ports.iter().all(|port| outside(address, port).is_some())
}

fn outside<'a>(address: &'a SlotAddress, port: &ServicePort) -> Option<&'a PortPair> {
    address.ports.iter().find(|known| (known.internal, known.protocol) == (port.target, port.protocol))
}

/// IPv4 first.
fn list(ips: &[IpAddr]) -> Vec<String> {
    let mut ips = ips.to_vec();
    ips.sort_by_key(IpAddr::is_ipv6);
    ips.iter().map(ToString::to_string).collect()
}

/// Whether a pod has been told an address, or should have been: one that was told nothing and did not ask to be told has
/// nothing wrong.
pub fn concerns(pod: &Pod, demand: &Demand<'_>) -> bool {
    let told = |key: &str| pod.told.contains_key(key);
    let any = told(names::STAMP_ADDRESS_ANNOTATION) || told(names::STAMP_HOST_ANNOTATION);
    pod.gate.is_none() && (any || demand.waits)
}

/// What the pod was told, where that is not what its slot has now.
pub fn parted(pod: &Pod, demand: &Demand<'_>, now: &SlotAddress) -> Option<(Told, Reason)> {
    let told = |key: &str| pod.told.get(key);
    let (ips, host) = (told(names::STAMP_ADDRESS_ANNOTATION), told(names::STAMP_HOST_ANNOTATION));
    let nothing = ips.is_none() && host.is_none();
    if !concerns(pod, demand) || !is_whole(now, &demand.ports) {
        return None;
    }
    let is = annotations(now, &demand.ports);
    let keys = || is.keys().map(String::as_str).chain(pod.told.keys());
    // the version, and ports that are not exposed any more, say nothing about the address
    let is_now = |key: &str| is.get(key).map(String::as_str);
    let says = |key: &str| {
        is.contains_key(key) || key == names::STAMP_ADDRESS_ANNOTATION || key == names::STAMP_HOST_ANNOTATION
    };
    if keys().filter(|key| says(key)).all(|key| told(key) == is_now(key)) {
        return None;
    }
    let shown = |ips: Option<&str>, host: Option<&str>| {
        let known: Vec<&str> = [ips, host].into_iter().flatten().collect();
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    };
    let has = (is_now(names::STAMP_ADDRESS_ANNOTATION), is_now(names::STAMP_HOST_ANNOTATION));
    let true_now = shown(has.0, has.1);
    let detail = if nothing || (ips, host) != has {
        format!("told {}, has {true_now}", shown(ips, host))
    } else {
        format!("told other ports of {true_now}")
    };
    let reason = Reason::new(Code::ToldOtherwise, detail);
    let ips = ips.map_or_else(Vec::new, |list| list.split(',').map(str::to_owned).collect());
    Some((Told { ips, host: host.map(str::to_owned), message: reason.message() }, reason))
}
