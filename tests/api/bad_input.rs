//! Whatever is wrong: a reason in the map, an Event or message, and everything else goes on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::Space;
use crate::support::within;

fn annotated(key: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {key: value}}})
}

#[tokio::test]
async fn each_mistake_has_its_reason_and_event_and_the_good_pod_its_address() {
    let space = Space::new("bad-pods").await;
    let cases = [
        ("ports", "InvalidPorts", annotated("external-ip.dev/ports", "11222//tcp")),
        ("unknown", "UnknownPort", annotated("external-ip.dev/ports", "nope")),
        ("class", "UnknownClass", annotated("external-ip.dev/class", "gold")),
        ("elsewhere", "ClassNotAllowed", annotated("external-ip.dev/class", "elsewhere")),
        ("inject", "InvalidSettings", annotated("external-ip.dev/inject", "everything")),
        ("host", "HostNetwork", json!({"spec": {"hostNetwork": true}})),
        ("none", "NoPorts", json!({"spec": {"containers": [{"name": "main", "image": "none"}]}})),
    ];
    for (pod, _, change) in &cases {
        space.pod(pod, change.clone()).await;
    }
    space.pod("good", json!({})).await;
    for (pod, reason, _) in &cases {
        let message = space.reason("c", pod, reason).await;
        assert!(message.contains(": "), "says what to do: {message}");
        space.event("Pod", pod, reason).await;
        let found = space.api.get(&space.core(&format!("pods/{pod}"))).await.ok();
        assert!(found["metadata"]["labels"]["stamp.external-ip.dev/pod-id"].is_null(), "not stamped");
    }
    crate::support::eventually("the good pod is routed", async || {
        let entry = space.entries("c").await.remove("good").unwrap_or_default();
        if entry["state"] == "Routed" { Ok(()) } else { Err(entry.to_string()) }
    })
    .await;
    assert_eq!(space.services().await.len(), 1);
}

#[tokio::test]
async fn a_malformed_cluster_label_is_shown_under_its_own_value() {
    let space = Space::new("bad-cluster").await;
    let name = "x".repeat(41);
    space.pod("long", json!({"metadata": {"labels": {"external-ip.dev/cluster": name}}})).await;
    space.reason(&name, "long", "InvalidClusterName").await;
    space.event("Pod", "long", "InvalidClusterName").await;
}

#[tokio::test]
async fn long_pod_names_get_a_hashed_identity_and_an_address() {
    let space = Space::new("bad-long").await;
    let name = format!("p{}", "a".repeat(62));
    space.pod(&name, json!({})).await;
    space.routed(&[&name]).await;
}

#[tokio::test]
async fn a_static_pods_mirror_is_told_why_and_a_pod_bound_by_its_author_is_exposed() {
    let space = Space::new("bad-mirror").await;
    let nodes = space.api.get("/api/v1/nodes").await.ok();
    let node = &nodes["items"][0]["metadata"];
    // as a kubelet writes it; its owner is the node, which is in no namespace
    let mirror = json!({
        "metadata": {
            "annotations": {"kubernetes.io/config.mirror": "5f0c", "kubernetes.io/config.source": "file"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node["name"], "uid": node["uid"], "controller": true}],
        },
        "spec": {"nodeName": node["name"]},
    });
    let made = space.pod("static", mirror).await;
    assert!(made["metadata"]["labels"]["stamp.external-ip.dev/pod-id"].is_null(), "{}", made["metadata"]);
    space.reason("c", "static", "MirrorPod").await;
    space.event("Pod", "static", "MirrorPod").await;
    let bound = space.pod("bound", json!({"spec": {"nodeName": node["name"]}})).await;
    assert_eq!(bound["metadata"]["labels"]["stamp.external-ip.dev/pod-id"], "c.bound");
    crate::support::eventually("the bound pod is routed", async || {
        let entry = space.entries("c").await.remove("bound").unwrap_or_default();
        if entry["state"] == "Routed" { Ok(()) } else { Err(entry.to_string()) }
    })
    .await;
    assert_eq!(space.services().await, ["c-ext-0"]);
    let found = space.api.get(&space.core("pods/static")).await.ok();
    assert!(found["metadata"]["labels"]["stamp.external-ip.dev/pod-id"].is_null(), "nor labelled afterwards");
    let events =
        space.api.get(&format!("/apis/events.k8s.io/v1/namespaces/{}/events", space.name)).await.ok();
    let of_node =
        events["items"].as_array().unwrap().iter().filter(|e| e["regarding"]["kind"] == "Node").count();
    assert_eq!(of_node, 0, "a node is in no namespace: {events}");
}

