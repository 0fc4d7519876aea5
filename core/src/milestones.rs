//! When pods get where for the first time: what the time from a pod's creation to its address is measured by.

use std::collections::{BTreeMap, HashMap};

use crate::mapping::{ClusterMapping, Entry, EntryState};
use crate::names::Key;

/// A place on the way, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Milestone {
    /// Its external address is known.
    Allocated,
    /// The address leads to it.
    Routed,
    /// The address has answered, where that is looked at.
    Reached,
}

impl Milestone {
    /// The furthest that an entry has come.
    fn of(entry: &Entry) -> Option<Self> {
        match (entry.state, entry.reachable) {
            (EntryState::Pending, _) => None,
            (EntryState::Allocated, _) => Some(Self::Allocated),
            (EntryState::Routed, Some(true)) => Some(Self::Reached),
            (EntryState::Routed, _) => Some(Self::Routed),
        }
    }
}

/// The furthest that each pod of the map has come.
#[derive(Debug, Default)]
pub struct Milestones {
    /// By cluster, then by the pod's UID.
    passed: HashMap<Key, BTreeMap<String, Option<Milestone>>>,
}

impl Milestones {
    /// Takes a cluster's new mapping; answers pod and milestone for each that a pod has passed for the first time. A pod
    /// that falls back and comes again has been there before.
    pub fn take<'m>(
        &mut self,
        cluster: &Key,
        mapping: Option<&'m ClusterMapping>,
    ) -> Vec<(&'m str, Milestone)> {
        let before = self.passed.remove(cluster).unwrap_or_default();
        let Some(mapping) = mapping else { return Vec::new() };
        let mut new = Vec::new();
        let mut now = BTreeMap::new();
        for entry in &mapping.entries {
            let (was, is) = (before.get(&entry.uid).copied().flatten(), Milestone::of(entry));
            let all = [Milestone::Allocated, Milestone::Routed, Milestone::Reached].map(Some);
            let passed = all.into_iter().filter(|m| was < *m && *m <= is).flatten();
            new.extend(passed.map(|m| (entry.pod.as_str(), m)));
            now.insert(entry.uid.clone(), was.max(is));
        }
        self.passed.insert(cluster.clone(), now);
        new
    }
}
