//! Whether a slot on a shared Service leads to its pod. Node proxies take the endpoints of one port of the Service from
//! the slices that have a port of this very name: so these are looked at, and no others.

use std::net::IpAddr;

use super::PortPair;
use super::route::{Doubt, Families, stranger};
use crate::claim::{Claim, Share};
use crate::objects::{Pod, Service, Slice};
use crate::reason::{Code, Reason};
use crate::shared::{SharedPort, SharedSlot};
use crate::state::State;

/// Ports that lead where they say: a pod that was made again with other ports has other ones under the same names.
pub(super) fn port_pairs(slot: &SharedSlot, claim: Option<&Claim<'_>>) -> Vec<PortPair> {
    let share = claim.and_then(|c| c.share.as_ref());
    let leads =
        |p: &&SharedPort| share.is_none_or(|s| s.offered.contains(&(p.internal, p.protocol, p.index)));
    let declared = |p: &SharedPort| {
        let ports = claim?.demand.as_ref().ok()?.ports.iter();
        ports.clone().find(|d| (d.target, d.protocol) == (p.internal, p.protocol)).map(|d| d.name.clone())
    };
    let mut pairs: Vec<PortPair> = slot
        .ports
        .iter()
        .filter(leads)
        .map(|p| PortPair {
            name: declared(p).unwrap_or_else(|| slot.port_name(p)),
            protocol: p.protocol,
            internal: p.internal,
            external: p.external,
        })
        .collect();
    pairs.sort();
    pairs
}

/// The address families in which every port of the slot leads to exactly this pod.
pub(super) fn routed(
    state: &State,
    pod: &Pod,
    share: &Share,
    slot: &SharedSlot,
    service: &Service,
) -> Result<Families, Doubt> {
    let names: Vec<String> = slot.ports.iter().map(|p| slot.port_name(p)).collect();
    let slices: Vec<&Slice> = state
        .slices_of(&service.key)
        .filter(|s| !s.endpoints.is_empty() && s.ports.iter().any(|p| concerns(p, &names)))
        .collect();
    let endpoints = || slices.iter().flat_map(|s| &s.endpoints);
    if let Some(other) = endpoints().find(|e| e.pod_uid != pod.uid) {
        return Err(Doubt::Withdraw(stranger(state, &other.pod_uid)));
    }
    if let Some(slice) = slices.iter().find(|s| !s.trusted) {
        let detail = format!("EndpointSlice {}", slice.key.name);
        return Err(Doubt::Withdraw(Reason::new(Code::ForeignEndpoint, detail)));
    }
    // an address of the same pod that is not its own any more may be another pod's by now
    if endpoints().flat_map(|e| &e.addresses).any(|a| !pod.ips.contains(a)) {
        return Err(Doubt::Withdraw(Code::WaitingForEndpoints.into()));
    }
    let mut offered = share.offered.clone();
    offered.sort_unstable();
    if !slot.ports.iter().map(|p| (p.internal, p.protocol, p.index)).eq(offered) {
        return Err(Doubt::Wait(Code::ServiceChanging.into()));
    }
    if pod.ips.is_empty() {
        return Err(Doubt::Wait(Code::WaitingForPodIp.into()));
    }
    let families = Families {
        v4: slot.ports.iter().all(|p| reached(&slices, slot, *p, IpAddr::is_ipv4)),
        v6: slot.ports.iter().all(|p| reached(&slices, slot, *p, IpAddr::is_ipv6)),
    };
    if !families.v4 && !families.v6 {
        return Err(Doubt::Wait(Code::WaitingForEndpoints.into()));
    }
    if !service.publish_not_ready_addresses && endpoints().any(|e| !e.ready) {
        return Err(Doubt::Wait(Code::NotReady.into()));
    }
    Ok(families)
}

/// Whether a slice's port is one of a slot's. One without a number stands for all.
fn concerns(port: &crate::objects::SlicePort, names: &[String]) -> bool {
    names.contains(&port.name) || port.name.is_empty() || port.port.is_none()
}

fn reached(slices: &[&Slice], slot: &SharedSlot, port: SharedPort, family: fn(&IpAddr) -> bool) -> bool {
    let name = slot.port_name(&port);
    let serves = |slice: &Slice| {
        let found = |p: &crate::objects::SlicePort| {
            p.name == name && p.port == Some(port.internal) && p.protocol == port.protocol
        };
        slice.ports.iter().any(found) && slice.endpoints.iter().flat_map(|e| &e.addresses).any(family)
    };
    let differs = |slice: &Slice| {
        slice
            .ports
            .iter()
            .any(|p| p.name == name && (p.port, p.protocol) != (Some(port.internal), port.protocol))
    };
    slices.iter().any(|s| serves(s)) && !slices.iter().any(|s| differs(s))
}
