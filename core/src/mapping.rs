//! The published document: which internal address is which external one. A pure function of API objects and
//! configuration, so every replica shows the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::names::Key;
use crate::objects::Protocol;

/// All clusters, by namespace and name.
pub type Mapping = BTreeMap<Key, Arc<ClusterMapping>>;

/// One cluster's entries, sorted by slot and pod name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterMapping {
    /// Namespace.
    pub namespace: String,
    /// Cluster name.
    pub name: String,
    /// The class of the cluster's first pod.
    pub class: String,
    /// One entry per pod.
    pub entries: Vec<Entry>,
    /// Labels that select the cluster's pods: for the origin's document only.
    #[serde(skip)]
    pub selector: BTreeMap<String, String>,
}

/// How far an entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum EntryState {
    /// No external address yet.
    Pending,
    /// The Service has its address.
    Allocated,
    /// The slot's endpoints hold exactly this pod: drivers may use it.
    Routed,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Pod name.
    pub pod: String,
    /// Pod UID.
    pub uid: String,
    /// Slot number, where it has one.
    pub slot: Option<u32>,
    /// How far it has come.
    pub state: EntryState,
    /// Reason code, where it is not Routed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What is the case and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The pod is being deleted.
    pub terminating: bool,
    /// The pod is ready.
    pub ready: bool,
    /// Addresses inside the Kubernetes cluster.
    pub internal: Internal,
    /// Address outside, where it is known.
    pub external: Option<External>,
    /// Port pairs.
    pub ports: Vec<PortPair>,
}

/// A pod's addresses inside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Internal {
    /// IPv4 first.
    pub ips: Vec<IpAddr>,
    /// DNS names.
    pub names: Vec<String>,
}

/// A slot's address outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct External {
    /// IPv4 first.
    pub ips: Vec<IpAddr>,
    /// Host name, where the load balancer gives one.
    pub host: Option<String>,
}

/// A port inside and outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PortPair {
    /// Port name on the Service.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Container port.
    pub internal: u16,
    /// Outside port.
    pub external: u16,
}