#[tokio::test]
async fn a_finished_pod_keeps_no_address() {
    let space = Space::new("bad-finished").await;
    space.pod("job", json!({})).await;
    space.routed(&["job"]).await;
    let done = json!({"status": {"phase": "Succeeded"}});
    space.api.patch(&space.core("pods/job/status"), &done).await.ok();
    space.reason("c", "job", "Finished").await;
    let entry = space.entries("c").await.remove("job").unwrap();
    assert_eq!((&entry["internal"]["ips"], &entry["external"]), (&json!([]), &json!(null)));
}

#[tokio::test]
async fn a_labelled_pod_in_a_namespace_that_is_not_enabled_has_a_reason_and_opens_nothing() {
    let space = Space::labelled("bad-namespace", json!({})).await;
    space.pod("outside", json!({})).await;
    space.reason("c", "outside", "NamespaceNotEnabled").await;
    space.event("Pod", "outside", "NamespaceNotEnabled").await;
    assert!(space.services().await.is_empty());
}

#[tokio::test]
async fn forged_reserved_keys_are_taken_off_any_new_pod() {
    let space = Space::new("bad-forged").await;
    space.pod("victim", json!({})).await;
    space.routed(&["victim"]).await;
    let forged = json!({"metadata": {
        "labels": {"external-ip.dev/cluster": null, "stamp.external-ip.dev/pod-id": "c.victim"},
        "annotations": {"stamp.external-ip.dev/address": "203.0.113.250"}}});
    let pod = space.pod("forger", forged).await;
    assert!(pod["metadata"]["labels"]["stamp.external-ip.dev/pod-id"].is_null(), "{}", pod["metadata"]);
    assert!(pod["metadata"]["annotations"]["stamp.external-ip.dev/address"].is_null());
}

