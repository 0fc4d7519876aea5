//! Which pod gets which slot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::memory::Memory;
use crate::claim::{self, Claim};
use crate::names::{self, Key};
use crate::objects::Service;
use crate::reason::{Code, Reason};
use crate::settings::{Class, DEFAULT_CLASS};
use crate::state::State;

/// A slot as it will be when the writes under way are done.
#[derive(Debug, Clone)]
pub(super) struct Slot<'a> {
    pub(super) number: u32,
    /// The Service as the watch shows it; `None` while it is being created.
    service: Option<&'a Service>,
    /// A write to it is under way.
    busy: bool,
    /// The identity it routes to.
    bound_to: Option<String>,
    /// The pod name it is kept for.
    kept_for: Option<String>,
}

impl<'a> Slot<'a> {
    /// The Service, where it may be written to now.
    pub(super) fn settled(&self) -> Option<&'a Service> {
        self.service.filter(|s| !self.busy && !s.terminating)
    }
}

/// Whether another pod than the one it is kept for may have it: nobody comes back for an anonymous pod's.
fn is_up_for_grabs(slot: &Slot<'_>) -> bool {
    slot.bound_to.as_deref().is_some_and(names::is_anonymous)
}

/// A cluster's slots by number.
pub(super) fn slots<'a>(state: &'a State, memory: &Memory, cluster: &Key) -> BTreeMap<u32, Slot<'a>> {
    let seen = claim::slots(state, cluster).into_iter().map(|(number, service)| {
        let pending = memory.pending(&service.key);
        let desired = pending.and_then(|p| p.desired.as_ref());
        let slot = Slot {
            number,
            service: Some(service),
            busy: pending.is_some(),
            bound_to: desired.map_or(service.bound_to().map(str::to_owned), |d| d.pod_id.clone()),
            kept_for: desired.map_or(service.kept_for().map(str::to_owned), |d| Some(d.pod.clone())),
        };
        (number, slot)
    });
    let mut slots: BTreeMap<u32, Slot<'a>> = seen.collect();
    for (_, desired) in memory.creating(cluster) {
        slots.entry(desired.slot).or_insert_with(|| Slot {
            number: desired.slot,
            service: None,
            busy: true,
            bound_to: desired.pod_id.clone(),
            kept_for: Some(desired.pod.clone()),
        });
    }
    slots
}

/// The outcome: indexes into the claims, and slot numbers.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    pub(super) held: Vec<(usize, u32)>,
    pub(super) new: Vec<(usize, u32)>,
    pub(super) refused: Vec<(usize, Reason)>,
    pub(super) free: BTreeSet<u32>,
    pub(super) surplus: BTreeSet<u32>,
    pub(super) wake: Option<Duration>,
}

struct Desk<'p, 'a> {
    state: &'p State,
    memory: &'p mut Memory,
    cluster: &'p Key,
    slots: &'p BTreeMap<u32, Slot<'a>>,
    now: Duration,
    result: Assignment,
}

