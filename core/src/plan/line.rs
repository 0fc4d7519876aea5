//! Clusters in line for what they share: who has waited longest comes first, whatever the cluster.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use super::{Now, Planner};
use crate::action::Action;
use crate::demand::Demand;
use crate::names::Key;
use crate::reason::Code;
use crate::settings::Settings;
use crate::state::State;

/// What a cluster waits for that it shares with others.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits {
    /// When the pod was made that waits longest, seconds since 1970; the far future where only pods do that are reached
    /// already.
    since: Option<i64>,
    /// Why, and the class of the pods.
    reasons: BTreeSet<(Code, String)>,
}

impl Waits {
    pub(super) fn add(&mut self, code: Code, class: &str, since: i64) {
        use Code::{ClassLimit, InstallationLimit, NamespaceLimit, NoFreeAddress};
        if matches!(code, NamespaceLimit | ClassLimit | InstallationLimit | NoFreeAddress) {
            self.since = self.since.into_iter().chain([since]).min();
            self.reasons.insert((code, class.to_owned()));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// The clusters that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<Key, Waits>);

impl Waiting {
    fn since(&self, cluster: &Key) -> Option<i64> {
        self.0.get(cluster)?.since
    }

    pub(super) fn put(&mut self, cluster: &Key, waits: Waits) {
        if !waits.is_empty() {
            self.0.insert(cluster.clone(), waits);
        }
    }

    pub(super) fn remove(&mut self, cluster: &Key) -> Option<Waits> {
        self.0.remove(cluster)
    }

    /// Whether a cluster waits for less than it did.
    fn has_eased(&self, cluster: &Key, before: &Waits) -> bool {
        self.0.get(cluster).is_none_or(|now| !before.reasons.is_subset(&now.reasons))
    }

    /// Whether any waits for what a slot of a cluster, made ahead of its pod, would take.
    pub(super) fn wants(&self, settings: &Settings, cluster: &Key, demand: &Demand<'_>) -> bool {
        let wants = |other: &Key, code: Code, class: &str| match code {
            Code::NamespaceLimit => other.namespace == cluster.namespace,
            Code::ClassLimit => class == demand.class_name,
            Code::NoFreeAddress => {
                settings.class(class).is_some_and(|c| have_one_alike(&c.addresses, &demand.class.addresses))
            }
            _ => true,
        };
        self.0
            .iter()
            .any(|(other, waits)| waits.reasons.iter().any(|(code, class)| wants(other, *code, class)))
    }
}

fn have_one_alike(some: &[IpAddr], others: &[IpAddr]) -> bool {
    let some: HashSet<&IpAddr> = some.iter().collect();
    others.iter().any(|ip| some.contains(ip))
}

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
    /// Who waits at a limit, or for an address, may be served, and slots may be made ahead.
    pub(super) fn touch_waiting(&mut self) {
        self.touched.extend(self.waiting.0.keys().chain(&self.wishing).cloned());
    }

    /// Plans the touched clusters. Those that did not wait so far stand at the place `unknown`.
    pub(super) fn plan_in_line(&mut self, state: &State, now: Now, unknown: i64) -> Vec<Action> {
        let touched = std::mem::take(&mut self.touched);
        let place = |cluster| (self.waiting.since(&cluster).unwrap_or(unknown), cluster);
        let mut line: BTreeSet<(i64, Key)> = touched.into_iter().map(place).collect();
        let mut actions = Vec::new();
        let (mut wishing, mut waited) = (BTreeSet::new(), Vec::new());
        while let Some((_, cluster)) = line.pop_first() {
            let until = line.first().map_or(i64::MAX, |(since, _)| *since);
            waited.extend(self.waiting.remove(&cluster).map(|waits| (cluster.clone(), waits)));
            match self.plan_cluster(state, &cluster, now, Pass::Until(until), &mut actions) {
                Next::InLine(since) => _ = line.insert((since, cluster)),
                Next::Ahead => _ = wishing.insert(cluster),
                Next::Nothing => {}
            }
        }
        if waited.iter().any(|(cluster, waits)| self.waiting.has_eased(cluster, waits)) {
            wishing.clone_from(&self.wishing);
        }
        // slots ahead of pods come after what the pods of all clusters need
        for cluster in wishing {
            self.plan_cluster(state, &cluster, now, Pass::Ahead, &mut actions);
        }
        actions
    }
}
