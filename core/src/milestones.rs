//! When pods get where for the first time: what the time from a pod's creation to its address is measured by.

use std::collections::{BTreeMap, HashMap};

use crate::mapping::{ClusterMapping, EntryState};
use crate::names::Key;

/// The furthest that each pod of the map has come.
#[derive(Debug, Default)]
pub struct Milestones {
    /// By cluster, then by the pod's UID.
    reached: HashMap<Key, BTreeMap<String, EntryState>>,
}

impl Milestones {
    /// Takes a cluster's new mapping; answers pod and state for each state that a pod has reached for the first time.
    /// A pod that falls back and comes again has been there before.
    pub fn take<'m>(
        &mut self,
        cluster: &Key,
        mapping: Option<&'m ClusterMapping>,
    ) -> Vec<(&'m str, EntryState)> {
        let before = self.reached.remove(cluster).unwrap_or_default();
        let Some(mapping) = mapping else { return Vec::new() };
        let mut new = Vec::new();
        let mut now = BTreeMap::new();
        for entry in &mapping.entries {
            let was = before.get(&entry.uid).copied().unwrap_or(EntryState::Pending);
            let states = [EntryState::Allocated, EntryState::Routed];
            new.extend(
                states.into_iter().filter(|s| was < *s && *s <= entry.state).map(|s| (entry.pod.as_str(), s)),
            );
            now.insert(entry.uid.clone(), was.max(entry.state));
        }
        self.reached.insert(cluster.clone(), now);
        new
    }
}
