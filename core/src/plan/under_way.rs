//! Writes under way, found by their object and by the cluster they were planned for: what a plan costs does not grow
//! with what is under way elsewhere.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use super::alarms::Alarms;
use crate::names::Key;

#[derive(Debug)]
pub(super) struct UnderWay<K, W> {
    writes: HashMap<K, (Key, W)>,
    of_cluster: HashMap<Key, BTreeSet<K>>,
    /// When each is given up.
    until: Alarms<K>,
}

impl<K, W> Default for UnderWay<K, W> {
    fn default() -> Self {
        Self { writes: HashMap::new(), of_cluster: HashMap::new(), until: Alarms::default() }
    }
}

impl<K: Clone + Eq + Hash + Ord, W> UnderWay<K, W> {
    /// A write to an object begins, in place of one that is under way.
    pub(super) fn begin(&mut self, object: K, cluster: Key, write: W, until: Duration) {
        self.end(&object);
        self.of_cluster.entry(cluster.clone()).or_default().insert(object.clone());
        self.until.set(object.clone(), until);
        self.writes.insert(object, (cluster, write));
    }

    pub(super) fn end(&mut self, object: &K) -> Option<W> {
        let (cluster, write) = self.writes.remove(object)?;
        self.until.cancel(object);
        if let Some(objects) = self.of_cluster.get_mut(&cluster) {
            objects.remove(object);
            if objects.is_empty() {
                self.of_cluster.remove(&cluster);
            }
        }
        Some(write)
    }

    pub(super) fn get(&self, object: &K) -> Option<&W> {
        self.writes.get(object).map(|(_, write)| write)
    }

    /// The cluster a write was planned for.
    pub(super) fn cluster(&self, object: &K) -> Option<&Key> {
        self.writes.get(object).map(|(cluster, _)| cluster)
    }

    /// When a write is given up.
    pub(super) fn until(&self, object: &K) -> Option<Duration> {
        self.until.at(object)
    }

    /// Those planned for a cluster.
    pub(super) fn of<'w>(&'w self, cluster: &Key) -> impl Iterator<Item = (&'w K, &'w W)> {
        let objects = self.of_cluster.get(cluster).into_iter().flatten();
        objects.filter_map(|object| Some((object, self.get(object)?)))
    }

    /// When the first of a cluster's is given up.
    pub(super) fn expiry(&self, cluster: &Key) -> Option<Duration> {
        self.of_cluster.get(cluster).into_iter().flatten().filter_map(|object| self.until(object)).min()
    }

    /// Those that may have ended: what a write changes touches the cluster it was planned for.
    pub(super) fn to_judge(&self, touched: &BTreeSet<Key>, now: Duration) -> BTreeSet<K> {
        let touched = touched.iter().filter_map(|cluster| self.of_cluster.get(cluster)).flatten();
        touched.chain(self.until.due(now)).cloned().collect()
    }
}
