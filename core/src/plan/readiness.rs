//! Our readiness gate: a pod's condition becomes True once, when its address leads to it, and stays so.

use super::{ClusterPlan, memory};
use crate::action::Action;
use crate::claim::{Claim, Slots};
use crate::mapping::{self, EntryState};
use crate::objects::{Pod, Readiness};
use crate::reason::{Code, Reason};

/// The condition's reason while the address leads to the pod.
const ROUTED: &str = "Routed";

impl ClusterPlan<'_> {
    /// Tells the kubelet of pods that need not wait any longer to become ready.
    pub(super) fn mark_routed(&mut self, claims: &[Claim<'_>]) {
        for pod in self.state.strays_of(self.cluster).filter(|p| is_held_back(p)) {
            self.mark(pod, Code::NotLabelled.as_str(), Reason::from(Code::NotLabelled).message());
        }
        if !claims.iter().any(|c| is_held_back(c.pod)) {
            return;
        }
        let slots = Slots::of(self.state, self.cluster);
        for claim in claims.iter().filter(|c| is_held_back(c.pod)) {
            let entry = mapping::entry(self.state, self.cluster, claim, &slots);
            match &claim.demand {
                // it will have no address to wait for
                Err(reason) => self.mark(claim.pod, reason.code.as_str(), reason.message()),
                Ok(_) if entry.state == EntryState::Routed => {
                    let address = entry.external.map(|e| e.list()).unwrap_or_default();
                    self.mark(claim.pod, ROUTED, format!("reached at {address}"));
                }
                Ok(_) => {}
            }
        }
    }

    fn mark(&mut self, pod: &Pod, reason: &'static str, message: String) {
        if self.is_writing(pod) {
            return;
        }
        let place = match pod.readiness {
            Some(Readiness::Unmet(place)) => Some(place),
            _ => None,
        };
        let (key, uid, at) = (pod.key.clone(), pod.uid.clone(), self.now.wall / 1_000_000);
        let action = Action::MarkRouted { key, uid, place, reason, message, at };
        self.act(&memory::pod_key(&pod.uid), action);
    }
}

/// Whether our readiness gate alone may keep the pod from being ready.
fn is_held_back(pod: &Pod) -> bool {
    let waits = matches!(pod.readiness, Some(Readiness::Missing | Readiness::Unmet(_)));
    waits && !pod.terminating && !pod.finished
}
