//! What workloads would cost, before they are there: load balancers, addresses, node ports and outside ports, by the same
//! rules by which slots are made later.
//!
//! A pod that keeps its name (of a StatefulSet, or on its own) comes back to its slot. Others take a slot that is free
//! and has rested, else a new one: a rolling update needs `maxSurge` slots more at least, and one for every new pod at
//! most, where pods are replaced faster than slots rest.

mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Add, AddAssign, Mul};

use serde::Serialize;

use crate::addresses;
use crate::demand::{self, Ask, Demand, Membership};
use crate::names::Key;
use crate::objects::{Pod, Service};
use crate::reason::{Code, Reason};
use crate::settings::{Class, Exposure, Settings};

pub use manifest::{Manifests, Unreadable, Workload, workloads};

/// What something costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Slots.
    pub slots: u32,
    /// Services of type LoadBalancer.
    pub load_balancers: u32,
    /// External addresses of load balancers, counting both families where the class demands both.
    pub addresses: u32,
    /// Ports on every node, of about 2 700 that there are.
    pub node_ports: u32,
    /// Ports that can be reached from outside.
    pub ports: u32,
}

impl Add for Cost {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            slots: self.slots.saturating_add(other.slots),
            load_balancers: self.load_balancers.saturating_add(other.load_balancers),
            addresses: self.addresses.saturating_add(other.addresses),
            node_ports: self.node_ports.saturating_add(other.node_ports),
            ports: self.ports.saturating_add(other.ports),
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Mul<u32> for Cost {
    type Output = Self;
    fn mul(self, times: u32) -> Self {
        let Self { slots, load_balancers, addresses, node_ports, ports } = self;
        Self {
            slots: slots.saturating_mul(times),
            load_balancers: load_balancers.saturating_mul(times),
            addresses: addresses.saturating_mul(times),
            node_ports: node_ports.saturating_mul(times),
            ports: ports.saturating_mul(times),
        }
    }
}

/// How many pods there are in which case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// When nothing changes.
    pub at_rest: u32,
    /// At once during a rolling update.
    pub rolling: u32,
    /// Slots that a rolling update takes, pods replaced faster than slots rest.
    pub at_most: u32,
}

/// Costs of the three cases of [`Pods`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Costs {
    /// When nothing changes.
    pub at_rest: Cost,
    /// At least, during a rolling update.
    pub rolling: Cost,
    /// At most, during a rolling update.
    pub at_most: Cost,
}

/// What one workload asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Kind, such as `StatefulSet`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The cluster its pods belong to.
    pub cluster: Option<String>,
    /// Its class.
    pub class: Option<String>,
    /// The first exposure of the class.
    pub exposure: Option<&'static str>,
    /// Pods that want a slot; `None` where the manifest does not say how many there will be.
    pub pods: Option<Pods>,
    /// Slots that are made ahead of the pods when nothing changes: see [`Class::spare_slots`] and `await.members`. The
    /// workload's pods are taken to be all of their cluster.
    pub ahead: u32,
    /// Why its pods get nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The reason in words, with its remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What it costs.
    pub costs: Costs,
    /// What its pods cost during a rolling update, without slots made ahead of them.
    #[serde(skip)]
    needs: Cost,
}

/// What there is already, apart from the clusters that are planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InUse {
    /// Slots by namespace and exposure.
    pub slots: BTreeMap<(String, &'static str), u32>,
    /// Load balancers by class.
    pub load_balancers: BTreeMap<String, u32>,
    /// Services of the clusters that are planned which stay what they are though their class says something else, each as
    /// a sentence.
    pub departing: Vec<String>,
}

/// What of `services` is not of the clusters that are planned, and what of those does not become as it is planned. Those
/// of other installations do not count.
pub fn in_use(services: &[Service], settings: &Settings, manifests: &Manifests) -> InUse {
    let cluster_of = |workload: &Workload| {
        let mut cluster = None;
        let _ = wanted(&workload.pod, &workload.namespace, settings, &mut cluster);
        Some((workload.namespace.clone(), cluster?))
    };
    let planned: BTreeSet<(String, String)> = manifests.workloads.iter().filter_map(cluster_of).collect();
    let mut in_use = InUse::default();
    for service in services.iter().filter(|s| s.owned_by(&settings.installation)) {
        let Some(cluster) = service.cluster() else { continue };
        let namespace = service.key.namespace.to_string();
        if planned.contains(&(namespace.clone(), cluster.to_owned())) {
            in_use.departing.extend(departing(service, cluster, settings));
            continue;
        }
        let slots = u32::try_from(service.slots()).unwrap_or(u32::MAX);
        *in_use.slots.entry((namespace, service.exposure().as_str())).or_default() += slots;
        if service.exposure() != Exposure::NodePort {
            let class = service.class().unwrap_or_default().to_owned();
            *in_use.load_balancers.entry(class).or_default() += 1;
        }
    }
    in_use
}

