//! Static addresses on a real API server, given by MetalLB as asked. The pools lie at the end of its range, of which it
//! gives away the lowest free address to others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::rig::{Rig, Space};
use crate::support::eventually;

const ASKED: &str = "external-ip.dev/asked-address";

fn class(name: &str) -> Value {
    json!({"external-ip.dev/class": name})
}

async fn service(space: &Space, name: &str) -> Value {
    space.api.get(&space.core(&format!("services/{name}"))).await.ok()
}

fn claim(service: &Value) -> &str {
    service["metadata"]["annotations"][ASKED].as_str().unwrap_or_default()
}

fn given(service: &Value) -> &str {
    service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().unwrap_or_default()
}

/// Waits until so many of all entries are routed and all the others lack an address; the addresses of the routed.
async fn shared_out(spaces: &[&Space], routed: usize) -> BTreeMap<String, String> {
    eventually(&format!("{routed} pods have addresses of the pool"), async || {
        let mut found = BTreeMap::new();
        let mut seen = Vec::new();
        for space in spaces {
            for (pod, entry) in space.entries("c").await {
                if entry["state"] == "Routed" {
                    let ip = entry["external"]["ips"][0].as_str().unwrap_or_default();
                    found.insert(format!("{}/{pod}", space.name), ip.to_owned());
                } else if entry["reason"] != "NoFreeAddress" {
                    return Err(entry.to_string());
                }
                seen.push(entry);
            }
        }
        if found.len() == routed { Ok(found) } else { Err(json!(seen).to_string()) }
    })
    .await
}

#[tokio::test]
async fn a_pool_is_shared_out_over_namespaces_and_who_gets_none_gets_the_next_free_address() {
    let (one, other) = (Space::new("static-one").await, Space::new("static-other").await);
    one.stateful_set(2, class("static")).await;
    other.stateful_set(2, class("static")).await;
    let addresses = shared_out(&[&one, &other], 3).await;
    let unique: BTreeSet<&str> = addresses.values().map(String::as_str).collect();
    assert_eq!(unique.into_iter().collect::<Vec<_>>(), ["203.0.113.240", "203.0.113.241", "203.0.113.242"]);
    for (pod, address) in &addresses {
        let space = if pod.starts_with("static-one/") { &one } else { &other };
        let slot = pod.rsplit_once('-').unwrap().1;
        let service = service(space, &format!("c-ext-{slot}")).await;
        assert_eq!((claim(&service), given(&service)), (address.as_str(), address.as_str()));
        assert_eq!(service["spec"]["loadBalancerIP"], json!(address));
    }
    // the one left over, and the one it gets its address from
    let of_one = addresses.keys().filter(|pod| pod.starts_with("static-one/")).count();
    let (full, lacking) = if of_one == 2 { (&one, &other) } else { (&other, &one) };
    let waits = lacking.entries("c").await.into_iter().find(|(_, e)| e["state"] != "Routed").unwrap().0;
    lacking.event("Pod", &waits, "NoFreeAddress").await;
    lacking.event("StatefulSet", "c", "NoFreeAddress").await;
    let freed = addresses[&format!("{}/c-1", full.name)].clone();
    full.scale(1).await;
    assert_eq!(lacking.routed(&["c-0", "c-1"]).await[&waits], freed);
}

#[tokio::test]
async fn a_service_deleted_by_hand_asks_for_its_last_address_again_and_forever_keeps_what_is_free() {
    let space = Space::new("static-forever").await;
    space.stateful_set(2, class("static-forever")).await;
    let before = space.routed(&["c-0", "c-1"]).await;
    let made = service(&space, "c-ext-0").await;
    for prefix in ["metallb.universe.tf", "metallb.io"] {
        let asks = &made["metadata"]["annotations"][format!("{prefix}/loadBalancerIPs")];
        assert_eq!(*asks, json!(before["c-0"]), "{prefix}");
    }
    // the third address of the pool is free and would do for whoever has had none
    space.api.delete(&space.core("services/c-ext-0")).await.ok();
    eventually("another Service", async || {
        let found = space.api.get(&space.core("services/c-ext-0")).await;
        let again = found.status.is_success() && found.body["metadata"]["uid"] != made["metadata"]["uid"];
        if again { Ok(()) } else { Err(found.body.to_string()) }
    })
    .await;
    assert_eq!(space.routed(&["c-0", "c-1"]).await, before);
    // kept without a pod: other clusters of the class have to do with the rest
    space.scale(0).await;
    eventually("no pods", async || {
        let entries = space.entries("c").await;
        if entries.is_empty() { Ok(()) } else { Err(json!(entries).to_string()) }
    })
    .await;
    let other = Space::new("static-forever-other").await;
    other.stateful_set(2, class("static-forever")).await;
    let rest = shared_out(&[&other], 1).await;
    assert!(rest.values().all(|ip| !before.values().any(|kept| kept == ip)), "{rest:?} {before:?}");
    space.scale(2).await;
    assert_eq!(space.routed(&["c-0", "c-1"]).await, before);
}

