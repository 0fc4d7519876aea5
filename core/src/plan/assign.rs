//! Which pod gets which slot.

mod spare;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::addresses::Ledger;
use super::memory::{Memory, creation_key, share_key};
use super::sharing::{Draft, Drafts};
use crate::claim::{self, Claim, Rank, Slots, Stage};
use crate::limits::Counts;
use crate::names::{self, Key};
use crate::objects::Service;
use crate::reason::{Code, Reason};
use crate::settings::{Class, DEFAULT_CLASS, Exposure};
use crate::shared::SharedSlot;
use crate::state::State;

/// A slot as it will be when the writes under way are done.
#[derive(Debug, Clone)]
pub(super) struct Slot<'a> {
    pub(super) number: u32,
    /// By what it is reached.
    pub(super) exposure: Exposure,
    /// The Service as the watch shows it; `None` while it is being created.
    service: Option<&'a Service>,
    /// A write to it is under way.
    busy: bool,
    /// The identity it routes to, or a token of shared names.
    bound_to: Option<String>,
    /// The pod name it is kept for, or the token of its shared names.
    kept_for: Option<String>,
    /// Its ports on a shared Service, and the number of that.
    share: Option<(u32, SharedSlot)>,
}

impl<'a> Slot<'a> {
    /// The Service, where it may be written to now.
    pub(super) fn settled(&self) -> Option<&'a Service> {
        self.service.filter(|s| !self.busy && !s.terminating)
    }

    /// Number of the shared Service it is on.
    pub(super) fn home(&self) -> Option<u32> {
        self.share.as_ref().map(|(home, _)| *home)
    }

    /// What it is free under.
    pub(super) fn free_key(&self) -> Option<Key> {
        let service = &self.service?.key;
        Some(if self.share.is_some() { share_key(service, self.number) } else { service.clone() })
    }

    /// Of a shared Service as it is, or will be.
    pub(super) fn shared(draft: &Draft<'a>, share: &SharedSlot) -> Self {
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

    /// Made ahead for whoever comes, and never any pod's.
    fn is_spare(&self) -> bool {
        self.kept_for.as_deref() == Some("")
    }
}

/// Whether another pod than the one it is kept for may have it: nobody comes back for an anonymous pod's.
fn is_up_for_grabs(slot: &Slot<'_>) -> bool {
    match &slot.share {
        Some((_, share)) => share.anonymous,
        None => slot.bound_to.as_deref().is_some_and(names::is_anonymous),
    }
}

/// A cluster's slots by number.
pub(super) fn slots<'a>(
    state: &'a State,
    memory: &Memory,
    cluster: &Key,
    drafts: &mut Drafts<'a>,
) -> BTreeMap<u32, Slot<'a>> {
    let found = Slots::of(state, cluster);
    let seen =
        found.all().iter().filter(|s| s.share.is_none()).map(|&claim::Slot { number, service, .. }| {
            let pending = memory.pending(&service.key);
            let desired = pending.and_then(|p| p.desired.as_ref());
            let slot = Slot {
                number,
                exposure: desired.map_or(service.exposure(), |d| d.exposure),
                service: Some(service),
                busy: pending.is_some(),
                bound_to: desired.map_or(service.bound_to().map(str::to_owned), |d| d.pod_id.clone()),
                kept_for: desired.map_or(service.kept_for().map(str::to_owned), |d| Some(d.pod.clone())),
                share: None,
            };
            (number, slot)
        });
    let mut slots: BTreeMap<u32, Slot<'a>> = seen.collect();
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
    for draft in drafts.values_mut() {
        // a number that is there twice: only one of them is a slot, and the other leaves the Service
        draft.slots.retain(|number, _| !slots.contains_key(number));
        slots.extend(draft.slots.iter().map(|(number, share)| (*number, Slot::shared(draft, share))));
    }
    slots
}

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
    /// Who gets another exposure than its class wants first, and why.
    pub(super) stepped: Vec<(usize, Reason)>,
    pub(super) refused: Vec<(usize, Reason)>,
    pub(super) free: BTreeSet<u32>,
    pub(super) surplus: BTreeSet<u32>,
    /// Free slots that are wanted ahead of the pods.
    pub(super) ready: BTreeSet<u32>,
    /// Slots to be made ahead of the pods.
    pub(super) spare: Vec<Spare>,
    pub(super) wake: Option<Duration>,
    /// What new slots ask for, by number.
    pub(super) asked: HashMap<u32, Vec<IpAddr>>,
}

impl Assignment {
    /// The number of the slot a claim holds or will have.
    pub(super) fn slot_of(&self, claim: usize) -> Option<u32> {
        let held = self.held.iter().find(|(i, _)| *i == claim).map(|(_, number)| *number);
        held.or_else(|| self.new.iter().find(|n| n.claim == claim).map(|n| n.number))
    }
}

