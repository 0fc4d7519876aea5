//! What users write on pods, line by line: cluster, ports, class, await, inject, the name of the pod, of a port, a
//! forged key. The webhook (from the review) and the planner (from the watch) must judge alike.
#![no_main]

mod common;

use external_ip_core::demand::{Ask, Membership, cluster_of, demand};
use external_ip_core::names;
use external_ip_core::objects::{Pod, PortSpec};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

fuzz_target!(|text: &str| {
    let settings = &*common::SETTINGS;
    let mut lines = text.split('\n');
    let mut line = || lines.next().filter(|l| !l.is_empty()).map(str::to_owned);
    let (mut labels, mut annotations) = (Map::new(), Map::new());
    let put = |map: &mut Map<String, Value>, key: &str, value: Option<String>| {
        if let Some(value) = value {
            map.insert(key.to_owned(), json!(value));
        }
    };
    put(&mut labels, names::CLUSTER_LABEL, line());
    let ports = line();
    round_trip(ports.as_deref().unwrap_or_default());
    put(&mut annotations, names::PORTS_ANNOTATION, ports);
    put(&mut annotations, names::CLASS_ANNOTATION, line());
    put(&mut annotations, names::AWAIT_ANNOTATION, line());
    put(&mut annotations, names::INJECT_ANNOTATION, line());
    let (name, port) = (line().unwrap_or_default(), line().unwrap_or_default());
    if let Some(forged) = line() {
        put(&mut labels, &format!("{}{forged}", names::RESERVED_PREFIX), Some(String::new()));
        put(&mut annotations, &forged, Some(forged.clone()));
    }
    let both = line();
    put(&mut labels, "both", both.clone());
    put(&mut labels, "either", both);
    let pod = json!({
        "metadata": {"name": name, "namespace": "data", "uid": "p", "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "c", "ports": [{"name": port, "containerPort": 11222}]}]},
    });
    let answer = common::stamped_twice(&common::review(&pod), settings).expect("it is a review of a pod");
    let seen: Pod = serde_json::from_value(pod).expect("the watch reads it");
    let expected = match cluster_of(|key| seen.labels.get(key), "data", settings) {
        Membership::None => false,
        Membership::Ambiguous { .. } => false,
        Membership::Cluster { name, configured } => {
            demand(&Ask::of_pod(&seen, &name, configured), settings).is_ok()
        }
    };
    assert_eq!(answer.stamped, expected, "webhook and planner judge alike: {:?}", answer.skipped);
});

/// A list of ports that was read is written so that it reads the same.
fn round_trip(text: &str) {
    if let Ok(list) = PortSpec::list(text) {
        let written: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(PortSpec::list(&written.join(",")), Ok(list), "{text}");
    }
}
