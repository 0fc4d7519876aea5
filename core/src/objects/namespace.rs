use std::sync::Arc;

use serde::Deserialize;

use super::Meta;
use crate::names;

/// A namespace. Only enabled ones are watched, so one that is gone from the state does not take part.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Raw")]
pub struct Namespace {
    /// Name.
    pub name: Arc<str>,
    /// Resource version.
    pub version: u64,
    /// Labelled to take part.
    pub enabled: bool,
    /// Being deleted: creating anything in it fails.
    pub deleting: bool,
}

#[derive(Deserialize)]
struct Raw {
    metadata: Meta,
}

impl From<Raw> for Namespace {
    fn from(raw: Raw) -> Self {
        let meta = raw.metadata;
        Self {
            version: meta.version(),
            enabled: meta.labels.get(names::ENABLED_LABEL).is_some_and(|v| v == "true"),
            deleting: meta.deletion_timestamp.is_some(),
            name: meta.name.into(),
        }
    }
}
