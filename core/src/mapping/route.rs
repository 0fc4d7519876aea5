//! How far one pod's entry has come. The invariant lives here: an internal address is never shown with an external one
//! that leads to another pod. In doubt the external address is withdrawn and the reason given.

use std::net::IpAddr;

use super::shared;
use super::{Drift, Entry, EntryState, External, Internal, PortPair, SlotAddress};
use crate::addresses;
use crate::claim::{Claim, Slot, Slots};
use crate::demand::Demand;
use crate::limits::Counts;
use crate::names::{self, Key};
use crate::objects::{Pod, Service, Slice};
use crate::reason::{Code, Reason};
use crate::resolve;
use crate::settings::{Exposure, Settings};
use crate::shared::SharedSlot;
use crate::state::State;
use crate::told::{self, Told};

/// What is known of a pod's slot, from worst to best.
enum Standing<'a> {
    /// No slot.
    None(Reason),
    /// A slot whose address is unknown, or must not be shown.
    Withheld(u32, Reason),
    /// A slot with an address that leads to this pod or to nobody yet.
    Allocated(Slot<'a>, External, Reason),
    /// A slot that leads to exactly this pod.
    Routed(Slot<'a>, External),
}

pub(super) fn entry(state: &State, cluster: &Key, claim: &Claim<'_>, slots: &Slots<'_>) -> Entry {
    let pod = claim.pod;
    let standing = standing(state, cluster, claim, slots);
    let found = match &standing {
        Standing::Allocated(slot, ..) | Standing::Routed(slot, _) => Some(slot),
        Standing::None(_) | Standing::Withheld(..) => None,
    };
    let ports = found.map_or_else(Vec::new, |slot| port_pairs(slot, Some(claim)));
    let told = found.and_then(|slot| told(state.settings(), claim, slot));
    let (slot, entry_state, reason, external) = match standing {
        Standing::None(reason) => (None, EntryState::Pending, Some(reason), None),
        Standing::Withheld(slot, reason) => (Some(slot), EntryState::Pending, Some(reason), None),
        Standing::Allocated(slot, external, reason) => {
            (Some(slot.number), EntryState::Allocated, Some(reason), Some(external))
        }
        Standing::Routed(slot, external) => (Some(slot.number), EntryState::Routed, None, Some(external)),
    };
    let drift = slot.and_then(|number| drift(claim, slots, number));
    // a pod that has ended keeps its last address in its status, but the address may be another's by now
    let has_address = !pod.finished && !pod.host_network;
    Entry {
        pod: pod.key.name.to_string(),
        uid: pod.uid.clone(),
        slot,
        state: entry_state,
        reason: reason.as_ref().map(|r| r.code.as_str()),
        message: reason.as_ref().map(Reason::message),
        drift,
        terminating: pod.terminating,
        ready: pod.ready && !pod.finished,
        reachable: None,
        internal: Internal {
            ips: if has_address { pod.ips.clone() } else { Vec::new() },
            names: names(state, pod).filter(|_| has_address).unwrap_or_default(),
        },
        external,
        ports,
        told,
    }
}

fn drift(claim: &Claim<'_>, slots: &Slots<'_>, number: u32) -> Option<Drift> {
    let demand = claim.demand.as_ref().ok()?;
    let reason = addresses::drift(demand.class, slots.get(number)?.service)?;
    Some(Drift { reason: reason.code.as_str(), message: reason.message() })
}

/// A name that two pods have leads to either.
fn names(state: &State, pod: &Pod) -> Option<Vec<String>> {
    (!state.shares_name(pod)).then(|| pod.dns_names(&state.settings().cluster_domain))
}

fn told(settings: &Settings, claim: &Claim<'_>, slot: &Slot<'_>) -> Option<Told> {
    let now = super::address(settings, slot, claim).ok()?;
    Some(told::parted(claim.pod, claim.demand.as_ref().ok()?, &now)?.0)
}

pub(super) fn shown(
    state: &State,
    cluster: &Key,
    claim: &Claim<'_>,
    slots: &Slots<'_>,
) -> Result<SlotAddress, Reason> {
    match standing(state, cluster, claim, slots) {
        Standing::Allocated(slot, external, _) | Standing::Routed(slot, external) => {
            Ok(address(&slot, Some(claim), external))
        }
        Standing::None(reason) | Standing::Withheld(_, reason) => Err(reason),
    }
}

pub(super) fn address(slot: &Slot<'_>, claim: Option<&Claim<'_>>, external: External) -> SlotAddress {
    SlotAddress { slot: slot.number, ips: external.ips, host: external.host, ports: port_pairs(slot, claim) }
}

fn standing<'a>(state: &State, cluster: &Key, claim: &Claim<'_>, slots: &Slots<'a>) -> Standing<'a> {
    let demand = match &claim.demand {
        Ok(demand) => demand,
        Err(reason) => return Standing::None(reason.clone()),
    };
    match slots.bound_to(state, claim) {
        Some(slot) => at(state, claim, demand, slot),
        None => without_slot(state, cluster, claim, slots),
    }
}

/// Whether a slot leads to exactly this pod and may be shown.
pub(crate) fn leads(state: &State, claim: &Claim<'_>, slot: &Slot<'_>) -> bool {
    let demand = claim.demand.as_ref();
    demand.is_ok_and(|demand| matches!(at(state, claim, demand, *slot), Standing::Routed(..)))
}

/// Where a pod stands with one of its slots.
fn at<'a>(state: &State, claim: &Claim<'_>, demand: &Demand<'_>, slot: Slot<'a>) -> Standing<'a> {
    let Slot { number, service, .. } = slot;
    let external = match external_for(state, claim.pod, &slot) {
        _ if service.terminating => return Standing::Withheld(number, Code::ServiceDeleted.into()),
        _ if addresses::is_unserved(demand.class, service) => {
            return Standing::Withheld(number, addresses::none_free(demand.class));
        }
        Ok(external) => external,
        Err(reason) => return Standing::Withheld(number, reason),
    };
    if let Err(reason) = undisputed(state, claim, &slot, &external) {
        return Standing::Withheld(number, reason);
    }
    let routed = match (slot.share, &claim.share) {
        (Some(slot), Some(share)) => shared::routed(state, claim.pod, share, slot, service),
        _ => routed(state, claim.pod, demand, service),
    };
    match routed {
        Ok(families) => match only(external, &families) {
            Some(external) => Standing::Routed(slot, external),
            None => Standing::Withheld(number, Code::WaitingForEndpoints.into()),
        },
        Err(Doubt::Wait(reason)) => Standing::Allocated(slot, external, reason),
        Err(Doubt::Withdraw(reason)) => Standing::Withheld(number, reason),
    }
}

