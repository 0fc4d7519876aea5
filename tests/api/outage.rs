//! API server not there, gone for a while, replicas that stop: on clusters of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use local_cluster::Component;
use serde_json::json;

use crate::rig::{CONFIG, Rig, Space, fetch};
use crate::support::api::Api;
use crate::support::product::Product;
use crate::support::{eventually, within};

async fn start(name: &'static str) -> Arc<Rig> {
    let rig = tokio::task::spawn_blocking(move || Arc::new(Rig::start(name, CONFIG))).await.unwrap();
    rig.product.ready().await;
    rig
}

async fn is_leading(product: &Product) -> bool {
    product.admin("/metrics").await.body.lines().any(|l| l.ends_with("leader 1"))
}

async fn leads(product: &Product, limit: Duration) -> Duration {
    let start = Instant::now();
    within(
        limit,
        "the replica leads",
        async || {
            if is_leading(product).await { Ok(()) } else { Err(product.log()) }
        },
    )
    .await;
    start.elapsed()
}

#[tokio::test]
async fn an_api_server_gone_for_a_minute_costs_readiness_but_not_the_map() {
    let rig = start("outage").await;
    let space = Space::on(Arc::clone(&rig), "outage").await;
    space.stateful_set(2, json!({})).await;
    let before = space.routed(&["c-0", "c-1"]).await;
    let ca = crate::rig::ca(&space.api).await;
    let ask =
        async |path: &str| crate::support::https::get(rig.product.mapping, &ca, path, &[]).await.unwrap();
    let position = ask("/v1/mapping").await.header("map-position").to_owned();

    rig.cluster.kill(Component::ApiServer).unwrap();
    let gone = Instant::now();
    // a replica that starts now waits instead of failing, and shows no empty map
    let late = rig.replica("late", CONFIG);
    within(Duration::from_secs(45), "not ready any more", async || {
        let ready = rig.product.admin("/readyz").await;
        if ready.status == 503 { Ok(()) } else { Err(ready.body) }
    })
    .await;
    assert!(gone.elapsed() > Duration::from_secs(8), "not at the first hiccup: {:?}", gone.elapsed());
    within(Duration::from_secs(60), "a minute has passed", async || {
        if gone.elapsed() > Duration::from_secs(60) { Ok(()) } else { Err(String::new()) }
    })
    .await;
    let answer = ask(&format!("/v1/mapping/{}/c", space.name)).await;
    assert_eq!(answer.status, 200, "the map stays served");
    let age: u64 = answer.header("age").parse().unwrap();
    assert!((55..90).contains(&age), "with its age: {age}");
    assert_eq!(answer.json()["entries"].as_array().unwrap().len(), 2);
    assert_eq!(rig.product.admin("/livez").await.status, 200, "nobody restarts it for that");
    assert_eq!(late.admin("/readyz").await.status, 503);

    rig.cluster.start(Component::ApiServer).unwrap();
    rig.product.ready().await;
    late.ready().await;
    // it waits long after such an outage; a kubelet would start it again
    rig.cluster.stop(Component::MetalLb).unwrap();
    rig.cluster.start(Component::MetalLb).unwrap();
    assert_eq!(space.routed(&["c-0", "c-1"]).await, before);
    // the late one has seen at least as much as the first had before
    let path = format!("/v1/mapping/{}/c", space.name);
    let answer = fetch(late.mapping, &space.api, &path, &[("map-position", &position)]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // no further than its address: what pretends that pods run has not come back either
    space.pod("c-new", json!({})).await;
    eventually("a new pod has its address", async || {
        let entry = space.entries("c").await.remove("c-new").unwrap_or_default();
        if entry["external"]["ips"][0].is_string() { Ok(()) } else { Err(entry.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_at_once_and_one_that_is_killed_within_the_lease() {
    let rig = start("replicas").await;
    let space = Space::on(Arc::clone(&rig), "replicas").await;
    leads(&rig.product, Duration::from_secs(20)).await;
    let second = rig.replica("second", CONFIG);
    let third = rig.replica("third", CONFIG);
    second.ready().await;
    third.ready().await;
    space.stateful_set(2, json!({})).await;
    let before = space.routed(&["c-0", "c-1"]).await;

    // every replica publishes the same bytes
    let path = format!("/v1/mapping/{}/c", space.name);
    let etag = async |p: &Product| fetch(p.mapping, &space.api, &path, &[]).await.header("etag").to_owned();
    let tag = etag(&rig.product).await;
    assert!(!tag.is_empty());
    for replica in [&second, &third] {
        eventually("the same document", async || match etag(replica).await {
            other if other == tag => Ok(()),
            other => Err(other),
        })
        .await;
    }

    rig.product.signal("KILL");
    let killed = Instant::now();
    within(Duration::from_secs(25), "one of the others leads", async || {
        if is_leading(&second).await || is_leading(&third).await { Ok(()) } else { Err(String::new()) }
    })
    .await;
    println!("after kill -9 another replica leads in {:.1} s", killed.elapsed().as_secs_f32());
    let (mut leader, other) = if is_leading(&second).await { (second, third) } else { (third, second) };
    routed_at(&other, &space.api, &space, "c-2").await;

    leader.signal("TERM");
    let took = leads(&other, Duration::from_secs(10)).await;
    println!("after SIGTERM another replica leads in {:.1} s", took.as_secs_f32());
    assert!(took < Duration::from_secs(4), "{took:?}");
    let (status, took) = leader.ended(Duration::from_secs(30)).await;
    assert!(status.success(), "{status}\n{}", leader.log());
    println!("drained {:.1} s after the hand-over", took.as_secs_f32());
    let answer = fetch(other.mapping, &space.api, &path, &[]).await.json();
    let entries = answer["entries"].as_array().unwrap();
    for (pod, address) in before {
        let entry = entries.iter().find(|e| e["pod"] == *pod).unwrap();
        assert_eq!(entry["external"]["ips"][0], *address);
    }
}

/// A new pod is routed, as `replica` shows it.
async fn routed_at(replica: &Product, api: &Api, space: &Space, pod: &str) {
    space.pod(pod, json!({})).await;
    eventually("a new pod is routed", async || {
        let answer = fetch(replica.mapping, api, &format!("/v1/mapping/{}/c", space.name), &[]).await.json();
        let entry = answer["entries"].as_array().and_then(|e| e.iter().find(|e| e["pod"] == pod).cloned());
        if entry.as_ref().is_some_and(|e| e["state"] == "Routed") {
            Ok(())
        } else {
            Err(format!("{entry:?}"))
        }
    })
    .await;
}
