use std::net::IpAddr;

use serde::Deserialize;

use super::{Meta, Pairs, Protocol, tight};
use crate::names::{self, Key};
use crate::settings::Exposure;
use crate::shared::SharedSlot;

/// A Service with our managed-by label.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Raw")]
pub struct Service {
    /// Namespace and name.
    pub key: Key,
    /// UID.
    pub uid: String,
    /// Resource version.
    pub version: u64,
    /// Creation, seconds since 1970.
    pub created: i64,
    /// Labels.
    pub labels: Pairs,
    /// Annotations.
    pub annotations: Pairs,
    /// Being deleted (a load balancer's finalizer may hold it for long).
    pub terminating: bool,
    /// `spec.type`.
    pub service_type: String,
    /// `spec.selector`.
    pub selector: Pairs,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// The slots its ports are, where it is a shared one.
    pub shares: Vec<SharedSlot>,
    /// Port name and node port, of type NodePort only.
    pub node_ports: Vec<(String, u16)>,
    /// `spec.loadBalancerClass`.
    pub load_balancer_class: Option<String>,
    /// `spec.loadBalancerIP`.
    pub load_balancer_ip: Option<String>,
    /// `spec.externalTrafficPolicy`.
    pub external_traffic_policy: Option<String>,
    /// `spec.loadBalancerSourceRanges`.
    pub load_balancer_source_ranges: Vec<String>,
    /// `spec.ipFamilyPolicy`.
    pub ip_family_policy: Option<String>,
    /// `spec.allocateLoadBalancerNodePorts`.
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready_addresses: bool,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<Ingress>,
    /// Last write of the status, seconds since 1970; 0 where nobody has written one.
    pub status_written: i64,
}

impl Service {
    /// The cluster label.
    pub fn cluster(&self) -> Option<&str> {
        self.labels.get(names::CLUSTER_LABEL)
    }

    /// The slot number, where label and name agree.
    pub fn slot(&self) -> Option<u32> {
        let slot = self.labels.get(names::SLOT_LABEL)?.parse().ok()?;
        (*self.key.name == names::slot_service(self.cluster()?, slot)).then_some(slot)
    }

    /// Whether `installation` made it.
    pub fn owned_by(&self, installation: &str) -> bool {
        self.labels.get(names::MANAGED_BY_LABEL).is_some_and(|v| v == names::CONTROLLER_NAME)
            && self.annotations.get(names::OWNER_ANNOTATION).is_some_and(|v| v == installation)
    }

    /// The identity the Service routes to; `None` where the selector is not one of ours.
    pub fn bound_to(&self) -> Option<&str> {
        match self.selector.len() {
            1 => self.selector.get(names::POD_ID_LABEL),
            _ => None,
        }
    }

    /// How it exposes its slots.
    pub fn exposure(&self) -> Exposure {
        match self.annotations.get(names::EXPOSURE_ANNOTATION) {
            _ if self.shared_index().is_some() => Exposure::Shared,
            Some("nodePort") => Exposure::NodePort,
            _ => Exposure::Dedicated,
        }
    }

    /// How many slots it holds.
    pub fn slots(&self) -> usize {
        if self.exposure() == Exposure::Shared { self.shares.len() } else { 1 }
    }

    /// Its number among the shared Services of its cluster, where it is one: label and name agree.
    pub fn shared_index(&self) -> Option<u32> {
        shared_index(&self.labels, &self.key.name)
    }

    /// Whether its selector is that of a shared one: pods that carry shared names, of its own cluster.
    pub fn selects_sharers(&self) -> bool {
        self.selector.len() == 1 && self.selector.get(names::SHARED_LABEL) == self.cluster()
    }

    /// The class it was made with.
    pub fn class(&self) -> Option<&str> {
        self.annotations.get(names::SLOT_CLASS_ANNOTATION)
    }

    /// Whether clients can be told where it is: node ports are there once the Service is.
    pub fn has_address(&self) -> bool {
        self.exposure() == Exposure::NodePort || !self.ingress.is_empty()
    }

    /// Whether the leader has given up waiting for its address.
    pub fn is_overdue(&self) -> bool {
        self.annotations.contains_key(names::OVERDUE_ANNOTATION)
    }

    /// The addresses it asks its load balancer for.
    pub fn asked(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let asked = self.annotations.get(names::ASKED_ANNOTATION);
        asked.into_iter().flat_map(|list| list.split(',')).filter_map(|ip| ip.trim().parse().ok())
    }

    /// The addresses its load balancer has given it.
    pub fn given(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ingress.iter().filter_map(|i| i.ip)
    }

