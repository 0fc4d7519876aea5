//! Reachability on the real API server; the test is the load balancer and the member, both on this machine.

use std::net::{Ipv4Addr, TcpListener};

use local_cluster::free_port;
use serde_json::{Value, json};

use crate::balancer::{give, of_class};
use crate::rig::Space;
use crate::support::eventually;

#[tokio::test]
async fn an_address_that_answers_is_reachable_until_nobody_answers_any_more() {
    let space = Space::new("reach").await;
    let member = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port().unwrap())).unwrap();
    let port = member.local_addr().unwrap().port();
    let annotations = json!({"external-ip.dev/class": "dialled", "external-ip.dev/ports": port.to_string()});
    space.pod("p", json!({"metadata": {"annotations": annotations}})).await;
    space.reason("c", "p", "WaitingForAddress").await;
    let name = space.services().await.remove(0);
    give(&space, &name, json!([{"ip": "127.0.0.1"}])).await;
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

#[tokio::test]
async fn of_a_shared_address_each_slot_is_dialled_at_its_own_port() {
    let space = Space::new("reach-shared").await;
    for pod in ["s-0", "s-1"] {
        space.pod(pod, of_class("dialled-shared")).await;
        space.reason("c", pod, "WaitingForAddress").await;
    }
    // of this test alone, whatever else listens on this machine
    let address = Ipv4Addr::new(127, 29, 0, 1);
    let listen = |port: u16| TcpListener::bind((address, port)).unwrap();
    let shown = async |wanted: [bool; 2]| {
        eventually(&format!("the entries say reachable: {wanted:?}"), async || {
            let entries = space.entries("c").await;
            let found: Vec<&Value> = entries.values().map(|e| &e["reachable"]).collect();
            let ports: Vec<&Value> = entries.values().map(|e| &e["ports"][0]["external"]).collect();
            let same = found == [&json!(wanted[0]), &json!(wanted[1])] && ports == [29_000, 29_001];
            if same { Ok(()) } else { Err(format!("{entries:?}")) }
        })
        .await;
    };
    let member = listen(29_001);
    give(&space, "c-ext-shared-0", json!([{"ip": address}])).await;
    shown([false, true]).await;
    let service = space.api.get(&space.core("services/c-ext-shared-0")).await.ok();
    let recorded = service["metadata"]["annotations"]["external-ip.dev/reachable"].as_str().unwrap();
    let of_slots: Vec<&str> = recorded.split(", ").collect();
    let says = |reachable: &str, port: u16| {
        of_slots.iter().any(|r| r.starts_with(reachable) && r.ends_with(&format!(" {address}:{port}")))
    };
    assert!(of_slots.len() == 2 && says("false ", 29_000) && says("true ", 29_001), "{recorded}");
    drop(member);
    let _member = listen(29_000);
    shown([true, false]).await;
}
