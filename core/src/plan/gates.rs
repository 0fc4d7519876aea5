//! Scheduling gates: a held pod is told its address and let go in one write. It is let go without one when its time is
//! over, or when there is nothing to wait for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::assign::{Assignment, Slot};
use super::{ClusterPlan, memory};
use crate::action::Action;
use crate::claim::{Claim, Slots};
use crate::demand::Demand;
use crate::mapping::{self, SlotAddress};
use crate::names;
use crate::objects::{Pod, Service, ServicePort};
use crate::reason::{Code, Reason};
use crate::settings::{Exposure, duration};
use crate::told;

/// How long pods of a class are not held after one was held in vain. Some load balancers give an address only when an
/// endpoint is ready, and others are down for a while: an hour without waiting for the latter trades against pods that
/// wait `await.timeout` for nothing once an hour with the former.
const IN_VAIN_FOR: Duration = Duration::from_secs(3600);

/// What is to be done about a gate.
enum Gate {
    /// It stays, at most for this time.
    Wait(Duration),
    /// The pod starts, told its address or not, and not as it was asked for where there is a reason.
    Lift(Option<SlotAddress>, Option<Reason>),
}

/// What the gates of a cluster are judged by.
struct Waiting<'p, 'a> {
    slots: &'p BTreeMap<u32, Slot<'a>>,
    seen: Slots<'a>,
    /// Slots with an address.
    addresses: usize,
    /// Classes whose pods are not held for now.
    in_vain: BTreeSet<&'a str>,
}

impl<'a> ClusterPlan<'a> {
    /// Lifts the gates whose time has come.
    pub(super) fn lift_gates(
        &mut self,
        claims: &[Claim<'a>],
        slots: &BTreeMap<u32, Slot<'a>>,
        assignment: &Assignment,
    ) {
        for pod in self.state.strays_of(self.cluster).filter(|p| is_held(p)) {
            self.lift(pod, None, &[]);
        }
        if !claims.iter().any(|c| is_held(c.pod)) {
            return;
        }
        let seen = Slots::of(self.state, self.cluster);
        let has_address = |s: &Service| !s.terminating && s.has_address();
        let addresses = seen.iter().filter(|(_, s)| has_address(s)).count();
        let waiting = Waiting { slots, addresses, in_vain: self.in_vain(), seen };
        for (index, claim) in claims.iter().enumerate().filter(|(_, c)| is_held(c.pod)) {
            let number = assignment.held.iter().find(|(i, _)| *i == index).map(|(_, number)| *number);
            self.judge_gate(claim, number, &waiting);
        }
    }

    fn judge_gate(&mut self, claim: &Claim<'a>, number: Option<u32>, waiting: &Waiting<'_, 'a>) {
        let demand = match &claim.demand {
            Ok(demand) if demand.waits => demand,
            // why it gets nothing is told anyway
            _ => return self.lift(claim.pod, None, &[]),
        };
        match self.gate(claim, demand, number, waiting) {
            Gate::Wait(left) => self.wake_at(Some(self.now.monotonic + left)),
            Gate::Lift(address, reason) => {
                if reason.as_ref().is_some_and(|r| r.code == Code::AwaitTimeout) {
                    self.remember_in_vain(demand, number.and_then(|n| waiting.slots[&n].settled()));
                }
                if let Some(reason) = reason {
                    self.tell(claim.pod, &reason);
                }
                self.lift(claim.pod, address.as_ref(), &demand.ports);
            }
        }
    }

    fn gate(
        &self,
        claim: &Claim<'a>,
        demand: &Demand<'_>,
        number: Option<u32>,
        waiting: &Waiting<'_, 'a>,
    ) -> Gate {
        let settled = number.and_then(|n| waiting.slots[&n].settled());
        let shown = mapping::shown_address(self.state, self.cluster, claim, &waiting.seen);
        let known = |address: &SlotAddress| {
            Some(address.slot) == number && settled.is_some() && told::is_whole(address, &demand.ports)
        };
        let address = shown.as_ref().ok().filter(|address| known(address)).cloned();
        if number.is_some_and(|n| waiting.slots[&n].exposure == Exposure::NodePort) {
            return Gate::Lift(None, Some(Code::AddressOfNode.into()));
        }
        let wanted = &demand.class.await_address;
        let left = self.time_left(claim.pod, wanted.timeout);
        if let Some(address) = address {
            let members = wanted.members as usize;
            if waiting.addresses >= members {
                return Gate::Lift(Some(address), None);
            }
            return left.map_or_else(
                || {
                    let detail = format!("{} of {members}", waiting.addresses);
                    Gate::Lift(Some(address), Some(Reason::new(Code::MembersMissing, detail)))
                },
                Gate::Wait,
            );
        }
        let never_had = settled.is_none_or(|service| !service.has_address());
        match left {
            None => {
                let why = shown.err().map_or_else(String::new, |r| format!(": {} {}", r.code, r.detail));
                let detail = format!("after {}{}", duration::render(wanted.timeout), why.trim_end());
                Gate::Lift(None, Some(Reason::new(Code::AwaitTimeout, detail)))
            }
            Some(_) if never_had && waiting.in_vain.contains(demand.class_name) => {
                let detail = format!("class {}", demand.class_name);
                Gate::Lift(None, Some(Reason::new(Code::AwaitInVain, detail)))
            }
            Some(left) => Gate::Wait(left),
        }
    }

    /// Until the pod has waited for `timeout` since it was made: a new leader goes on where the last one was.
    fn time_left(&self, pod: &Pod, timeout: Duration) -> Option<Duration> {
        let age = (self.now.wall - pod.created.saturating_mul(1_000_000)).max(0).unsigned_abs();
        timeout.checked_sub(Duration::from_micros(age)).filter(|left| !left.is_zero())
    }

    fn in_vain(&self) -> BTreeSet<&'a str> {
        let now = self.now.wall;
        let until = |s: &Service| -> Option<i64> {
            Some(
                s.annotations
                    .get(names::IN_VAIN_ANNOTATION)?
                    .parse::<jiff::Timestamp>()
                    .ok()?
                    .as_microsecond(),
            )
        };
        let marked = self.state.services_in_vain().filter(|s| until(s).is_some_and(|until| until > now));
        marked.filter_map(Service::class).collect()
    }

