//! How many slots there may be: one rule for the plan, which goes by it, and the mapping, which shows why.
//!
//! Slots of each exposure are counted by themselves, so that a step down finds room. Load balancers are what costs:
//! they are counted in the class and in the installation, whoever uses them.

use crate::names::Key;
use crate::reason::{Code, Reason};
use crate::settings::{Class, Exposure, Limits};
use crate::state::State;

/// What there is, or will be once what is under way is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slots of the cluster with the exposure.
    pub cluster: usize,
    /// Slots of the namespace with the exposure.
    pub namespace: usize,
    /// Load balancers of the class.
    pub class: usize,
    /// Load balancers of the installation.
    pub installation: usize,
}

impl Counts {
    /// As the state shows them; the caller knows how many slots the cluster has.
    pub fn of(state: &State, cluster: &Key, class: &str, exposure: Exposure, slots: usize) -> Self {
        Self {
            cluster: slots,
            namespace: state.slot_count(&cluster.namespace, exposure),
            class: state.class_load_balancers(class),
            installation: state.load_balancers(),
        }
    }

    /// The limit that forbids a further slot; `balancer` = it needs a load balancer that is not there yet.
    pub fn forbids_slot(&self, limits: &Limits, class: &Class, balancer: bool) -> Option<Reason> {
        let slots = [
            (self.cluster, Some(limits.slots_per_cluster), Code::ClusterLimit),
            (self.namespace, Some(limits.slots_per_namespace), Code::NamespaceLimit),
        ];
        let balancers = [
            (self.class, class.load_balancers, Code::ClassLimit),
            (self.installation, Some(limits.load_balancers), Code::InstallationLimit),
        ];
        let all = slots.into_iter().chain(balancers.into_iter().filter(|_| balancer));
        let reached = all.filter_map(|(count, limit, code)| Some((count, limit?, code)));
        reached
            .filter(|(count, limit, _)| *count >= *limit as usize)
            .map(|(_, limit, code)| Reason::new(code, limit.to_string()))
            .next()
    }
}
