//! What the leader has learned of load balancers' names is written on their Services.

use super::ClusterPlan;
use crate::action::Action;
use crate::names;
use crate::resolve;

impl ClusterPlan<'_> {
    /// Of free slots too: their pods are told the address from the start.
    pub(super) fn record_names(&mut self) {
        let settings = self.state.settings();
        for service in self.state.services_of(self.cluster) {
            let key = &service.key;
            if service.terminating
                || !service.owned_by(&settings.installation)
                || self.memory.pending(key).is_some()
            {
                continue;
            }
            let value = resolve::record(settings, service, self.memory.resolved(key));
            if service.annotations.get(names::RESOLVED_ANNOTATION) == value.as_deref() {
                continue;
            }
            let (uid, version) = (service.uid.clone(), service.version);
            let annotation = names::RESOLVED_ANNOTATION;
            self.act(key, Action::AnnotateService { key: key.clone(), uid, version, annotation, value });
        }
    }
}
