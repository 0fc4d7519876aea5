//! What happens to a workload, and what the map says afterwards.

use std::time::Duration;

use serde_json::json;

use crate::rig::Space;
use crate::support::{eventually, within};

#[tokio::test]
async fn scaling_up_adds_and_scaling_down_keeps_addresses_for_the_way_back() {
    let space = Space::new("life-scale").await;
    space.stateful_set(2, json!({})).await;
    let two = space.routed(&["c-0", "c-1"]).await;
    space.scale(4).await;
    let four = space.routed(&["c-0", "c-1", "c-2", "c-3"]).await;
    assert_eq!((&four["c-0"], &four["c-1"]), (&two["c-0"], &two["c-1"]));
    space.scale(2).await;
    assert_eq!(space.routed(&["c-0", "c-1"]).await, two);
    assert_eq!(space.services().await.len(), 4, "kept for the retention");
    space.scale(4).await;
    assert_eq!(space.routed(&["c-0", "c-1", "c-2", "c-3"]).await, four);
}

#[tokio::test]
async fn a_deleted_workload_leaves_nothing_after_the_retention() {
    let space = Space::new("life-delete").await;
    space.stateful_set(2, json!({"external-ip.dev/class": "brief"})).await;
    space.routed(&["c-0", "c-1"]).await;
    space.api.delete(&space.apps("statefulsets/c")).await.ok();
    eventually("nothing is left", async || {
        let services = space.services().await;
        let maps = space.api.names(&space.core("configmaps?labelSelector=external-ip.dev/cluster")).await;
        let entries = space.fetch(&format!("/v1/mapping/{}/c", space.name), &[]).await;
        if services.is_empty() && maps.is_empty() && entries.status == 404 {
            Ok(())
        } else {
            Err(format!("{services:?} {maps:?} {}", entries.body))
        }
    })
    .await;
}

#[tokio::test]
async fn a_workload_made_again_within_the_retention_has_its_addresses_again() {
    let space = Space::new("life-again").await;
    space.stateful_set(2, json!({})).await;
    let before = space.routed(&["c-0", "c-1"]).await;
    space.api.delete(&space.apps("statefulsets/c")).await.ok();
    eventually("the map is empty", async || match space.entries("c").await {
        e if e.is_empty() => Ok(()),
        e => Err(format!("{e:?}")),
    })
    .await;
    space.stateful_set(2, json!({})).await;
    assert_eq!(space.routed(&["c-0", "c-1"]).await, before);
}

#[tokio::test]
async fn a_service_deleted_by_hand_is_made_again() {
    let space = Space::new("life-service").await;
    space.stateful_set(2, json!({})).await;
    space.routed(&["c-0", "c-1"]).await;
    let path = space.core("services/c-ext-0");
    let uid = space.api.get(&path).await.ok()["metadata"]["uid"].clone();
    space.api.delete(&path).await.ok();
    eventually("the Service is there again", async || {
        let again = space.api.get(&path).await.body;
        let new = again["metadata"]["uid"].is_string() && again["metadata"]["uid"] != uid;
        if new { Ok(()) } else { Err(again.to_string()) }
    })
    .await;
    space.routed(&["c-0", "c-1"]).await;
}

#[tokio::test]
async fn a_selector_bent_by_hand_withdraws_the_entry_and_is_mended() {
    let space = Space::new("life-bent").await;
    space.stateful_set(2, json!({})).await;
    let before = space.routed(&["c-0", "c-1"]).await;
    let bent = json!({"spec": {"selector": {"stamp.external-ip.dev/pod-id": "c.c-1"}}});
    space.api.patch(&space.core("services/c-ext-0"), &bent).await.ok();
    eventually("the selector is ours again", async || {
        let service = space.api.get(&space.core("services/c-ext-0")).await.ok();
        let selector = service["spec"]["selector"].clone();
        if selector == json!({"stamp.external-ip.dev/pod-id": "c.c-0"}) {
            Ok(())
        } else {
            Err(selector.to_string())
        }
    })
    .await;
    assert_eq!(space.routed(&["c-0", "c-1"]).await, before);
}

#[tokio::test]
async fn a_rolling_update_with_changed_ports_ends_with_the_new_ports_at_the_same_addresses() {
    let space = Space::new("life-ports").await;
    space.stateful_set(2, json!({})).await;
    let before = space.routed(&["c-0", "c-1"]).await;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"external-ip.dev/ports": "11222,9042/tcp"}}}}});
    space.api.patch(&space.apps("statefulsets/c"), &patch).await.ok();
    eventually("both have both ports", async || {
        let entries = space.entries("c").await;
        let done = entries.len() == 2
            && entries
                .values()
                .all(|e| e["state"] == "Routed" && e["ports"].as_array().is_some_and(|p| p.len() == 2));
        if done { Ok(()) } else { Err(format!("{entries:?}")) }
    })
    .await;
    assert_eq!(space.routed(&["c-0", "c-1"]).await, before);
}

