//! Writes to pods under way, and how the watch shows that they are done.

use crate::names::Key;
use crate::objects::{Pod, Readiness};
use crate::state::State;

/// What a write to a pod is for.
#[derive(Debug, Clone)]
pub(super) enum PodChange {
    /// It will carry this identity.
    Identity(String),
    /// Our scheduling gate goes.
    Gate,
    /// Our condition will be True.
    Condition,
}

/// A write to a pod under way.
#[derive(Debug, Clone)]
pub(super) struct PodWrite {
    pub(super) pod: Key,
    pub(super) what: PodChange,
}

impl PodWrite {
    /// Whether the watch shows what it was for, or that its pod is gone.
    pub(super) fn is_seen(&self, uid: &str, state: &State) -> bool {
        let done = |pod: &Pod| match &self.what {
            PodChange::Identity(pod_id) => pod.pod_id.as_ref() == Some(pod_id),
            PodChange::Gate => pod.gate.is_none(),
            PodChange::Condition => pod.readiness.is_none_or(|r| r == Readiness::Met),
        };
        state.pod(&self.pod).is_none_or(|pod| pod.uid != uid || done(pod))
    }
}
