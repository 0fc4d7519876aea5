//! What is in force: the configuration after parsing and validation. [`parse`] reads the file, [`render`] writes it.

mod class;
pub mod duration;
mod file;
mod origin;
mod pool;
mod reader;
mod render;
mod rules;
mod yaml;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::names::ClusterName;
use crate::objects::{PortSpec, Service};

pub use file::{FILE_MAX, Parsed, parse};
pub use reader::{ConfigError, Finding};
pub use render::{render, render_json};
pub use yaml::Place;

/// The class used where none is named.
pub const DEFAULT_CLASS: &str = "default";

/// What kubelets use where nobody says otherwise. No API object tells: it is configured on every node.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// All settings of an installation. Made by the configuration file's parser, so that every value here is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The installation's name, written on everything it owns.
    pub installation: String,
    /// Who may read the mapping.
    pub access: Access,
    /// Where the two TLS listeners take their certificate from.
    pub tls: Tls,
    /// The domain behind Services' DNS names in this Kubernetes cluster.
    pub cluster_domain: String,
    /// Limits outside the classes.
    pub limits: Limits,
    /// Classes by name; always has [`DEFAULT_CLASS`].
    pub classes: BTreeMap<String, Class>,
    /// Clusters whose pods cannot be labelled, by namespace and name; unique.
    pub clusters: Vec<ConfiguredCluster>,
}

impl Settings {
    /// The class called `name`.
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// The class a Service was made with, else the default one.
    pub fn class_of(&self, service: &Service) -> Option<&Class> {
        service.class().and_then(|name| self.class(name)).or_else(|| self.class(DEFAULT_CLASS))
    }

    /// How long what a Service frees rests.
    pub fn reuse_after(&self, service: &Service) -> Duration {
        self.class_of(service).map_or(Duration::ZERO, |c| c.reuse_after)
    }

    /// The configured cluster `namespace`/`name`.
    pub fn cluster(&self, namespace: &str, name: &str) -> Option<&ConfiguredCluster> {
        self.clusters.iter().find(|c| c.namespace == namespace && c.name.as_str() == name)
    }

    /// Whether a class may expose slots so.
    pub fn uses(&self, exposure: Exposure) -> bool {
        self.classes.values().any(|c| c.exposure.contains(&exposure))
    }

    /// What is allowed and may still surprise.
    pub fn notes(&self) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if matches!(&self.tls.mapping, CertificateSource::Files(CertificateFiles { ca: None, .. })) {
            notes.push(
                "tls.mapping names no ca: there is no ca.crt in the ConfigMaps and nothing at /ca.pem; clients have to get \
                 the CA from whoever issues the certificate",
            );
        }
        notes
    }
}

impl Default for Settings {
    /// What an empty file (`version: 1`) means.
    fn default() -> Self {
        Self {
            installation: crate::names::CONTROLLER_NAME.to_owned(),
            access: Access::Token,
            tls: Tls::default(),
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            limits: Limits::default(),
            classes: BTreeMap::from([(DEFAULT_CLASS.to_owned(), Class::default())]),
            clusters: Vec::new(),
        }
    }
}

/// Who may read the mapping listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Bearer tokens with our audience and the right to read.
    Token,
    /// Everybody who reaches the listener.
    Open,
}

/// Certificate sources of the TLS listeners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Of the admission listener.
    pub admission: CertificateSource,
    /// Of the mapping listener.
    pub mapping: CertificateSource,
}

/// Where a listener's certificate comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CertificateSource {
    /// A leaf of our own CA.
    #[default]
    SelfManaged,
    /// Mounted files.
    Files(CertificateFiles),
}

/// Mounted PEM files, read again on change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// What clients shall trust; `None`: they learn it elsewhere.
    pub ca: Option<PathBuf>,
}

/// Limits of the installation, outside the classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Slots of one cluster, kept ones included.
    pub slots_per_cluster: u32,
    /// Slots of all clusters of a namespace.
    pub slots_per_namespace: u32,
    /// LoadBalancer Services of the installation.
    pub load_balancers: u32,
}

impl Limits {
    /// The most load balancers a cluster of a class can have to itself.
    pub fn addresses_of_a_cluster(&self, class: &Class) -> u32 {
        let of_class = class.load_balancers.unwrap_or(u32::MAX);
        let of_pool = class.pool_slots().and_then(|slots| slots.try_into().ok()).unwrap_or(u32::MAX);
        self.slots_per_cluster
            .min(self.slots_per_namespace)
            .min(self.load_balancers)
            .min(of_class)
            .min(of_pool)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { slots_per_cluster: 64, slots_per_namespace: 128, load_balancers: 1000 }
    }
}

/// A named set of exposure settings, written by the platform engineer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Namespaces that may use the class; empty = all.
    pub namespaces: Vec<String>,
    /// Wanted exposure first, then the steps down.
    pub exposure: Vec<Exposure>,
    /// What the Services look like.
    pub service: ServiceTemplate,
    /// Static addresses; empty = the load balancer chooses.
    pub addresses: Vec<IpAddr>,
    /// Most load balancers of the class, dedicated and shared; `None` = only the installation's limit.
    pub load_balancers: Option<u32>,
    /// Port range of shared load balancers.
    pub shared: Shared,
    /// Whether and how long pods wait for their address.
    pub await_address: Await,
    /// How long a slot keeps its address after its pod is gone.
    pub retention: Retention,
    /// How long a freed address rests before another pod gets it.
    pub reuse_after: Duration,
    /// Slots made ahead of the pods.
    pub spare_slots: u32,
    /// Pods are ready only once their address leads to them.
    pub readiness_gate: bool,
    /// Whether the leader dials external addresses; `None` = no.
    pub reachable: Option<Reachability>,
    /// Whether the leader asks DNS for the addresses of load balancers that are known by name.
    pub resolve_names: bool,
}