/// Why a pod has no slot: by the same counts the plan goes by, so every replica says the same.
fn without_slot<'a>(state: &State, cluster: &Key, claim: &Claim<'_>, slots: &Slots<'_>) -> Standing<'a> {
    // several claimants: the slot kept for the pod's name routes to nobody until one is left
    let is_kept = |slot: &&Slot<'_>| {
        claim.is_contested(slot.service.exposure()) && claim.names().any(|name| slot.kept_for() == Some(name))
    };
    if let Some(slot) = slots.all().iter().find(is_kept) {
        return Standing::Withheld(slot.number, duplicate_identity(claim));
    }
    let Some((demand, _)) = claim.granted() else { return Standing::None(Code::WaitingForSlot.into()) };
    let forbids = |exposure: &Exposure| {
        let counts = Counts::of(state, cluster, demand.class_name, *exposure, slots.count(*exposure));
        if *exposure == Exposure::Shared && claim.share.as_ref().is_none_or(|s| !s.fits(demand.class)) {
            return Some(Code::CannotShare.into());
        }
        let balancer = match exposure {
            Exposure::Dedicated => true,
            Exposure::Shared => !has_room(state, cluster, claim, demand),
            Exposure::NodePort => false,
        };
        let reached = counts.forbids_slot(&state.settings().limits, demand.class, balancer);
        let used_up = || {
            (*exposure == Exposure::Dedicated && addresses::is_exhausted(state, demand.class))
                .then(|| addresses::none_free(demand.class))
        };
        reached.or_else(used_up)
    };
    // a limit holds where every exposure of the class has reached one
    let mut reached: Vec<Option<Reason>> = demand.class.exposure.iter().map(forbids).collect();
    let waits = reached.iter().any(Option::is_none);
    let first = if waits { None } else { reached.swap_remove(0) };
    Standing::None(first.unwrap_or_else(|| Code::WaitingForSlot.into()))
}

