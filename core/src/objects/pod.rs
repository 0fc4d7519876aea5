use std::net::IpAddr;

use serde::Deserialize;

use super::readiness::{RawCondition, RawGate as RawReadinessGate};
use super::{Meta, Pairs, Protocol, Readiness, tight};
use crate::names::{self, Key};
use crate::shared;

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Raw")]
pub struct Pod {
    /// Namespace and name.
    pub key: Key,
    /// UID: tells a pod from its successor of the same name.
    pub uid: String,
    /// Resource version.
    pub version: u64,
    /// Creation, seconds since 1970.
    pub created: i64,
    /// All labels but the identity; the configuration's selectors are matched against them.
    pub labels: Pairs,
    /// The identity label.
    pub pod_id: Option<String>,
    /// Value of [`names::PORTS_ANNOTATION`].
    pub ports: Option<String>,
    /// Value of [`names::CLASS_ANNOTATION`].
    pub class: Option<String>,
    /// Value of [`names::AWAIT_ANNOTATION`].
    pub await_address: Option<String>,
    /// Value of [`names::INJECT_ANNOTATION`].
    pub inject: Option<String>,
    /// Place of our scheduling gate among the pod's gates.
    pub gate: Option<usize>,
    /// Our readiness gate, where the pod has it.
    pub readiness: Option<Readiness>,
    /// Annotations under [`names::RESERVED_PREFIX`]: what the pod was told of its slot.
    pub told: Pairs,
    /// It has no annotations at all, nothing to add one to.
    pub bare: bool,
    /// Ports the containers declare, native sidecars included; without those of its shared names.
    pub container_ports: Vec<ContainerPort>,
    /// Ports under shared names, its own and others', of a pod that shared Services may select.
    pub shared_ports: Vec<ContainerPort>,
    /// The owner with `controller: true`.
    pub owner: Option<Owner>,
    /// Uses its node's network.
    pub host_network: bool,
    /// A kubelet's static pod.
    pub mirror: bool,
    /// Phase Succeeded or Failed.
    pub finished: bool,
    /// Has a deletion timestamp.
    pub terminating: bool,
    /// Condition Ready.
    pub ready: bool,
    /// When condition Ready last changed, seconds since 1970; 0 where there is none.
    pub ready_changed: i64,
    /// Pod addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// `spec.nodeName`, once it is scheduled.
    pub node: Option<String>,
    /// `spec.hostname` and `spec.subdomain`: the pod's DNS name within its namespace, where it has one.
    pub dns: Option<(String, String)>,
}

impl Pod {
    /// Whether the pod was named by a set that replaces pods under random names: its name never comes back.
    pub fn is_anonymous(&self) -> bool {
        const RANDOM_NAMES: [&str; 4] = ["ReplicaSet", "ReplicationController", "DaemonSet", "Job"];
        self.owner.as_ref().is_some_and(|o| RANDOM_NAMES.contains(&o.kind.as_str()))
    }

    /// DNS names other members know the pod by: within the cluster's domain, and with it, as `hostname -f` answers.
    pub fn dns_names(&self, cluster_domain: &str) -> Vec<String> {
        let Some((host, domain)) = &self.dns else { return Vec::new() };
        let short = [host, ".", domain, ".", &self.key.namespace, ".svc"].concat();
        let whole = [&short, ".", cluster_domain].concat();
        vec![short, whole]
    }
}

/// A port a container declares.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name; empty where it has none.
    #[serde(default)]
    pub name: String,
    /// Its number.
    #[serde(rename = "containerPort")]
    pub number: u16,
    /// Its protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// The object a pod belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub struct Owner {
    /// For example `apps/v1`.
    pub api_version: String,
    /// For example `StatefulSet`.
    pub kind: String,
    /// Name in the pod's namespace.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Whether it is the one that manages the pod.
    pub controller: bool,
}

#[derive(Deserialize)]
struct Raw {
    metadata: Meta,
    #[serde(default)]
    spec: RawSpec,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    containers: Vec<RawContainer>,
    init_containers: Vec<RawContainer>,
    host_network: bool,
    hostname: String,
    subdomain: String,
    node_name: String,
    scheduling_gates: Vec<RawGate>,
    readiness_gates: Vec<RawReadinessGate>,
}

#[derive(Deserialize)]
struct RawGate {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawContainer {
    ports: Vec<ContainerPort>,
    restart_policy: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    phase: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<RawIp>,
    conditions: Vec<RawCondition>,
}

#[derive(Deserialize)]
struct RawIp {
    ip: String,
}

/// Ports with names of the shared form, and what the pod itself declares.
fn shared_and_own(
    declared: impl Iterator<Item = ContainerPort>,
    pod_id: Option<&str>,
) -> (Vec<ContainerPort>, Vec<ContainerPort>) {
    let token = pod_id.map(names::share_token);
    let (mut shared, mut own) = (Vec::new(), Vec::new());
    for port in declared {
        let found = shared::token_of(&port.name).map(|(found, _)| found);
        if found.is_none() || found != token.as_deref() {
            own.push(port.clone());
        }
        if found.is_some() {
            shared.push(port);
        }
    }
    (shared, own)
}

impl From<Raw> for Pod {
    fn from(raw: Raw) -> Self {
        let Raw { metadata: mut meta, spec, status } = raw;
        // an init container that always restarts is a sidecar: it lives as long as the pod
        let sidecars = spec.init_containers.into_iter().filter(|c| c.restart_policy == "Always");
        let mut ips: Vec<IpAddr> = status.pod_ips.iter().filter_map(|i| i.ip.parse().ok()).collect();
        ips.sort_by_key(IpAddr::is_ipv6);
        let ready = status.conditions.iter().find(|c| c.kind == "Ready");
        let declared = spec.containers.into_iter().chain(sidecars).flat_map(|c| c.ports);
        let pod_id = meta.take_label(names::POD_ID_LABEL);
        let (shared_ports, container_ports) = if meta.labels.contains_key(names::SHARED_LABEL) {
            shared_and_own(declared, pod_id.as_deref())
        } else {
            (Vec::new(), declared.collect())
        };
        let named = !spec.hostname.is_empty() && !spec.subdomain.is_empty();
        let bare = meta.annotations.is_empty();
        Self {
            pod_id,
            bare,
            gate: spec.scheduling_gates.iter().position(|g| g.name == names::ADDRESS_GATE),
            readiness: Readiness::read(&spec.readiness_gates, &status.conditions),
            told: meta.take_reserved_annotations(),
            ports: meta.take_annotation(names::PORTS_ANNOTATION),
            class: meta.take_annotation(names::CLASS_ANNOTATION),
            await_address: meta.take_annotation(names::AWAIT_ANNOTATION),
            inject: meta.take_annotation(names::INJECT_ANNOTATION),
            mirror: meta.annotations.contains_key(names::MIRROR_ANNOTATION),
            key: meta.key(),
            version: meta.version(),
            created: meta.created(),
            terminating: meta.deletion_timestamp.is_some(),
            uid: meta.uid,
            labels: meta.labels.tight(),
            owner: meta.owner_references.into_iter().find(|o| o.controller),
            container_ports: tight(container_ports),
            shared_ports: tight(shared_ports),
            host_network: spec.host_network,
            node: Some(spec.node_name).filter(|n| !n.is_empty()),
            dns: named.then_some((spec.hostname, spec.subdomain)),
            finished: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
            ready: ready.is_some_and(|c| c.status == "True"),
            ready_changed: ready.and_then(|c| c.changed).map_or(0, jiff::Timestamp::as_second),
            ips: tight(ips),
        }
    }
}
