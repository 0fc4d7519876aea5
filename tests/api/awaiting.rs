//! Pods that wait for their address before they start.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::rig::Space;
use crate::support::eventually;

const GATE: &str = "external-ip.dev/address";
const QUOTA: &str = "example.com/quota";

fn of_class(class: &str, gates: &[&str]) -> Value {
    let gates: Vec<Value> = gates.iter().map(|name| json!({"name": name})).collect();
    json!({"metadata": {"annotations": {"external-ip.dev/class": class}}, "spec": {"schedulingGates": gates}})
}

fn gates(pod: &Value) -> Vec<&str> {
    pod["spec"]["schedulingGates"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|g| g["name"].as_str())
        .collect()
}

async fn pod(space: &Space, name: &str) -> Value {
    space.api.get(&space.core(&format!("pods/{name}"))).await.ok()
}

async fn has_gates(space: &Space, name: &str, wanted: &[&str]) -> Value {
    eventually(&format!("{name} is held by {wanted:?}"), async || {
        let pod = pod(space, name).await;
        if gates(&pod) == wanted { Ok(pod) } else { Err(pod["spec"]["schedulingGates"].to_string()) }
    })
    .await
}

fn told(pod: &Value, key: &str) -> Value {
    pod["metadata"]["annotations"][format!("stamp.external-ip.dev/{key}")].clone()
}

#[tokio::test]
async fn a_held_pod_is_told_its_address_in_the_write_that_lets_it_go_and_a_warm_slot_holds_nobody() {
    let space = Space::new("await-told").await;
    let before = space.rig.cluster.audit_position().unwrap();
    space
        .stateful_set(1, json!({"external-ip.dev/await": "true", "external-ip.dev/inject": "env, volume"}))
        .await;
    let addresses = space.routed(&["c-0"]).await;
    let first = pod(&space, "c-0").await;
    assert!(gates(&first).is_empty());
    assert_eq!(told(&first, "address"), addresses["c-0"]);
    assert_eq!((told(&first, "slot"), told(&first, "port-11222")), (json!("0"), json!("11222")));
    let environment = &first["spec"]["containers"][0]["env"];
    assert_eq!(environment[0]["name"], "EXTERNAL_IP");
    assert_eq!(environment[2]["name"], "EXTERNAL_PORT_11222");
    let mounts = first["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(
        mounts.iter().any(|m| m["mountPath"] == "/etc/external-ip" && m["readOnly"] == true),
        "{mounts:?}"
    );
    let pod_writes = |writes: BTreeMap<String, usize>| -> Vec<(String, usize)> {
        writes.into_iter().filter(|(what, _)| !what.contains("configmaps")).collect()
    };
    let expected = [("create services".to_owned(), 1), ("patch pods".to_owned(), 1)];
    assert_eq!(pod_writes(space.writes(before).await), expected);

    let position = space.rig.cluster.audit_position().unwrap();
    space.api.delete(&space.core("pods/c-0")).await.ok();
    let uid = &first["metadata"]["uid"];
    eventually("the successor is routed", async || {
        let entry = space.entries("c").await.remove("c-0").unwrap_or_default();
        let new = entry["uid"] != *uid && entry["state"] == "Routed";
        if new { Ok(()) } else { Err(entry.to_string()) }
    })
    .await;
    assert_eq!(told(&pod(&space, "c-0").await, "address"), addresses["c-0"]);
    assert!(pod_writes(space.writes(position).await).is_empty(), "nobody had to let it go");
}

#[tokio::test]
async fn a_pod_starts_without_its_address_when_its_time_is_over() {
    let space = Space::new("await-deadline").await;
    let made = space.pod("c-0", of_class("hasty", &[QUOTA])).await;
    assert_eq!(gates(&made), [QUOTA, GATE], "added behind the others");
    let lifted = has_gates(&space, "c-0", &[QUOTA]).await;
    assert_eq!(told(&lifted, "address"), Value::Null);
    space.event("Pod", "c-0", "AwaitTimeout").await;
    // and the next one of its class is not held in vain
    space.pod("c-1", of_class("hasty", &[QUOTA])).await;
    has_gates(&space, "c-1", &[QUOTA]).await;
    space.event("Pod", "c-1", "AwaitInVain").await;
    let service = space.api.get(&space.core("services/c-ext-0")).await.ok();
    assert!(service["metadata"]["annotations"]["external-ip.dev/awaited-in-vain"].is_string(), "{service}");
    // the address comes after all
    let given = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.77"}]}}});
    space.api.patch(&space.core("services/c-ext-0/status"), &given).await.ok();
    eventually("the entry says what the pod was not told", async || {
        let entry = space.entries("c").await.remove("c-0").unwrap_or_default();
        let said =
            entry["told"]["message"].as_str().is_some_and(|m| m.contains("told none, has 203.0.113.77"));
        if said { Ok(()) } else { Err(entry.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_namespace_that_leaves_lets_its_pods_go_and_anybody_may_with_kubectl() {
    let space = Space::new("await-leaves").await;
    for name in ["c-0", "c-1"] {
        let made = space.pod(name, of_class("patient", &[QUOTA])).await;
        assert_eq!(gates(&made), [QUOTA, GATE]);
    }
    // the line of docs/configuration.md
    let patch = r#"{"spec":{"schedulingGates":[{"$patch":"delete","name":"external-ip.dev/address"}]}}"#;
    space.rig.cluster.kubectl(&["-n", &space.name, "patch", "pod/c-1", "-p", patch]).unwrap();
    assert_eq!(gates(&pod(&space, "c-1").await), [QUOTA]);
    space.reason("c", "c-0", "WaitingForAddress").await;
    assert_eq!(gates(&pod(&space, "c-0").await), [QUOTA, GATE]);
    let leave = json!({"metadata": {"labels": {"external-ip.dev/enabled": null}}});
    space.api.patch(&format!("/api/v1/namespaces/{}", space.name), &leave).await.ok();
    has_gates(&space, "c-0", &[QUOTA]).await;
}

#[tokio::test]
async fn slots_made_ahead_have_their_address_before_their_pod_is_made() {
    let space = Space::new("await-ahead").await;
    space.stateful_set(1, json!({"external-ip.dev/class": "ahead"})).await;
    space.routed(&["c-0"]).await;
    assert_eq!(space.services().await, ["c-ext-0", "c-ext-1"]);
    let address = eventually("the spare slot has its address", async || {
        let service = space.api.get(&space.core("services/c-ext-1")).await.ok();
        let ip = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
        if ip.is_string() { Ok(ip.clone()) } else { Err(service.to_string()) }
    })
    .await;
    space.scale(2).await;
    let addresses = space.routed(&["c-0", "c-1"]).await;
    assert_eq!(json!(addresses["c-1"]), address);
    assert_eq!(told(&pod(&space, "c-1").await, "address"), address);
}