#[tokio::test]
async fn a_namespace_that_loses_its_label_loses_its_entries_and_gets_them_back_with_it() {
    let space = Space::new("life-label").await;
    space.stateful_set(2, json!({})).await;
    let before = space.routed(&["c-0", "c-1"]).await;
    let path = format!("/api/v1/namespaces/{}", space.name);
    let label =
        |value: serde_json::Value| json!({"metadata": {"labels": {"external-ip.dev/enabled": value}}});
    space.api.patch(&path, &label(json!(null))).await.ok();
    space.reason("c", "c-0", "NamespaceNotEnabled").await;
    space.event("Pod", "c-0", "NamespaceNotEnabled").await;
    assert_eq!(space.services().await.len(), 2, "kept for the retention");
    space.api.patch(&path, &label(json!("true"))).await.ok();
    assert_eq!(space.routed(&["c-0", "c-1"]).await, before);
}

#[tokio::test]
async fn a_deleted_namespace_goes_out_of_the_map_and_is_not_held_up() {
    let space = Space::new("life-namespace").await;
    space.stateful_set(2, json!({})).await;
    space.routed(&["c-0", "c-1"]).await;
    let path = format!("/api/v1/namespaces/{}", space.name);
    space.api.delete(&path).await.ok();
    // Kubernetes' own controller looks through every type there is before it lets go: long on a machine that does more
    within(Duration::from_secs(240), "the namespace is gone", async || {
        let namespace = space.api.get(&path).await;
        if namespace.status == 404 { Ok(()) } else { Err(namespace.body["status"].to_string()) }
    })
    .await;
    eventually("the map is gone with it", async || {
        let map = space.fetch(&format!("/v1/mapping/{}/c", space.name), &[]).await;
        if map.status == 404 { Ok(()) } else { Err(map.body) }
    })
    .await;
}

#[tokio::test]
async fn pods_of_a_deployment_get_slots_and_their_successors_reuse_them() {
    let space = Space::new("life-deployment").await;
    let template = json!({
        "metadata": {"labels": {"app": "c", "external-ip.dev/cluster": "c"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": "none", "ports": [{"containerPort": 11222}]}]},
    });
    let deployment = json!({"metadata": {"name": "c"},
        "spec": {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"app": "c"}}, "template": template}});
    space.api.post(&space.apps("deployments"), &deployment).await.ok();
    let one = async |not: &str| {
        eventually("one routed pod", async || {
            let entries = space.entries("c").await;
            match entries.iter().next() {
                Some((pod, e)) if entries.len() == 1 && e["state"] == "Routed" && pod != not => {
                    Ok((pod.clone(), e["slot"].as_u64().unwrap()))
                }
                _ => Err(format!("{entries:?}")),
            }
        })
        .await
    };
    let (first, slot) = one("").await;
    assert_eq!(slot, 0);
    let pod = space.api.get(&space.core(&format!("pods/{first}"))).await.ok();
    let id = pod["metadata"]["labels"]["stamp.external-ip.dev/pod-id"].as_str().unwrap();
    assert!(id.starts_with("c._"), "{id}");
    space.api.delete(&space.core(&format!("pods/{first}"))).await.ok();
    let (second, _) = one(&first).await;
    // the first slot has rested by now: the third pod has it
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    space.api.delete(&space.core(&format!("pods/{second}"))).await.ok();
    let (_, slot) = one(&second).await;
    assert_eq!(slot, 0);
    assert!(space.services().await.len() <= 2);
}

#[tokio::test]
async fn pods_of_a_configured_cluster_need_no_label_of_their_own() {
    let space = Space::new("operated").await;
    space
        .pod(
            "db-0",
            json!({"metadata": {"labels": {"external-ip.dev/cluster": null, "clusterName": "operated"}}}),
        )
        .await;
    eventually("it is routed", async || {
        let entry = space.entries("operated").await.remove("db-0").unwrap_or_default();
        if entry["state"] == "Routed" { Ok(()) } else { Err(entry.to_string()) }
    })
    .await;
    let pod = space.api.get(&space.core("pods/db-0")).await.ok();
    assert_eq!(pod["metadata"]["labels"]["stamp.external-ip.dev/pod-id"], "operated.db-0");
}
