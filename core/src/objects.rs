//! Projections of API objects: what the decisions need and nothing more. Read leniently (the API server has validated
//! the objects; unknown and missing fields are skipped), kept small (a cluster may have 10 000 pods).

mod namespace;
mod node;
mod pairs;
mod pod;
mod port;
mod readiness;
mod service;
mod slice;

use serde::Deserialize;

pub use namespace::Namespace;
pub use node::Node;
pub use pairs::Pairs;
pub use pod::{ContainerPort, Owner, Pod};
pub use port::{InvalidPort, PortRef, PortSpec, Protocol};
pub use readiness::Readiness;
pub use service::{Ingress, Service, ServicePort};
pub use slice::{Endpoint, Slice, SlicePort};

use crate::names::Key;

/// The same without the room that reading has left: a list is read into room for four, and kept by the thousand.
fn tight<T>(mut list: Vec<T>) -> Vec<T> {
    list.shrink_to_fit();
    list
}

/// An object with a resource version.
pub trait Versioned {
    /// `metadata.resourceVersion` as a number, comparable within a kind.
    fn version(&self) -> u64;
}

macro_rules! versioned {
    ($($kind:ty),*) => {
        $(impl Versioned for $kind {
            fn version(&self) -> u64 {
                self.version
            }
        })*
    };
}
versioned!(Pod, Service, Slice, Namespace, Node);

/// The part of `metadata` that projections read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) generate_name: String,
    pub(crate) creation_timestamp: Option<jiff::Timestamp>,
    pub(crate) deletion_timestamp: Option<jiff::Timestamp>,
    pub(crate) labels: Pairs,
    pub(crate) annotations: Pairs,
    pub(crate) owner_references: Vec<Owner>,
    pub(crate) managed_fields: Vec<ManagedFields>,
}

/// When somebody last wrote a part of the object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ManagedFields {
    subresource: String,
    time: Option<jiff::Timestamp>,
}

impl Meta {
    fn key(&self) -> Key {
        Key::new(self.namespace.as_str(), self.name.as_str())
    }

    /// Resource versions are decimal numbers that grow within a kind (Kubernetes 1.35 made that a promise).
    fn version(&self) -> u64 {
        self.resource_version.parse().unwrap_or(0)
    }

    fn created(&self) -> i64 {
        self.creation_timestamp.map_or(0, jiff::Timestamp::as_second)
    }

    /// Last write of the status, seconds since 1970; 0 where nobody has written one.
    fn status_written(&self) -> i64 {
        let of_status = self.managed_fields.iter().filter(|m| m.subresource == "status");
        of_status.filter_map(|m| m.time).map(jiff::Timestamp::as_second).max().unwrap_or(0)
    }

    fn take_label(&mut self, key: &str) -> Option<String> {
        self.labels.take(key)
    }

    fn take_annotation(&mut self, key: &str) -> Option<String> {
        self.annotations.take(key)
    }

    fn take_reserved_annotations(&mut self) -> Pairs {
        self.annotations.take_prefixed(crate::names::RESERVED_PREFIX)
    }
}
