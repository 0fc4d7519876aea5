//! Load balancers that are known by name: the test is the load balancer, and the name server. And one that has both families.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::balancer::{give, of_class};
use crate::rig::Space;
use crate::support::eventually;

/// One pod whose Service only the test serves; answers the Service's name.
async fn served_by_the_test(space: &Space) -> String {
    space.pod("p", of_class("nobody-serves")).await;
    space.reason("c", "p", "WaitingForAddress").await;
    space.services().await.remove(0)
}

/// Waits until the pod is Routed at exactly these addresses; its entry.
async fn routed_at(space: &Space, ips: &[&str]) -> Value {
    eventually(&format!("p is routed at {ips:?}"), async || {
        let entry = space.entries("c").await.remove("p").unwrap_or_default();
        let found = entry["state"] == "Routed" && entry["external"]["ips"] == json!(ips);
        if found { Ok(entry) } else { Err(entry.to_string()) }
    })
    .await
}

async fn says_resolved(space: &Space, service: &str, wanted: &str) {
    eventually(&format!("the Service says {wanted}"), async || {
        let service = space.api.get(&space.core(&format!("services/{service}"))).await.ok();
        let found = &service["metadata"]["annotations"]["external-ip.dev/resolved"];
        if found == wanted { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_load_balancer_known_by_name_is_followed_through_dns() {
    let space = Space::new("names-dns").await;
    let service = served_by_the_test(&space).await;
    let before = space.rig.cluster.audit_position().unwrap();
    give(&space, &service, json!([{"hostname": "a.names.example"}])).await;
    let message = space.reason("c", "p", "WaitingForName").await;
    assert!(message.contains("a.names.example"), "{message}");
    says_resolved(&space, &service, "a.names.example=").await;
    space.rig.dns.lead("a.names.example", &["198.51.100.78", "198.51.100.77"]);
    let entry = routed_at(&space, &["198.51.100.77", "198.51.100.78"]).await;
    assert_eq!(entry["external"]["host"], "a.names.example");
    let map = space.fetch(&format!("/v1/mapping/{}/c?format=nat-map", space.name), &[]).await.json();
    let inside = entry["internal"]["ips"][0].as_str().unwrap();
    assert_eq!(map[format!("{inside}:11222")], json!({"host": "a.names.example", "port": 11222}));
    space.rig.dns.lead("a.names.example", &["198.51.100.79"]);
    routed_at(&space, &["198.51.100.79"]).await;
    says_resolved(&space, &service, "a.names.example=198.51.100.79").await;
    // nothing yet, two addresses, another one
    assert_eq!(space.writes(before).await.get("patch services"), Some(&3));
}

#[tokio::test]
async fn a_dual_stack_slot_has_an_address_of_each_family_and_every_protocol() {
    let space = Space::new("names-dual").await;
    let annotations =
        json!({"external-ip.dev/class": "dual", "external-ip.dev/ports": "11222, 2905/sctp, 53/udp"});
    space.pod("p", json!({"metadata": {"annotations": annotations}})).await;
    let first = eventually("p is routed by IPv4", async || {
        let entry = space.entries("c").await.remove("p").unwrap_or_default();
        if entry["state"] == "Routed" { Ok(entry) } else { Err(entry.to_string()) }
    })
    .await;
    let own = first["internal"]["ips"][0].as_str().unwrap();
    assert_eq!(first["external"]["ips"].as_array().unwrap().len(), 1, "the pod has no IPv6 address: {first}");
    // the pretended kubelet knows one family
    let both = json!([{"ip": own}, {"ip": "2001:db8:5::7"}]);
    space.api.patch(&space.core("pods/p/status"), &json!({"status": {"podIPs": both}})).await.ok();
    let entry = eventually("p is routed by both", async || {
        let entry = space.entries("c").await.remove("p").unwrap_or_default();
        let both = entry["external"]["ips"].as_array().is_some_and(|ips| ips.len() == 2);
        if entry["state"] == "Routed" && both { Ok(entry) } else { Err(entry.to_string()) }
    })
    .await;
    let map = space.fetch(&format!("/v1/mapping/{}/c?format=nat-map", space.name), &[]).await.json();
    for (inside, outside) in [(own, 0), ("2001:db8:5::7", 1)] {
        let target = json!({"host": entry["external"]["ips"][outside], "port": 11222});
        assert_eq!(map[format!("{inside}:11222")], target, "{map}");
        assert_eq!(inside.contains(':'), target["host"].as_str().unwrap().contains(':'), "{map}");
    }
    let protocols: BTreeSet<&str> =
        entry["ports"].as_array().unwrap().iter().map(|p| p["protocol"].as_str().unwrap()).collect();
    assert_eq!(protocols, BTreeSet::from(["SCTP", "TCP", "UDP"]));
}