/// Serves the claims, oldest pod first.
pub(super) fn assign(
    state: &State,
    memory: &mut Memory,
    cluster: &Key,
    claims: &[Claim<'_>],
    slots: &BTreeMap<u32, Slot<'_>>,
    now: Duration,
) -> Assignment {
    let result = Assignment { free: slots.keys().copied().collect(), ..Assignment::default() };
    let mut desk = Desk { state, memory, cluster, slots, now, result };
    let waiting: Vec<usize> = (0..claims.len())
        .filter(|i| claims[*i].granted().is_some() && !desk.holds(*i, &claims[*i]))
        .collect();
    for number in desk.result.held.iter().map(|(_, n)| *n).collect::<Vec<_>>() {
        desk.free_surplus(number);
    }
    for i in waiting {
        if !claims[i].pod.terminating {
            desk.serve(i, &claims[i]);
        }
    }
    desk.note_free();
    desk.result
}

impl Desk<'_, '_> {
    /// Whether a pod has its slot already: the one bound to its identity, or the one kept for its name that routes to
    /// nobody because several pods claimed the identity.
    fn holds(&mut self, index: usize, claim: &Claim<'_>) -> bool {
        let Some(id) = claim.pod_id else { return false };
        let name = &*claim.pod.key.name;
        let bound = self.slots.values().filter(|s| s.bound_to.as_deref() == Some(id));
        let blocked =
            self.slots.values().filter(|s| s.bound_to.is_none() && s.kept_for.as_deref() == Some(name));
        let best = bound
            .chain(blocked)
            .filter(|s| self.result.free.contains(&s.number))
            .min_by_key(|s| (s.bound_to.is_none(), s.kept_for.as_deref() != Some(name), s.number));
        let Some(slot) = best else { return false };
        self.hold(index, slot.number);
        true
    }

    fn hold(&mut self, index: usize, number: u32) {
        self.result.free.remove(&number);
        self.result.held.push((index, number));
    }

    /// Further slots of the same name bound to an identity that has one already: two external addresses of one pod. One
    /// kept for another name has only been bent: it waits for its pod like any free slot.
    fn free_surplus(&mut self, number: u32) {
        let held = &self.slots[&number];
        let is_twin = |s: &&Slot<'_>| {
            s.bound_to.is_some() && s.bound_to == held.bound_to && s.kept_for == held.kept_for
        };
        let twins = self.slots.values().filter(is_twin).map(|s| s.number);
        self.result.surplus.extend(twins.filter(|n| self.result.free.contains(n)));
    }

    fn serve(&mut self, index: usize, claim: &Claim<'_>) {
        let name = &*claim.pod.key.name;
        let anonymous = claim.pod_id.is_some_and(names::is_anonymous);
        let kept = self.choose(|s| s.kept_for.as_deref() == Some(name));
        let rested = || if anonymous { self.longest_free(is_up_for_grabs) } else { None };
        if let Some(number) = kept.or_else(rested) {
            return self.hold(index, number);
        }
        let Some(reason) = self.limit() else {
            return match self.number_for(name, anonymous) {
                Some(number) => self.result.new.push((index, number)),
                None => self.refuse(index, Code::NameTaken.into()),
            };
        };
        if let Some(number) = self.longest_free(|_| true) {
            return self.hold(index, number);
        }
        self.result.wake = self.result.wake.into_iter().chain(self.next_rested()).min();
        self.refuse(index, reason);
    }

    fn refuse(&mut self, index: usize, reason: Reason) {
        self.result.refused.push((index, reason));
    }

    /// A free slot that may be written to.
    fn choose(&self, fits: impl Fn(&Slot<'_>) -> bool) -> Option<u32> {
        self.available().find(|s| fits(s)).map(|s| s.number)
    }

    fn available(&self) -> impl Iterator<Item = &Slot<'_>> {
        self.slots.values().filter(|s| {
            let free = self.result.free.contains(&s.number) && !self.result.surplus.contains(&s.number);
            free && s.settled().is_some()
        })
    }

    fn longest_free(&self, fits: impl Fn(&Slot<'_>) -> bool) -> Option<u32> {
        let rested =
            self.available().filter(|s| fits(s)).filter_map(|s| Some((self.rested_at(s)?, s.number)));
        rested.filter(|(at, _)| *at <= self.now).min().map(|(_, number)| number)
    }

    fn next_rested(&self) -> Option<Duration> {
        self.available().filter_map(|s| self.rested_at(s)).filter(|at| *at > self.now).min()
    }

    /// When another pod may have a free slot: clients' copies of the map lag.
    fn rested_at(&self, slot: &Slot<'_>) -> Option<Duration> {
        let service = slot.settled()?;
        let settings = self.state.settings();
        let class = service.annotations.get(names::SLOT_CLASS_ANNOTATION).and_then(|c| settings.class(c));
        let rest =
            class.or_else(|| settings.class(DEFAULT_CLASS)).map_or(Duration::ZERO, |c: &Class| c.reuse_after);
        Some(self.memory.known_free_since(&service.key).unwrap_or(self.now) + rest)
    }

    /// The limit that forbids a further slot.
    fn limit(&self) -> Option<Reason> {
        let limits = &self.state.settings().limits;
        let planned = self.result.new.len();
        let (in_namespace, in_all) = self.state.service_counts(&self.cluster.namespace);
        let (creating_here, creating) = self.memory.creating_counts(&self.cluster.namespace);
        [
            (self.slots.len(), limits.slots_per_cluster, Code::ClusterLimit),
            (in_namespace + creating_here, limits.slots_per_namespace, Code::NamespaceLimit),
            (in_all + creating, limits.load_balancers, Code::InstallationLimit),
        ]
        .into_iter()
        .find(|(count, limit, _)| count + planned >= *limit as usize)
        .map(|(_, limit, code)| Reason::new(code, limit.to_string()))
    }

    /// The number of a new slot: a named pod's ordinal where it is free, else the lowest free one.
    fn number_for(&self, pod: &str, anonymous: bool) -> Option<u32> {
        let is_free = |n: &u32| {
            let key = Key::new(self.cluster.namespace.clone(), names::slot_service(&self.cluster.name, *n));
            !self.slots.contains_key(n)
                && !self.result.new.iter().any(|(_, planned)| planned == n)
                && self.state.service(&key).is_none()
                && !self.memory.is_taken(&key)
        };
        let ordinal = if anonymous { None } else { names::ordinal(pod).filter(is_free) };
        // one number more than there can be slots in the way, and some for foreign Services
        let most =
            u32::try_from(self.slots.len() + self.result.new.len()).unwrap_or(u32::MAX).saturating_add(64);
        ordinal.or_else(|| (0..=most).find(is_free))
    }

    fn note_free(&mut self) {
        for slot in self.slots.values() {
            let Some(service) = slot.service else { continue };
            if self.result.free.contains(&slot.number) {
                self.memory.free_since(&service.key, self.now);
            } else {
                self.memory.is_used(&service.key);
            }
        }
    }
}
