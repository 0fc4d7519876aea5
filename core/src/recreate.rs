//! What a new Service in place of an old one is asked for, and how far that has come.

use std::collections::BTreeMap;

use crate::addresses;
use crate::mapping::{self, Entry, EntryState};
use crate::names::Key;
use crate::objects::Service;
use crate::state::State;

/// A Service of a cluster that may give way to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its key.
    pub service: Key,
    /// Its UID.
    pub uid: String,
    /// Why: how it departs from its class; empty where it does not.
    pub why: String,
    /// It is asked for already.
    pub asked: bool,
    /// Entries of the pods it leads to, by name.
    pub pods: BTreeMap<String, Entry>,
}

/// Services of a cluster that are not as their class says, or have been asked for before; with `all`, every one.
pub fn targets(state: &State, cluster: &Key, all: bool) -> Vec<Target> {
    let entries = entries(state, cluster);
    let settings = state.settings();
    let ours = state.services_of(cluster).into_iter().filter(|s| s.owned_by(&settings.installation));
    let target = |service: &Service| {
        let drift = settings.class_of(service).and_then(|class| addresses::drift(class, service));
        let why = drift.map_or_else(String::new, |reason| reason.detail);
        let of = entries.iter().filter(|e| is_on(e, service));
        let pods = of.map(|e| (e.pod.clone(), e.clone())).collect();
        let asked = service.gives_way();
        Target { service: service.key.clone(), uid: service.uid.clone(), why, asked, pods }
    };
    let found = ours.filter(|s| !s.terminating).map(target);
    found.filter(|t| all || t.asked || !t.why.is_empty()).collect()
}

/// Where the pods of a Service that was asked for have gone: their entries once none of them is left on it and each is
/// Routed; `None` until then. Pods that have ended meanwhile need no other place.
pub fn moved(state: &State, cluster: &Key, target: &Target) -> Option<Vec<Entry>> {
    let entries = entries(state, cluster);
    let old = state.service(&target.service).filter(|s| s.uid == target.uid);
    if target.pods.is_empty() {
        return old.is_none().then(Vec::new);
    }
    if old.is_some_and(|old| entries.iter().any(|e| is_on(e, old))) {
        return None;
    }
    let of: Vec<Entry> = entries.into_iter().filter(|e| target.pods.contains_key(&e.pod)).collect();
    of.iter().all(|e| e.state == EntryState::Routed).then_some(of)
}

fn entries(state: &State, cluster: &Key) -> Vec<Entry> {
    mapping::cluster_mapping(state, cluster).map(|mapping| mapping.entries).unwrap_or_default()
}

fn is_on(entry: &Entry, service: &Service) -> bool {
    entry
        .slot
        .is_some_and(|slot| service.slot() == Some(slot) || service.shares.iter().any(|s| s.number == slot))
}
