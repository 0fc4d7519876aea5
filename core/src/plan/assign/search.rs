//! The search for a slot: one that is kept for the pod, one that is free, else a new one where there is room for it.

use std::net::IpAddr;
use std::time::Duration;

use super::{Desk, NewSlot, Slot};
use crate::addresses;
use crate::claim::Claim;
use crate::limits::Counts;
use crate::names::{self, Key};
use crate::plan::addresses::Ledger;
use crate::plan::memory::creation_key;
use crate::plan::sharing::Draft;
use crate::reason::{Code, Reason};
use crate::settings::{Class, Exposure};
use crate::state::State;

impl Desk<'_, '_> {
    /// Gives a pod a slot of one exposure; `Err` = why it gets none. The `patient` do not try again what was refused.
    pub(super) fn try_exposure(
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
        // shared Services have the ports and the fields of one class
        let moves = self.result.held.iter().any(|(i, held)| *i == index && self.slots[held].gives_way());
        let fits = |s: &Slot<'_>| {
            s.exposure == exposure
                && !s.gives_way()
                && !(moves && s.departs(demand.class))
                && (!shared || s.service.and_then(|s| s.class()) == Some(demand.class_name))
        };
        let anonymous = names::is_anonymous(id);
        if let Some(number) = self.existing(claim, demand.class, anonymous, fits)
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
            return self.hold_longest_free(index, claim, reason, fits);
        }
        let asked = match self.address_for(&claim.pod.key.name, demand.class, exposure) {
            Ok(asked) => asked,
            Err(reason) => {
                let state = self.state;
                let suits = |s: &Slot<'_>| fits(s) && suits(state, s, demand.class);
                return self.hold_longest_free(index, claim, reason, suits);
            }
        };
        let number = self.number_for(&claim.pod.key.name, anonymous).ok_or(Code::NameTaken)?;
        let key = self.service_key(match home {
            Some(home) => names::shared_service(&self.cluster.name, home),
            None => names::slot_service(&self.cluster.name, number),
        });
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

    /// A slot that is there: kept for the pod; with `anonymous` one of an anonymous pod that has rested; made ahead.
    fn existing(
        &self,
        claim: &Claim<'_>,
        class: &Class,
        anonymous: bool,
        fits: impl Fn(&Slot<'_>) -> bool,
    ) -> Option<u32> {
        let kept = claim.names().find_map(|name| {
            self.among(&self.by_name, name).find(|s| fits(s) && self.is_available(s)).map(|s| s.number)
        });
        let suits = |s: &Slot<'_>| fits(s) && suits(self.state, s, class);
        let rested = || if anonymous { self.longest_free(|s| suits(s) && s.is_up_for_grabs()) } else { None };
        let spare = || self.available().filter(|s| suits(s) && s.is_spare()).map(|s| s.number).min();
        kept.or_else(rested).or_else(spare)
    }

    /// Gives a pod the slot that is free the longest, where there is no room for a further one.
    fn hold_longest_free(
        &mut self,
        index: usize,
        claim: &Claim<'_>,
        reason: Reason,
        fits: impl Fn(&Slot<'_>) -> bool,
    ) -> Result<(), Reason> {
        match self.longest_free(fits) {
            Some(number) if self.hold(index, claim, number) => Ok(()),
            _ => Err(reason),
        }
    }

    /// The shared Service with room for a pod: the first of its class, else a new one.
    fn home(&self, claim: &Claim<'_>) -> Result<u32, Reason> {
        let with_room = self.drafts.iter().find(|(_, draft)| draft.has_room(claim)).map(|(home, _)| *home);
        let is_new = |home: &u32| {
            !self.drafts.contains_key(home)
                && self.is_nobodys(&self.service_key(names::shared_service(&self.cluster.name, *home)))
        };
        with_room.or_else(|| (0..=1000).find(is_new)).ok_or_else(|| Code::NameTaken.into())
    }

    /// What a new slot of a class asks for.
    pub(super) fn address_for(
        &mut self,
        pod: &str,
        class: &Class,
        exposure: Exposure,
    ) -> Result<Vec<IpAddr>, Reason> {
        if exposure != Exposure::Dedicated {
            return Ok(Vec::new());
        }
        let found = self.memory.ledger.of_new(self.state, (self.cluster, pod), class, self.turn.now);
        found.map_err(|rested| {
            self.result.wake = self.result.wake.into_iter().chain(rested).min();
            addresses::none_free(class)
        })
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
        rested.filter(|(at, _)| *at <= self.turn.now).min().map(|(_, number)| number)
    }

    pub(super) fn next_rested(&self) -> Option<Duration> {
        let slots = self.available().filter_map(|s| self.rested_at(s));
        let ports = self.drafts.values().filter_map(|draft| draft.kept.rested_at);
        slots.chain(ports).filter(|at| *at > self.turn.now).min()
    }

    /// When another pod may have a free slot: clients' copies of the map lag.
    pub(super) fn rested_at(&self, slot: &Slot<'_>) -> Option<Duration> {
        let rest = self.state.settings().reuse_after(slot.settled()?);
        Some(self.memory.known_free_since(self.cluster, &slot.free_key()?).unwrap_or(self.turn.now) + rest)
    }

    /// The limit that forbids a further slot. What is being made counts as made.
    pub(super) fn limit(
        &self,
        class_name: &str,
        class: &Class,
        exposure: Exposure,
        balancer: bool,
    ) -> Option<Reason> {
        let of_cluster = self.slots.values().filter(|s| s.exposure == exposure).count();
        let mut counts = Counts::of(self.state, self.cluster, class_name, exposure, of_cluster);
        let creating = self.memory.all_creating();
        counts.namespace += creating.slots(&self.cluster.namespace, exposure);
        counts.class += creating.balancers(class_name);
        counts.installation += creating.load_balancers;
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
    pub(super) fn number_for(&mut self, pod: &str, anonymous: bool) -> Option<u32> {
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
        !self.slots.contains_key(&number)
            && !self.planned.contains(&number)
            && self.is_nobodys(&self.service_key(names::slot_service(&self.cluster.name, number)))
    }

    fn service_key(&self, name: String) -> Key {
        Key::new(self.cluster.namespace.clone(), name)
    }

    /// Whether no Service has a name, as far as is known.
    fn is_nobodys(&self, service: &Key) -> bool {
        self.state.service(service).is_none() && !self.memory.taken.is_taken(service)
    }
}

/// Whether a free slot is of use to a pod of a class.
pub(super) fn suits(state: &State, slot: &Slot<'_>, class: &Class) -> bool {
    slot.service.is_some_and(|service| Ledger::suits(state, class, service))
}
