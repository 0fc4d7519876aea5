//! A cluster's slots as the plan sees them: with the writes under way.

use std::collections::BTreeMap;

use crate::addresses;
use crate::claim::{self, Claim, Rank, Slots, Stage};
use crate::names::{self, Key};
use crate::objects::Service;
use crate::plan::memory::{Memory, share_key};
use crate::plan::sharing::{Draft, Drafts};
use crate::settings::{Class, Exposure};
use crate::shared::SharedSlot;
use crate::state::State;

/// A slot as it will be when the writes under way are done.
#[derive(Debug, Clone)]
pub(in crate::plan) struct Slot<'a> {
    pub(in crate::plan) number: u32,
    /// By what it is reached.
    pub(in crate::plan) exposure: Exposure,
    /// The Service as the watch shows it; `None` while it is being created.
    pub(super) service: Option<&'a Service>,
    /// A write to it is under way.
    busy: bool,
    /// The identity it routes to, or a token of shared names.
    pub(super) bound_to: Option<String>,
    /// The pod name it is kept for, or the token of its shared names.
    pub(super) kept_for: Option<String>,
    /// Its ports on a shared Service, and the number of that.
    share: Option<(u32, SharedSlot)>,
}

impl<'a> Slot<'a> {
    /// The Service, where it may be written to now.
    pub(in crate::plan) fn settled(&self) -> Option<&'a Service> {
        self.service.filter(|s| !self.busy && !s.terminating)
    }

    /// Number of the shared Service it is on.
    pub(in crate::plan) fn home(&self) -> Option<u32> {
        self.share.as_ref().map(|(home, _)| *home)
    }

    /// What it is free under.
    pub(in crate::plan) fn free_key(&self) -> Option<Key> {
        let service = &self.service?.key;
        Some(if self.share.is_some() { share_key(service, self.number) } else { service.clone() })
    }

    /// Made ahead for whoever comes, and never any pod's.
    pub(super) fn is_spare(&self) -> bool {
        self.kept_for.as_deref() == Some("")
    }

    /// Whether another pod than the one it is kept for may have it: nobody comes back for an anonymous pod's.
    pub(super) fn is_up_for_grabs(&self) -> bool {
        match &self.share {
            Some((_, share)) => share.anonymous,
            None => self.bound_to.as_deref().is_some_and(names::is_anonymous),
        }
    }

    pub(super) fn rank(&self, state: &State, claim: &Claim<'_>) -> Rank {
        Rank {
            stage: self.stage(state, claim),
            other_name: claim.names().all(|name| self.kept_for.as_deref() != Some(name)),
            number: self.number,
        }
    }

    fn stage(&self, state: &State, claim: &Claim<'_>) -> Stage {
        // one that is being made has no address yet
        let Some(service) = self.service else { return Stage::Waiting };
        let share = self.share.as_ref().map(|(_, share)| share);
        Stage::of(state, claim, &claim::Slot { number: self.number, service, share })
    }

    /// Whether both are kept for the same pod.
    pub(super) fn is_kept_like(&self, other: &Slot<'_>, claim: &Claim<'_>) -> bool {
        let own = |s: &Slot<'_>| claim.names().any(|name| s.kept_for.as_deref() == Some(name));
        self.kept_for == other.kept_for || own(self) && own(other)
    }

    /// Whether it is not as a class says.
    pub(super) fn departs(&self, class: &Class) -> bool {
        self.service.is_some_and(|service| addresses::drift(class, service).is_some())
    }

    /// Whether it is to go as soon as its pod has another one.
    pub(super) fn gives_way(&self) -> bool {
        self.service.is_some_and(Service::gives_way)
    }

    /// Whether it will be better than the one that is held, which is to go, as soon as it leads to the pod: however long
    /// that takes.
    pub(super) fn is_hope(&self, held: &Slot<'_>, claim: &Claim<'_>) -> bool {
        held.is_to_go(claim) && !self.is_to_go(claim)
    }

    /// Whether its class does not know its exposure any more, or another Service is asked for in its place.
    pub(super) fn is_to_go(&self, claim: &Claim<'_>) -> bool {
        let known = |exposures: &[Exposure]| exposures.contains(&self.exposure);
        self.gives_way() || claim.demand.as_ref().is_ok_and(|d| !known(&d.class.exposure))
    }

    /// Whether its address has not come in time.
    pub(super) fn is_given_up(&self) -> bool {
        self.service.is_some_and(|s| s.is_overdue() && !s.has_address())
    }

    /// One with a Service of its own.
    fn own(memory: &Memory, number: u32, service: &'a Service) -> Self {
        let pending = memory.pending(&service.key);
        let desired = pending.and_then(|p| p.desired.as_ref());
        Self {
            number,
            exposure: desired.map_or(service.exposure(), |d| d.exposure),
            service: Some(service),
            busy: pending.is_some(),
            bound_to: desired.map_or(service.bound_to().map(str::to_owned), |d| d.pod_id.clone()),
            kept_for: desired.map_or(service.kept_for().map(str::to_owned), |d| Some(d.pod.clone())),
            share: None,
        }
    }

    /// One of a shared Service as it is, or will be.
    fn shared(draft: &Draft<'a>, share: &SharedSlot) -> Self {
        let leads = !share.blocked && draft.service.is_none_or(|s| draft.busy || s.selects_sharers());
        Self {
            number: share.number,
            exposure: Exposure::Shared,
            service: draft.service,
            busy: draft.busy,
            bound_to: leads.then(|| share.token.clone()),
            kept_for: Some(share.token.clone()),
            share: Some((draft.index, share.clone())),
        }
    }
}

/// A cluster's slots by number.
pub(in crate::plan) fn slots<'a>(
    state: &'a State,
    memory: &Memory,
    cluster: &Key,
    drafts: &mut Drafts<'a>,
) -> BTreeMap<u32, Slot<'a>> {
    let found = Slots::of(state, cluster);
    let own = found.all().iter().filter(|s| s.share.is_none());
    let mut slots: BTreeMap<u32, Slot<'a>> = own
        .map(|&claim::Slot { number, service, .. }| (number, Slot::own(memory, number, service)))
        .collect();
    // one that the watch shows goes before one being made: that may be another leader's
    share(&mut slots, drafts.values_mut().filter(|d| d.service.is_some()));
    for (_, desired) in memory.creating(cluster).filter(|(_, d)| d.exposure != Exposure::Shared) {
        slots.entry(desired.slot).or_insert_with(|| Slot {
            number: desired.slot,
            exposure: desired.exposure,
            service: None,
            busy: true,
            bound_to: desired.pod_id.clone(),
            kept_for: Some(desired.pod.clone()),
            share: None,
        });
    }
    share(&mut slots, drafts.values_mut().filter(|d| d.service.is_none()));
    slots
}

/// A number that is there twice: only one of them is a slot, and the other leaves the Service.
fn share<'a: 'd, 'd>(slots: &mut BTreeMap<u32, Slot<'a>>, drafts: impl Iterator<Item = &'d mut Draft<'a>>) {
    for draft in drafts {
        draft.slots.retain(|number, _| !slots.contains_key(number));
        slots.extend(draft.slots.iter().map(|(number, share)| (*number, Slot::shared(draft, share))));
    }
}