/// Whether a shared Service that is there has room for a pod: else it needs another one.
fn has_room(state: &State, cluster: &Key, claim: &Claim<'_>, demand: &Demand<'_>) -> bool {
    let Some(share) = &claim.share else { return false };
    let ours = |s: &Service| s.owned_by(&state.settings().installation) && s.shared_index().is_some();
    let suits = |s: &Service| s.stays() && s.class() == Some(demand.class_name);
    let fits = |s: &Service| {
        share.fits_beside(&s.shares.iter().flat_map(SharedSlot::numbers).collect(), demand.class)
    };
    state.services_of(cluster).into_iter().any(|s| ours(s) && suits(s) && fits(s))
}

fn duplicate_identity(claim: &Claim<'_>) -> Reason {
    Reason::new(Code::DuplicateIdentity, claim.pod_id.unwrap_or_default())
}

fn undisputed(state: &State, claim: &Claim<'_>, slot: &Slot<'_>, external: &External) -> Result<(), Reason> {
    let service = slot.service;
    if claim.is_contested(service.exposure()) {
        return Err(duplicate_identity(claim));
    }
    if state.shares_internal_address(claim.pod) {
        return Err(Code::DuplicateInternalAddress.into());
    }
    // a load balancer may be reached at nodes' addresses, too
    let at_node = service.exposure() == Exposure::NodePort
        && port_pairs(slot, None)
            .iter()
            .any(|p| external.ips.iter().any(|ip| state.is_external_point(ip, p.external, p.protocol)));
    if at_node || state.shares_external_address(service) {
        return Err(Reason::new(Code::DuplicateExternalAddress, service.key.to_string()));
    }
    Ok(())
}

/// The address at which clients reach a pod by its slot's Service.
fn external_for(state: &State, pod: &Pod, slot: &Slot<'_>) -> Result<External, Reason> {
    match slot.service.exposure() {
        Exposure::NodePort => at_node(state, pod, slot.service),
        _ => external(state.settings(), slot),
    }
}

/// The pod's own node: every node leads to the pod, but only this one without a detour, or at all where the
/// `externalTrafficPolicy` is `Local`.
fn at_node(state: &State, pod: &Pod, service: &Service) -> Result<External, Reason> {
    if service.node_ports.len() != service.ports.len() {
        return Err(Code::ServiceChanging.into());
    }
    let node = pod.node.as_deref().and_then(|name| state.node(name)).filter(|n| !n.ips.is_empty());
    let node = node.ok_or_else(|| Reason::new(Code::WaitingForNode, pod.node.clone().unwrap_or_default()))?;
    Ok(External { ips: node.ips.clone(), host: None })
}

/// The address of a Service: of all ingress points, and of the names among them that the leader has asked for.
pub(super) fn external(settings: &Settings, slot: &Slot<'_>) -> Result<External, Reason> {
    let service = slot.service;
    if service.exposure() == Exposure::NodePort {
        return Err(Code::WaitingForNode.into()); // whatever it has besides: it is the address of its pod's node
    }
    if service.service_type != "LoadBalancer" {
        return Err(Code::ServiceChanging.into()); // whatever it still has was a load balancer's
    }
    // what is wrong with another slot's port is no business of this one
    let concerns = |port: u16| slot.share.is_none_or(|s| s.numbers().any(|n| n == port));
    if let Some(error) = service.ingress.iter().find_map(|i| i.error_among(concerns)) {
        return Err(Reason::new(Code::PortError, error));
    }
    let ips = resolve::addresses(service);
    let host = service.ingress.iter().find_map(|i| i.hostname.clone());
    if let (true, Some(host), true) = (ips.is_empty(), &host, resolve::is_asked(settings, service)) {
        return Err(Reason::new(Code::WaitingForName, host));
    }
    if ips.is_empty() && host.is_none() {
        let overdue = service.annotations.contains_key(names::OVERDUE_ANNOTATION);
        let code = if overdue { Code::NoLoadBalancer } else { Code::WaitingForAddress };
        return Err(Reason::new(code, format!("Service {}", service.key.name)));
    }
    Ok(External { ips, host })
}

