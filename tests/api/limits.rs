//! Limits, with a way down and without: of a namespace, of a class, of the installation, and a `ResourceQuota` of
//! whoever runs the cluster.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::balancer::of_class;
use crate::rig::{Rig, Space, fetch};
use crate::support::eventually;

/// Waits until all of these pods are routed; those of them that are reached at a node port.
async fn at_nodes(space: &Space, pods: &[&str]) -> Vec<String> {
    space.routed(pods).await;
    let entries = space.entries("c").await;
    let at_node = |e: &Value| e["ports"][0]["external"].as_u64().is_some_and(|port| port >= 30_000);
    entries.into_iter().filter(|(_, entry)| at_node(entry)).map(|(pod, _)| pod).collect()
}

#[tokio::test]
async fn beyond_its_classs_budget_of_load_balancers_a_pod_is_reached_at_its_node() {
    let space = Space::new("limits-class").await;
    space.pod("c-0", of_class("budget")).await;
    space.routed(&["c-0"]).await;
    space.pod("c-1", of_class("budget")).await;
    assert_eq!(at_nodes(&space, &["c-0", "c-1"]).await, ["c-1"]);
    space.event("Pod", "c-1", "SteppedDown").await;
}

#[tokio::test]
async fn beyond_a_quota_of_load_balancers_a_pod_is_reached_at_its_node() {
    let space = Space::new("limits-quota").await;
    let quota = json!({"metadata": {"name": "one"}, "spec": {"hard": {"services.loadbalancers": "1"}}});
    space.api.post(&space.core("resourcequotas"), &quota).await.ok();
    eventually("the quota counts", async || {
        let found = space.api.get(&space.core("resourcequotas/one")).await.ok();
        if found["status"]["used"].is_object() { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    space.pod("c-0", of_class("down")).await;
    space.routed(&["c-0"]).await;
    space.pod("c-1", of_class("down")).await;
    assert_eq!(at_nodes(&space, &["c-0", "c-1"]).await, ["c-1"]);
    space.event("Pod", "c-1", "SteppedDown").await;
}

/// Two of each namespace, three of all.
const SCARCE: &str = "
version: 1
access: open
limits: {slotsPerNamespace: 2, loadBalancers: 3}
classes:
  default: {retention: 1s, reuseAfter: 1s}
  down: {exposure: [dedicated, nodePort]}
";

/// A pod of the cluster its name begins with, once the API server's clock shows another second than at the pod before:
/// pods are as old as their creation timestamps say.
async fn pod(space: &Space, name: &str, class: &str) {
    let (cluster, _) = name.split_once('-').unwrap();
    let second = jiff::Timestamp::now().as_second();
    eventually("a second has passed", async || {
        let now = jiff::Timestamp::now().as_second();
        if now > second { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    let labels = json!({"external-ip.dev/cluster": cluster});
    let annotations = json!({"external-ip.dev/class": class});
    space.pod(name, json!({"metadata": {"labels": labels, "annotations": annotations}})).await;
}

/// Waits until the map says this of a pod: its state, or why it has none.
async fn shown(at: SocketAddr, space: &Space, pod: &str, what: &str) -> Value {
    let (cluster, _) = pod.split_once('-').unwrap();
    let path = format!("/v1/mapping/{}/{cluster}", space.name);
    eventually(&format!("{pod} is {what}"), async || {
        let answer = fetch(at, &space.api, &path, &[]).await;
        if answer.status != 200 {
            return Err(answer.body);
        }
        let map = answer.json();
        let mut entries = map["entries"].as_array().into_iter().flatten();
        let entry = entries.find(|e| e["pod"] == pod).cloned().unwrap_or_default();
        if entry["state"] == what || entry["reason"] == what { Ok(entry) } else { Err(map.to_string()) }
    })
    .await
}

/// It waits at a limit, and is told where, in the map and by an Event.
async fn refused(space: &Space, pod: &str, limit: &str, says: &str) {
    let entry = shown(space.rig.product.mapping, space, pod, limit).await;
    let message = entry["message"].as_str().unwrap();
    assert!(message.contains(says), "{message}");
    space.event("Pod", pod, limit).await;
}

#[tokio::test]
async fn at_limits_that_namespaces_share_who_has_waited_longest_comes_next_and_raising_them_serves_all() {
    let rig = tokio::task::spawn_blocking(|| Arc::new(Rig::start("limits", SCARCE))).await.unwrap();
    rig.product.ready().await;
    let (one, two) = tokio::join!(Space::on(Arc::clone(&rig), "one"), Space::on(Arc::clone(&rig), "two"));
    let at = rig.product.mapping;
    for name in ["m-0", "m-1"] {
        pod(&one, name, "default").await;
        shown(at, &one, name, "Routed").await;
    }
    // the names go the other way than the times
    for name in ["z-0", "b-0"] {
        pod(&one, name, "default").await;
        refused(&one, name, "NamespaceLimit", "(2): free slots of other clusters, or ask the platform engineer to raise limits.slotsPerNamespace").await;
    }
    pod(&one, "s-0", "down").await;
    let stepped = shown(at, &one, "s-0", "Routed").await;
    assert!(stepped["ports"][0]["external"].as_u64().unwrap() >= 30_000, "{stepped}");
    one.event("Pod", "s-0", "SteppedDown").await;
    // the other namespace goes on, until the installation has what it may have
    pod(&two, "m-0", "default").await;
    shown(at, &two, "m-0", "Routed").await;
    for name in ["y-0", "a-0"] {
        pod(&two, name, "default").await;
        refused(&two, name, "InstallationLimit", "(3): free slots elsewhere, or raise limits.loadBalancers")
            .await;
    }

    // what becomes free in one namespace goes to who waits there longest, and has waited longer than those in the other
    one.api.delete(&one.core("pods/m-1")).await.ok();
    shown(at, &one, "z-0", "Routed").await;
    two.api.delete(&two.core("pods/m-0")).await.ok();
    shown(at, &two, "y-0", "Routed").await;
    refused(&one, "b-0", "NamespaceLimit", "(2)").await;
    refused(&two, "a-0", "InstallationLimit", "(3)").await;

    // a new configuration is a rollout
    let raised =
        SCARCE.replace("slotsPerNamespace: 2, loadBalancers: 3", "slotsPerNamespace: 3, loadBalancers: 9");
    let new = rig.replica("raised", &raised);
    new.ready().await;
    rig.product.signal("TERM");
    shown(new.mapping, &one, "b-0", "Routed").await;
    shown(new.mapping, &two, "a-0", "Routed").await;
}
