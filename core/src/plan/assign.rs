//! Which pod gets which slot.

mod search;
mod slot;
mod spare;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::line::{Waiting, Waits};
use super::memory::Memory;
use super::sharing::Drafts;
use crate::claim::{Claim, best};
use crate::names::Key;
use crate::reason::{Code, Reason};
use crate::settings::Exposure;
use crate::state::State;
pub(super) use slot::{Slot, slots};

/// A slot to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewSlot {
    /// Index of its claim.
    pub(super) claim: usize,
    pub(super) number: u32,
    pub(super) exposure: Exposure,
    /// It needs a load balancer of its own, or another shared one.
    balancer: bool,
}

/// The outcome: indexes into the claims, and slot numbers. A pod that moves holds one slot and gets another.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    pub(super) held: Vec<(usize, u32)>,
    pub(super) new: Vec<NewSlot>,
    /// Slots that pods are moving to and that have no address yet.
    pub(super) hoped: Vec<(usize, u32)>,
    /// Who gets another exposure than its class wants first, and why.
    pub(super) stepped: Vec<(usize, Reason)>,
    pub(super) refused: Vec<(usize, Reason)>,
    pub(super) free: BTreeSet<u32>,
    pub(super) surplus: BTreeSet<u32>,
    /// Free slots that are wanted ahead of the pods.
    pub(super) ready: BTreeSet<u32>,
    /// Slots to be made ahead of the pods.
    pub(super) spare: Vec<Spare>,
    /// Slots ahead of the pods are missing.
    pub(super) wishes: bool,
    pub(super) waits: Waits,
    /// When the pod was made that comes after those of other clusters; it and later ones have not been served.
    pub(super) next: Option<i64>,
    pub(super) wake: Option<Duration>,
    /// What new slots ask for, by number; nothing where the load balancer chooses.
    pub(super) asked: HashMap<u32, Vec<IpAddr>>,
}

impl Assignment {
    /// The numbers of the slots a claim holds or will have: several while its pod moves.
    pub(super) fn slots_of(&self, claim: usize) -> Vec<u32> {
        let held =
            self.held.iter().chain(&self.hoped).filter(|(i, _)| *i == claim).map(|(_, number)| *number);
        held.chain(self.new.iter().filter(|n| n.claim == claim).map(|n| n.number)).collect()
    }
}

/// When it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn<'p> {
    /// Since some start.
    pub(super) now: Duration,
    /// Since when this planner has planned, seconds since 1970: pods made since then were made with these settings.
    pub(super) began: i64,
    /// Pods made later than this, seconds since 1970, come after those of other clusters, which have waited longer.
    pub(super) until: i64,
    /// All pods have been served, and slots may be made ahead of what these do not wait for.
    pub(super) ahead: Option<&'p Waiting>,
}

/// A slot ahead of its pod.
#[derive(Debug)]
pub(super) struct Spare {
    /// Index of the claim whose class and ports it is made with.
    pub(super) like: usize,
    /// The pod name it is kept for; `None`: the next pod's.
    pub(super) name: Option<String>,
    pub(super) number: u32,
}

/// Slot numbers by one of their texts.
type Numbers<'p> = HashMap<&'p str, Vec<u32>>;

fn step(exposure: Exposure, why: &Reason) -> Reason {
    let particulars = if why.detail.is_empty() { String::new() } else { format!(" {}", why.detail) };
    Reason::new(Code::SteppedDown, format!("{exposure} instead: {}{particulars}", why.code))
}

