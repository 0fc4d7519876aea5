//! What the webhook changes in a pod's spec: our scheduling gate, and how the processes are told what the annotations
//! say. What is there under the same name or path stays.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::patch::Operation;
use super::review::{Container, PodObject, names_of};
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
            let found = names_of(container.env, "name");
            let missing = wanted.iter().filter(|(name, _)| !found.iter().any(|f| f == name));
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
            Some(_) => Operation::json(&format!("/spec/{list}/-"), gate),
            None => Operation::json(&format!("/spec/{list}"), json!([gate])),
        });
    } else if !wanted {
        places.reverse();
        let remove = |place| Operation::Remove { path: format!("/spec/{list}/{place}") };
        operations.extend(places.into_iter().map(remove));
    }
}

fn reference(annotation: &str) -> Value {
    json!({"apiVersion": "v1", "fieldPath": format!("metadata.annotations['{annotation}']")})
}

/// Name and definition of each variable.
fn variables(ports: &[(u16, Protocol)]) -> Vec<(String, Value)> {
    let one = [
        (names::ADDRESS_ENV.to_owned(), names::STAMP_ADDRESS_ANNOTATION.to_owned()),
        (names::HOST_ENV.to_owned(), names::STAMP_HOST_ANNOTATION.to_owned()),
    ];
    let ports = ports
        .iter()
        .map(|&(number, protocol)| (names::env_port(number, protocol), names::stamp_port(number, protocol)));
    let variable = |(name, annotation): (String, String)| {
        let value = json!({"name": name, "valueFrom": {"fieldRef": reference(&annotation)}});
        (name, value)
    };
    one.into_iter().chain(ports).map(variable).collect()
}

fn files(pod: &PodObject<'_>, ports: &[(u16, Protocol)], operations: &mut Vec<Operation<'_>>) {
    let fixed = [names::STAMP_ADDRESS_ANNOTATION, names::STAMP_HOST_ANNOTATION, names::STAMP_SLOT_ANNOTATION];
    let ports = ports.iter().map(|&(number, protocol)| names::stamp_port(number, protocol));
    let items: Vec<Value> = fixed
        .map(str::to_owned)
        .into_iter()
        .chain(ports)
        .map(|key| json!({"path": key.trim_start_matches(names::RESERVED_PREFIX), "fieldRef": reference(&key)}))
        .collect();
    let volume = json!({"name": names::TOLD_VOLUME, "downwardAPI": {"items": items}});
    let volumes = pod.volumes();
    let missing = !names_of(volumes, "name").iter().any(|name| name == names::TOLD_VOLUME);
    insert("/spec/volumes", volumes, missing.then_some(volume), false, operations);
    for (path, container) in pod.running_containers() {
        let Container { volume_mounts: mounts, .. } = container;
        let mount = json!({"name": names::TOLD_VOLUME, "mountPath": names::TOLD_PATH, "readOnly": true});
        let taken =
            names_of(*mounts, "mountPath").iter().any(|p| p.trim_end_matches('/') == names::TOLD_PATH);
        insert(&format!("{path}/volumeMounts"), *mounts, (!taken).then_some(mount), false, operations);
    }
}

/// Adds to a list, at its beginning or end; makes the list where there is none.
fn insert(
    path: &str,
    found: Option<&RawValue>,
    values: impl IntoIterator<Item = Value>,
    in_front: bool,
    operations: &mut Vec<Operation<'_>>,
) {
    let values: Vec<Value> = values.into_iter().collect();
    if values.is_empty() {
        return;
    }
    if found.is_none() {
        return operations.push(Operation::json(path, Value::Array(values)));
    }
    for (index, value) in values.into_iter().enumerate() {
        let place = if in_front { index.to_string() } else { "-".to_owned() };
        operations.push(Operation::json(&format!("{path}/{place}"), value));
    }
}
