//! Look-ups from one kind to another, kept in step with every change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::names::{self, Key};
use crate::objects::{Pod, Protocol, Service, Slice};
use crate::resolve;
use crate::settings::Exposure;
use crate::shared;

/// Where a load balancer answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(String),
}

/// One external host and port.
pub(super) type ExternalPoint = (Host, u16, Protocol);

#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) pods: BTreeSet<Key>,
    pub(super) services: BTreeSet<Key>,
    /// Held pods that carry an identity of the cluster and belong to none.
    pub(super) strays: BTreeSet<Key>,
}

/// Who uses a value, sorted: nearly always one, for whom a tree would be ten times too large.
pub(super) type Users = Vec<Key>;

#[derive(Debug, Default)]
pub(super) struct Index {
    /// Ordered, so that a namespace's clusters are a range.
    pub(super) clusters: BTreeMap<Key, Members>,
    /// By namespace and identity: pods that have not ended.
    pub(super) identities: HashMap<Key, Users>,
    /// By namespace, cluster and token: pods that have not ended and that its shared Services may select.
    pub(super) sharers: HashMap<(Key, String), Users>,
    /// By address: pods that have not ended and have an address of their own.
    pub(super) internal: HashMap<IpAddr, Users>,
    /// By namespace and DNS name within it: pods that have not ended.
    pub(super) named: HashMap<Key, Users>,
    /// By external address and port: Services.
    pub(super) external: HashMap<ExternalPoint, Users>,
    /// By address: Services that ask for it or have it.
    pub(super) holders: HashMap<IpAddr, Users>,
    /// By Service: its slices.
    pub(super) slices: HashMap<Key, Users>,
    /// By UID of the pod behind an endpoint: slices.
    pub(super) endpoints: HashMap<String, Users>,
    /// UIDs of pods that have not ended.
    pub(super) alive: HashSet<String>,
    /// Slots by namespace and exposure.
    pub(super) slots: HashMap<(Arc<str>, Exposure), usize>,
    /// Load balancers by class.
    pub(super) balancers: HashMap<String, usize>,
    /// Services that gave a held pod no address in time.
    pub(super) in_vain: BTreeSet<Key>,
}

/// What a change concerns beyond its own cluster.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) clusters: Vec<Key>,
    pub(super) pods: Vec<Key>,
    pub(super) services: Vec<Key>,
    pub(super) slices: Vec<Key>,
}

impl Index {
    pub(super) fn pod(&mut self, pod: &Pod, cluster: Option<Key>, present: bool) -> Touched {
        let mut touched = Touched::default();
        if let Some(cluster) = cluster {
            self.member(&cluster, |m| &mut m.pods, &pod.key, present);
            touched.clusters.push(cluster);
        } else if let Some((name, _)) =
            pod.pod_id.as_ref().filter(|_| pod.gate.is_some()).and_then(|id| id.split_once('.'))
        {
            let cluster = Key::new(pod.key.namespace.clone(), name);
            self.member(&cluster, |m| &mut m.strays, &pod.key, present);
        }
        if pod.finished {
            return touched;
        }
        if present {
            self.alive.insert(pod.uid.clone());
        } else {
            self.alive.remove(&pod.uid);
        }
        touched.slices.extend(self.endpoints.get(&pod.uid).into_iter().flatten().cloned());
        if let Some(id) = &pod.pod_id {
            let namespace = pod.key.namespace.clone();
            // an identity begins with the name of the cluster whose slot may select it
            if let Some((cluster, _)) = id.split_once('.') {
                touched.clusters.push(Key::new(namespace.clone(), cluster));
            }
            touched.pods.extend(set(
                &mut self.identities,
                &Key::new(namespace, id.as_str()),
                &pod.key,
                present,
            ));
        }
        if let Some(cluster) = pod.labels.get(names::SHARED_LABEL) {
            let cluster = Key::new(pod.key.namespace.clone(), cluster);
            let tokens: BTreeSet<&str> =
                pod.shared_ports.iter().filter_map(|p| Some(shared::token_of(&p.name)?.0)).collect();
            for token in tokens {
                let place = (cluster.clone(), token.to_owned());
                touched.pods.extend(set(&mut self.sharers, &place, &pod.key, present));
            }
            touched.clusters.push(cluster);
        }
        if let Some(name) = dns_key(pod) {
            touched.pods.extend(set(&mut self.named, &name, &pod.key, present));
        }
        if !pod.host_network {
            for ip in &pod.ips {
                touched.pods.extend(set(&mut self.internal, ip, &pod.key, present));
            }
        }
        touched
    }

