//! The full document: everything the mapping knows. Readers ignore fields they do not know; fields are only ever added.

use serde::Serialize;

use crate::mapping::{ClusterMapping, Mapping};

/// All clusters.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Aggregate<'m> {
    /// By namespace and name.
    clusters: Vec<&'m ClusterMapping>,
}

fn aggregate(mapping: &Mapping) -> Aggregate<'_> {
    Aggregate { clusters: mapping.values().map(AsRef::as_ref).collect() }
}

/// One cluster as JSON.
pub fn cluster_json(cluster: &ClusterMapping) -> String {
    to_json(cluster)
}

/// All clusters as JSON: `{"clusters": [...]}`, by namespace and name.
pub fn aggregate_json(mapping: &Mapping) -> String {
    to_json(&aggregate(mapping))
}

/// One cluster as YAML.
pub fn cluster_yaml(cluster: &ClusterMapping) -> String {
    to_yaml(cluster)
}

/// All clusters as YAML: `clusters: [...]`, by namespace and name.
pub fn aggregate_yaml(mapping: &Mapping) -> String {
    to_yaml(&aggregate(mapping))
}

/// A document of our own as JSON, with a line end.
pub fn to_json(document: &impl Serialize) -> String {
    // structs of strings, numbers and lists always serialize
    let mut text = serde_json::to_string(document).unwrap_or_default();
    text.push('\n');
    text
}

/// All strings are quoted: YAML 1.1, which many readers still speak, takes `2001:10::` for a map, `1:20` for 80 and
/// `no` for false.
pub fn to_yaml(document: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! { quote_all: true };
    serde_saphyr::to_string_with_options(document, options).unwrap_or_default()
}
