//! The webhook's decision: golden answers, reviews of every kind of wrongness, properties.

mod goldens;
mod properties;
mod reviews;

use external_ip_core::mapping::PortPair;
use external_ip_core::mapping::SlotAddress;
use external_ip_core::names::Key;
use external_ip_core::objects::Protocol;
use external_ip_core::settings::{Class, ConfiguredCluster, DEFAULT_CLASS, Settings};
use external_ip_core::stamp::{Answer, answer};
use serde_json::{Value, json};

/// UID of every review here.
pub(crate) const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

/// A configuration with a class for another namespace only, and two clusters that may select the same pod.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::default();
    let gold = Class { namespaces: vec!["other".into()], ..Class::default() };
    settings.classes.insert("gold".into(), gold);
    let entry = |name: &str, key: &str, value: &str| ConfiguredCluster {
        name: name.parse().unwrap(),
        namespace: "data".into(),
        selector: [(key.to_owned(), value.to_owned())].into(),
        ports: vec!["5701".parse().unwrap()],
        class: DEFAULT_CLASS.into(),
    };
    settings.clusters = vec![entry("hazelcast", "app", "hazel"), entry("tier", "tier", "1")];
    settings
}

/// `infinispan-0` of `data/infinispan` has an address; nobody else has.
pub(crate) fn slots(cluster: &Key, pod: &str) -> Option<SlotAddress> {
    (cluster.to_string() == "data/infinispan" && pod == "infinispan-0").then(|| SlotAddress {
        slot: 0,
        ips: vec!["2001:db8::1".parse().unwrap(), "203.0.113.1".parse().unwrap()],
        host: Some("zero.example".into()),
        ports: [("hotrod", Protocol::Tcp, 11222), ("udp-5353", Protocol::Udp, 5353)]
            .map(|(name, protocol, port)| PortPair {
                name: name.into(),
                protocol,
                internal: port,
                external: port,
            })
            .to_vec(),
    })
}

/// The review of a pod's CREATE in namespace `data`.
pub(crate) fn review(pod: &Value) -> Value {
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": UID,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "data", "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:statefulset-controller"},
            "object": pod, "oldObject": null, "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

/// Answers `review` and checks what holds for every answer.
pub(crate) fn answered(review: &Value) -> (Answer, Value) {
    let answer = answer(review.to_string().as_bytes(), &settings(), &slots).unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(body["kind"], "AdmissionReview");
    let response = &body["response"];
    assert_eq!(response["uid"], review["request"]["uid"]);
    assert_eq!(response["allowed"], true);
    assert_eq!(response.get("patch").is_some(), response.get("patchType").is_some_and(|t| t == "JSONPatch"));
    for warning in response["warnings"].as_array().into_iter().flatten() {
        let warning = warning.as_str().unwrap();
        assert!(warning.len() <= 256 && !warning.contains(char::is_control), "{warning:?}");
    }
    assert!(!(answer.stamped && answer.skipped.is_some()));
    let response = response.clone();
    (answer, response)
}

/// The operations of a response; none where it has no patch.
pub(crate) fn operations(response: &Value) -> Value {
    let Some(patch) = response["patch"].as_str() else { return json!([]) };
    let patch = data_encoding::BASE64.decode(patch.as_bytes()).unwrap();
    serde_json::from_slice(&patch).unwrap()
}

/// The pod after the response's patch, as the API server applies it.
pub(crate) fn patched(pod: &Value, response: &Value) -> Value {
    let patch: json_patch::Patch = serde_json::from_value(operations(response)).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}
