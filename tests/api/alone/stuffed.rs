//! What the admission policies cost where a pod is as large as a pod can be.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::policies::{ADDRESS, ID, RESERVED, refused};
use crate::rig::Space;

#[tokio::test]
async fn a_pod_full_of_annotations_is_judged_like_any_other_and_as_fast() {
    let space = Space::new("policy-budget").await;
    // as many keys as 256 kB hold: going through them all takes more than ten seconds and much of the policy's budget
    let many: serde_json::Map<String, Value> = (0..42_000).map(|n| (format!("{n:x}"), json!(""))).collect();
    let stuffed = json!({"metadata": {"labels": {"external-ip.dev/cluster": null}, "annotations": many}});
    let begun = Instant::now();
    space.pod("stuffed", stuffed).await;
    let path = space.core("pods/stuffed");
    space.api.patch(&path, &json!({"metadata": {"labels": {"team": "theirs"}}})).await.ok();
    let forged = json!({"metadata": {"annotations": {ADDRESS: "203.0.113.1"}}});
    refused("among many", &space.api.patch(&path, &forged).await, RESERVED);
    let forged = json!({"metadata": {"labels": {ID: "c.victim"}}});
    refused("beside many", &space.api.patch(&path, &forged).await, RESERVED);
    space.api.patch(&path, &json!({"metadata": {"annotations": null}})).await.ok();
    // 1.5 s each without any policy on a machine like CI's
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}
