//! Whether an external address answers: what the leader dials, and what its Service says of it.
//!
//! The results stand in an annotation of the slots' Service, each together with the pod and the address it is about, so
//! that every replica shows the same and nobody takes a predecessor's result for the pod's own.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::claim::Slots;
use crate::mapping::{ClusterMapping, Entry, EntryState, External};
use crate::names::{self, Key};
use crate::objects::{Protocol, Service};
use crate::settings::{Reachability, Settings};
use crate::state::State;

/// An address to dial: of a slot that leads to its pod, in a class that asks for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The slot's Service.
    pub service: Key,
    /// Its cluster.
    pub cluster: Key,
    /// The pod behind the address.
    pub pod_uid: String,
    /// Address or host name, and the slot's first TCP port: `203.0.113.1:11222`, `[2001:db8::1]:11222`.
    pub address: String,
    /// Between two dials.
    pub interval: Duration,
    /// For one dial.
    pub timeout: Duration,
}

impl Target {
    /// A result, as it stands in the annotation.
    pub fn record(&self, reachable: bool) -> String {
        format!("{reachable} {} {}", self.pod_uid, self.address)
    }

    fn recorded(&self, service: &Service) -> Option<bool> {
        let record = *recorded(service).get(self.pod_uid.as_str())?;
        [true, false].into_iter().find(|reachable| record == self.record(*reachable))
    }
}

/// What is recorded on a Service, by UID of the pod.
pub(crate) fn recorded(service: &Service) -> BTreeMap<&str, &str> {
    let value = service.annotations.get(names::REACHABLE_ANNOTATION).unwrap_or_default();
    value.split(", ").filter_map(|record| Some((record.split(' ').nth(1)?, record))).collect()
}

/// The annotation's value: a Service that many slots share has a record of each.
pub(crate) fn joined(records: impl Iterator<Item = String>) -> String {
    records.collect::<Vec<_>>().join(", ")
}

/// What to dial in a cluster.
pub fn targets(state: &State, cluster: &Key, mapping: &ClusterMapping) -> Vec<Target> {
    if state.settings().classes.values().all(|class| class.reachable.is_none()) {
        return Vec::new();
    }
    let slots = Slots::of(state, cluster);
    mapping.entries.iter().filter_map(|e| target(state.settings(), cluster, service(&slots, e)?, e)).collect()
}

/// What is recorded about an entry's address; `None` where the class does not ask, or nothing is known of this pod at
/// this address.
pub(crate) fn known(settings: &Settings, cluster: &Key, slots: &Slots<'_>, entry: &Entry) -> Option<bool> {
    let service = service(slots, entry)?;
    target(settings, cluster, service, entry)?.recorded(service)
}

fn service<'a>(slots: &Slots<'a>, entry: &Entry) -> Option<&'a Service> {
    slots.get(entry.slot?).map(|slot| slot.service)
}

fn target(settings: &Settings, cluster: &Key, service: &Service, entry: &Entry) -> Option<Target> {
    let Reachability { interval, timeout } = settings.class(service.class()?)?.reachable?;
    let port = entry.ports.iter().find(|p| p.protocol == Protocol::Tcp)?.external;
    let address = match entry.external.as_ref()? {
        External { ips, .. } if entry.state == EntryState::Routed && !ips.is_empty() => {
            std::net::SocketAddr::new(ips[0], port).to_string()
        }
        External { host: Some(host), .. } if entry.state == EntryState::Routed => format!("{host}:{port}"),
        External { .. } => return None,
    };
    let (service, pod_uid) = (service.key.clone(), entry.uid.clone());
    Some(Target { service, cluster: cluster.clone(), pod_uid, address, interval, timeout })
}
