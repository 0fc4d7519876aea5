//! Which pod gets which slot.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::memory::Memory;
use crate::claim::{Claim, Slots};
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
    let found = Slots::of(state, cluster);
    let seen = found.iter().map(|(number, service)| {
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

/// Slot numbers by one of their texts.
type Numbers<'p> = HashMap<&'p str, Vec<u32>>;

struct Desk<'p, 'a> {
    state: &'p State,
    memory: &'p mut Memory,
    cluster: &'p Key,
    slots: &'p BTreeMap<u32, Slot<'a>>,
    by_id: Numbers<'p>,
    by_name: Numbers<'p>,
    /// Services there are and will be: of the namespace, and of all.
    counts: (usize, usize),
    /// Numbers of slots that are to be made.
    planned: HashSet<u32>,
    /// No number below it is free.
    lowest: u32,
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
    let (in_namespace, in_all) = state.service_counts(&cluster.namespace);
    let (creating_here, creating) = memory.creating_counts(&cluster.namespace);
    let counts = (in_namespace + creating_here, in_all + creating);
    let (by_id, by_name) =
        (numbers(slots, |s| s.bound_to.as_deref()), numbers(slots, |s| s.kept_for.as_deref()));
    let mut desk = Desk {
        state,
        memory,
        cluster,
        slots,
        by_id,
        by_name,
        counts,
        planned: HashSet::new(),
        lowest: 0,
        now,
        result,
    };
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

fn numbers<'p>(
    slots: &'p BTreeMap<u32, Slot<'_>>,
    text: impl Fn(&'p Slot<'_>) -> Option<&'p str>,
) -> Numbers<'p> {
    let mut numbers = Numbers::new();
    for slot in slots.values() {
        if let Some(text) = text(slot) {
            numbers.entry(text).or_default().push(slot.number);
        }
    }
    numbers
}

impl Desk<'_, '_> {
    fn among<'s>(&'s self, numbers: &'s Numbers<'_>, text: &str) -> impl Iterator<Item = &'s Slot<'s>> {
        numbers.get(text).into_iter().flatten().map(|number| &self.slots[number])
    }

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
        let is_twin = |s: &&Slot<'_>| s.kept_for == held.kept_for;
        let Some(id) = held.bound_to.as_deref() else { return };
        let twins = self.among(&self.by_id, id).filter(is_twin).map(|s| s.number);
        let free: Vec<u32> = twins.filter(|n| self.result.free.contains(n)).collect();
        self.result.surplus.extend(free);
    }

    fn serve(&mut self, index: usize, claim: &Claim<'_>) {
        let name = &*claim.pod.key.name;
        let anonymous = claim.pod_id.is_some_and(names::is_anonymous);
        let kept = self.among(&self.by_name, name).find(|s| self.is_available(s)).map(|s| s.number);
        let rested = || if anonymous { self.longest_free(is_up_for_grabs) } else { None };
        if let Some(number) = kept.or_else(rested) {
            return self.hold(index, number);
        }
        let Some(reason) = self.limit() else {
            return match self.number_for(name, anonymous) {
                Some(number) => {
                    self.planned.insert(number);
                    self.result.new.push((index, number));
                }
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

    /// Whether a slot is free and may be written to.
    fn is_available(&self, slot: &Slot<'_>) -> bool {
        let free = self.result.free.contains(&slot.number) && !self.result.surplus.contains(&slot.number);
        free && slot.settled().is_some()
    }

    fn available(&self) -> impl Iterator<Item = &Slot<'_>> {
        self.slots.values().filter(|s| self.is_available(s))
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
        [
            (self.slots.len(), limits.slots_per_cluster, Code::ClusterLimit),
            (self.counts.0, limits.slots_per_namespace, Code::NamespaceLimit),
            (self.counts.1, limits.load_balancers, Code::InstallationLimit),
        ]
        .into_iter()
        .find(|(count, limit, _)| count + planned >= *limit as usize)
        .map(|(_, limit, code)| Reason::new(code, limit.to_string()))
    }

    /// The number of a new slot: a named pod's ordinal where it is free, else the lowest free one.
    fn number_for(&mut self, pod: &str, anonymous: bool) -> Option<u32> {
        let ordinal = if anonymous { None } else { names::ordinal(pod).filter(|n| self.is_new(*n)) };
        if ordinal.is_some() {
            return ordinal;
        }
        // one number more than there can be slots in the way, and some for foreign Services
        let taken = self.slots.len() + self.result.new.len();
        let most = u32::try_from(taken).unwrap_or(u32::MAX).saturating_add(64);
        let lowest = (self.lowest..=most).find(|n| self.is_new(*n))?;
        self.lowest = lowest + 1;
        Some(lowest)
    }

    /// Whether a number is no slot's and its Service's name nobody's.
    fn is_new(&self, number: u32) -> bool {
        let name = names::slot_service(&self.cluster.name, number);
        let key = Key::new(self.cluster.namespace.clone(), name);
        !self.slots.contains_key(&number)
            && !self.planned.contains(&number)
            && self.state.service(&key).is_none()
            && !self.memory.is_taken(&key)
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
