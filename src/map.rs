//! What this replica publishes now, how far it has seen, and how long ago it last heard from the API server.
//!
//! The state loop makes a [`Snapshot`] and calls [`Current::publish`]; everything that serves reads [`Current::load`]
//! without a lock. Watches report to [`Liveness`] through their [`FeedPulse`].

mod documents;
mod explainer;
mod liveness;
mod position;
mod refresh;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use external_ip_core::mapping::{KeptAddresses, Mapping, SlotAddress};
use external_ip_core::names::Key;
use tokio::sync::watch;

pub use documents::{ClusterDocuments, Document, Documents, Format};
pub use explainer::{Explained, Explainer, PodQuestion};
pub use liveness::{FeedPulse, FeedState, Liveness};
pub use position::{InvalidPosition, Position};
pub use refresh::{Questions, Refresh};

/// Addresses that are kept for pods, by cluster and pod name: what admission may write on a pod at once.
pub type KeptByCluster = BTreeMap<Key, Arc<KeptAddresses>>;

/// What the state loop has to say after a change. Shared, so that what has not changed costs nothing.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The published document.
    pub mapping: Arc<Mapping>,
    /// Kept addresses by cluster and pod name.
    pub slots: Arc<KeptByCluster>,
    /// Address of the Service that publishes the mapping, where it has one.
    pub service_ip: Option<IpAddr>,
    /// The last changes it shows.
    pub position: Position,
    /// How far everything has been seen: no change between `position` and here.
    pub reached: Position,
}

/// A snapshot as it is served.
#[derive(Debug)]
pub struct Published {
    /// The published document.
    pub mapping: Arc<Mapping>,
    /// Kept addresses by cluster and pod name.
    pub slots: Arc<KeptByCluster>,
    /// Address of the Service that publishes the mapping, where it has one.
    pub service_ip: Option<IpAddr>,
    /// The last changes it shows.
    pub position: Position,
    /// How far everything has been seen: no change between `position` and here.
    pub reached: Position,
    /// Counts changes of mapping and service address in this process, from 1: equal generations, equal documents.
    pub generation: u64,
    documents: Arc<Documents>,
}

impl Published {
    /// The address kept for the pod `name` of a cluster.
    pub fn kept_address(&self, cluster: &Key, name: &str) -> Option<&SlotAddress> {
        self.slots.get(cluster)?.get(name)
    }

    /// The documents of this generation, made when they are first asked for.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }
}

/// The published snapshot. Empty until every kind has been listed: a map of half the pods is never shown.
#[derive(Debug)]
pub struct Current {
    published: ArcSwapOption<Published>,
    changes: watch::Sender<u64>,
    /// The generation.
    documents: watch::Sender<u64>,
    /// The same for single clusters, those that somebody waits for.
    clusters: Mutex<HashMap<Key, watch::Sender<u64>>>,
}

impl Default for Current {
    fn default() -> Self {
        Self::new()
    }
}

impl Current {
    /// Nothing published yet.
    pub fn new() -> Self {
        Self {
            published: ArcSwapOption::empty(),
            changes: watch::Sender::new(0),
            documents: watch::Sender::new(0),
            clusters: Mutex::default(),
        }
    }

    /// Shows `snapshot` to everybody from now on. For one caller, the state loop. Documents of clusters that have not
    /// changed are taken over, also where only the position has advanced.
    pub fn publish(&self, snapshot: Snapshot) {
        let Snapshot { mapping, slots, service_ip, position, reached } = snapshot;
        let before = self.published.load_full();
        let unchanged = before.as_ref().filter(|b| b.service_ip == service_ip && b.mapping == mapping);
        let (generation, documents, changed) = match unchanged {
            Some(before) => (before.generation, Arc::clone(&before.documents), Vec::new()),
            None => {
                let documents = before.as_ref().map(|b| b.documents());
                let (documents, changed) = Documents::new(&mapping, service_ip, documents);
                (before.as_ref().map_or(0, |b| b.generation) + 1, Arc::new(documents), changed)
            }
        };
        let published = Published { mapping, slots, service_ip, position, reached, generation, documents };
        self.published.store(Some(Arc::new(published)));
        self.changes.send_modify(|n| *n += 1);
        self.documents.send_if_modified(|n| std::mem::replace(n, generation) != generation);
        let waited_for = self.waited_for();
        for key in changed {
            if let Some(readers) = waited_for.get(&key) {
                readers.send_replace(generation);
            }
        }
    }

    fn waited_for(&self) -> MutexGuard<'_, HashMap<Key, watch::Sender<u64>>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is published now; `None` before the first list is complete.
    pub fn load(&self) -> Option<Arc<Published>> {
        self.published.load_full()
    }

