//! What the webhook changes in a pod's spec: our scheduling gate, and how the processes are told what the annotations
//! say. What is there under the same name or path stays.

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::json::Raw;
use super::patch::{Operation, written};
use super::review::{Container, PodObject, items};
use crate::demand::Inject;
use crate::names;
use crate::objects::Protocol;

/// The spec as it shall be.
#[derive(Debug, Default)]
pub(super) struct WantedSpec {
    /// Our gate is there. A gate of ours on any other pod is copied or forged, and nobody would lift it: it goes.
    pub(super) gate: bool,
    /// Our readiness gate is there; on any other pod nobody would meet it.
    pub(super) readiness: bool,
    pub(super) inject: Inject,
    /// Exposed ports.
    pub(super) ports: Vec<(u16, Protocol)>,
}

/// Adds the operations from `pod`'s spec to the wanted one.
pub(super) fn change(pod: &PodObject<'_>, wanted: &WantedSpec, operations: &mut Vec<Operation<'_>>) {
    gate(
        "schedulingGates",
        pod.scheduling_gates().as_deref(),
        "name",
        names::ADDRESS_GATE,
        wanted.gate,
        operations,
    );
    let (readiness, routed) = (pod.readiness_gates(), names::ROUTED_CONDITION);
    gate("readinessGates", readiness.as_deref(), "conditionType", routed, wanted.readiness, operations);
    if wanted.inject.env {
        let wanted = variables(&wanted.ports);
        for (path, container) in pod.running_containers() {
            let found = items(container.env);
            let missing = wanted.iter().filter(|(name, _)| !found.iter().any(|f| f.name() == name));
            // in front: a variable may refer to those before it
            insert(
                &format!("{path}/env"),
                container.env,
                missing.map(|(_, value)| value.clone()),
                true,
                operations,
            );
        }
    }
    if wanted.inject.volume {
        files(pod, &wanted.ports, operations);
    }
}

/// Puts our element into the list of gates `list`, or takes it away; `field` holds an element's name.
fn gate(
    list: &str,
    found: Option<&[&str]>,
    field: &str,
    ours: &str,
    wanted: bool,
    operations: &mut Vec<Operation<'_>>,
) {
    let places =
        found.into_iter().flatten().enumerate().filter(|(_, name)| **name == ours).map(|(place, _)| place);
    let mut places: Vec<usize> = places.collect();
    if wanted && places.is_empty() {
        let gate = json!({field: ours});
        operations.push(match found {
            Some(_) => Operation::add(format!("/spec/{list}/-"), written(&gate)),
            None => Operation::add(format!("/spec/{list}"), written(&[gate])),
        });
    } else if !wanted {
        places.reverse();
        let remove = |place| Operation::Remove { path: format!("/spec/{list}/{place}") };
        operations.extend(places.into_iter().map(remove));
    }
}

/// An annotation of the pod, by the downward API.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    api_version: &'static str,
    field_path: String,
}

impl Reference {
    fn to(annotation: &str) -> Self {
        Self { api_version: "v1", field_path: format!("metadata.annotations['{annotation}']") }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Variable<'a> {
    name: &'a str,
    value_from: Source,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    field_ref: Reference,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    field_ref: Reference,
    path: &'a str,
}

/// Name and definition of each variable. All containers have the same.
fn variables(ports: &[(u16, Protocol)]) -> Vec<(String, Box<RawValue>)> {
    let one = [
        (names::ADDRESS_ENV.to_owned(), names::STAMP_ADDRESS_ANNOTATION.to_owned()),
        (names::HOST_ENV.to_owned(), names::STAMP_HOST_ANNOTATION.to_owned()),
    ];
    let ports = ports
        .iter()
        .map(|&(number, protocol)| (names::env_port(number, protocol), names::stamp_port(number, protocol)));
    let variable = |(name, annotation): (String, String)| {
        let value_from = Source { field_ref: Reference::to(&annotation) };
        let value = written(&Variable { name: &name, value_from });
        (name, value)
    };
    one.into_iter().chain(ports).map(variable).collect()
}

#[derive(Serialize)]
struct Volume {
    #[serde(rename = "downwardAPI")]
    downward_api: Files,
    name: &'static str,
}

#[derive(Serialize)]
struct Files {
    items: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    #[serde(rename = "mountPath")]
    path: &'static str,
    name: &'static str,
    read_only: bool,
}

fn files(pod: &PodObject<'_>, ports: &[(u16, Protocol)], operations: &mut Vec<Operation<'_>>) {
    let fixed = [names::STAMP_ADDRESS_ANNOTATION, names::STAMP_HOST_ANNOTATION, names::STAMP_SLOT_ANNOTATION];
    let ports = ports.iter().map(|&(number, protocol)| names::stamp_port(number, protocol));
    let keys: Vec<String> = fixed.map(str::to_owned).into_iter().chain(ports).collect();
    let file = |key: &'_ String| -> Box<RawValue> {
        let path = key.trim_start_matches(names::RESERVED_PREFIX);
        written(&File { field_ref: Reference::to(key), path })
    };
    let files: Vec<Box<RawValue>> = keys.iter().map(file).collect();
    let volumes = pod.volumes();
    let missing = !items(volumes).iter().any(|volume| volume.name() == names::TOLD_VOLUME);
    let volume = Volume { downward_api: Files { items: files }, name: names::TOLD_VOLUME };
    insert("/spec/volumes", volumes, missing.then(|| written(&volume)), false, operations);
    let mount = written(&Mount { path: names::TOLD_PATH, name: names::TOLD_VOLUME, read_only: true });
    for (path, container) in pod.running_containers() {
        let Container { volume_mounts: mounts, .. } = container;
        let taken = items(*mounts).iter().any(|m| m.mount_path().trim_end_matches('/') == names::TOLD_PATH);
        insert(&format!("{path}/volumeMounts"), *mounts, (!taken).then(|| mount.clone()), false, operations);
    }
}

/// Adds to a list, at its beginning or end; makes the list where there is none.
fn insert(
    path: &str,
    found: Option<Raw<'_>>,
    values: impl IntoIterator<Item = Box<RawValue>>,
    in_front: bool,
    operations: &mut Vec<Operation<'_>>,
) {
    let values: Vec<Box<RawValue>> = values.into_iter().collect();
    if values.is_empty() {
        return;
    }
    if found.is_none() {
        return operations.push(Operation::add(path.to_owned(), written(&values)));
    }
    for (index, value) in values.into_iter().enumerate() {
        let place = if in_front { index.to_string() } else { "-".to_owned() };
        operations.push(Operation::add(format!("{path}/{place}"), value));
    }
}