/// How a Service departs from its class, and when it does not any more.
fn departing(service: &Service, cluster: &str, settings: &Settings) -> Option<String> {
    let class = settings.class_of(service)?;
    let drift = addresses::drift(class, service)?;
    let made_again =
        if class.exposure.contains(&service.exposure()) { "" } else { "its pod is made again, or " };
    let Key { namespace, name } = &service.key;
    Some(format!(
        "{namespace}/{name}: {} (until {made_again}external-ip-controller recreate {namespace}/{cluster})",
        drift.detail
    ))
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// By workload, in the order of the manifests.
    pub workloads: Vec<Asked>,
    /// All together.
    pub total: Costs,
    /// Limits that would be in the way, each as a sentence. Who is over takes the class's next exposure, else waits.
    pub exceeded: Vec<String>,
    /// Services there are that do not become what is planned by themselves, each as a sentence.
    pub departing: Vec<String>,
    /// Objects of the manifests that make no pods, or of kinds that are not looked at.
    pub ignored: Vec<String>,
}

/// What `manifests` would cost with these settings. Their namespaces are taken to be enabled.
pub fn plan(manifests: &Manifests, settings: &Settings, in_use: &InUse) -> Plan {
    let workloads: Vec<Asked> = manifests.workloads.iter().map(|w| asked(w, settings)).collect();
    let mut total = Costs::default();
    for Costs { at_rest, rolling, at_most } in workloads.iter().map(|w| w.costs) {
        total.at_rest += at_rest;
        total.rolling += rolling;
        total.at_most += at_most;
    }
    let exceeded = exceeded(&workloads, settings, in_use);
    let departing = in_use.departing.clone();
    Plan { workloads, total, exceeded, departing, ignored: manifests.ignored.clone() }
}

fn asked(workload: &Workload, settings: &Settings) -> Asked {
    let Workload { kind, namespace, name, pod, pods } = workload;
    let mut asked = Asked {
        kind: kind.clone(),
        namespace: namespace.clone(),
        name: name.clone(),
        cluster: None,
        class: None,
        exposure: None,
        pods: *pods,
        ahead: 0,
        reason: None,
        message: None,
        costs: Costs::default(),
        needs: Cost::default(),
    };
    match wanted(pod, namespace, settings, &mut asked.cluster) {
        Ok(demand) => {
            let exposure = demand.class.exposure.first().copied().unwrap_or(Exposure::Dedicated);
            let slots = |count: u32| cost(demand.class, exposure, demand.ports.len(), count);
            let of = |pods: u32| slots(pods.saturating_add(ahead(&demand, pods)));
            asked.class = Some(demand.class_name.to_owned());
            asked.exposure = Some(exposure.as_str());
            if let Some(pods) = pods {
                asked.ahead = ahead(&demand, pods.at_rest);
                asked.costs =
                    Costs { at_rest: of(pods.at_rest), rolling: of(pods.rolling), at_most: of(pods.at_most) };
                asked.needs = slots(pods.rolling);
            }
        }
        Err(reason) => {
            asked.reason = Some(reason.code.as_str());
            asked.message = Some(reason.message());
        }
    }
    asked
}

fn wanted<'s>(
    pod: &Pod,
    namespace: &str,
    settings: &'s Settings,
    cluster: &mut Option<String>,
) -> Result<Demand<'s>, Reason> {
    let labels = |key: &str| pod.labels.get(key);
    let (name, configured) = match demand::cluster_of(labels, namespace, settings) {
        Membership::None => return Err(Code::NotLabelled.into()),
        Membership::Ambiguous { names } => return Err(Reason::new(Code::AmbiguousCluster, names.join(", "))),
        Membership::Cluster { name, configured } => (name, configured),
    };
    let demand = demand::demand(&Ask::of_pod(pod, &name, configured), settings);
    *cluster = Some(name);
    demand
}

