//! Workloads as people write them for kubectl.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Pods;
use crate::objects::Pod;

/// Something that makes pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// One of its pods.
    pub pod: Pod,
    /// How many; `None` where the manifest does not say.
    pub pods: Option<Pods>,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifests {
    /// In the order of the file.
    pub workloads: Vec<Workload>,
    /// `Kind name` of everything else.
    pub ignored: Vec<String>,
}

/// Why manifests cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not YAML, nor JSON, nor what Kubernetes calls an object.
    #[error("{0}")]
    Text(String),
    /// An object is not what its kind says.
    #[error("{0}: {1}")]
    Object(String, String),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    kind: String,
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Meta {
    namespace: String,
    name: String,
    #[serde(rename = "generateName")]
    generate_name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    replicas: Option<u32>,
    template: Option<Value>,
    /// A Deployment's.
    strategy: Strategy,
    /// A DaemonSet's; a StatefulSet's has no surge.
    update_strategy: Strategy,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Strategy {
    #[serde(rename = "type")]
    kind: String,
    rolling_update: Option<RollingUpdate>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RollingUpdate {
    max_surge: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    desired_number_scheduled: Option<u32>,
}

/// Reads YAML documents or JSON. `namespace` is that of objects that name none; `nodes` how many nodes a DaemonSet runs
/// on, where its own status does not say.
pub fn workloads(text: &str, namespace: &str, nodes: Option<u32>) -> Result<Manifests, Unreadable> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| Unreadable::Text(error.to_string()))?;
    let mut found = Manifests::default();
    documents.into_iter().filter(|d| !d.is_null()).try_for_each(|d| take(d, namespace, nodes, &mut found))?;
    Ok(found)
}

fn take(
    document: Value,
    namespace: &str,
    nodes: Option<u32>,
    found: &mut Manifests,
) -> Result<(), Unreadable> {
    if let Some(items) = document["items"].as_array() {
        return items.iter().try_for_each(|item| take(item.clone(), namespace, nodes, found));
    }
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    if kind.is_empty() {
        return Err(Unreadable::Text("an object has no kind".to_owned()));
    }
    if !matches!(kind.as_str(), "StatefulSet" | "Deployment" | "ReplicaSet" | "DaemonSet" | "Pod") {
        let name = document["metadata"]["name"].as_str().unwrap_or_default();
        found.ignored.push(format!("{kind} {name}"));
        return Ok(());
    }
    let unreadable = |error: serde_json::Error| Unreadable::Object(kind.clone(), error.to_string());
    let object: Object = serde_json::from_value(document.clone()).map_err(unreadable)?;
    let own = Some(object.metadata.namespace.clone()).filter(|own| !own.is_empty());
    let namespace = own.unwrap_or_else(|| namespace.to_owned());
    let template = if kind == "Pod" { document } else { object.spec.template.clone().unwrap_or_default() };
    let mut metadata = template["metadata"].clone();
    if !metadata.is_object() {
        metadata = json!({});
    }
    metadata["namespace"] = json!(namespace);
    let pod = json!({"metadata": metadata, "spec": template["spec"]});
    let pod = serde_json::from_value(pod).map_err(unreadable)?;
    let pods = pods(&object, nodes);
    let Meta { name, generate_name, .. } = object.metadata;
    let name = if name.is_empty() { generate_name } else { name };
    found.workloads.push(Workload { kind: object.kind, namespace, name, pod, pods });
    Ok(())
}

fn pods(object: &Object, nodes: Option<u32>) -> Option<Pods> {
    let spec = &object.spec;
    let replicas = spec.replicas.unwrap_or(1);
    // names that do not come back: one slot more for every pod of the new revision, at most
    let renamed = |at_rest: u32, surge: u32| Pods {
        at_rest,
        rolling: at_rest.saturating_add(surge),
        at_most: at_rest.saturating_add(at_rest.max(surge)),
    };
    Some(match object.kind.as_str() {
        "Pod" => Pods { at_rest: 1, rolling: 1, at_most: 1 },
        "Deployment" if spec.strategy.kind == "Recreate" => renamed(replicas, 0),
        "Deployment" => renamed(replicas, surge(&spec.strategy, "25%", replicas)),
        "ReplicaSet" => renamed(replicas, 0),
        "DaemonSet" => {
            let nodes = object.status.desired_number_scheduled.or(nodes)?;
            let surge = if spec.update_strategy.kind == "OnDelete" {
                0
            } else {
                surge(&spec.update_strategy, "0", nodes)
            };
            renamed(nodes, surge)
        }
        _ => Pods { at_rest: replicas, rolling: replicas, at_most: replicas },
    })
}

/// A number, or a share of the pods rounded up.
fn surge(strategy: &Strategy, default: &str, of: u32) -> u32 {
    let given = strategy.rolling_update.as_ref().and_then(|rolling| rolling.max_surge.as_ref());
    let text = match given {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => default.to_owned(),
    };
    match text.strip_suffix('%') {
        Some(percent) => (u64::from(percent.parse::<u32>().unwrap_or(0)) * u64::from(of))
            .div_ceil(100)
            .try_into()
            .unwrap_or(of),
        None => text.parse().unwrap_or(0),
    }
}
