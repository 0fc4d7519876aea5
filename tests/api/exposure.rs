//! The main job: pods in, addresses and map out, at the price of one Service write per new pod.

use std::collections::BTreeMap;

use serde_json::json;

use crate::rig::Space;
use crate::support::eventually;

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect()
}

#[tokio::test]
async fn a_stateful_set_gets_an_address_per_pod_at_one_service_write_each() {
    let space = Space::new("exposure-new").await;
    let before = space.rig.cluster.audit_position().unwrap();
    space.stateful_set(3, json!({})).await;
    let addresses = space.routed(&["c-0", "c-1", "c-2"]).await;
    let mut unique: Vec<&String> = addresses.values().collect();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 3, "{addresses:?}");
    let mut writes = space.writes(before).await;
    // how often the map's ConfigMap is written depends on how the pods come: debounced, so a few times at most
    let documents = writes.remove("patch configmaps").unwrap_or(0);
    assert_eq!(writes, counts(&[("create services", 3), ("create configmaps", 1)]));
    assert!(documents <= 8, "{documents}");
    assert_eq!(space.services().await, ["c-ext-0", "c-ext-1", "c-ext-2"]);
    let pod = space.api.get(&space.core("pods/c-1")).await.ok();
    assert_eq!(pod["metadata"]["labels"]["stamp.external-ip.dev/pod-id"], "c.c-1", "stamped at CREATE");
    // members are known by their names as well
    let names = ["c-1.c.exposure-new.svc", "c-1.c.exposure-new.svc.cluster.local"];
    assert_eq!(space.entries("c").await["c-1"]["internal"]["names"], json!(names));
    let map = space.fetch("/v1/mapping/exposure-new/c?format=nat-map", &[]).await.json();
    for name in names {
        assert_eq!(map[format!("{name}:11222")], json!({"host": addresses["c-1"], "port": 11222}), "{map}");
    }
}

#[tokio::test]
async fn a_replaced_named_pod_keeps_its_address_without_any_service_write() {
    let space = Space::new("exposure-replaced").await;
    space.stateful_set(3, json!({})).await;
    let before = space.routed(&["c-0", "c-1", "c-2"]).await;
    let uid = space.entries("c").await["c-1"]["uid"].clone();
    space.writes(0).await;
    let position = space.rig.cluster.audit_position().unwrap();
    space.api.delete(&space.core("pods/c-1")).await.ok();
    eventually("the successor is routed", async || {
        let entry = space.entries("c").await.remove("c-1").unwrap_or_default();
        let new = entry["uid"] != uid && entry["state"] == "Routed";
        if new { Ok(()) } else { Err(entry.to_string()) }
    })
    .await;
    assert_eq!(space.routed(&["c-0", "c-1", "c-2"]).await, before);
    let mut writes = space.writes(position).await;
    let documents = writes.remove("patch configmaps").unwrap_or(0);
    assert_eq!(writes, counts(&[]));
    assert!((1..=8).contains(&documents), "{documents}");
    // it knew its address from birth
    let pod = space.api.get(&space.core("pods/c-1")).await.ok();
    assert_eq!(pod["metadata"]["annotations"]["stamp.external-ip.dev/address"], json!(before["c-1"]));
}