/// When it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// Since some start.
    pub(super) now: Duration,
    /// Since when this planner has planned, seconds since 1970: pods made since then were made with these settings.
    pub(super) began: i64,
    /// Other clusters wait at a limit they share: nothing is made ahead.
    pub(super) others_wait: bool,
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

fn rank(slot: &Slot<'_>, claim: &Claim<'_>) -> Rank {
    let exposures: &[Exposure] = claim.demand.as_ref().map_or(&[], |d| &d.class.exposure);
    Rank {
        // one that is being made has no address yet
        stage: slot.service.map_or(Stage::Waiting, |s| Stage::of(s, exposures)),
        other_name: claim.names().all(|name| slot.kept_for.as_deref() != Some(name)),
        number: slot.number,
    }
}

fn is_one<'t>(text: Option<&str>, mut of: impl Iterator<Item = &'t str>) -> bool {
    text.is_some_and(|text| of.any(|t| t == text))
}

/// Whether two slots are kept for the same pod.
fn is_kept_alike(one: &Slot<'_>, other: &Slot<'_>, claim: &Claim<'_>) -> bool {
    let own = |s: &Slot<'_>| claim.names().any(|name| s.kept_for.as_deref() == Some(name));
    one.kept_for == other.kept_for || own(one) && own(other)
}

/// Whether a slot may still become better than the one that is held.
fn is_hope(slot: &Slot<'_>, held: &Slot<'_>, claim: &Claim<'_>) -> bool {
    let (stage, held) = (rank(slot, claim).stage, rank(held, claim).stage);
    stage == Stage::Waiting && matches!(held, Stage::Former | Stage::Overdue)
}