    pub(super) fn service(&mut self, service: &Service, present: bool) -> Touched {
        let mut touched = Touched::default();
        if let Some(cluster) = cluster_of_service(service) {
            self.member(&cluster, |m| &mut m.services, &service.key, present);
            touched.clusters.push(cluster);
        }
        let (namespace, exposure) = (service.key.namespace.clone(), service.exposure());
        count(&mut self.slots, &(namespace, exposure), service.slots(), present);
        if exposure != Exposure::NodePort {
            let class = service.class().unwrap_or_default();
            count(&mut self.balancers, &class.to_owned(), 1, present);
        }
        if present && service.annotations.contains_key(names::IN_VAIN_ANNOTATION) {
            self.in_vain.insert(service.key.clone());
        } else {
            self.in_vain.remove(&service.key);
        }
        for point in external_points(service) {
            touched.services.extend(set(&mut self.external, &point, &service.key, present));
        }
        let held: BTreeSet<IpAddr> = service.asked().chain(service.given()).collect();
        for ip in &held {
            touched.services.extend(set(&mut self.holders, ip, &service.key, present));
        }
        touched
    }

    /// Answers the Service the slice belongs to: its label says so, whatever cluster label it has inherited.
    pub(super) fn slice(&mut self, slice: &Slice, present: bool) -> Key {
        let service = Key::new(slice.key.namespace.clone(), slice.service.as_str());
        set(&mut self.slices, &service, &slice.key, present);
        for endpoint in &slice.endpoints {
            set(&mut self.endpoints, &endpoint.pod_uid, &slice.key, present);
        }
        service
    }

    fn member(
        &mut self,
        cluster: &Key,
        kind: fn(&mut Members) -> &mut BTreeSet<Key>,
        key: &Key,
        present: bool,
    ) {
        let members = self.clusters.entry(cluster.clone()).or_default();
        if present {
            kind(members).insert(key.clone());
        } else {
            kind(members).remove(key);
        }
        if members.pods.is_empty() && members.services.is_empty() && members.strays.is_empty() {
            self.clusters.remove(cluster);
        }
    }
}

/// Counts up or down; what is not there is not held.
pub(crate) fn count<K: std::hash::Hash + Eq + Clone>(
    counts: &mut HashMap<K, usize>,
    key: &K,
    by: usize,
    up: bool,
) {
    let count = counts.entry(key.clone()).or_default();
    *count = if up { *count + by } else { count.saturating_sub(by) };
    if *count == 0 {
        counts.remove(key);
    }
}

/// Adds or removes one user; answers the others where the value is shared.
fn set<K: std::hash::Hash + Eq + Clone>(
    map: &mut HashMap<K, Users>,
    value: &K,
    user: &Key,
    present: bool,
) -> Vec<Key> {
    let Some(users) = map.get_mut(value) else {
        if present {
            map.insert(value.clone(), vec![user.clone()]);
        }
        return Vec::new();
    };
    match (users.binary_search(user), present) {
        (Err(at), true) => users.insert(at, user.clone()),
        (Ok(at), false) => drop(users.remove(at)),
        _ => return Vec::new(),
    }
    if users.is_empty() {
        map.remove(value);
        return Vec::new();
    }
    users.iter().filter(|other| *other != user).cloned().collect()
}

/// A pod's DNS name, where it has one.
pub(super) fn dns_key(pod: &Pod) -> Option<Key> {
    let (host, domain) = pod.dns.as_ref()?;
    Some(Key::new(pod.key.namespace.clone(), [host, ".", domain].concat()))
}

pub(super) fn cluster_of_service(service: &Service) -> Option<Key> {
    Some(Key::new(service.key.namespace.clone(), service.cluster()?))
}

/// Every external address and port the Service answers at.
pub(super) fn external_points(service: &Service) -> impl Iterator<Item = ExternalPoint> {
    let names = service.ingress.iter().filter_map(|i| i.hostname.clone()).map(Host::Name);
    let hosts = resolve::addresses(service).into_iter().map(Host::Ip).chain(names);
    hosts.flat_map(|host| service.ports.iter().map(move |p| (host.clone(), p.port, p.protocol)))
}
