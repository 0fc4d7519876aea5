//! What several targets ask the webhook with.

use std::sync::LazyLock;

use external_ip_core::mapping::SlotAddress;
use external_ip_core::names::{self, Key};
use external_ip_core::settings::{self, Settings};
use external_ip_core::shared;
use external_ip_core::stamp::{self, Answer};
use serde_json::{Value, json};

const CONFIGURATION: &str = "
version: 1
classes:
  default: {}
  several: {exposure: [dedicated, shared], readinessGate: true}
  elsewhere: {allow: {namespaces: [nowhere]}}
clusters:
- {name: operated, namespace: data, selector: {clusterName: operated}, ports: [11222]}
- {name: first, namespace: data, selector: {both: 'yes'}, ports: [1]}
- {name: second, namespace: data, selector: {either: 'yes'}, ports: [2]}
";

pub static SETTINGS: LazyLock<Settings> =
    LazyLock::new(|| settings::parse(CONFIGURATION).expect("is good").settings);

/// An address is kept for every pod whose name ends in `0`.
fn kept(_: &Key, pod: &str) -> Option<SlotAddress> {
    let address = || SlotAddress {
        slot: 3,
        ips: vec!["203.0.113.7".parse().expect("is an address")],
        host: Some("lb.example.org".to_owned()),
        ports: Vec::new(),
    };
    pod.ends_with('0').then(address)
}

pub fn answer(body: &[u8], settings: &Settings) -> Option<Answer> {
    stamp::answer(body, settings, &kept).ok()
}

#[allow(dead_code)] // `review` brings its own
pub fn review(pod: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": "CREATE", "namespace": "data", "object": pod,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
    }})
}

/// Answers `review`, applies the patch to its object, and holds the answer against what every answer promises.
pub fn stamped_twice(review: &Value, settings: &Settings) -> Option<Answer> {
    let body = review.to_string();
    let first = answer(body.as_bytes(), settings)?;
    let response: Value = serde_json::from_slice(&first.body).expect("an answer is JSON");
    let response = &response["response"];
    assert_eq!(response["allowed"], true, "a pod is never refused");
    assert_eq!(response["uid"], review["request"]["uid"], "the answer is of this request");
    let Some(patch) = response["patch"].as_str() else { return Some(first) };
    let patch = data_encoding::BASE64.decode(patch.as_bytes()).expect("is base64");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("is a JSON patch");
    let mut after = review.clone();
    json_patch::patch(&mut after["request"]["object"], &patch).expect("the patch fits the pod");
    let [before_spec, after_spec] = [review, &after].map(|r| &r["request"]["object"]["spec"]);
    only_ours_is_added(before_spec, after_spec);
    let again = answer(after.to_string().as_bytes(), settings).expect("the stamped pod is answered as well");
    let response: Value = serde_json::from_slice(&again.body).expect("an answer is JSON");
    assert!(response["response"]["patch"].is_null(), "a stamped pod needs no further patch: {response}");
    assert_eq!(first.stamped, again.stamped);
    Some(first)
}

/// A spec may gain our gate, environment, volume, mounts and shared ports; whatever it held stays, in its order.
fn only_ours_is_added(before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(was), Value::Object(is)) => {
            assert!(was.keys().all(|key| is.contains_key(key)), "nothing is taken away: {before} -> {after}");
            for (key, value) in is {
                only_ours_is_added(was.get(key).unwrap_or(&Value::Null), value);
            }
        }
        (Value::Null, Value::Array(_)) => only_ours_is_added(&json!([]), after),
        (Value::Array(was), Value::Array(is)) if was.len() == is.len() => {
            was.iter().zip(is).for_each(|(former, value)| only_ours_is_added(former, value));
        }
        (Value::Array(was), Value::Array(is)) => {
            // a gate of ours that we did not set is somebody else's idea
            let is_gate = |value: &Value| {
                value["name"] == names::ADDRESS_GATE || value["conditionType"] == names::ROUTED_CONDITION
            };
            let is_forged = |value: &&Value| is_gate(value) && !is.contains(value);
            let held = was.iter().filter(|value| !is_forged(value));
            let kept = is.iter().filter(|value| was.contains(value));
            assert!(held.eq(kept), "what it held stays, in its order: {before} -> {after}");
            is.iter()
                .filter(|value| !was.contains(value))
                .for_each(|value| assert!(is_ours(value), "{value} is ours"));
        }
        _ => assert_eq!(before, after, "nothing but lists of the spec is changed"),
    }
}

fn is_ours(item: &Value) -> bool {
    let name = item["name"].as_str().unwrap_or_default();
    item["conditionType"] == names::ROUTED_CONDITION
        || [names::ADDRESS_GATE, names::TOLD_VOLUME].contains(&name)
        || name.starts_with("EXTERNAL_") && item["valueFrom"]["fieldRef"].is_object()
        || shared::token_of(name).is_some() && item["containerPort"].is_u64()
}
