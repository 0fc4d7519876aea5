//! Limits with a way down: the budget of a class, and a `ResourceQuota` of whoever runs the cluster.

use serde_json::{Value, json};

use crate::balancer::of_class;
use crate::rig::Space;
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
