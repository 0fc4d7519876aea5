//! Times at which something is due, in order.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

/// One time for each of some things. What it costs to find the next does not grow with their number.
#[derive(Debug)]
pub(super) struct Alarms<K> {
    at: HashMap<K, Duration>,
    order: BTreeSet<(Duration, K)>,
}

impl<K> Default for Alarms<K> {
    fn default() -> Self {
        Self { at: HashMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> Alarms<K> {
    /// Sets a thing's time in place of the one it had.
    pub(super) fn set(&mut self, thing: K, at: Duration) {
        self.cancel(&thing);
        self.order.insert((at, thing.clone()));
        self.at.insert(thing, at);
    }

    pub(super) fn cancel(&mut self, thing: &K) {
        if let Some(at) = self.at.remove(thing) {
            self.order.remove(&(at, thing.clone()));
        }
    }

    pub(super) fn at(&self, thing: &K) -> Option<Duration> {
        self.at.get(thing).copied()
    }

    /// The earliest.
    pub(super) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Things whose time has come.
    pub(super) fn due(&self, now: Duration) -> impl Iterator<Item = &K> {
        self.order.iter().take_while(move |(at, _)| *at <= now).map(|(_, thing)| thing)
    }
}
