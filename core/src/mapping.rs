//! The published document: which internal address is which external one. A pure function of API objects and
//! configuration, so every replica shows the same.

mod route;
mod shared;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::claim::{self, Claim, Slot, Slots};
use crate::names::{self, Key};
use crate::objects::Protocol;
use crate::reach;
use crate::reason::Reason;
use crate::settings::{DEFAULT_CLASS, Settings};
use crate::state::State;
use crate::told::Told;
pub(crate) use route::leads;

/// All clusters, by namespace and name.
pub type Mapping = BTreeMap<Key, Arc<ClusterMapping>>;

/// One cluster's entries, sorted by slot and pod name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClusterMapping {
    /// Namespace.
    pub namespace: String,
    /// Cluster name.
    pub name: String,
    /// The class of the cluster's first pod.
    pub class: String,
    /// One entry per pod.
    pub entries: Vec<Entry>,
    /// Labels that select the cluster's pods: for the origin's document only.
    #[serde(skip)]
    pub selector: BTreeMap<String, String>,
}

/// How far an entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum EntryState {
    /// No external address yet.
    Pending,
    /// The Service has its address.
    Allocated,
    /// The slot's endpoints hold exactly this pod: drivers may use it.
    Routed,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Entry {
    /// Pod name.
    pub pod: String,
    /// Pod UID.
    pub uid: String,
    /// Slot number, where it has one.
    pub slot: Option<u32>,
    /// How far it has come.
    pub state: EntryState,
    /// Reason code, where it is not Routed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What is the case and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What the slot has besides what its class says; the entry is true all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// The pod is being deleted.
    pub terminating: bool,
    /// The pod is ready.
    pub ready: bool,
    /// Whether the external address answered when the leader dialled it last; only where the class asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// Addresses inside the Kubernetes cluster.
    pub internal: Internal,
    /// Address outside, where it is known.
    pub external: Option<External>,
    /// Port pairs.
    pub ports: Vec<PortPair>,
    /// What the pod was told of its external address, where that is not what the slot has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
}

/// How a slot departs from its class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Drift {
    /// Reason code.
    pub reason: &'static str,
    /// What is the case and what to do.
    pub message: String,
}

/// A pod's addresses inside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Internal {
    /// IPv4 first.
    pub ips: Vec<IpAddr>,
    /// DNS names.
    pub names: Vec<String>,
}

/// A slot's address outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct External {
    /// IPv4 first.
    pub ips: Vec<IpAddr>,
    /// Host name, where the load balancer gives one.
    pub host: Option<String>,
}

/// A port inside and outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PortPair {
    /// Port name on the Service.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Container port.
    pub internal: u16,
    /// Outside port.
    pub external: u16,
}

/// The address a slot has and keeps for a pod of this very name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotAddress {
    /// Slot number.
    pub slot: u32,
    /// External addresses, in any order.
    pub ips: Vec<IpAddr>,
    /// External host name, where there is one.
    pub host: Option<String>,
    /// Ports the slot's Service has now.
    pub ports: Vec<PortPair>,
}

/// The addresses slots of a cluster are kept with, by pod name or [`kept_by_token`]: what a pod created under that name will have.
pub type KeptAddresses = BTreeMap<String, SlotAddress>;

/// One cluster's mapping; `None` where it has neither pods nor slots.
pub fn cluster_mapping(state: &State, cluster: &Key) -> Option<ClusterMapping> {
    let claims = claim::claims(state, cluster);
    let slots = Slots::of(state, cluster);
    if claims.is_empty() && slots.is_empty() {
        return None;
    }
    let mut entries: Vec<Entry> = claims.iter().map(|claim| entry(state, cluster, claim, &slots)).collect();
    entries.sort_by(|a, b| (a.slot.is_none(), a.slot, &a.pod).cmp(&(b.slot.is_none(), b.slot, &b.pod)));
    let configured = state.settings().cluster(&cluster.namespace, &cluster.name);
    Some(ClusterMapping {
        namespace: cluster.namespace.to_string(),
        name: cluster.name.to_string(),
        class: class_of(&claims, &slots),
        entries,
        selector: configured.map_or_else(
            || BTreeMap::from([(names::CLUSTER_LABEL.to_owned(), cluster.name.to_string())]),
            |c| c.selector.clone(),
        ),
    })
}

fn class_of(claims: &[Claim<'_>], slots: &Slots<'_>) -> String {
    let of_pods = claims.iter().find_map(|c| c.demand.as_ref().ok()).map(|d| d.class_name.to_owned());
    let of_slots = || slots.iter().find_map(|(_, s)| s.class()).map(str::to_owned);
    of_pods.or_else(of_slots).unwrap_or_else(|| DEFAULT_CLASS.to_owned())
}

/// One pod's entry.
pub(crate) fn entry(state: &State, cluster: &Key, claim: &Claim<'_>, slots: &Slots<'_>) -> Entry {
    let mut entry = route::entry(state, cluster, claim, slots);
    entry.reachable = reach::known(state.settings(), cluster, slots, &entry);
    entry
}

/// What a shared slot is found by in [`KeptAddresses`]: it knows no pod's name, and no pod's name holds a slash.
pub fn kept_by_token(token: &str) -> String {
    format!("shared/{token}")
}

/// The address that the entry of a claim's pod shows, or why it shows none: what the pod may be told.
pub fn shown_address(
    state: &State,
    cluster: &Key,
    claim: &Claim<'_>,
    slots: &Slots<'_>,
) -> Result<SlotAddress, Reason> {
    route::shown(state, cluster, claim, slots)
}

/// The address a slot has, whoever it leads to.
pub(crate) fn address(
    settings: &Settings,
    slot: &Slot<'_>,
    claim: &Claim<'_>,
) -> Result<SlotAddress, Reason> {
    route::external(settings, slot).map(|external| route::address(slot, Some(claim), external))
}

/// Addresses of slots kept for names, where their Service exists, has its address and routes to that name's identity.
pub fn kept_addresses(state: &State, cluster: &Key) -> KeptAddresses {
    let mut kept = KeptAddresses::new();
    for slot in Slots::of(state, cluster).all() {
        let (Some(name), service) = (slot.kept_for(), slot.service) else { continue };
        let (name, waits_for_name) = match slot.share {
            Some(share) => (kept_by_token(name), !share.anonymous && slot.bound_to().is_some()),
            None => {
                let id = names::pod_id_of_name(&cluster.name, name);
                (name.to_owned(), slot.bound_to() == Some(id.as_str()))
            }
        };
        let sound = service.stays() && !state.shares_external_address(service);
        if let (true, true, Ok(external)) = (waits_for_name, sound, route::external(state.settings(), slot)) {
            kept.entry(name).or_insert_with(|| route::address(slot, None, external));
        }
    }
    kept
}
