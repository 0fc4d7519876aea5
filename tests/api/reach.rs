//! Reachability on the real API server; the test is the load balancer and the member, both on this machine.

use std::net::{Ipv4Addr, TcpListener};

use serde_json::json;

use crate::rig::Space;
use crate::support::eventually;

#[tokio::test]
async fn an_address_that_answers_is_reachable_until_nobody_answers_any_more() {
    let space = Space::new("reach").await;
    let member = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = member.local_addr().unwrap().port();
    let annotations = json!({"external-ip.dev/class": "dialled", "external-ip.dev/ports": port.to_string()});
    space.pod("p", json!({"metadata": {"annotations": annotations}})).await;
    space.reason("c", "p", "WaitingForAddress").await;
    let name = space.services().await.remove(0);
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}});
    space.api.patch(&space.core(&format!("services/{name}/status")), &status).await.ok();
    let shown = async |reachable: bool| {
        eventually(&format!("the entry says reachable: {reachable}"), async || {
            let entry = space.entries("c").await.remove("p").unwrap_or_default();
            let found = entry["state"] == "Routed" && entry["reachable"] == reachable;
            if found { Ok(()) } else { Err(entry.to_string()) }
        })
        .await;
    };
    shown(true).await;
    let recorded = space.api.get(&space.core(&format!("services/{name}"))).await.ok();
    let recorded =
        recorded["metadata"]["annotations"]["external-ip.dev/reachable"].as_str().unwrap().to_owned();
    assert!(recorded.starts_with("true ") && recorded.ends_with(&format!(" 127.0.0.1:{port}")), "{recorded}");
    let metrics = space.rig.product.admin("/metrics").await.body;
    let reached = metrics.lines().find(|line| line.starts_with("external_ip_pod_reached_seconds_count "));
    assert!(reached.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    drop(member);
    shown(false).await;
}
