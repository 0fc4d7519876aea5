//! Events: what somebody has to act on, told on the pod and on its owner.

use std::cell::LazyCell;
use std::ops::Deref;

use super::memory::creation_key;
use super::sharing::Drafts;
use super::{Assignment, ClusterPlan};
use crate::action::{Action, Event};
use crate::addresses;
use crate::claim::{Claim, Slots};
use crate::mapping;
use crate::names::{self, Key};
use crate::objects::Pod;
use crate::reason::{Code, Reason};
use crate::settings::Exposure;
use crate::told;

impl ClusterPlan<'_> {
    pub(super) fn notify(&mut self, claims: &[Claim<'_>], assignment: &Assignment, drafts: &Drafts<'_>) {
        let state = self.state;
        let cluster = self.cluster;
        // few pods need them, and all the same ones
        let slots = LazyCell::new(|| Slots::of(state, cluster));
        for (index, claim) in claims.iter().enumerate() {
            let refused =
                assignment.refused.iter().find(|(i, _)| *i == index).map(|(_, reason)| reason.clone());
            let standing = claim.demand.as_ref().err().cloned().or(refused);
            let numbers = assignment.slots_of(index);
            // one that is on its way already is as its class says soon
            let moves = numbers.len() > 1;
            let of_slots = numbers.into_iter().flat_map(|number| self.of_slot(claim, number, drafts));
            let of_slots = of_slots.filter(|reason| !moves || reason.code != Code::ClassChanged);
            let reasons: Vec<Reason> = standing
                .into_iter()
                .chain(of_slots)
                .chain(self.of_told(claim, &slots))
                .chain(self.of_pod(claim))
                .collect();
            for reason in reasons.into_iter().filter(|r| r.code.needs_attention()) {
                self.tell(claim.pod, &reason);
            }
        }
        self.tell_taken_names(claims);
    }

    /// Reasons of a pod's slot that the state or the writer gives.
    fn of_slot(&self, claim: &Claim<'_>, number: u32, drafts: &Drafts<'_>) -> Vec<Reason> {
        let key = self.slot_key(number, drafts);
        let objects = [Exposure::Dedicated, Exposure::NodePort].map(|e| creation_key(&key, e));
        let mut reasons: Vec<Reason> =
            objects.iter().filter_map(|o| self.memory.refusal(o)).cloned().collect();
        let exposure = self.state.service(&key).map_or(Exposure::Dedicated, |s| s.exposure());
        if claim.is_contested(exposure) {
            reasons.push(Reason::new(Code::DuplicateIdentity, claim.pod_id.unwrap_or_default()));
        }
        if let Some(service) = self.state.service(&key) {
            if service.annotations.contains_key(names::OVERDUE_ANNOTATION) {
                reasons.push(Reason::new(Code::NoLoadBalancer, format!("Service {}", key.name)));
            }
            if let Ok(demand) = &claim.demand {
                reasons.extend(addresses::drift(demand.class, service));
                if addresses::is_unserved(demand.class, service) {
                    reasons.push(addresses::none_free(demand.class));
                }
            }
            if let Some(error) = service.ingress.iter().find_map(crate::objects::Ingress::error) {
                reasons.push(Reason::new(Code::PortError, error));
            }
            if self.state.shares_external_address(service) {
                reasons.push(Reason::new(Code::DuplicateExternalAddress, format!("Service {}", key.name)));
            }
        }
        reasons
    }

    /// What a pod was told that is not so any more.
    fn of_told<'s>(&self, claim: &Claim<'_>, slots: &impl Deref<Target = Slots<'s>>) -> Option<Reason> {
        let demand = claim.demand.as_ref().ok().filter(|demand| told::concerns(claim.pod, demand))?;
        let now = mapping::shown_address(self.state, self.cluster, claim, slots).ok()?;
        told::parted(claim.pod, demand, &now).map(|(_, reason)| reason)
    }

    fn of_pod(&self, claim: &Claim<'_>) -> Option<Reason> {
        self.memory.refusal(&super::memory::pod_key(&claim.pod.uid)).cloned()
    }

    /// The Service a slot is on.
    fn slot_key(&self, number: u32, drafts: &Drafts<'_>) -> Key {
        let own = || names::slot_service(&self.cluster.name, number);
        let shared = drafts.values().find(|d| d.slots.contains_key(&number));
        shared.map_or_else(|| Key::new(self.cluster.namespace.clone(), own()), |d| d.key.clone())
    }

    /// Services that are not ours under names of this cluster's slots, told on the oldest pod that may want one.
    fn tell_taken_names(&mut self, claims: &[Claim<'_>]) {
        let prefix = format!("{}-ext-", self.cluster.name);
        let taken: Vec<String> = self
            .memory
            .taken
            .of(&self.cluster.namespace)
            .filter(|k| {
                k.name
                    .strip_prefix(&prefix)
                    .is_some_and(|n| n.strip_prefix("shared-").unwrap_or(n).parse::<u32>().is_ok())
            })
            .map(|k| k.name.to_string())
            .collect();
        let Some(claim) = claims.iter().find(|c| c.demand.is_ok()) else { return };
        for name in taken {
            self.tell(claim.pod, &Reason::new(Code::NameTaken, format!("Service {name}")));
        }
    }

    pub(super) fn tell(&mut self, pod: &Pod, reason: &Reason) {
        let event = |api_version: &str, kind: &str, name: &str, uid: &str| Event {
            namespace: pod.key.namespace.to_string(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            reason: reason.clone(),
            at: self.now.wall,
        };
        let of_pod = event("v1", "Pod", &pod.key.name, &pod.uid);
        // a mirror pod's owner is its node, which is in no namespace
        let owner = pod.owner.as_ref().filter(|_| !pod.mirror);
        let of_owner = owner.map(|o| event(&o.api_version, &o.kind, &o.name, &o.uid));
        for event in [Some(of_pod), of_owner].into_iter().flatten() {
            match self.memory.sent.may_send(&event, self.cluster, self.now.monotonic) {
                Ok(true) => self.actions.push(Action::RecordEvent(event)),
                Ok(false) => {}
                Err(later) => self.wake_at(Some(later)),
            }
        }
    }
}
