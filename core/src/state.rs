//! What has been seen of the API server: one plain struct, changed by watch updates only.

use crate::objects::{Namespace, Pod, Service, Slice};

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
    /// A complete list: replaces everything of its feed.
    Listed {
        /// All objects.
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
}
