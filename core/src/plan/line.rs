//! Clusters in line for what they share: who has waited longest comes first, whatever the cluster.

use std::collections::BTreeSet;

use super::{Now, Planner};
use crate::action::Action;
use crate::names::Key;
use crate::state::State;

/// How far a look at a cluster goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pass {
    /// Pods made later than this, seconds since 1970, get nothing new: others have waited longer.
    Until(i64),
    /// Slots are made ahead of its pods.
    Ahead,
}

/// When a cluster is to be looked at again at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Next {
    /// After those that have waited longer than its next pod, made then.
    InLine(i64),
    /// When the pods of all clusters are served: slots ahead of its pods are missing.
    Ahead,
    Nothing,
}

impl Planner {
    /// Who waits at a limit, or for an address, may be served.
    pub(super) fn touch_waiting(&mut self) {
        self.touched.extend(self.waiting.keys().cloned());
    }

    /// Plans the touched clusters. Those that did not wait so far stand at the place `unknown`.
    pub(super) fn plan_in_line(&mut self, state: &State, now: Now, unknown: i64) -> Vec<Action> {
        let touched = std::mem::take(&mut self.touched);
        let place = |cluster| (self.waiting.get(&cluster).copied().unwrap_or(unknown), cluster);
        let mut line: BTreeSet<(i64, Key)> = touched.into_iter().map(place).collect();
        let mut actions = Vec::new();
        let mut wishing = BTreeSet::new();
        while let Some((_, cluster)) = line.pop_first() {
            let until = line.first().map_or(i64::MAX, |(since, _)| *since);
            match self.plan_cluster(state, &cluster, now, Pass::Until(until), &mut actions) {
                Next::InLine(since) => _ = line.insert((since, cluster)),
                Next::Ahead => _ = wishing.insert(cluster),
                Next::Nothing => {}
            }
        }
        // slots ahead of pods come after what the pods of all clusters need
        for cluster in wishing {
            self.plan_cluster(state, &cluster, now, Pass::Ahead, &mut actions);
        }
        actions
    }
}
