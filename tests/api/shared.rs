//! Shared load balancers on a real API server: its EndpointSlice controller, its admission and MetalLB.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::balancer::of_class;
use crate::rig::Space;
use crate::support::eventually;

/// Address and outside ports of each pod, once all are routed.
async fn points(space: &Space, pods: &[&str]) -> BTreeMap<String, Vec<(String, u64)>> {
    let addresses = space.routed(pods).await;
    let entries = space.entries("c").await;
    let of = |pod: &String| {
        let ports = entries[pod]["ports"].as_array().unwrap();
        ports.iter().map(|p| (addresses[pod].clone(), p["external"].as_u64().unwrap())).collect()
    };
    addresses.keys().map(|pod| (pod.clone(), of(pod))).collect()
}

async fn shared_services(space: &Space) -> Vec<String> {
    space.api.names(&space.core("services?labelSelector=external-ip.dev/shared")).await
}

/// The successor of a deleted pod is routed.
async fn replace(space: &Space, pod: &str) {
    let uid = space.entries("c").await[pod]["uid"].clone();
    space.api.delete(&space.core(&format!("pods/{pod}"))).await.ok();
    eventually("the successor is routed", async || {
        let entry = space.entries("c").await.remove(pod).unwrap_or_default();
        if entry["uid"] != uid && entry["state"] == "Routed" { Ok(()) } else { Err(entry.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn pods_share_an_address_and_their_ports_stay_when_they_are_replaced() {
    let space = Space::new("shared-stay").await;
    let annotations = json!({"external-ip.dev/class": "sharing", "external-ip.dev/ports": "11222,11222/udp"});
    space.stateful_set(2, annotations).await;
    let before = points(&space, &["c-0", "c-1"]).await;
    let addresses: BTreeSet<&str> = before.values().flatten().map(|(ip, _)| ip.as_str()).collect();
    assert_eq!(addresses.len(), 1, "{before:?}");
    assert_ne!(before["c-0"], before["c-1"]);
    assert_eq!(before["c-0"][0], before["c-0"][1], "TCP and UDP of one port have one number");
    assert_eq!(shared_services(&space).await, ["c-ext-shared-0"]);
    assert!(space.services().await.is_empty(), "no Service of its own");
    space.writes(0).await;
    let position = space.rig.cluster.audit_position().unwrap();
    replace(&space, "c-1").await;
    assert_eq!(points(&space, &["c-0", "c-1"]).await, before);
    let mut writes = space.writes(position).await;
    writes.remove("patch configmaps");
    assert!(writes.is_empty(), "a replaced pod costs no write: {writes:?}");
    let pod = space.api.get(&space.core("pods/c-1")).await.ok();
    let stamped = &pod["metadata"]["annotations"]["stamp.external-ip.dev/port-11222"];
    assert_eq!(*stamped, json!(before["c-1"][0].1.to_string()), "it knew its port from birth");
}

#[tokio::test]
async fn a_full_shared_service_is_followed_by_another_one() {
    let space = Space::new("shared-full").await;
    space.stateful_set(5, json!({"external-ip.dev/class": "sharing"})).await;
    let points = points(&space, &["c-0", "c-1", "c-2", "c-3", "c-4"]).await;
    let unique: BTreeSet<&(String, u64)> = points.values().flatten().collect();
    assert_eq!(unique.len(), 5, "{points:?}");
    assert_eq!(shared_services(&space).await, ["c-ext-shared-0", "c-ext-shared-1"]);
    let range = 20_000..20_004;
    assert!(unique.iter().all(|(_, port)| range.contains(port)), "{points:?}");
}

#[tokio::test]
async fn a_pod_made_before_the_webhook_saw_it_steps_down_and_says_why() {
    let space = Space::labelled("shared-adopted", json!({})).await;
    let class = json!({"metadata": {"annotations": {"external-ip.dev/class": "sharing"}}});
    space.pod("old", class.clone()).await;
    let mut without_a_step = of_class("nobody-shares");
    without_a_step["metadata"]["labels"] = json!({"external-ip.dev/cluster": "stuck"});
    space.pod("stuck", without_a_step).await;
    let enabled = json!({"metadata": {"labels": {"external-ip.dev/enabled": "true"}}});
    space.api.patch(&format!("/api/v1/namespaces/{}", space.name), &enabled).await.ok();
    space.routed(&["old"]).await;
    space.event("Pod", "old", "SteppedDown").await;
    space.reason("stuck", "stuck", "CannotShare").await;
    space.event("Pod", "stuck", "CannotShare").await;
    assert_eq!(space.services().await, ["c-ext-0"], "a load balancer of its own");
    space.pod("young", class).await;
    space.routed(&["old", "young"]).await;
    assert_eq!(shared_services(&space).await, ["c-ext-shared-0"]);
}

#[tokio::test]
async fn a_copy_of_a_sharing_pod_is_another_pod() {
    let space = Space::new("shared-copy").await;
    let class = json!({"metadata": {"annotations": {"external-ip.dev/class": "sharing"}}});
    space.pod("c-0", class).await;
    space.routed(&["c-0"]).await;
    let original = space.api.get(&space.core("pods/c-0")).await.ok();
    let names = |pod: &Value| -> BTreeSet<String> {
        let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap().iter();
        ports.filter_map(|p| p["name"].as_str().map(str::to_owned)).collect()
    };
    let copy = json!({
        "metadata": {"name": "c-1", "labels": original["metadata"]["labels"], "annotations": original["metadata"]["annotations"]},
        "spec": {"containers": [{"name": "main", "image": "none", "ports": original["spec"]["containers"][0]["ports"]}]},
    });
    let made = space.api.post(&space.core("pods"), &copy).await.ok();
    assert_eq!(names(&made).intersection(&names(&original)).collect::<Vec<_>>(), ["hotrod"], "{made}");
    let points = points(&space, &["c-0", "c-1"]).await;
    assert_ne!(points["c-0"], points["c-1"]);
}

#[tokio::test]
async fn two_clusters_on_one_address_are_told_apart_by_their_ports() {
    let space = Space::new("shared-key").await;
    for (cluster, class) in [("one", "keyed-one"), ("other", "keyed-other")] {
        let metadata = json!({"labels": {"external-ip.dev/cluster": cluster}, "annotations": {"external-ip.dev/class": class}});
        space.pod(&format!("{cluster}-0"), json!({"metadata": metadata})).await;
    }
    for (cluster, port) in [("one", 21_000), ("other", 22_000)] {
        eventually(&format!("{cluster} is at port {port}"), async || {
            let entry = space.entries(cluster).await.remove(&format!("{cluster}-0")).unwrap_or_default();
            let at = (&entry["external"]["ips"], &entry["ports"][0]["external"]);
            let there = entry["state"] == "Routed" && at == (&json!(["203.0.113.180"]), &json!(port));
            if there { Ok(()) } else { Err(entry.to_string()) }
        })
        .await;
    }
}
