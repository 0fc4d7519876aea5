//! Slots that share a LoadBalancer Service: which ports of the Service are whose.
//!
//! A port of the Service leads to a pod by the NAME of its target, which only that pod's container ports have: the name
//! is made from the pod's identity. So the binding is in the target's name and nowhere else, and a successor with the
//! same identity needs no write. The port's own name says to which slot it belongs and which number the pod has inside.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::names::{self, Target};
use crate::objects::{Protocol, ServicePort};

/// Most ports of a Service we make: each is a rule on every node, and the API server's limit on an object is not far.
pub const PORTS_MAX: u16 = 500;

/// A slot on a shared Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedSlot {
    /// Its number, unique in the cluster among slots of every exposure.
    pub number: u32,
    /// Nobody comes back for it: its last pod had no name of its own.
    pub anonymous: bool,
    /// It leads to nobody, because several pods claim it.
    pub blocked: bool,
    /// What the names of the ports it leads to begin with: see [`names::share_token`].
    pub token: String,
    /// At least one, sorted.
    pub ports: Vec<SharedPort>,
}

/// A port inside and outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedPort {
    /// Container port.
    pub internal: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Outside port, the Service's.
    pub external: u16,
    /// Which of the pod's shared ports it is.
    pub index: u8,
}

/// The name of a shared Service's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PortName {
    slot: u32,
    anonymous: bool,
    protocol: Protocol,
    internal: u16,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.anonymous { 'a' } else { 's' };
        write!(f, "{kind}{}-{}-{}", self.slot, self.protocol.as_str().to_ascii_lowercase(), self.internal)
    }
}

impl PortName {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let (slot, protocol, internal) = (parts.next()?, parts.next()?, parts.next()?);
        let anonymous = slot.starts_with('a');
        let slot = slot.strip_prefix(['a', 's'])?.parse().ok()?;
        let name =
            Self { slot, anonymous, protocol: protocol.parse().ok()?, internal: internal.parse().ok()? };
        // one way to write it, so that equal names are equal ports
        (name.to_string() == text).then_some(name)
    }
}

impl SharedSlot {
    /// The slots that a Service's ports are; what is not written as we do is nobody's.
    pub fn read(ports: &[ServicePort]) -> Vec<Self> {
        let mut slots: BTreeMap<u32, Vec<Self>> = BTreeMap::new();
        for port in ports {
            let Some(part) = Self::part(port) else { continue };
            slots.entry(part.number).or_default().push(part);
        }
        slots.into_values().filter_map(Self::joined).collect()
    }

    fn part(port: &ServicePort) -> Option<Self> {
        let PortName { slot, anonymous, protocol, internal } = PortName::read(&port.name)?;
        let Target { token, blocked, index } = Target::read(&port.target_name)?;
        let found = SharedPort { internal, protocol: port.protocol, external: port.port, index };
        let sound = protocol == port.protocol;
        sound.then(|| Self { number: slot, anonymous, blocked, token: token.to_owned(), ports: vec![found] })
    }

    /// One slot of its parts, where they all lead to one identity.
    fn joined(parts: Vec<Self>) -> Option<Self> {
        let mut parts = parts.into_iter();
        let mut slot = parts.next()?;
        for part in parts {
            let same =
                (part.anonymous, part.blocked, &part.token) == (slot.anonymous, slot.blocked, &slot.token);
            slot.ports.extend(same.then_some(part.ports)?);
        }
        slot.ports.sort();
        Some(slot)
    }

    /// The Service's ports it is.
    pub fn service_ports(&self) -> impl Iterator<Item = ServicePort> + '_ {
        self.ports.iter().map(|p| ServicePort {
            name: self.port_name(p),
            protocol: p.protocol,
            port: p.external,
            target: 0,
            target_name: Target { token: &self.token, blocked: self.blocked, index: p.index }.to_string(),
        })
    }

    /// The name of one of its ports on the Service, and in the EndpointSlices.
    pub fn port_name(&self, port: &SharedPort) -> String {
        let Self { number: slot, anonymous, .. } = *self;
        PortName { slot, anonymous, protocol: port.protocol, internal: port.internal }.to_string()
    }

    /// The outside numbers it has.
    pub fn numbers(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports.iter().map(|p| p.external)
    }
}

/// A port a pod has inside, and the index of its shared name.
pub type Offered = (u16, Protocol, u8);