    /// The load balancer had the better part of the pod's time and gave no address while nobody was behind it.
    fn remember_in_vain(&mut self, demand: &Demand<'_>, service: Option<&Service>) {
        let Some(service) = service.filter(|s| !s.has_address()) else { return };
        let age = Duration::from_micros((self.now.wall - service.created * 1_000_000).max(0).unsigned_abs());
        let until = self.now.wall.saturating_add(i64::try_from(IN_VAIN_FOR.as_micros()).unwrap_or(0));
        let Ok(until) = jiff::Timestamp::from_second(until / 1_000_000) else { return };
        if age * 2 >= demand.class.await_address.timeout {
            let action = Action::AnnotateService {
                key: service.key.clone(),
                uid: service.uid.clone(),
                version: service.version,
                annotation: names::IN_VAIN_ANNOTATION,
                value: Some(until.to_string()),
            };
            self.act(&service.key, action);
        }
    }

    /// Lifts our gate; what the pod was told before and is not true goes with it.
    fn lift(&mut self, pod: &Pod, address: Option<&SlotAddress>, ports: &[ServicePort]) {
        let Some(gate) = pod.gate.filter(|_| !self.is_writing(pod)) else { return };
        let told = address.map(|address| told::annotations(address, ports)).unwrap_or_default();
        let stale = pod.told.keys().filter(|key| *key != names::STAMP_VERSION_ANNOTATION);
        let mut annotations: BTreeMap<String, Option<String>> =
            stale.map(|key| (key.to_owned(), None)).collect();
        annotations.extend(told.into_iter().map(|(key, value)| (key, Some(value))));
        annotations.retain(|key, value| value.as_deref() != pod.told.get(key));
        let action = Action::LiftGate {
            key: pod.key.clone(),
            uid: pod.uid.clone(),
            gate,
            annotations,
            bare: pod.bare.then_some(pod.version),
        };
        self.act(&memory::pod_key(&pod.uid), action);
    }
}

/// Whether our gate holds the pod; one that is deleted meanwhile goes at once.
fn is_held(pod: &Pod) -> bool {
    pod.gate.is_some() && !pod.terminating && !pod.finished
}