impl Class {
    /// Whether pods of `namespace` may use the class.
    pub fn allows(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == namespace)
    }

    /// How many slots the static addresses are enough for; `None` = the load balancer chooses.
    pub fn pool_slots(&self) -> Option<usize> {
        let of_family = |v4: bool| self.addresses.iter().filter(|ip| ip.is_ipv4() == v4).count();
        [of_family(true), of_family(false)].into_iter().filter(|count| *count > 0).min()
    }

    /// Families of the static addresses: IPv4, IPv6.
    pub fn address_families(&self) -> (bool, bool) {
        (self.addresses.iter().any(IpAddr::is_ipv4), self.addresses.iter().any(IpAddr::is_ipv6))
    }
}

impl Default for Class {
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            exposure: vec![Exposure::Dedicated],
            service: ServiceTemplate::default(),
            addresses: Vec::new(),
            load_balancers: None,
            shared: Shared { first_port: 20_000, ports_per_service: 50 },
            await_address: Await { enabled: false, timeout: Duration::from_secs(120), members: 0 },
            retention: Retention::For(Duration::from_secs(600)),
            reuse_after: Duration::from_secs(30),
            spare_slots: 0,
            readiness_gate: false,
            reachable: None,
            resolve_names: true,
        }
    }
}

/// How a slot is exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exposure {
    /// A LoadBalancer Service of its own.
    Dedicated,
    /// Ports on a LoadBalancer Service that many slots share.
    Shared,
    /// Node addresses and ports.
    NodePort,
}

impl Exposure {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        class::exposure_word(self)
    }
}

impl std::fmt::Display for Exposure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Fields of the Services we make; `None` leaves the API's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTemplate {
    /// Annotations; values may hold `{cluster}`, `{namespace}`, `{slot}`, `{address}`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.loadBalancerClass`; cannot be changed on an existing Service.
    pub load_balancer_class: Option<String>,
    /// `spec.loadBalancerIP`; may hold the same placeholders as annotations.
    pub load_balancer_ip: Option<String>,
    /// `spec.externalTrafficPolicy`: `Cluster` or `Local`.
    pub external_traffic_policy: Option<String>,
    /// `spec.loadBalancerSourceRanges`: CIDRs.
    pub load_balancer_source_ranges: Vec<String>,
    /// `spec.ipFamilyPolicy`: `SingleStack`, `PreferDualStack` or `RequireDualStack`.
    pub ip_family_policy: Option<String>,
    /// `spec.allocateLoadBalancerNodePorts`.
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready_addresses: bool,
}

/// Placeholder of annotations and `loadBalancerIP` for the addresses a slot asks for, comma separated, IPv4 first.
pub const ADDRESS_PLACEHOLDER: &str = "{address}";

impl ServiceTemplate {
    /// Whether it tells the load balancer which address is wanted.
    pub fn asks_for_address(&self) -> bool {
        self.annotations.values().chain(&self.load_balancer_ip).any(|text| text.contains(ADDRESS_PLACEHOLDER))
    }
}

impl Default for ServiceTemplate {
    fn default() -> Self {
        Self {
            annotations: BTreeMap::new(),
            load_balancer_class: None,
            load_balancer_ip: None,
            external_traffic_policy: None,
            load_balancer_source_ranges: Vec::new(),
            ip_family_policy: None,
            allocate_load_balancer_node_ports: None,
            publish_not_ready_addresses: true,
        }
    }
}

/// Port range of shared load balancers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// First outside port.
    pub first_port: u16,
    /// Ports on one Service before a further one is made.
    pub ports_per_service: u16,
}

impl Shared {
    /// The outside ports of one Service.
    pub fn range(&self) -> std::ops::Range<u32> {
        let first = u32::from(self.first_port);
        first..first + u32::from(self.ports_per_service)
    }
}

/// Whether pods wait for their address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Await {
    /// Default of pods that do not say.
    pub enabled: bool,
    /// Counted from the pod's creation; then it starts without.
    pub timeout: Duration,
    /// Slots of the cluster that must have addresses before one of its pods starts; 0 = each pod for itself.
    pub members: u32,
}

/// How external addresses are dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reachability {
    /// Between two dials of one address.
    pub interval: Duration,
    /// For one dial.
    pub timeout: Duration,
}

impl Default for Reachability {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(3) }
    }
}

/// How long a slot keeps its address after its pod is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// This long.
    For(Duration),
    /// Until somebody deletes it.
    Forever,
}

/// A cluster whose workload's template cannot be labelled (another operator's pods).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredCluster {
    /// Cluster name.
    pub name: ClusterName,
    /// Namespace of its pods.
    pub namespace: String,
    /// Labels all its pods carry; never empty.
    pub selector: BTreeMap<String, String>,
    /// Exposed ports; empty = every declared container port.
    pub ports: Vec<PortSpec>,
    /// Class name; exists.
    pub class: String,
}