/// The ports of a slot. On a shared Service: those that lead to the port they say; without a claim all of them.
pub(super) fn port_pairs(slot: &Slot<'_>, claim: Option<&Claim<'_>>) -> Vec<PortPair> {
    let service = slot.service;
    if let Some(share) = slot.share {
        return shared::port_pairs(share, claim);
    }
    let pair = |p: &crate::objects::ServicePort| PortPair {
        name: p.name.clone(),
        protocol: p.protocol,
        internal: p.target,
        external: match service.exposure() {
            Exposure::NodePort => node_port(service, &p.name).unwrap_or(0),
            _ => p.port,
        },
    };
    service.ports.iter().map(pair).collect()
}

fn node_port(service: &Service, name: &str) -> Option<u16> {
    service.node_ports.iter().find(|(n, _)| n == name).map(|(_, port)| *port)
}

pub(super) enum Doubt {
    /// Nobody else answers at the address: it may be shown as allocated.
    Wait(Reason),
    /// Somebody else may answer there.
    Withdraw(Reason),
}

/// The address families in which the slot's endpoints are exactly this pod.
fn routed(state: &State, pod: &Pod, demand: &Demand<'_>, service: &Service) -> Result<Families, Doubt> {
    let slices: Vec<&Slice> = state.slices_of(&service.key).filter(|s| !s.endpoints.is_empty()).collect();
    for endpoint in slices.iter().flat_map(|s| &s.endpoints) {
        if endpoint.pod_uid != pod.uid {
            return Err(Doubt::Withdraw(stranger(state, &endpoint.pod_uid)));
        }
    }
    if let Some(slice) = slices.iter().find(|s| !s.trusted) {
        return Err(Doubt::Withdraw(Reason::new(
            Code::ForeignEndpoint,
            format!("EndpointSlice {}", slice.key.name),
        )));
    }
    let addresses: Vec<IpAddr> =
        slices.iter().flat_map(|s| &s.endpoints).flat_map(|e| e.addresses.iter().copied()).collect();
    // an address of the same pod that is not its own any more may be another pod's by now
    if addresses.iter().any(|a| !pod.ips.contains(a)) {
        return Err(Doubt::Withdraw(Code::WaitingForEndpoints.into()));
    }
    if service.ports != demand.ports {
        return Err(Doubt::Wait(Code::ServiceChanging.into()));
    }
    if pod.ips.is_empty() {
        return Err(Doubt::Wait(Code::WaitingForPodIp.into()));
    }
    let ports_agree = slices.iter().all(|s| same_ports(s, service));
    if addresses.is_empty() || !ports_agree {
        return Err(Doubt::Wait(Code::WaitingForEndpoints.into()));
    }
    if !service.publish_not_ready_addresses && slices.iter().flat_map(|s| &s.endpoints).any(|e| !e.ready) {
        return Err(Doubt::Wait(Code::NotReady.into()));
    }
    Ok(Families { v4: addresses.iter().any(IpAddr::is_ipv4), v6: addresses.iter().any(IpAddr::is_ipv6) })
}

/// An endpoint of a pod nobody knows any more is the predecessor's; of a living one it is somebody else's.
pub(super) fn stranger(state: &State, uid: &str) -> Reason {
    if uid.is_empty() || state.is_alive(uid) {
        Reason::new(Code::ForeignEndpoint, if uid.is_empty() { "not a pod" } else { uid })
    } else {
        Code::WaitingForEndpoints.into()
    }
}

fn same_ports(slice: &Slice, service: &Service) -> bool {
    let mut found: Vec<_> = slice.ports.iter().map(|p| (p.port.unwrap_or(0), p.protocol)).collect();
    let mut wanted: Vec<_> = service.ports.iter().map(|p| (p.target, p.protocol)).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    found == wanted
}

pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

/// Addresses of routed families only: an IPv6 address of the load balancer without an IPv6 endpoint leads nowhere, and so
/// does a name with such addresses only.
fn only(mut external: External, families: &Families) -> Option<External> {
    let by_name_alone = external.ips.is_empty();
    external.ips.retain(|ip| if ip.is_ipv4() { families.v4 } else { families.v6 });
    (by_name_alone || !external.ips.is_empty()).then_some(external)
}