#[tokio::test]
async fn an_existing_service_that_is_handed_over_becomes_a_slot_with_its_address() {
    let space = Space::new("static-adopted").await;
    let theirs = json!({
        "metadata": {"name": "c-ext-0", "annotations": {"external-ip.dev/adopt": "true"}},
        "spec": {"type": "LoadBalancer", "loadBalancerIP": "203.0.113.247", "selector": {"app": "old"},
            "ports": [{"name": "old", "port": 11222}]},
    });
    space.api.post(&space.core("services"), &theirs).await.ok();
    let before = eventually("it has its address", async || {
        let service = service(&space, "c-ext-0").await;
        if given(&service) == "203.0.113.247" { Ok(service) } else { Err(service.to_string()) }
    })
    .await;
    space.stateful_set(2, class("static-adopted")).await;
    let addresses = space.routed(&["c-0", "c-1"]).await;
    assert_eq!(addresses["c-0"], "203.0.113.247");
    assert_eq!(addresses["c-1"], "203.0.113.246", "the first of the pool that is free");
    let after = service(&space, "c-ext-0").await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(claim(&after), "203.0.113.247");
    assert_eq!(after["spec"]["selector"], json!({"stamp.external-ip.dev/pod-id": "c.c-0"}));
}

#[tokio::test]
async fn a_slot_made_ahead_has_its_static_address_and_none_is_made_without() {
    let space = Space::new("static-ahead").await;
    space.stateful_set(1, class("static-ahead")).await;
    eventually("one slot ahead", async || {
        let slots = space.services().await;
        if slots == ["c-ext-0", "c-ext-1"] { Ok(()) } else { Err(format!("{slots:?}")) }
    })
    .await;
    eventually("it has its address", async || {
        let ahead = service(&space, "c-ext-1").await;
        if given(&ahead) == claim(&ahead) && !given(&ahead).is_empty() {
            Ok(())
        } else {
            Err(ahead.to_string())
        }
    })
    .await;
    let ahead = service(&space, "c-ext-1").await;
    space.writes(0).await;
    space.scale(2).await;
    assert_eq!(space.routed(&["c-0", "c-1"]).await["c-1"], given(&ahead));
    let pod = space.api.get(&space.core("pods/c-1")).await.ok();
    assert_eq!(pod["metadata"]["annotations"]["stamp.external-ip.dev/address"], json!(given(&ahead)));
    assert_eq!(space.services().await, ["c-ext-0", "c-ext-1"], "the pool has two addresses");
}

/// As external-ip-proxy was configured: addresses of its own, and every pod has one of them.
const ORIGIN: &str = "
external-ips:
  namespace: origin
  dynamic-ips: false
  ips: [203.0.113.77]
  ip-range: {from: 203.0.113.80/24, to: 203.0.113.81}
cluster: {labels: {app: c}, ports: [11222], stateful-set: c}
";

#[tokio::test]
async fn the_origins_file_with_static_addresses_gives_each_pod_one_of_them() {
    let rig = tokio::task::spawn_blocking(|| Arc::new(Rig::start("origin", ORIGIN))).await.unwrap();
    rig.product.ready().await;
    let space = Space::on(rig, "origin").await;
    space.stateful_set(3, json!({})).await;
    eventually("the map has each of the file's addresses once", async || {
        let map = "/api/v1/namespaces/external-ip-controller/configmaps/external-ip-mapping";
        let map =
            space.api.get(map).await.body["data"]["mapping.yaml"].as_str().unwrap_or_default().to_owned();
        let mut outside: Vec<&str> = map
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- ")?.split_once(':'))
            .map(|(_, ip)| ip)
            .collect();
        outside.sort_unstable();
        if outside == ["203.0.113.77", "203.0.113.80", "203.0.113.81"] { Ok(()) } else { Err(map) }
    })
    .await;
    for name in space.services().await {
        let service = service(&space, &name).await;
        assert_eq!(claim(&service), given(&service), "{name}");
    }
}
