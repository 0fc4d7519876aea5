use std::net::IpAddr;

use serde::Deserialize;

use super::{Meta, Protocol, tight};
use crate::names::{self, Key};

/// An EndpointSlice of one of our Services (slices inherit their Service's labels).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Raw")]
pub struct Slice {
    /// Namespace and name.
    pub key: Key,
    /// Resource version.
    pub version: u64,
    /// Name of its Service.
    pub service: String,
    /// The change of a pod that made the slice what it is, seconds since 1970; 0 where that is not recorded.
    pub triggered: i64,
    /// Written by Kubernetes' own controller.
    pub trusted: bool,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ports.
    pub ports: Vec<SlicePort>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses, all of the slice's family.
    pub addresses: Vec<IpAddr>,
    /// UID of the pod behind it; empty where it is not a pod.
    pub pod_uid: String,
    /// Condition ready; unknown counts as ready, as the API says.
    pub ready: bool,
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct SlicePort {
    /// The Service's name of the port.
    #[serde(default)]
    pub name: String,
    /// Container port; absent means all ports.
    #[serde(default)]
    pub port: Option<u16>,
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

#[derive(Deserialize)]
struct Raw {
    metadata: Meta,
    // the API server writes null for an empty list
    #[serde(default)]
    endpoints: Option<Vec<RawEndpoint>>,
    #[serde(default)]
    ports: Option<Vec<SlicePort>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    addresses: Vec<String>,
    conditions: RawConditions,
    target_ref: Option<RawTarget>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawConditions {
    ready: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawTarget {
    kind: String,
    uid: String,
}

impl From<RawEndpoint> for Endpoint {
    fn from(raw: RawEndpoint) -> Self {
        Self {
            addresses: tight(raw.addresses.iter().filter_map(|a| a.parse().ok()).collect()),
            pod_uid: raw.target_ref.filter(|t| t.kind == "Pod").map(|t| t.uid).unwrap_or_default(),
            ready: raw.conditions.ready.unwrap_or(true),
        }
    }
}

impl From<Raw> for Slice {
    fn from(raw: Raw) -> Self {
        let mut meta = raw.metadata;
        Self {
            key: meta.key(),
            version: meta.version(),
            triggered: triggered(&meta),
            service: meta.take_label(names::SLICE_SERVICE_LABEL).unwrap_or_default(),
            trusted: meta
                .labels
                .get(names::SLICE_MANAGED_BY_LABEL)
                .is_some_and(|v| v == names::SLICE_CONTROLLER),
            endpoints: tight(raw.endpoints.unwrap_or_default().into_iter().map(Into::into).collect()),
            ports: tight(raw.ports.unwrap_or_default()),
        }
    }
}

fn triggered(meta: &Meta) -> i64 {
    let time = meta.annotations.get(names::SLICE_TRIGGER_ANNOTATION);
    time.and_then(|t| t.parse().ok()).map_or(0, jiff::Timestamp::as_second)
}
