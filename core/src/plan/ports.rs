//! Ports of shared Services that clients' copies of the map may still name for somebody else.
//!
//! A port leaves its slot with the slot, but also when its pod is made again with fewer ports, or when somebody bends
//! it: who led there last is known to nobody but this memory. A new leader begins without it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::names::Target;
use crate::objects::{Service, ServicePort};
use crate::shared::SharedSlot;

/// An outside port, and the token of the identity it leads to.
type Lead = (u16, String);

/// What is known of one Service's ports.
#[derive(Debug, Default)]
pub(super) struct PortMemory {
    /// Another Service of the same name has another address.
    uid: String,
    /// With the number of the slot, where it is one's.
    current: BTreeMap<Lead, Option<u32>>,
    /// Since when a port has led there no more.
    former: BTreeMap<Lead, Duration>,
}

impl PortMemory {
    /// Takes note of where the ports lead now, and forgets what has rested. `free_since` tells it of a slot: its ports
    /// rest since then. Answers the slots that lead where they did not.
    pub(super) fn note(
        &mut self,
        service: &Service,
        free_since: impl Fn(u32) -> Option<Duration>,
        rest: Duration,
        now: Duration,
    ) -> BTreeSet<u32> {
        if self.uid != service.uid {
            *self = Self { uid: service.uid.clone(), ..Self::default() };
        }
        let current = leads(service);
        let before = std::mem::take(&mut self.current);
        for (lead, slot) in before.iter().filter(|(lead, _)| !current.contains_key(lead)) {
            self.former.insert(lead.clone(), slot.and_then(&free_since).unwrap_or(now));
        }
        self.former.retain(|_, since| *since + rest > now);
        let are_new = current.iter().filter(|(lead, slot)| before.get(lead) != Some(slot));
        let changed = are_new.filter_map(|(_, slot)| *slot).collect();
        self.current = current;
        changed
    }

    pub(super) fn kept(&self, rest: Duration) -> KeptPorts {
        KeptPorts {
            leads: self.current.keys().chain(self.former.keys()).cloned().collect(),
            rested_at: self.former.values().min().map(|since| *since + rest),
        }
    }
}

/// Ports that are for nobody but the identity they lead to, or led to a moment ago.
#[derive(Debug, Default)]
pub(super) struct KeptPorts {
    leads: BTreeSet<Lead>,
    /// When the first that leads there no more may be anybody's.
    pub(super) rested_at: Option<Duration>,
}

impl KeptPorts {
    /// Those of other identities than these.
    pub(super) fn besides(&self, tokens: &[&str]) -> impl Iterator<Item = u16> {
        self.leads.iter().filter(|(_, of)| !tokens.contains(&of.as_str())).map(|(port, _)| *port)
    }
}

fn leads(service: &Service) -> BTreeMap<Lead, Option<u32>> {
    let ports_of = |slot: &SharedSlot| slot.numbers().map(|port| (port, slot.number)).collect::<Vec<_>>();
    let slots: HashMap<u16, u32> = service.shares.iter().flat_map(ports_of).collect();
    let lead = |p: &ServicePort| {
        let token = Target::read(&p.target_name)?.token;
        Some(((p.port, token.to_owned()), slots.get(&p.port).copied()))
    };
    service.ports.iter().filter_map(lead).collect()
}
