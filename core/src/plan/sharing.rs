//! The shared Services of a cluster, as they are and as they shall be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::memory::Memory;
use super::ports::KeptPorts;
use crate::claim::Claim;
use crate::demand::Demand;
use crate::names::{self, Key};
use crate::objects::{Service, ServicePort};
use crate::service::{GivenUp, SlotService};
use crate::settings::{Exposure, Settings};
use crate::shared::{self, SharedPort, SharedSlot};
use crate::state::State;

/// Shared Services of a cluster by number.
pub(super) type Drafts<'a> = BTreeMap<u32, Draft<'a>>;

/// One shared Service in the making.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) index: u32,
    pub(super) key: Key,
    pub(super) class: String,
    /// As the watch shows it; `None` while it is being created, or to be.
    pub(super) service: Option<&'a Service>,
    /// A write to it is under way.
    pub(super) busy: bool,
    /// Outside ports slots are given.
    range: std::ops::Range<u32>,
    /// Its slots, as they shall be.
    pub(super) slots: BTreeMap<u32, SharedSlot>,
    pub(super) kept: KeptPorts,
}

/// As they are, with the writes under way.
pub(super) fn drafts<'a>(state: &'a State, memory: &mut Memory, cluster: &Key, now: Duration) -> Drafts<'a> {
    let settings = state.settings();
    let ours = state.services_of(cluster).into_iter().filter(|s| s.owned_by(&settings.installation));
    let mut drafts = Drafts::new();
    for service in ours {
        let Some(index) = service.shared_index() else { continue };
        let kept = memory.note_ports(cluster, service, settings.reuse_after(service), now);
        let pending = memory.pending(&service.key);
        let slots = match pending.and_then(|p| p.desired.as_ref()) {
            Some(desired) => SharedSlot::read(&desired.ports),
            None => service.shares.clone(),
        };
        let class = service.class().unwrap_or_default().to_owned();
        let range = range(settings, &class);
        let (key, busy) = (service.key.clone(), pending.is_some());
        let slots = by_number(slots);
        let service = Some(service);
        drafts.insert(index, Draft { index, key, class, service, busy, range, slots, kept });
    }
    for (key, desired) in memory.creating(cluster).filter(|(_, d)| d.exposure == Exposure::Shared) {
        drafts.entry(desired.slot).or_insert_with(|| Draft {
            index: desired.slot,
            key: key.clone(),
            class: desired.class.clone(),
            service: None,
            busy: true,
            range: range(settings, &desired.class),
            slots: by_number(SharedSlot::read(&desired.ports)),
            kept: KeptPorts::default(),
        });
    }
    drafts
}

fn by_number(slots: Vec<SharedSlot>) -> BTreeMap<u32, SharedSlot> {
    slots.into_iter().map(|s| (s.number, s)).collect()
}

/// Of a class that is gone: nothing more is given out.
fn range(settings: &Settings, class: &str) -> std::ops::Range<u32> {
    settings.class(class).map_or(0..0, |c| c.shared.range())
}

impl Draft<'_> {
    /// A further one.
    pub(super) fn new(index: u32, key: Key, demand: &Demand<'_>) -> Self {
        let (class, range) = (demand.class_name.to_owned(), demand.class.shared.range());
        let (slots, kept) = (BTreeMap::new(), KeptPorts::default());
        Self { index, key, class, service: None, busy: false, range, slots, kept }
    }

    /// Ports that an identity may not have, besides those of one slot.
    fn taken(&self, token: &str, besides: Option<u32>) -> BTreeSet<u16> {
        let others = self.slots.values().filter(|s| Some(s.number) != besides);
        others.flat_map(SharedSlot::numbers).chain(self.kept.besides(&[token])).collect()
    }

    /// Whether it is of a pod's class and has room for its ports.
    pub(super) fn has_room(&self, claim: &Claim<'_>) -> bool {
        let Some((demand, share)) = claim.granted().map(|(d, _)| d).zip(claim.share.as_ref()) else {
            return false;
        };
        self.service.is_none_or(Service::stays)
            && self.class == demand.class_name
            && share.fits_beside(&self.taken(&share.token, None), demand.class)
    }

    /// Makes a slot lead to its pod by the ports the pod has; `false` where there is no room for them.
    pub(super) fn hold(&mut self, number: u32, claim: &Claim<'_>) -> bool {
        // its successor says what the slot shall be
        let stays = claim.pod.terminating && !claim.is_contested(Exposure::Shared);
        stays || self.put(number, claim)
    }

    /// The ports of a slot that an identity may have: whose numbers are no other slot's, nor were until a moment ago
    /// where it is another identity than the slot led to. They are only where somebody has bent them.
    fn undisputed(&self, number: u32, token: &str) -> Vec<SharedPort> {
        let Some(slot) = self.slots.get(&number) else { return Vec::new() };
        let others = self.slots.values().filter(|s| s.number != number);
        let (changes, both) = (slot.token != token, [token, slot.token.as_str()]);
        let former = self.kept.besides(&both).filter(|_| changes);
        let theirs: BTreeSet<u16> = others.flat_map(SharedSlot::numbers).chain(former).collect();
        slot.ports.iter().filter(|port| !theirs.contains(&port.external)).copied().collect()
    }

    /// Adds or changes a slot for a pod; `false` where there is no room.
    pub(super) fn put(&mut self, number: u32, claim: &Claim<'_>) -> bool {
        let (Some(share), Some(id)) = (&claim.share, claim.pod_id) else { return false };
        let taken = self.taken(&share.token, Some(number));
        let has = self.undisputed(number, &share.token);
        let Some(ports) = shared::place(&share.offered, &has, &taken, &self.range) else { return false };
        let slot = SharedSlot {
            number,
            anonymous: names::is_anonymous(id),
            blocked: claim.is_contested(Exposure::Shared),
            token: share.token.clone(),
            ports,
        };
        self.slots.insert(number, slot);
        true
    }

    /// What the Service shall be; `None` where its class is gone, and with it what the Service shall look like.
    pub(super) fn desired(&self, settings: &Settings, cluster: &Key) -> Option<SlotService> {
        let class = settings.class(&self.class)?;
        let mut ports: Vec<ServicePort> = self.slots.values().flat_map(SharedSlot::service_ports).collect();
        ports.sort();
        let Key { namespace, name } = cluster;
        Some(SlotService {
            key: self.key.clone(),
            cluster: name.to_string(),
            slot: self.index,
            exposure: Exposure::Shared,
            owner: settings.installation.clone(),
            class: self.class.clone(),
            pod: String::new(),
            pod_id: None,
            ports,
            template: SlotService::template_for(class, Exposure::Shared, (namespace, name, self.index), &[]),
            asked: Vec::new(),
            given_up: GivenUp::default(),
        })
    }
}