/// Where in a class to go on when none of a pod's slots has had its address in time, and why.
fn given_up(slots: &[&Slot<'_>], exposures: &[Exposure]) -> Option<(usize, Reason)> {
    if !slots.iter().all(|s| s.is_given_up()) {
        return None;
    }
    let place = |s: &Slot<'_>| exposures.iter().position(|e| *e == s.exposure);
    let (place, service) =
        slots.iter().filter_map(|s| Some((place(s)?, s.settled()?))).max_by_key(|s| s.0)?;
    Some((place + 1, Reason::new(Code::NoLoadBalancer, format!("Service {}", service.key.name))))
}

struct Desk<'p, 'a> {
    state: &'p State,
    memory: &'p mut Memory,
    cluster: &'p Key,
    slots: &'p BTreeMap<u32, Slot<'a>>,
    drafts: &'p mut Drafts<'a>,
    by_id: Numbers<'p>,
    by_name: Numbers<'p>,
    /// Numbers of slots that are to be made.
    planned: HashSet<u32>,
    /// No number below it is free.
    lowest: u32,
    turn: Turn<'p>,
    result: Assignment,
}

/// Serves the claims, oldest pod first.
pub(super) fn assign<'a>(
    state: &State,
    memory: &mut Memory,
    cluster: &Key,
    claims: &[Claim<'_>],
    slots: &BTreeMap<u32, Slot<'a>>,
    drafts: &mut Drafts<'a>,
    turn: Turn<'_>,
) -> Assignment {
    let result = Assignment { free: slots.keys().copied().collect(), ..Assignment::default() };
    let (by_id, by_name) =
        (numbers(slots, |s| s.bound_to.as_deref()), numbers(slots, |s| s.kept_for.as_deref()));
    let mut desk = Desk {
        state,
        memory,
        cluster,
        slots,
        drafts,
        by_id,
        by_name,
        planned: HashSet::new(),
        lowest: 0,
        turn,
        result,
    };
    let waiting: Vec<usize> = (0..claims.len())
        .filter(|i| claims[*i].granted().is_some() && !desk.holds(*i, &claims[*i]))
        .collect();
    let held = desk.result.held.clone();
    for (i, number) in &held {
        desk.free_surplus(*i, &claims[*i], *number);
    }
    for (i, number) in held {
        desk.move_on(i, &claims[i], number);
    }
    desk.free_given_way();
    for i in waiting.into_iter().filter(|i| !claims[*i].pod.terminating) {
        // once one is refused there is nothing left to be in line for
        if claims[i].pod.created > turn.until && desk.result.waits.is_empty() {
            desk.result.next = Some(claims[i].pod.created);
            return desk.result;
        }
        desk.serve(i, &claims[i]);
    }
    desk.look_ahead(claims);
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

fn numbers_of(slots: &[&Slot<'_>]) -> Vec<u32> {
    slots.iter().map(|slot| slot.number).collect()
}

impl Desk<'_, '_> {
    fn among<'s>(&'s self, numbers: &'s Numbers<'_>, text: &str) -> impl Iterator<Item = &'s Slot<'s>> {
        numbers.get(text).into_iter().flatten().map(|number| &self.slots[number])
    }

    /// Whether a pod has its slot already: the one bound to its identity, or the one kept for its name that routes to
    /// nobody because several pods claimed the identity.
    fn holds(&mut self, index: usize, claim: &Claim<'_>) -> bool {
        let free = |s: &&Slot<'_>| self.result.free.contains(&s.number);
        let free_best = |slots: &mut dyn Iterator<Item = &Slot<'_>>| {
            best(slots.filter(free), |s| s.rank(self.state, claim)).map(|s| s.number)
        };
        let bound = free_best(&mut claim.keys().flat_map(|key| self.among(&self.by_id, key)));
        let kept = || claim.names().flat_map(|name| self.among(&self.by_name, name));
        let found = bound.or_else(|| free_best(&mut kept().filter(|s| s.bound_to.is_none())));
        found.is_some_and(|number| self.hold(index, claim, number))
    }

    /// Gives a pod a slot there is; on a shared Service, where there is room for its ports.
    fn hold(&mut self, index: usize, claim: &Claim<'_>, number: u32) -> bool {
        if let Some(home) = self.slots[&number].home()
            && !self.drafts.get_mut(&home).is_some_and(|draft| draft.hold(number, claim))
        {
            return false;
        }
        self.result.free.remove(&number);
        self.result.held.push((index, number));
        true
    }

    /// Further slots of the same name bound to an identity that has one already: two external addresses of one pod. One
    /// kept for another name has only been bent: it waits for its pod like any free slot. One the pod is moving to is
    /// what it waits for, however long that takes.
    fn free_surplus(&mut self, index: usize, claim: &Claim<'_>, number: u32) {
        let held = &self.slots[&number];
        if held.bound_to.is_none() {
            return;
        }
        let alike = claim.keys().flat_map(|key| self.among(&self.by_id, key));
        let twins = alike.filter(|s| s.is_kept_like(held, claim) && self.result.free.contains(&s.number));
        let (hopes, surplus): (Vec<&Slot<'_>>, Vec<_>) = twins.partition(|s| s.is_hope(held, claim));
        let (hopes, surplus) = (numbers_of(&hopes), numbers_of(&surplus));
        self.result.hoped.extend(hopes.iter().map(|number| (index, *number)));
        self.result.ready.extend(hopes);
        self.result.surplus.extend(surplus);
    }

    /// Free slots that somebody asks another one for: the next pod gets one that is made as its class says.
    fn free_given_way(&mut self) {
        let free = self.slots.values().filter(|s| s.gives_way() && self.result.free.contains(&s.number));
        let free: Vec<u32> = free.map(|s| s.number).collect();
        self.result.surplus.extend(free);
    }

    /// A pod leaves its slot where somebody asks for another one; where its class does not know the exposure any more,
    /// once it was made again or has no address to lose; and where the address has not come in time. The new address
    /// comes first.
    fn move_on(&mut self, index: usize, claim: &Claim<'_>, number: u32) {
        let Some((demand, _)) = claim.granted() else { return };
        let held = &self.slots[&number];
        let Some(service) = held.settled() else { return };
        if claim.is_contested(held.exposure) || claim.pod.terminating {
            return;
        }
        let exposures = &demand.class.exposure;
        let place = exposures.iter().position(|e| *e == held.exposure);
        let all = exposures.len();
        let alike = claim.keys().flat_map(|key| self.among(&self.by_id, key));
        let twins: Vec<&Slot<'_>> =
            alike.filter(|s| s.number != number && s.is_kept_like(held, claim)).collect();
        if !twins.is_empty() {
            // the class does not want where it is, so it goes on as a pod does that has no address
            if let (None, Some((from, reason))) = (place, given_up(&twins, exposures)) {
                let _ = self.place(index, claim, from..all, Some(reason));
            }
            return;
        }
        if service.gives_way() {
            // a step down is no reason to give up an address
            let wanted = 0..place.map_or(all, |place| place + 1);
            if let Err(reason) = self.place(index, claim, wanted, None) {
                self.refuse(index, claim, reason, i64::MAX);
            }
            return;
        }
        let (from, reason) = match place {
            None if claim.pod.created >= self.turn.began || held.is_given_up() => (0, None),
            Some(_) => match given_up(&[held], exposures) {
                Some((from, reason)) => (from, Some(reason)),
                None => return,
            },
            None => return,
        };
        let _ = self.place(index, claim, from..all, reason);
    }

    fn serve(&mut self, index: usize, claim: &Claim<'_>) {
        let all = claim.granted().map_or(0, |(demand, _)| demand.class.exposure.len());
        if let Err(reason) = self.place(index, claim, 0..all, None) {
            self.result.wake = self.result.wake.into_iter().chain(self.next_rested()).min();
            self.refuse(index, claim, reason, claim.pod.created);
        }
    }

    /// Gives a pod a slot by the first exposure that has room, those with these numbers in its class; `Err` = why
    /// the first of them has none. What the API server has refused is tried again only where nothing else is left.
    fn place(
        &mut self,
        index: usize,
        claim: &Claim<'_>,
        among: Range<usize>,
        reason: Option<Reason>,
    ) -> Result<(), Reason> {
        let Some((demand, _)) = claim.granted() else { return Ok(()) };
        let later = among.start > 0;
        let exposures = demand.class.exposure.get(among).unwrap_or_default();
        let mut first = reason;
        for patient in [exposures.len() > 1 || later, false] {
            for exposure in exposures {
                match self.try_exposure(index, claim, *exposure, patient) {
                    Ok(()) => {
                        let stepped = first.filter(|_| *exposure != demand.class.exposure[0]);
                        self.result.stepped.extend(stepped.map(|why| (index, step(*exposure, &why))));
                        return Ok(());
                    }
                    Err(why) => first = first.or(Some(why)),
                }
            }
        }
        Err(first.unwrap_or_else(|| Code::WaitingForSlot.into()))
    }

    fn refuse(&mut self, index: usize, claim: &Claim<'_>, reason: Reason, since: i64) {
        if let Some((demand, _)) = claim.granted() {
            self.result.waits.add(reason.code, demand.class_name, since);
        }
        self.result.refused.push((index, reason));
    }

    fn note_free(&mut self) {
        for slot in self.slots.values() {
            let Some(key) = slot.free_key() else { continue };
            if self.result.free.contains(&slot.number) {
                let wanted = self.result.ready.contains(&slot.number);
                self.memory.is_ready(self.cluster, &key, wanted, self.turn.now);
            } else {
                self.memory.is_used(self.cluster, &key);
            }
        }
    }
}