fn step(exposure: Exposure, why: &Reason) -> Reason {
    let particulars = if why.detail.is_empty() { String::new() } else { format!(" {}", why.detail) };
    Reason::new(Code::SteppedDown, format!("{exposure} instead: {}{particulars}", why.code))
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
    turn: Turn,
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
    turn: Turn,
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
        desk.free_surplus(&claims[*i], *number);
    }
    for (i, number) in held {
        desk.move_on(i, &claims[i], number);
    }
    for i in waiting {
        if !claims[i].pod.terminating {
            desk.serve(i, &claims[i]);
        }
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

impl Desk<'_, '_> {
    fn among<'s>(&'s self, numbers: &'s Numbers<'_>, text: &str) -> impl Iterator<Item = &'s Slot<'s>> {
        numbers.get(text).into_iter().flatten().map(|number| &self.slots[number])
    }

    /// Whether a pod has its slot already: the one bound to its identity, or the one kept for its name that routes to
    /// nobody because several pods claimed the identity.
    fn holds(&mut self, index: usize, claim: &Claim<'_>) -> bool {
        let free = |s: &&Slot<'_>| self.result.free.contains(&s.number);
        let bound = self.slots.values().filter(|s| is_one(s.bound_to.as_deref(), claim.keys()));
        let blocked = self
            .slots
            .values()
            .filter(|s| s.bound_to.is_none() && is_one(s.kept_for.as_deref(), claim.names()));
        let best = |slots: &mut dyn Iterator<Item = &Slot<'_>>| {
            slots.filter(free).min_by_key(|s| rank(s, claim)).map(|s| s.number)
        };
        let best = best(&mut bound.into_iter()).or_else(|| best(&mut blocked.into_iter()));
        best.is_some_and(|number| self.hold(index, claim, number))
    }

    /// Gives a pod a slot there is; on a shared Service, where there is room for its ports.
    fn hold(&mut self, index: usize, claim: &Claim<'_>, number: u32) -> bool {
        if let Some((home, _)) = &self.slots[&number].share
            && !self.drafts.get_mut(home).is_some_and(|draft| draft.hold(number, claim))
        {
            return false;
        }
        self.result.free.remove(&number);
        self.result.held.push((index, number));
        true
    }

    /// Further slots of the same name bound to an identity that has one already: two external addresses of one pod. One
    /// kept for another name has only been bent: it waits for its pod like any free slot. One the pod is moving to is
    /// what it waits for.
    fn free_surplus(&mut self, claim: &Claim<'_>, number: u32) {
        let held = &self.slots[&number];
        let is_twin = |s: &&Slot<'_>| is_kept_alike(s, held, claim) && !is_hope(s, held, claim);
        if held.bound_to.is_none() {
            return;
        }
        let twins =
            claim.keys().flat_map(|key| self.among(&self.by_id, key)).filter(is_twin).map(|s| s.number);
        let free: Vec<u32> = twins.filter(|n| self.result.free.contains(n)).collect();
        self.result.surplus.extend(free);
    }

    /// A pod leaves its slot where its class does not know the exposure any more, once it was made again; and where the
    /// address has not come in time. The new address comes first.
    fn move_on(&mut self, index: usize, claim: &Claim<'_>, number: u32) {
        let Some((demand, _)) = claim.granted() else { return };
        let held = &self.slots[&number];
        let Some(service) = held.settled() else { return };
        let alike = claim.keys().flat_map(|key| self.among(&self.by_id, key));
        let alone = alike.filter(|s| is_kept_alike(s, held, claim)).count() == 1;
        if !alone || claim.is_contested(held.exposure) || claim.pod.terminating {
            return;
        }
        let exposures = &demand.class.exposure;
        let place = exposures.iter().position(|e| *e == held.exposure);
        let (from, reason) = match place {
            None if claim.pod.created >= self.turn.began => (0, None),
            Some(place) if Stage::of(service, exposures) == Stage::Overdue => {
                let detail = format!("Service {}", service.key.name);
                (place + 1, Some(Reason::new(Code::NoLoadBalancer, detail)))
            }
            _ => return,
        };
        let _ = self.place(index, claim, from, reason);
    }

    fn serve(&mut self, index: usize, claim: &Claim<'_>) {
        if let Err(reason) = self.place(index, claim, 0, None) {
            self.result.wake = self.result.wake.into_iter().chain(self.next_rested()).min();
            self.refuse(index, reason);
        }
    }

    /// Gives a pod a slot by the first exposure that has room, beginning with number `from` of its class; `Err` = why
    /// the first of them has none. What the API server has refused is tried again only where nothing else is left.
    fn place(
        &mut self,
        index: usize,
        claim: &Claim<'_>,
        from: usize,
        reason: Option<Reason>,
    ) -> Result<(), Reason> {
        let Some((demand, _)) = claim.granted() else { return Ok(()) };
        let exposures = demand.class.exposure.get(from..).unwrap_or_default();
        let mut first = reason;
        for patient in [exposures.len() > 1 || from > 0, false] {
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

    fn try_exposure(
        &mut self,
        index: usize,
        claim: &Claim<'_>,
        exposure: Exposure,
        patient: bool,
    ) -> Result<(), Reason> {
        let Some((demand, id)) = claim.granted() else { return Ok(()) };
        let shared = exposure == Exposure::Shared;
        if shared && claim.share.as_ref().is_none_or(|s| !s.fits(demand.class)) {
            return Err(Code::CannotShare.into());
        }
        let anonymous = names::is_anonymous(id);
        // shared Services have the ports and the fields of one class
        let fits = |s: &Slot<'_>| {
            s.exposure == exposure
                && (!shared || s.service.and_then(|s| s.class()) == Some(demand.class_name))
        };
        let kept = claim.names().find_map(|name| {
            self.among(&self.by_name, name).find(|s| fits(s) && self.is_available(s)).map(|s| s.number)
        });
        let suits = |s: &Slot<'_>| fits(s) && self.suits(s, demand.class);
        let rested = || if anonymous { self.longest_free(|s| suits(s) && is_up_for_grabs(s)) } else { None };
        let spare = || self.available().filter(|s| suits(s) && s.is_spare()).map(|s| s.number).min();
        if let Some(number) = kept.or_else(rested).or_else(spare)
            && self.hold(index, claim, number)
        {
            return Ok(());
        }
        let home = if shared { Some(self.home(claim)?) } else { None };
        let balancer = match home {
            Some(home) => !self.drafts.contains_key(&home),
            None => exposure == Exposure::Dedicated,
        };
        if let Some(reason) = self.limit(demand.class_name, demand.class, exposure, balancer) {
            let number = self.longest_free(fits).ok_or_else(|| reason.clone())?;
            return if self.hold(index, claim, number) { Ok(()) } else { Err(reason) };
        }
        let asked = match self.address_for(&claim.pod.key.name, demand.class, exposure) {
            Ok(asked) => asked,
            Err(reason) => {
                let of_use = |s: &Slot<'_>| fits(s) && self.suits(s, demand.class);
                let number = self.longest_free(of_use).ok_or_else(|| reason.clone())?;
                return if self.hold(index, claim, number) { Ok(()) } else { Err(reason) };
            }
        };
        let number = self.number_for(&claim.pod.key.name, anonymous).ok_or(Code::NameTaken)?;
        let service = match home {
            Some(home) => names::shared_service(&self.cluster.name, home),
            None => names::slot_service(&self.cluster.name, number),
        };
        let key = Key::new(self.cluster.namespace.clone(), service);
        if let Some(refusal) = self.memory.refusal(&creation_key(&key, exposure)).filter(|_| patient) {
            return Err(refusal.clone());
        }
        if let Some(home) = home {
            let draft = self.drafts.entry(home).or_insert_with(|| Draft::new(home, key, demand));
            draft.put(number, claim);
        }
        self.planned.insert(number);
        self.result.new.push(NewSlot { claim: index, number, exposure, balancer });
        self.result.asked.insert(number, asked);
        Ok(())
    }

    /// The shared Service with room for a pod: the first of its class, else a new one.
    fn home(&self, claim: &Claim<'_>) -> Result<u32, Reason> {
        let with_room = self.drafts.iter().find(|(_, draft)| draft.has_room(claim)).map(|(home, _)| *home);
        let is_new = |home: &u32| {
            let name = names::shared_service(&self.cluster.name, *home);
            let key = Key::new(self.cluster.namespace.clone(), name);
            !self.drafts.contains_key(home)
                && self.state.service(&key).is_none()
                && !self.memory.is_taken(&key)
        };
        with_room.or_else(|| (0..=1000).find(is_new)).ok_or_else(|| Code::NameTaken.into())
    }

    /// What a new slot of a class asks for.
    fn address_for(&mut self, pod: &str, class: &Class, exposure: Exposure) -> Result<Vec<IpAddr>, Reason> {
        if exposure != Exposure::Dedicated {
            return Ok(Vec::new());
        }
        let found = self.memory.ledger.of_new(self.state, (self.cluster, pod), class, self.turn.now);
        found.map_err(|rested| {
            self.result.wake = self.result.wake.into_iter().chain(rested).min();
            Reason::new(Code::NoFreeAddress, format!("{} addresses", class.addresses.len()))
        })
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

    fn suits(&self, slot: &Slot<'_>, class: &Class) -> bool {
        slot.service.is_some_and(|service| Ledger::suits(self.state, class, service))
    }

    fn longest_free(&self, fits: impl Fn(&Slot<'_>) -> bool) -> Option<u32> {
        let rested =
            self.available().filter(|s| fits(s)).filter_map(|s| Some((self.rested_at(s)?, s.number)));
        rested.filter(|(at, _)| *at <= self.turn.now).min().map(|(_, number)| number)
    }

    fn next_rested(&self) -> Option<Duration> {
        self.available().filter_map(|s| self.rested_at(s)).filter(|at| *at > self.turn.now).min()
    }

    /// When another pod may have a free slot: clients' copies of the map lag.
    fn rested_at(&self, slot: &Slot<'_>) -> Option<Duration> {
        let service = slot.settled()?;
        let settings = self.state.settings();
        let class = service.annotations.get(names::SLOT_CLASS_ANNOTATION).and_then(|c| settings.class(c));
        let rest =
            class.or_else(|| settings.class(DEFAULT_CLASS)).map_or(Duration::ZERO, |c: &Class| c.reuse_after);
        Some(self.memory.known_free_since(&slot.free_key()?).unwrap_or(self.turn.now) + rest)
    }

    /// The limit that forbids a further slot. What is being made counts as made.
    fn limit(&self, class_name: &str, class: &Class, exposure: Exposure, balancer: bool) -> Option<Reason> {
        let of_cluster = self.slots.values().filter(|s| s.exposure == exposure).count();
        let mut counts = Counts::of(self.state, self.cluster, class_name, exposure, of_cluster);
        for creating in self.memory.all_creating() {
            let balancer = creating.exposure != Exposure::NodePort;
            let here = creating.key.namespace == self.cluster.namespace && creating.exposure == exposure;
            counts.namespace += if here { creating.slots() } else { 0 };
            counts.class += usize::from(balancer && creating.class == class_name);
            counts.installation += usize::from(balancer);
        }
        // each made ahead is a dedicated load balancer
        let spares = if exposure == Exposure::Dedicated { self.result.spare.len() } else { 0 };
        counts.cluster += spares;
        counts.namespace += spares;
        counts.class += self.result.spare.len();
        counts.installation += self.result.spare.len();
        for new in &self.result.new {
            let same = usize::from(new.exposure == exposure);
            counts.cluster += same;
            counts.namespace += same;
            // pods of another class in the same cluster wait for the next look
            counts.class += usize::from(new.balancer);
            counts.installation += usize::from(new.balancer);
        }
        counts.forbids_slot(&self.state.settings().limits, class, balancer)
    }

    /// The number of a new slot: a named pod's ordinal where it is free, else the lowest free one.
    fn number_for(&mut self, pod: &str, anonymous: bool) -> Option<u32> {
        let ordinal = if anonymous { None } else { names::ordinal(pod).filter(|n| self.is_new(*n)) };
        if ordinal.is_some() {
            return ordinal;
        }
        // one number more than there can be slots in the way, and some for foreign Services
        let taken = self.slots.len() + self.planned.len();
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
            let Some(key) = slot.free_key() else { continue };
            if self.result.free.contains(&slot.number) {
                let wanted = self.result.ready.contains(&slot.number);
                self.memory.is_ready(&key, wanted, self.turn.now);
            } else {
                self.memory.is_used(&key);
            }
        }
    }
}