/// The ports of a slot: those it has keep their outside number, the others get the lowest free ones. A number inside that
/// is exposed under several protocols has one number outside. `None` where there is no room.
pub fn place(
    offered: &[Offered],
    has: &[SharedPort],
    taken: &BTreeSet<u16>,
    range: &std::ops::Range<u32>,
) -> Option<Vec<SharedPort>> {
    let mut chosen: BTreeMap<u16, u16> = BTreeMap::new();
    for port in has {
        if offered.iter().any(|(internal, ..)| *internal == port.internal) {
            chosen.entry(port.internal).or_insert(port.external);
        }
    }
    let mut used: BTreeSet<u16> = taken.iter().copied().chain(chosen.values().copied()).collect();
    let mut ports = Vec::with_capacity(offered.len());
    for (internal, protocol, index) in offered {
        let external = match chosen.get(internal) {
            Some(external) => *external,
            None => {
                let free = range.clone().filter_map(|n| u16::try_from(n).ok()).find(|n| !used.contains(n))?;
                used.insert(free);
                *chosen.entry(*internal).or_insert(free)
            }
        };
        ports.push(SharedPort { internal: *internal, protocol: *protocol, external, index: *index });
    }
    ports.sort();
    Some(ports)
}

/// The identity a container port's name is made from, where it is one of ours.
pub fn token_of(port_name: &str) -> Option<(&str, u8)> {
    Target::read(port_name).filter(|t| !t.blocked).map(|t| (t.token, t.index))
}

/// The shared names of a pod's ports, in the order of `ports`.
pub fn port_names(pod_id: &str, ports: &[(u16, Protocol)]) -> Vec<String> {
    let token = names::share_token(pod_id);
    // a pod has at most `demand::PORTS_MAX` ports
    (0_u8..)
        .zip(ports)
        .map(|(index, _)| Target { token: &token, blocked: false, index }.to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> SharedSlot {
        let port = |internal, protocol, external, index| SharedPort { internal, protocol, external, index };
        SharedSlot {
            number: 3,
            anonymous: false,
            blocked: false,
            token: names::share_token("c.c-3"),
            ports: vec![port(53, Protocol::Tcp, 20_000, 0), port(53, Protocol::Udp, 20_000, 1)],
        }
    }

    #[test]
    fn slots_are_written_as_ports_and_read_again() {
        let edits: [fn(&mut SharedSlot); 3] = [|_| {}, |s| s.anonymous = true, |s| s.blocked = true];
        for edit in edits {
            let mut written = slot();
            edit(&mut written);
            let ports: Vec<ServicePort> = written.service_ports().collect();
            assert!(ports.iter().all(|p| p.target_name.len() <= 15 && p.name.len() <= 63), "{ports:?}");
            assert_eq!(SharedSlot::read(&ports), [written]);
        }
    }

    #[test]
    fn ports_that_lead_to_two_identities_are_no_slot() {
        let other = SharedSlot { token: names::share_token("c.c-4"), ..slot() };
        let ports: Vec<ServicePort> =
            slot().service_ports().take(1).chain(other.service_ports().skip(1)).collect();
        assert!(SharedSlot::read(&ports).is_empty());
        let numbered = ServicePort { target: 53, target_name: String::new(), ..ports[0].clone() };
        assert!(SharedSlot::read(&[numbered]).is_empty());
        let renamed = ServicePort { name: "s03-tcp-53".into(), ..ports[0].clone() };
        assert!(SharedSlot::read(&[renamed]).is_empty(), "one way to write a number");
    }

    #[test]
    fn what_a_slot_has_it_keeps_and_both_protocols_have_one_number() {
        let offered = [(53, Protocol::Tcp, 0), (53, Protocol::Udp, 1), (80, Protocol::Tcp, 2)];
        let ports = place(&offered, &[], &BTreeSet::from([20_000]), &(20_000..20_003)).unwrap();
        let numbers = |ports: &[SharedPort]| ports.iter().map(|p| p.external).collect::<Vec<_>>();
        assert_eq!(numbers(&ports), [20_001, 20_001, 20_002]);
        assert!(place(&offered, &[], &BTreeSet::from([20_000, 20_001]), &(20_000..20_003)).is_none());
        let other = [(80, Protocol::Tcp, 0), (90, Protocol::Tcp, 1)];
        let moved = place(&other, &ports, &BTreeSet::new(), &(20_000..20_003)).unwrap();
        assert_eq!(numbers(&moved), [20_002, 20_000]);
    }
}
