//! Node ports on a real API server.

use serde_json::json;

use crate::rig::Space;

#[tokio::test]
async fn a_node_port_pod_is_reached_at_its_node_and_keeps_its_port() {
    let space = Space::new("node-port").await;
    space.stateful_set(1, json!({"external-ip.dev/class": "nodes"})).await;
    let addresses = space.routed(&["c-0"]).await;
    let pod = space.api.get(&space.core("pods/c-0")).await.ok();
    let node =
        space.api.get(&format!("/api/v1/nodes/{}", pod["spec"]["nodeName"].as_str().unwrap())).await.ok();
    let known = node["status"]["addresses"].as_array().unwrap();
    assert!(known.iter().any(|a| a["address"] == json!(addresses["c-0"])), "{addresses:?} {known:?}");
    let service = space.api.get(&space.core("services/c-ext-0")).await.ok();
    assert_eq!(service["spec"]["type"], "NodePort");
    let entry = space.entries("c").await.remove("c-0").unwrap();
    assert_eq!(entry["ports"][0]["external"], service["spec"]["ports"][0]["nodePort"]);
    space.api.delete(&space.core("pods/c-0")).await.ok();
    let again = crate::support::eventually("the successor is routed", async || {
        let next = space.entries("c").await.remove("c-0").unwrap_or_default();
        if next["uid"] != entry["uid"] && next["state"] == "Routed" {
            Ok(next)
        } else {
            Err(next.to_string())
        }
    })
    .await;
    assert_eq!(again["ports"], entry["ports"]);
}
