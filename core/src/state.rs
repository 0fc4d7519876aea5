//! What has been seen of the API server: one plain struct, changed by watch updates only.

mod index;
mod listing;
mod versions;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::demand::{self, Membership};
use crate::names::Key;
use crate::objects::{Namespace, Node, Pod, Protocol, Service, Slice};
use crate::settings::{Exposure, Settings};
pub(crate) use index::count;
use index::{Host, Index};
use listing::{Listings, Replaced, apply};
pub use versions::{Feed, Seen, Versions};

/// Where pods come from. The selections are disjoint, so a pod that changes its labels leaves one and enters another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodFeed {
    /// Pods with the cluster label.
    Labelled,
    /// Pods with an identity label but no cluster label: stamped pods of the configuration's clusters, and forgeries.
    Stamped,
    /// Unstamped pods selected by the configuration's cluster of this index.
    Configured(usize),
}

/// One message of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// A part of a list that goes on: nothing changes before it is complete.
    Part(Vec<T>),
    /// The list could not be completed: its parts are void.
    Unlisted,
    /// The last part of a list, or all of it: replaces everything of its feed.
    Listed {
        /// The objects no other part has shown.
        items: Vec<T>,
        /// Resource version of the list.
        version: u64,
    },
    /// Added or modified.
    Applied(T),
    /// Deleted, or it has left the selection.
    Deleted(T),
    /// Nothing has changed up to this resource version.
    Progress(u64),
}

/// One message of one kind's watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Of a pod feed.
    Pods(PodFeed, Change<Pod>),
    /// Of our Services.
    Services(Change<Service>),
    /// Of their EndpointSlices.
    Slices(Change<Slice>),
    /// Of enabled namespaces.
    Namespaces(Change<Namespace>),
    /// Of nodes, where a class uses their addresses.
    Nodes(Change<Node>),
}

/// Everything seen, with the indexes that decisions need and the clusters changed since last asked.
#[derive(Debug)]
pub struct State {
    settings: Arc<Settings>,
    /// A pod may be in two feeds for the moment in which it changes its labels: the newer one counts.
    pods: HashMap<Key, Vec<(PodFeed, Arc<Pod>)>>,
    services: HashMap<Key, Arc<Service>>,
    slices: HashMap<Key, Arc<Slice>>,
    namespaces: HashMap<Arc<str>, Arc<Namespace>>,
    nodes: HashMap<Arc<str>, Arc<Node>>,
    listings: Listings,
    versions: Versions,
    index: Index,
    dirty: BTreeSet<Key>,
}

