//! A class whose load balancer changes, on a real API server: `recreate` brings the new address first.

use std::process::Command;

use serde_json::{Value, json};

use crate::rig::Space;
use crate::support::eventually;

/// What was given and is in the class: no other controller serves it, so the test gives the addresses.
const NEW: &str = "example.com/nobody";

async fn service(space: &Space, name: &str) -> Value {
    space.api.get(&space.core(&format!("services/{name}"))).await.body
}

/// `recreate` as a person runs it, who may change Services and nothing else.
fn recreate(space: &Space, config: &std::path::Path) -> tokio::task::JoinHandle<std::process::Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_external-ip-controller"));
    command.args(["recreate", "c", "--timeout", "60", "--namespace", &space.name, "--config"]).arg(config);
    command.env("KUBECONFIG", space.rig.cluster.kubeconfig());
    tokio::task::spawn_blocking(move || command.output().unwrap())
}

#[tokio::test]
async fn recreate_moves_a_pod_to_a_new_service_that_the_class_could_not_become() {
    let space = Space::new("recreate").await;
    // made by a class that has no load balancer class, then of one that has: as after a change of the configuration
    let of = |class: &str| json!({"metadata": {"annotations": {"external-ip.dev/class": class}}});
    space.pod("c-0", of("brief")).await;
    let before = space.routed(&["c-0"]).await["c-0"].clone();
    space.api.patch(&space.core("pods/c-0"), &of("anew")).await.ok();
    eventually("the entry shows how its Service departs from its class", async || {
        let entry = space.entries("c").await.remove("c-0").unwrap_or_default();
        if entry["drift"]["reason"] == "ClassChanged" { Ok(()) } else { Err(entry.to_string()) }
    })
    .await;
    let config = space.rig.cluster.dir().unwrap().join("recreate.yaml");
    std::fs::write(&config, crate::rig::CONFIG).unwrap();
    let running = recreate(&space, &config);
    let new = eventually("another Service is made", async || {
        let made = service(&space, "c-ext-1").await;
        if made["spec"]["loadBalancerClass"] == NEW { Ok(made) } else { Err(made.to_string()) }
    })
    .await;
    assert!(new["metadata"]["annotations"]["external-ip.dev/recreate"].is_null());
    assert_eq!(space.routed(&["c-0"]).await["c-0"], before, "until the new address is there");
    let given = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.88"}]}}});
    space.api.patch(&space.core("services/c-ext-1/status"), &given).await.ok();
    let out = running.await.unwrap();
    let said = [&out.stdout, &out.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    assert!(out.status.success() && said.contains(&format!("c-0: {before} -> 203.0.113.88")), "{said}");
    assert_eq!(space.routed(&["c-0"]).await["c-0"], "203.0.113.88");
    eventually("the former Service is gone", async || {
        let left = space.services().await;
        if left == ["c-ext-1"] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let again = recreate(&space, &config).await.unwrap();
    assert!(String::from_utf8_lossy(&again.stdout).contains("is as its class says"), "{again:?}");
}
