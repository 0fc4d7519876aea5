//! Our ConfigMaps as they are at the API server: whose, which version, and hashes instead of contents.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use external_ip_core::names::{CLUSTER_LABEL, CONTROLLER_NAME, Key, MANAGED_BY_LABEL, OWNER_ANNOTATION};
use external_ip_core::objects::Versioned;
use serde::Deserialize;

use crate::watch::Selection;

/// A ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Raw")]
pub(super) struct Held {
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) version: u64,
    /// The cluster label.
    pub(super) cluster: Option<String>,
    /// Hash of each key's text.
    pub(super) data: BTreeMap<String, u64>,
    managed: bool,
    owner: Option<String>,
}

impl Held {
    /// Whether `installation` made it.
    pub(super) fn is_of(&self, installation: &str) -> bool {
        self.managed && self.owner.as_deref() == Some(installation)
    }
}

impl Versioned for Held {
    fn version(&self) -> u64 {
        self.version
    }
}

/// All ConfigMaps with our label, in all namespaces.
pub(super) fn selection() -> Selection {
    Selection {
        path: "/api/v1/configmaps".to_owned(),
        labels: Some(format!("{MANAGED_BY_LABEL}={CONTROLLER_NAME}")),
        fields: None,
    }
}

/// Path of a ConfigMap, or with an empty name of its collection.
pub(super) fn path(namespace: &str, name: &str) -> String {
    let collection = format!("/api/v1/namespaces/{namespace}/configmaps");
    if name.is_empty() { collection } else { format!("{collection}/{name}") }
}

/// For finding out whether a text has changed, not for more.
pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[derive(Deserialize)]
struct Raw {
    metadata: Meta,
    #[serde(default)]
    data: BTreeMap<String, HashedText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(from = "std::borrow::Cow<'_, str>")]
struct HashedText(u64);

impl From<std::borrow::Cow<'_, str>> for HashedText {
    fn from(text: std::borrow::Cow<'_, str>) -> Self {
        Self(hash(&text))
    }
}

impl From<Raw> for Held {
    fn from(raw: Raw) -> Self {
        let mut meta = raw.metadata;
        Self {
            key: Key::new(meta.namespace, meta.name),
            uid: meta.uid,
            version: meta.resource_version.parse().unwrap_or(0),
            cluster: meta.labels.remove(CLUSTER_LABEL),
            data: raw.data.into_iter().map(|(key, HashedText(hash))| (key, hash)).collect(),
            managed: meta.labels.get(MANAGED_BY_LABEL).is_some_and(|v| v == CONTROLLER_NAME),
            owner: meta.annotations.remove(OWNER_ANNOTATION),
        }
    }
}
