//! Which address a slot asks for. The claim is what is on the Services and what is being written to them; what the
//! leader remembers besides only makes a choice better: an address that was just freed rests, and a pod whose Service
//! was deleted asks for its last address again. A new leader has forgotten both.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::ClusterPlan;
use crate::addresses::is_lost;
use crate::demand::Demand;
use crate::names::{self, Key};
use crate::objects::{Pod, Service};
use crate::reason::Code;
use crate::settings::{Class, Exposure};
use crate::state::{State, count};

/// Pods whose last address is remembered; beyond it memory starts over.
const LAST_KNOWN: usize = 20_000;

/// Addresses of a Service, and the pod it was kept for.
type Held = (Vec<IpAddr>, String);

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By cluster and Service.
    seen: HashMap<Key, HashMap<Key, Held>>,
    /// By cluster and pod: the addresses its Service had when it went.
    last: HashMap<(Key, String), Vec<IpAddr>>,
    /// Since when an address is free.
    freed: HashMap<IpAddr, Duration>,
    /// How many writes under way ask for an address.
    asked: HashMap<IpAddr, usize>,
    /// Addresses this plan asks for.
    reserved: HashSet<IpAddr>,
}

impl Ledger {
    /// Takes note of the addresses a cluster's Services hold. Answers whether one is free that was not.
    pub(super) fn note(&mut self, state: &State, cluster: &Key, now: Duration) -> bool {
        let held = |s: &Service| s.asked().chain(s.given()).collect::<Vec<IpAddr>>();
        let found: HashMap<Key, Held> = state
            .services_of(cluster)
            .into_iter()
            .map(|s| (s.key.clone(), (held(s), s.kept_for().unwrap_or_default().to_owned())))
            .filter(|(_, (held, _))| !held.is_empty())
            .collect();
        let before = self.seen.remove(cluster).unwrap_or_default();
        let mut any = false;
        for (service, (addresses, pod)) in before {
            let still = found.get(&service).map_or(&[][..], |(held, _)| held);
            let gone: Vec<IpAddr> =
                addresses.iter().copied().filter(|ip| !still.contains(ip) && !state.is_held(ip)).collect();
            any |= !gone.is_empty();
            self.freed.extend(gone.iter().map(|ip| (*ip, now)));
            if state.service(&service).is_none() {
                if self.last.len() >= LAST_KNOWN {
                    self.last.clear();
                }
                self.last.insert((cluster.clone(), pod), addresses);
            }
        }
        if !found.is_empty() {
            self.seen.insert(cluster.clone(), found);
        }
        any
    }

    /// Begins the plan of a cluster.
    pub(super) fn begin(&mut self, longest_rest: Duration, now: Duration) {
        self.reserved.clear();
        self.freed.retain(|_, since| *since + longest_rest > now);
    }

    /// A write that asks for these addresses begins or ends.
    pub(super) fn under_way<'a>(&mut self, asked: impl Iterator<Item = &'a IpAddr>, begins: bool) {
        asked.for_each(|ip| count(&mut self.asked, ip, 1, begins));
    }

    fn is_reserved(&self, ip: &IpAddr) -> bool {
        self.reserved.contains(ip) || self.asked.contains_key(ip)
    }

    fn last(&self, cluster: &Key, pod: &str) -> &[IpAddr] {
        // a key of borrowed parts would need a map of maps
        self.last.get(&(cluster.clone(), pod.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Picks one address of each family of the pool that `have` lacks, `last` ones first. `Err` = when one more has
    /// rested, where that is known.
    fn pick(
        &mut self,
        state: &State,
        class: &Class,
        (have, last): (&[IpAddr], &[IpAddr]),
        now: Duration,
    ) -> Result<Vec<IpAddr>, Option<Duration>> {
        let free = |ip: &&IpAddr| !state.is_held(ip) && !self.is_reserved(ip);
        let rests_until = |ip: &IpAddr| self.freed.get(ip).map(|since| *since + class.reuse_after);
        let mut picked = Vec::new();
        let (v4, v6) = class.address_families();
        for family in [v4.then_some(true), v6.then_some(false)].into_iter().flatten() {
            if have.iter().any(|ip| ip.is_ipv4() == family) {
                continue;
            }
            let of_family = || class.addresses.iter().filter(|ip| ip.is_ipv4() == family).filter(free);
            let again = last.iter().find(|ip| of_family().any(|free| free == *ip));
            let rested = || of_family().find(|ip| rests_until(ip).is_none_or(|at| at <= now));
            match again.or_else(rested) {
                Some(ip) => picked.push(*ip),
                None => return Err(of_family().filter_map(rests_until).min()),
            }
        }
        self.reserved.extend(picked.iter().copied());
        Ok(picked)
    }

    /// What a new slot asks for; nothing where the load balancer chooses.
    pub(super) fn of_new(
        &mut self,
        state: &State,
        (cluster, pod): (&Key, &str),
        class: &Class,
        now: Duration,
    ) -> Result<Vec<IpAddr>, Option<Duration>> {
        let last = self.last(cluster, pod).to_vec();
        if !class.addresses.is_empty() {
            return self.pick(state, class, (&[], &last), now);
        }
        let free = last.iter().all(|ip| !state.is_held(ip) && !self.is_reserved(ip));
        if !class.service.asks_for_address() || !free {
            return Ok(Vec::new());
        }
        self.reserved.extend(last.iter().copied());
        Ok(last)
    }

    /// Whether a free slot's Service is of use to a pod of a class: static addresses stay with those who may have them.
    pub(super) fn suits(state: &State, class: &Class, service: &Service) -> bool {
        if !class.addresses.is_empty() {
            return service.asked().chain(service.given()).any(|ip| class.addresses.contains(&ip));
        }
        service.class().and_then(|name| state.settings().class(name)).is_none_or(|c| c.addresses.is_empty())
    }
}

impl ClusterPlan<'_> {
    /// What an existing slot asks for. One that has an address keeps it, whatever the class says by now: that is shown,
    /// not changed. One that has none yet, or only a claim that is rather another's, takes what is free.
    pub(super) fn asks(&mut self, pod: &Pod, demand: &Demand<'_>, service: &Service) -> Vec<IpAddr> {
        if service.exposure() != Exposure::Dedicated {
            return Vec::new();
        }
        let class = demand.class;
        let mine = |ip: &IpAddr| !is_lost(self.state, service, *ip);
        let asked: Vec<IpAddr> = service.asked().collect();
        let kept: Vec<IpAddr> = asked.iter().copied().filter(mine).collect();
        let given: Vec<IpAddr> = service.given().collect();
        if class.addresses.is_empty() {
            // nobody may have the last address any more: better another one than none
            let in_vain = given.is_empty() && service.annotations.contains_key(names::OVERDUE_ANNOTATION);
            return if in_vain { Vec::new() } else { kept };
        }
        if !asked.is_empty() && kept == asked {
            return asked;
        }
        if !given.is_empty() {
            return given.into_iter().filter(|ip| class.addresses.contains(ip) && mine(ip)).collect();
        }
        match self.memory.ledger.pick(self.state, class, (&kept, &[]), self.now.monotonic) {
            Ok(picked) => kept.into_iter().chain(picked).collect(),
            Err(rested) => {
                self.waits.add(Code::NoFreeAddress, demand.class_name, pod.created);
                self.wake_at(rested);
                Vec::new()
            }
        }
    }
}
