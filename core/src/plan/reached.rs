//! What dialling has shown, recorded on the Services it is about: a line for every slot of a Service.

use std::collections::BTreeMap;

use super::ClusterPlan;
use super::assign::{Assignment, Slot};
use crate::action::Action;
use crate::claim::Claim;
use crate::names::{self, Key};
use crate::objects::{Pod, Service};
use crate::reach;

impl ClusterPlan<'_> {
    /// Records what is new of the pods that hold slots. What an earlier leader has found stays until it is dialled anew.
    pub(super) fn record_reached(
        &mut self,
        claims: &[Claim<'_>],
        slots: &BTreeMap<u32, Slot<'_>>,
        assignment: &Assignment,
    ) {
        let mut behind: BTreeMap<&Key, (&Service, Vec<&Pod>)> = BTreeMap::new();
        for (claim, number) in &assignment.held {
            let Some(service) = slots[number].settled() else { continue };
            behind.entry(&service.key).or_insert((service, Vec::new())).1.push(claims[*claim].pod);
        }
        for (service, pods) in behind.into_values() {
            self.record(service, &pods);
        }
    }

    fn record(&mut self, service: &Service, pods: &[&Pod]) {
        let Some(dialled) = self.memory.dialled(self.cluster, &service.key) else { return };
        let before = reach::recorded(service);
        let found = |pod: &Pod| dialled.get(&pod.uid).map(|(target, reachable)| target.record(*reachable));
        let is_new = |record: &String| !before.values().any(|known| known == record);
        let stays = pods.iter().filter(|pod| !pod.terminating);
        if !stays.filter_map(|pod| found(pod)).any(|record| is_new(&record)) {
            return;
        }
        let known = |pod: &Pod| before.get(pod.uid.as_str()).map(|record| (*record).to_owned());
        let records = pods.iter().filter_map(|pod| found(pod).or_else(|| known(pod)));
        let action = Action::AnnotateService {
            key: service.key.clone(),
            uid: service.uid.clone(),
            version: service.version,
            annotation: names::REACHABLE_ANNOTATION,
            value: Some(reach::joined(records)),
        };
        self.act(&service.key, action);
    }
}