    /// Changes at every [`publish`](Self::publish), also where only the position has advanced. Subscribe first, then
    /// load: nothing is missed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Changes only where documents have: a thousand readers who wait for one are not woken by every bookmark. Subscribe
    /// first, then load.
    pub fn changed_documents(&self) -> watch::Receiver<u64> {
        self.documents.subscribe()
    }

    /// Changes only where the documents of one cluster have, or it is gone: readers of the others sleep on. Subscribe
    /// first, then load.
    pub fn changed_cluster(&self, key: &Key) -> watch::Receiver<u64> {
        let mut waited_for = self.waited_for();
        waited_for.retain(|_, readers| readers.receiver_count() > 0);
        waited_for.entry(key.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// What is published once `enough` says so. Waits for as long as that takes; bound it from outside.
    pub async fn when(&self, enough: impl Fn(&Published) -> bool) -> Arc<Published> {
        let mut changes = self.subscribe();
        loop {
            if let Some(published) = self.load().filter(|p| enough(p)) {
                return published;
            }
            // the sender lives as long as `self`
            let _ = changes.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, mapping};

    fn snapshot(mapping: Mapping, pods: u64) -> Snapshot {
        Snapshot {
            mapping: mapping.into(),
            reached: Position::from_iter([("p".into(), pods)]),
            ..Snapshot::default()
        }
    }

    #[test]
    fn nothing_is_published_before_the_first_snapshot() {
        assert!(Current::new().load().is_none());
    }

    #[test]
    fn an_advanced_position_alone_keeps_generation_and_documents() {
        let current = Current::new();
        current.publish(snapshot(mapping([cluster("data", "a", 1)]), 1));
        let first = current.load().unwrap();
        current.publish(snapshot(mapping([cluster("data", "a", 1)]), 2));
        let second = current.load().unwrap();
        assert_eq!((first.generation, second.generation), (1, 1));
        assert!(Arc::ptr_eq(&first.documents, &second.documents));
        assert_eq!(second.reached.version("p"), Some(2));
    }

    #[test]
    fn a_change_of_one_cluster_keeps_the_documents_of_the_others() {
        let current = Current::new();
        let key = Key::new("data", "a");
        current.publish(snapshot(mapping([cluster("data", "a", 1), cluster("data", "b", 1)]), 1));
        let first = current.load().unwrap();
        current.publish(snapshot(mapping([cluster("data", "a", 1), cluster("data", "b", 2)]), 2));
        let second = current.load().unwrap();
        assert_eq!(second.generation, 2);
        let of = |p: &Published, key: &Key| Arc::clone(p.documents().cluster(key).unwrap());
        assert!(Arc::ptr_eq(&of(&first, &key), &of(&second, &key)));
        let other = Key::new("data", "b");
        assert!(!Arc::ptr_eq(&of(&first, &other), &of(&second, &other)));
    }

    #[test]
    fn who_waits_for_a_cluster_is_told_of_that_one_alone_and_of_its_end() {
        let current = Current::new();
        let (a, b) = (Key::new("data", "a"), Key::new("data", "b"));
        current.publish(snapshot(mapping([cluster("data", "a", 1), cluster("data", "b", 1)]), 1));
        let (mut of_a, mut of_b) = (current.changed_cluster(&a), current.changed_cluster(&b));
        let mut told = |next: Mapping| {
            current.publish(snapshot(next, 2));
            [&mut of_a, &mut of_b].map(|of| {
                let told = of.has_changed().unwrap();
                of.borrow_and_update();
                told
            })
        };
        assert_eq!(told(mapping([cluster("data", "a", 1), cluster("data", "b", 2)])), [false, true]);
        assert_eq!(told(mapping([cluster("data", "a", 1), cluster("data", "b", 2)])), [false, false]);
        assert_eq!(told(mapping([cluster("data", "b", 2), cluster("data", "c", 1)])), [true, false]);
        assert_eq!(told(mapping([cluster("data", "a", 1), cluster("data", "b", 2)])), [true, false]);
        drop(of_a);
        let _ = current.changed_cluster(&b);
        assert!(!current.waited_for().contains_key(&a), "nobody waits for it any more");
    }

    #[tokio::test]
    async fn a_waiter_sees_a_snapshot_published_while_it_waits() {
        let current = Arc::new(Current::new());
        let waiting = tokio::spawn({
            let current = Arc::clone(&current);
            async move { current.when(|p| p.reached.version("p") >= Some(2)).await.reached.version("p") }
        });
        current.publish(snapshot(Mapping::new(), 1));
        tokio::task::yield_now().await;
        current.publish(snapshot(Mapping::new(), 3));
        assert_eq!(waiting.await.unwrap(), Some(3));
    }
}