#[tokio::test]
async fn an_identity_copied_past_the_webhook_withdraws_the_entry_until_it_is_gone() {
    let space = Space::new("bad-copied").await;
    space.pod("victim", json!({})).await;
    space.routed(&["victim"]).await;
    // past the webhook: while the namespace takes no part
    let namespace = format!("/api/v1/namespaces/{}", space.name);
    let enabled = |value: Value| json!({"metadata": {"labels": {"external-ip.dev/enabled": value}}});
    space.api.patch(&namespace, &enabled(json!(null))).await.ok();
    let copy = json!({
        "metadata": {"name": "copier", "labels": {"stamp.external-ip.dev/pod-id": "c.victim"}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    });
    crate::support::eventually("a pod comes past the webhook", async || {
        let seen = space.api.post(&space.core("pods?dryRun=All"), &copy).await.ok();
        let labels = seen["metadata"]["labels"].clone();
        if labels["stamp.external-ip.dev/pod-id"] == "c.victim" { Ok(()) } else { Err(labels.to_string()) }
    })
    .await;
    space.api.post(&space.core("pods"), &copy).await.ok();
    space.api.patch(&namespace, &enabled(json!("true"))).await.ok();
    space.reason("c", "victim", "DuplicateIdentity").await;
    assert_eq!(space.entries("c").await["victim"]["external"], json!(null));
    space.event("Pod", "victim", "DuplicateIdentity").await;
    let service = space.api.get(&space.core("services/c-ext-0")).await.ok();
    assert_eq!(service["spec"]["selector"], json!({"stamp.external-ip.dev/pod-id": "nobody"}));
    space.api.delete(&space.core("pods/copier")).await.ok();
    space.routed(&["victim"]).await;
}

#[tokio::test]
async fn a_foreign_service_under_a_slots_name_is_reported_and_left_alone() {
    let space = Space::new("bad-foreign").await;
    let foreign = json!({"metadata": {"name": "c-ext-0"}, "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}});
    let before = space.api.post(&space.core("services"), &foreign).await.ok();
    space.pod("c-0", json!({})).await;
    space.routed(&["c-0"]).await;
    space.event("Pod", "c-0", "NameTaken").await;
    let after = space.api.get(&space.core("services/c-ext-0")).await.ok();
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    assert_eq!(space.entries("c").await["c-0"]["slot"], 1);
}

#[tokio::test]
async fn a_foreign_service_is_taken_over_when_its_owner_says_so() {
    let space = Space::new("bad-adopted").await;
    let theirs = json!({
        "metadata": {"name": "c-ext-0", "annotations": {"external-ip.dev/adopt": "true", "team": "theirs"}},
        "spec": {"type": "LoadBalancer", "selector": {"app": "theirs"}, "ports": [{"port": 80}]}});
    space.api.post(&space.core("services"), &theirs).await.ok();
    let address = crate::support::eventually("it has its address", async || {
        let service = space.api.get(&space.core("services/c-ext-0")).await.ok();
        let ip = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned);
        ip.ok_or_else(|| service.to_string())
    })
    .await;
    space.pod("c-0", json!({})).await;
    assert_eq!(space.routed(&["c-0"]).await["c-0"], address);
    let service = space.api.get(&space.core("services/c-ext-0")).await.ok();
    assert_eq!(service["spec"]["selector"], json!({"stamp.external-ip.dev/pod-id": "c.c-0"}));
    assert_eq!(service["metadata"]["annotations"]["team"], "theirs");
}

#[tokio::test]
async fn over_the_limit_a_pod_waits_with_a_reason_and_gets_the_next_free_slot() {
    let space = Space::new("bad-limit").await;
    space.stateful_set(13, json!({})).await;
    space.event("StatefulSet", "c", "ClusterLimit").await;
    let routed = async |want: usize| {
        crate::support::eventually("as many as allowed are routed", async || {
            let entries = space.entries("c").await;
            let count = entries.values().filter(|e| e["state"] == "Routed").count();
            if count == want { Ok(entries) } else { Err(format!("{count} of {}", entries.len())) }
        })
        .await
    };
    let entries = routed(12).await;
    let waiting: Vec<&Value> = entries.values().filter(|e| e["state"] != "Routed").collect();
    assert_eq!((waiting.len(), &waiting[0]["reason"]), (1, &json!("ClusterLimit")));
    space.scale(12).await;
    routed(12).await;
}

#[tokio::test]
async fn a_quota_that_refuses_the_service_is_told_and_lifted_later() {
    let space = Space::new("bad-quota").await;
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"services.loadbalancers": "0"}}});
    space.api.post(&space.core("resourcequotas"), &quota).await.ok();
    crate::support::eventually("the quota counts", async || {
        let found = space.api.get(&space.core("resourcequotas/none")).await.ok();
        if found["status"]["used"].is_object() { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    space.pod("c-0", json!({})).await;
    space.event("Pod", "c-0", "WriteRefused").await;
    space.api.delete(&space.core("resourcequotas/none")).await.ok();
    within(Duration::from_secs(90), "tried again", async || {
        let entry = space.entries("c").await.remove("c-0").unwrap_or_default();
        if entry["state"] == "Routed" { Ok(()) } else { Err(entry.to_string()) }
    })
    .await;
}
