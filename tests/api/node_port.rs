//! Node ports on a real API server.

use serde_json::{Value, json};

use crate::balancer::of_class;
use crate::rig::Space;
use crate::support::eventually;

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
    let again = eventually("the successor is routed", async || {
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

/// A node of the test's own, on which no other test's pod lands.
struct OwnNode<'s> {
    space: &'s Space,
    name: &'static str,
}

impl<'s> OwnNode<'s> {
    async fn make(space: &'s Space, name: &'static str, addresses: &[(&str, &str)]) -> Self {
        let taint = json!([{"key": "example.com/test", "effect": "NoSchedule"}]);
        let node = json!({"metadata": {"name": name}, "spec": {"taints": taint}});
        space.api.post("/api/v1/nodes", &node).await.ok();
        let own = Self { space, name };
        eventually("the pretended kubelet has begun", async || {
            let node = space.api.get(&format!("/api/v1/nodes/{name}")).await.ok();
            if node["status"]["phase"] == "Running" { Ok(()) } else { Err(node["status"].to_string()) }
        })
        .await;
        own.is_at(addresses).await;
        own
    }

    async fn is_at(&self, addresses: &[(&str, &str)]) {
        let addresses: Vec<Value> =
            addresses.iter().map(|(kind, at)| json!({"type": kind, "address": at})).collect();
        let status = json!({"status": {"addresses": addresses}});
        self.space.api.patch(&format!("/api/v1/nodes/{}/status", self.name), &status).await.ok();
    }

    async fn delete(self) {
        self.space.api.delete(&format!("/api/v1/nodes/{}", self.name)).await.ok();
    }
}

#[tokio::test]
async fn a_pod_is_shown_at_the_addresses_its_own_node_has_now() {
    let space = Space::new("node-port-node").await;
    let (inside, outside) = (("InternalIP", "198.18.9.1"), ("ExternalIP", "198.51.100.90"));
    let one = OwnNode::make(&space, "node-port-one", &[inside]).await;
    let other = OwnNode::make(&space, "node-port-other", &[("ExternalIP", "198.51.100.92")]).await;
    let mut pod = of_class("nodes");
    pod["spec"] = json!({"nodeName": "node-port-one"});
    space.pod("c-0", pod.clone()).await;
    assert_eq!(space.routed(&["c-0"]).await["c-0"], "198.18.9.1", "the one there is");
    let at = async |wanted: &[&str]| {
        eventually(&format!("it is shown at {wanted:?}"), async || {
            let entry = space.entries("c").await.remove("c-0").unwrap_or_default();
            let found = entry["state"] == "Routed" && entry["external"]["ips"] == json!(wanted);
            if found { Ok(entry["ports"].clone()) } else { Err(entry.to_string()) }
        })
        .await
    };
    one.is_at(&[inside, outside]).await;
    let port = at(&["198.51.100.90"]).await;
    one.is_at(&[inside, ("ExternalIP", "198.51.100.91")]).await;
    at(&["198.51.100.91"]).await;
    one.is_at(&[]).await;
    space.reason("c", "c-0", "WaitingForNode").await;
    one.is_at(&[inside, outside]).await;
    at(&["198.51.100.90"]).await;
    // its successor on another node
    space.api.delete(&space.core("pods/c-0")).await.ok();
    pod["spec"] = json!({"nodeName": "node-port-other"});
    eventually("its name is free", async || match space.api.get(&space.core("pods/c-0")).await {
        gone if gone.status == 404 => Ok(()),
        there => Err(there.body["metadata"].to_string()),
    })
    .await;
    space.pod("c-0", pod).await;
    assert_eq!(at(&["198.51.100.92"]).await, port, "the port stays");
    for node in [one, other] {
        node.delete().await;
    }
}