impl State {
    /// Nothing seen yet.
    pub fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            pods: HashMap::new(),
            services: HashMap::new(),
            slices: HashMap::new(),
            namespaces: HashMap::new(),
            nodes: HashMap::new(),
            listings: Listings::default(),
            versions: Versions::default(),
            index: Index::default(),
            dirty: BTreeSet::new(),
        }
    }

    /// Settings the state is read with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes one message of a watch.
    pub fn apply(&mut self, update: Update) {
        versions::take(&mut self.versions, &update);
        match update {
            Update::Pods(feed, change) => self.apply_pods(feed, change),
            Update::Services(change) => self.apply_services(change),
            Update::Slices(change) => self.apply_slices(change),
            Update::Namespaces(change) => self.apply_namespaces(change),
            Update::Nodes(change) => self.apply_nodes(change),
        }
    }

    /// Clusters (namespace and name) that may look different since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.dirty)
    }

    /// All clusters that have pods or Services.
    pub fn clusters(&self) -> impl Iterator<Item = &Key> {
        self.index.clusters.keys()
    }

    /// How far each feed has been seen.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// An enabled namespace.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name).map(AsRef::as_ref).filter(|n| n.enabled)
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name).map(AsRef::as_ref)
    }

    /// A pod, as last seen.
    pub fn pod(&self, key: &Key) -> Option<&Arc<Pod>> {
        self.pods.get(key).and_then(|held| newest(held))
    }

    /// A Service, as last seen.
    pub fn service(&self, key: &Key) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// Pods of a cluster, oldest first: the order in which they are served.
    pub fn pods_of(&self, cluster: &Key) -> Vec<&Pod> {
        let members = self.index.clusters.get(cluster).map(|c| &c.pods);
        let mut pods: Vec<&Pod> =
            members.into_iter().flatten().filter_map(|k| self.pod(k)).map(AsRef::as_ref).collect();
        pods.sort_by(|a, b| (a.created, &a.uid).cmp(&(b.created, &b.uid)));
        pods
    }

    /// Services that carry a cluster's label, by name.
    pub fn services_of(&self, cluster: &Key) -> Vec<&Service> {
        let members = self.index.clusters.get(cluster).map(|c| &c.services);
        members.into_iter().flatten().filter_map(|k| self.services.get(k)).map(AsRef::as_ref).collect()
    }

    /// Pods that our gate holds, that carry an identity of the cluster and belong to none any more.
    pub fn strays_of(&self, cluster: &Key) -> impl Iterator<Item = &Pod> {
        let members = self.index.clusters.get(cluster).map(|c| &c.strays);
        members.into_iter().flatten().filter_map(|k| self.pod(k)).map(AsRef::as_ref)
    }

    /// Services that carry [`crate::names::IN_VAIN_ANNOTATION`].
    pub fn services_in_vain(&self) -> impl Iterator<Item = &Service> {
        self.index.in_vain.iter().filter_map(|k| self.services.get(k)).map(AsRef::as_ref)
    }

    /// EndpointSlices of a Service.
    pub fn slices_of(&self, service: &Key) -> impl Iterator<Item = &Slice> {
        let members = self.index.slices.get(service);
        members.into_iter().flatten().filter_map(|k| self.slices.get(k)).map(AsRef::as_ref)
    }

    /// Pods of a namespace that carry an identity and have not ended, whether they belong to its cluster or not.
    pub fn claimants(&self, namespace: &Arc<str>, pod_id: &str) -> impl Iterator<Item = &Pod> {
        let members = self.index.identities.get(&Key::new(Arc::clone(namespace), pod_id));
        members.into_iter().flatten().filter_map(|k| self.pod(k)).map(AsRef::as_ref)
    }

    /// Pods that have not ended and that a cluster's shared Services select by a token, whoever they belong to.
    pub fn sharers(&self, cluster: &Key, token: &str) -> impl Iterator<Item = &Pod> {
        let members = self.index.sharers.get(&(cluster.clone(), token.to_owned()));
        members.into_iter().flatten().filter_map(|k| self.pod(k)).map(AsRef::as_ref)
    }

    /// Whether another pod that has not ended has one of the pod's addresses.
    pub fn shares_internal_address(&self, pod: &Pod) -> bool {
        pod.ips.iter().any(|ip| self.index.internal.get(ip).is_some_and(|users| users.len() > 1))
    }

    /// Whether another pod that has not ended has the pod's DNS name.
    pub fn shares_name(&self, pod: &Pod) -> bool {
        index::dns_key(pod).and_then(|name| self.index.named.get(&name)).is_some_and(|users| users.len() > 1)
    }

    /// Whether another of our Services has one of the Service's external addresses and ports.
    pub fn shares_external_address(&self, service: &Service) -> bool {
        index::external_points(service)
            .any(|point| self.index.external.get(&point).is_some_and(|users| users.len() > 1))
    }

    /// Whether one of our load balancers answers at an address and port.
    pub fn is_external_point(&self, ip: &IpAddr, port: u16, protocol: Protocol) -> bool {
        self.index.external.contains_key(&(Host::Ip(*ip), port, protocol))
    }

    /// Our Services that ask for an external address or have it.
    pub fn holders(&self, ip: &IpAddr) -> impl Iterator<Item = &Service> {
        let holders = self.index.holders.get(ip);
        holders.into_iter().flatten().filter_map(|k| self.services.get(k)).map(AsRef::as_ref)
    }

    /// Whether a Service asks for or has an external address.
    pub fn is_held(&self, ip: &IpAddr) -> bool {
        self.index.holders.contains_key(ip)
    }

    /// Whether a pod with this UID is known and has not ended.
    pub fn is_alive(&self, uid: &str) -> bool {
        self.index.alive.contains(uid)
    }

    /// Slots of a namespace with an exposure.
    pub fn slot_count(&self, namespace: &Arc<str>, exposure: Exposure) -> usize {
        self.index.slots.get(&(Arc::clone(namespace), exposure)).copied().unwrap_or(0)
    }

    /// Load balancers of a class.
    pub fn class_load_balancers(&self, class: &str) -> usize {
        self.index.balancers.get(class).copied().unwrap_or(0)
    }

    /// Load balancers of all classes.
    pub fn load_balancers(&self) -> usize {
        self.index.balancers.values().sum()
    }

    fn apply_pods(&mut self, feed: PodFeed, change: Change<Pod>) {
        match change {
            Change::Part(items) => self.list_pods(feed, items),
            Change::Unlisted => drop(self.listings.pods.remove(&feed)),
            Change::Listed { items, .. } => {
                self.list_pods(feed, items);
                let list = self.listings.pods.remove(&feed).unwrap_or_default();
                let gone: Vec<Key> = self
                    .pods
                    .iter()
                    .filter(|(k, held)| !list.shows(k) && held.iter().any(|(f, _)| *f == feed))
                    .map(|(k, _)| k.clone())
                    .collect();
                for key in gone {
                    self.hold_pod(feed, &key, None);
                }
                for pod in list.news {
                    self.hold_pod(feed, &pod.key.clone(), Some(pod));
                }
            }
            Change::Applied(pod) => self.hold_pod(feed, &pod.key.clone(), Some(pod)),
            Change::Deleted(pod) => self.hold_pod(feed, &pod.key, None),
            Change::Progress(_) => {}
        }
    }

    fn list_pods(&mut self, feed: PodFeed, items: Vec<Pod>) {
        let pods = &self.pods;
        let held = |key: &Key| {
            let (key, held) = pods.get_key_value(key)?;
            held.iter().find(|(f, _)| *f == feed).map(|(_, pod)| (key, &**pod))
        };
        self.listings.pods.entry(feed).or_default().take(items, |p| p.key.clone(), held);
    }

    fn hold_pod(&mut self, feed: PodFeed, key: &Key, pod: Option<Pod>) {
        let known = self.pods.get(key).and_then(|held| held.iter().find(|(f, _)| *f == feed));
        if known.map(|(_, known)| &**known) == pod.as_ref() {
            return;
        }
        let before = self.pod(key).cloned();
        let held = self.pods.entry(key.clone()).or_insert_with(|| Vec::with_capacity(1));
        held.retain(|(f, _)| *f != feed);
        held.extend(pod.map(|p| (feed, Arc::new(p))));
        if held.is_empty() {
            self.pods.remove(key);
        }
        let after = self.pod(key).cloned();
        if before == after {
            return;
        }
        for (pod, present) in [(before, false), (after, true)] {
            if let Some(pod) = pod {
                let cluster = self.cluster_of(&pod);
                let touched = self.index.pod(&pod, cluster, present);
                self.dirty_pods(touched);
            }
        }
    }

    /// The cluster a pod belongs to. A pod that several clusters of the configuration select is shown in the first.
    pub(crate) fn cluster_of(&self, pod: &Pod) -> Option<Key> {
        let namespace = &pod.key.namespace;
        let name = match demand::cluster_of(|k| pod.labels.get(k), namespace, &self.settings) {
            Membership::None => return None,
            Membership::Cluster { name, .. } => name,
            Membership::Ambiguous { names } => names.into_iter().next()?,
        };
        Some(Key::new(namespace.clone(), name))
    }

    fn dirty_pods(&mut self, touched: index::Touched) {
        self.dirty.extend(touched.clusters);
        for key in touched.slices {
            if let Some(slice) = self.slices.get(&key).cloned() {
                self.dirty_slot(&Key::new(key.namespace, slice.service.as_str()));
            }
        }
        for key in touched.pods {
            if let Some(cluster) = self.pod(&key).cloned().and_then(|p| self.cluster_of(&p)) {
                self.dirty.insert(cluster);
            }
        }
    }

    /// The cluster of the Service a slice belongs to.
    fn dirty_slot(&mut self, service: &Key) {
        self.dirty.extend(self.services.get(service).and_then(|s| index::cluster_of_service(s)));
    }

    fn apply_services(&mut self, change: Change<Service>) {
        let replaced = apply(&mut self.services, &mut self.listings.services, change, |s| s.key.clone());
        for (before, after) in replaced {
            for (service, present) in [(before, false), (after, true)] {
                let Some(service) = service else { continue };
                let touched = self.index.service(&service, present);
                self.dirty.extend(touched.clusters);
                for key in touched.services {
                    self.dirty_slot(&key);
                }
                self.dirty_waiting(&service);
                if self.leaves_a_pool_nearly_empty(&service) {
                    self.dirty.extend(self.index.clusters.keys().cloned());
                }
            }
        }
    }

    /// Who waits at a limit depends on the counts of others.
    fn dirty_waiting(&mut self, service: &Service) {
        let limits = &self.settings.limits;
        // a shared Service may gain or lose several slots at once
        let near = |count: usize, limit: u32| count.abs_diff(limit as usize) <= 1 + service.slots();
        let class = service.class().unwrap_or_default();
        let budget = self.settings.class(class).and_then(|c| c.load_balancers);
        if near(self.load_balancers(), limits.load_balancers)
            || budget.is_some_and(|budget| near(self.class_load_balancers(class), budget))
        {
            self.dirty.extend(self.index.clusters.keys().cloned());
        } else if near(
            self.slot_count(&service.key.namespace, service.exposure()),
            limits.slots_per_namespace,
        ) {
            self.dirty_namespace(&service.key.namespace);
        }
    }

    /// Whether who waits for a static address depends on this Service.
    fn leaves_a_pool_nearly_empty(&self, service: &Service) -> bool {
        let mut held: Vec<IpAddr> = service.asked().chain(service.given()).collect();
        held.sort_unstable();
        held.dedup();
        let mut pools = self.settings.classes.values().map(|c| &c.addresses);
        pools.any(|pool| {
            [true, false].into_iter().any(|v4| {
                let of_family = |ip: &&IpAddr| ip.is_ipv4() == v4;
                // asked for one and given another it holds two, which it may take or leave at once
                let its = held.iter().filter(of_family).filter(|ip| pool.contains(ip)).count();
                let free = pool.iter().filter(of_family).filter(|ip| !self.is_held(ip));
                its > 0 && free.take(its + 1).count() <= its
            })
        })
    }

    fn apply_slices(&mut self, change: Change<Slice>) {
        let replaced = apply(&mut self.slices, &mut self.listings.slices, change, |s| s.key.clone());
        for (before, after) in replaced {
            for (slice, present) in [(before, false), (after, true)] {
                if let Some(slice) = slice {
                    let service = self.index.slice(&slice, present);
                    self.dirty_slot(&service);
                }
            }
        }
    }

    fn apply_namespaces(&mut self, change: Change<Namespace>) {
        let replaced = apply(&mut self.namespaces, &mut self.listings.namespaces, change, |n| n.name.clone());
        for (before, after) in replaced {
            for namespace in [before, after].into_iter().flatten() {
                self.dirty_namespace(&namespace.name);
            }
        }
    }

    fn apply_nodes(&mut self, change: Change<Node>) {
        let replaced = apply(&mut self.nodes, &mut self.listings.nodes, change, |n| n.name.clone());
        // a heartbeat changes the version and nothing that matters
        let moved = |(before, after): &Replaced<Node>| {
            before.as_ref().map(|n| &n.ips) != after.as_ref().map(|n| &n.ips)
        };
        let names: BTreeSet<Arc<str>> = replaced
            .iter()
            .filter(|r| moved(r))
            .filter_map(|(b, a)| Some(a.as_ref().or(b.as_ref())?.name.clone()))
            .collect();
        if names.is_empty() {
            return;
        }
        let pods = self.pods.values().filter_map(|held| newest(held));
        let here = pods.filter(|p| p.node.as_deref().is_some_and(|n| names.contains(n)));
        let clusters: Vec<Key> = here.filter_map(|p| self.cluster_of(p)).collect();
        self.dirty.extend(clusters);
    }

    fn dirty_namespace(&mut self, namespace: &str) {
        let start = Key::new(namespace, "");
        let members = self.index.clusters.range(start..).take_while(|(k, _)| &*k.namespace == namespace);
        self.dirty.extend(members.map(|(k, _)| k.clone()));
    }
}

fn newest(held: &[(PodFeed, Arc<Pod>)]) -> Option<&Arc<Pod>> {
    held.iter().map(|(_, pod)| pod).max_by_key(|pod| pod.version)
}
