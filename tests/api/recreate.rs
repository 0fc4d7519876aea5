//! `recreate` on a real API server, as a person runs it: it brings the new address first.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::balancer::{give, of_class};
use crate::rig::Space;
use crate::support::eventually;

/// What was given and is in the class: no other controller serves it, so the test gives the addresses.
const NEW: &str = "example.com/nobody";

async fn service(space: &Space, name: &str) -> Value {
    space.api.get(&space.core(&format!("services/{name}"))).await.body
}

fn recreate(space: &Space, config: &Path, options: &[&str]) -> tokio::task::JoinHandle<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_external-ip-controller"));
    command.args(["recreate", "c", "--timeout", "60", "--namespace", &space.name, "--config"]).arg(config);
    command.args(options).env("KUBECONFIG", space.rig.cluster.kubeconfig());
    tokio::task::spawn_blocking(move || command.output().unwrap())
}

fn said(out: &Output) -> String {
    [&out.stdout, &out.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

fn config(space: &Space) -> PathBuf {
    let config = space.rig.cluster.dir().unwrap().join(format!("{}.yaml", space.name));
    std::fs::write(&config, crate::rig::CONFIG).unwrap();
    config
}

/// Reads the map again and again while `what` goes on; fails where an entry is missing from it.
async fn nobody_is_missing<T>(space: &Space, what: impl Future<Output = T>) -> T {
    let looks = async {
        loop {
            let entries = space.entries("c").await;
            let routed = entries.values().filter(|e| e["state"] == "Routed").count();
            assert_eq!(routed, 2, "{entries:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        done = what => done,
        never = looks => never,
    }
}

#[tokio::test]
async fn recreate_moves_a_pod_to_a_new_service_that_the_class_could_not_become() {
    let space = Space::new("recreate").await;
    // made by a class that has no load balancer class, then of one that has: as after a change of the configuration
    space.pod("c-0", of_class("brief")).await;
    let before = space.routed(&["c-0"]).await["c-0"].clone();
    space.api.patch(&space.core("pods/c-0"), &of_class("anew")).await.ok();
    eventually("the entry shows how its Service departs from its class", async || {
        let entry = space.entries("c").await.remove("c-0").unwrap_or_default();
        if entry["drift"]["reason"] == "ClassChanged" { Ok(()) } else { Err(entry.to_string()) }
    })
    .await;
    let config = config(&space);
    let running = recreate(&space, &config, &[]);
    let new = eventually("another Service is made", async || {
        let made = service(&space, "c-ext-1").await;
        if made["spec"]["loadBalancerClass"] == NEW { Ok(made) } else { Err(made.to_string()) }
    })
    .await;
    assert!(new["metadata"]["annotations"]["external-ip.dev/recreate"].is_null());
    assert_eq!(space.routed(&["c-0"]).await["c-0"], before, "until the new address is there");
    give(&space, "c-ext-1", json!([{"ip": "203.0.113.88"}])).await;
    let out = running.await.unwrap();
    let told = said(&out);
    assert!(out.status.success() && told.contains(&format!("c-0: {before} -> 203.0.113.88")), "{told}");
    assert_eq!(space.routed(&["c-0"]).await["c-0"], "203.0.113.88");
    eventually("the former Service is gone", async || {
        let left = space.services().await;
        if left == ["c-ext-1"] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let again = recreate(&space, &config, &[]).await.unwrap();
    assert!(said(&again).contains("is as its class says"), "{again:?}");
}

#[tokio::test]
async fn recreate_moves_all_who_share_a_service_to_another_one_and_the_former_goes_last() {
    let space = Space::new("recreate-shared").await;
    for pod in ["c-0", "c-1"] {
        space.pod(pod, of_class("nobody-shares")).await;
    }
    for pod in ["c-0", "c-1"] {
        space.reason("c", pod, "WaitingForAddress").await;
    }
    let (old, new) = ("c-ext-shared-0", "c-ext-shared-1");
    give(&space, old, json!([{"ip": "198.51.100.51"}])).await;
    let before = space.routed(&["c-0", "c-1"]).await;
    let config = config(&space);
    let running = async {
        let running = recreate(&space, &config, &["--all"]);
        eventually("another Service is made", async || {
            let made = service(&space, new).await;
            if made["spec"]["ports"][1].is_object() { Ok(()) } else { Err(made.to_string()) }
        })
        .await;
        assert_eq!(space.routed(&["c-0", "c-1"]).await, before, "until the new address is there");
        give(&space, new, json!([{"ip": "198.51.100.52"}])).await;
        eventually("both are at the new address", async || {
            let entries = space.entries("c").await;
            let at: BTreeSet<String> = entries.values().map(|e| e["external"]["ips"].to_string()).collect();
            let ports: BTreeSet<u64> =
                entries.values().filter_map(|e| e["ports"][0]["external"].as_u64()).collect();
            let there = at.into_iter().eq([json!(["198.51.100.52"]).to_string()]);
            if there && ports == BTreeSet::from([20_000, 20_001]) {
                Ok(())
            } else {
                Err(json!(entries).to_string())
            }
        })
        .await;
        let former = service(&space, old).await;
        let ports = former["spec"]["ports"].as_array().map(Vec::len);
        assert_eq!(ports, Some(2), "who has the former map arrives: {former}");
        running.await.unwrap()
    };
    let out = nobody_is_missing(&space, running).await;
    let told = said(&out);
    for pod in ["c-0", "c-1"] {
        assert!(told.contains(&format!("{pod}: 198.51.100.51 -> 198.51.100.52")), "{told}");
    }
    assert!(out.status.success(), "{told}");
    let gone = eventually("the former Service is gone", async || {
        let left = space.api.names(&space.core("services?labelSelector=external-ip.dev/shared")).await;
        if left == [new] { Ok(()) } else { Err(format!("{left:?}")) }
    });
    nobody_is_missing(&space, gone).await;
}