/// Slots made ahead of so many pods.
fn ahead(demand: &Demand<'_>, pods: u32) -> u32 {
    let members = if demand.waits { demand.class.await_address.members } else { 0 };
    if pods == 0 { 0 } else { demand.class.spare_slots.max(members.saturating_sub(pods)) }
}

/// What `slots` slots with so many ports each cost.
fn cost(class: &Class, exposure: Exposure, ports: usize, slots: u32) -> Cost {
    let ports = u32::try_from(ports).unwrap_or(u32::MAX);
    let template = &class.service;
    let dual = template.ip_family_policy.as_deref() == Some("RequireDualStack");
    let families = if dual || class.address_families() == (true, true) { 2 } else { 1 };
    let node_ports = u32::from(template.allocate_load_balancer_node_ports != Some(false));
    // kube-proxy answers the load balancer's health checks at a port of its own
    let health = u32::from(template.external_traffic_policy.as_deref() == Some("Local"));
    let slot = Cost { slots: 1, ports, ..Cost::default() };
    match exposure {
        Exposure::Dedicated => {
            let balancer = Cost { load_balancers: 1, addresses: families, ..Cost::default() };
            (slot + balancer + Cost { node_ports: ports * node_ports + health, ..Cost::default() }) * slots
        }
        Exposure::Shared => {
            let per_service = (u32::from(class.shared.ports_per_service) / ports.max(1)).max(1);
            let balancer = Cost { load_balancers: 1, addresses: families, ..Cost::default() };
            let of_slots = (slot + Cost { node_ports: ports * node_ports, ..Cost::default() }) * slots;
            of_slots + balancer * slots.div_ceil(per_service)
        }
        Exposure::NodePort => (slot + Cost { node_ports: ports, ..Cost::default() }) * slots,
    }
}

/// Limits are held against the pods there are at once: slots that only rest are taken at a limit, and none is made ahead
/// there.
fn exceeded(workloads: &[Asked], settings: &Settings, in_use: &InUse) -> Vec<String> {
    let limits = &settings.limits;
    let mut clusters: BTreeMap<(&str, &str, &str), u32> = BTreeMap::new();
    let mut namespaces: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let mut classes: BTreeMap<&str, Cost> = BTreeMap::new();
    let mut balancers = in_use.load_balancers.values().fold(0, |sum: u32, n| sum.saturating_add(*n));
    let add = |sum: &mut u32, more: u32| *sum = sum.saturating_add(more);
    for workload in workloads {
        let (cost, namespace) = (workload.needs, workload.namespace.as_str());
        let (Some(cluster), Some(class), Some(exposure)) =
            (&workload.cluster, &workload.class, workload.exposure)
        else {
            continue;
        };
        add(&mut balancers, cost.load_balancers);
        add(clusters.entry((namespace, cluster, exposure)).or_default(), cost.slots);
        let used = || in_use.slots.get(&(namespace.to_owned(), exposure)).copied().unwrap_or(0);
        add(namespaces.entry((namespace, exposure)).or_insert_with(used), cost.slots);
        let used = || Cost {
            load_balancers: in_use.load_balancers.get(class).copied().unwrap_or(0),
            ..Cost::default()
        };
        *classes.entry(class).or_insert_with(used) += cost;
    }
    let mut found = Vec::new();
    let mut over = |who: String, needs: u32, limit: u32, what: &str| {
        if needs > limit {
            found.push(format!("{who} needs {needs} of {limit} {what}"));
        }
    };
    for ((namespace, cluster, exposure), slots) in clusters {
        let what = format!("slots of exposure {exposure} (limits.slotsPerCluster)");
        over(format!("cluster {namespace}/{cluster}"), slots, limits.slots_per_cluster, &what);
    }
    for ((namespace, exposure), slots) in namespaces {
        let what = format!("slots of exposure {exposure} (limits.slotsPerNamespace)");
        over(format!("namespace {namespace}"), slots, limits.slots_per_namespace, &what);
    }
    let what = "load balancers (limits.loadBalancers)";
    over("the installation".to_owned(), balancers, limits.load_balancers, what);
    for (name, cost) in classes {
        let Some(class) = settings.class(name) else { continue };
        let who = format!("class {name}");
        if let Some(limit) = class.load_balancers {
            over(who.clone(), cost.load_balancers, limit, "load balancers (loadBalancers of the class)");
        }
        if let Some(pool) = class.pool_slots() {
            let pool = u32::try_from(pool).unwrap_or(u32::MAX);
            over(who, cost.load_balancers, pool, "static addresses of a family (addresses of the class)");
        }
    }
    found
}