    /// Whether somebody asks for another one in its place.
    pub fn gives_way(&self) -> bool {
        self.annotations.get(names::RECREATE_ANNOTATION).is_some_and(|value| value == "true")
    }

    /// Whether it is neither going nor to go as soon as there is another one.
    pub fn stays(&self) -> bool {
        !self.terminating && !self.gives_way()
    }

    /// The pod name the slot is kept for.
    pub fn kept_for(&self) -> Option<&str> {
        self.annotations.get(names::POD_ANNOTATION)
    }
}

fn shared_index(labels: &Pairs, name: &str) -> Option<u32> {
    let index = labels.get(names::SHARED_SERVICE_LABEL)?.parse().ok()?;
    (name == names::shared_service(labels.get(names::CLUSTER_LABEL)?, index)).then_some(index)
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// Name within the Service.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Outside port.
    pub port: u16,
    /// Container port number; 0 where the Service names a port instead.
    pub target: u16,
    /// Container port name; empty where the Service has a number.
    pub target_name: String,
}

/// One ingress point of a load balancer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// Address, where it has one.
    pub ip: Option<IpAddr>,
    /// Host name, where it has one.
    pub hostname: Option<String>,
    /// Ports that have failed.
    pub ports: Vec<PortStatus>,
}

impl Ingress {
    /// What the load balancer says is wrong with a port, as `8080/TCP: reason`.
    pub fn error(&self) -> Option<String> {
        self.error_among(|_| true)
    }

    /// The same for some outside ports only.
    pub fn error_among(&self, concerns: impl Fn(u16) -> bool) -> Option<String> {
        self.ports.iter().filter(|p| concerns(p.port)).find_map(|p| {
            let error = p.error.as_deref().filter(|e| !e.is_empty())?;
            Some(format!("{}/{}: {error}", p.port, p.protocol))
        })
    }
}

/// Status of a port at a load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PortStatus {
    port: u16,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    error: Option<String>,
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
    #[serde(rename = "type")]
    service_type: String,
    selector: Pairs,
    ports: Vec<RawPort>,
    load_balancer_class: Option<String>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<String>,
    external_traffic_policy: Option<String>,
    load_balancer_source_ranges: Vec<String>,
    ip_family_policy: Option<String>,
    allocate_load_balancer_node_ports: Option<bool>,
    publish_not_ready_addresses: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPort {
    #[serde(default)]
    name: String,
    #[serde(default)]
    protocol: Protocol,
    port: u16,
    #[serde(default)]
    target_port: serde_json::Value,
    #[serde(default)]
    node_port: u16,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    load_balancer: RawLoadBalancer,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawLoadBalancer {
    ingress: Vec<Ingress>,
}

impl From<RawPort> for ServicePort {
    fn from(raw: RawPort) -> Self {
        let target = raw.target_port.as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
        let target_name = raw.target_port.as_str().unwrap_or_default().to_owned();
        Self { name: raw.name, protocol: raw.protocol, port: raw.port, target, target_name }
    }
}

impl From<Raw> for Service {
    fn from(raw: Raw) -> Self {
        let Raw { metadata: meta, spec, status } = raw;
        let node_port = |p: &RawPort| (p.node_port > 0).then(|| (p.name.clone(), p.node_port));
        // those a load balancer uses are nobody's address
        let node_ports = match spec.service_type.as_str() {
            "NodePort" => spec.ports.iter().filter_map(node_port).collect(),
            _ => Vec::new(),
        };
        let mut ports: Vec<ServicePort> = spec.ports.into_iter().map(Into::into).collect();
        ports.sort();
        let ports = tight(ports);
        let shared = shared_index(&meta.labels, &meta.name).is_some();
        Self {
            shares: if shared { SharedSlot::read(&ports) } else { Vec::new() },
            key: meta.key(),
            version: meta.version(),
            created: meta.created(),
            status_written: meta.status_written(),
            terminating: meta.deletion_timestamp.is_some(),
            uid: meta.uid,
            labels: meta.labels.tight(),
            annotations: meta.annotations.tight(),
            service_type: spec.service_type,
            selector: spec.selector.tight(),
            ports,
            node_ports,
            load_balancer_class: spec.load_balancer_class,
            load_balancer_ip: spec.load_balancer_ip,
            external_traffic_policy: spec.external_traffic_policy,
            load_balancer_source_ranges: spec.load_balancer_source_ranges,
            ip_family_policy: spec.ip_family_policy,
            allocate_load_balancer_node_ports: spec.allocate_load_balancer_node_ports,
            publish_not_ready_addresses: spec.publish_not_ready_addresses,
            ingress: tight(status.load_balancer.ingress),
        }
    }
}
