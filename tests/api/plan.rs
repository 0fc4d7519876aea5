//! What `plan` says beforehand is what is made, on the real API server with a real load balancer allocation.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::explain::{config, json_of, program, said};
use crate::rig::Space;
use crate::support::eventually;

/// Counts of what there is in the namespace, in `plan`'s own words.
async fn made(space: &Space) -> Value {
    let services = space.api.get(&space.core("services?labelSelector=external-ip.dev/slot")).await.ok();
    let services = services["items"].as_array().cloned().unwrap_or_default();
    let ports: Vec<&Value> = services.iter().flat_map(|s| s["spec"]["ports"].as_array().unwrap()).collect();
    let addresses: BTreeSet<&str> = services
        .iter()
        .flat_map(|s| s["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten())
        .filter_map(|ingress| ingress["ip"].as_str())
        .collect();
    json!({
        "slots": services.len(),
        "loadBalancers": services.iter().filter(|s| s["spec"]["type"] == "LoadBalancer").count(),
        "addresses": addresses.len(),
        "nodePorts": ports.iter().filter(|port| port["nodePort"].is_u64()).count(),
        "ports": ports.len(),
    })
}

fn workload(kind: &str, name: &str, spec: &Value) -> Value {
    let template = json!({
        "metadata": {"labels": {"app": name, "external-ip.dev/cluster": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "none",
            "ports": [{"name": "a", "containerPort": 1001}, {"name": "b", "containerPort": 1002}]}]},
    });
    let mut workload = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template}});
    json_patch::merge(&mut workload["spec"], spec);
    workload
}

#[tokio::test]
async fn what_is_planned_is_what_is_made() {
    let space = Space::new("plan-made").await;
    let set = workload(
        "StatefulSet",
        "set",
        &json!({"replicas": 3, "serviceName": "set", "podManagementPolicy": "Parallel"}),
    );
    let rolling = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let deployment = workload("Deployment", "web", &json!({"replicas": 4, "strategy": rolling}));
    let file = space.rig.cluster.dir().unwrap().join("plan-made.json");
    std::fs::write(&file, json!({"kind": "List", "items": [set, deployment]}).to_string()).unwrap();
    let (config, kubeconfig) = (config(&space), space.rig.cluster.kubeconfig());
    let offline = ["--config", config.to_str().unwrap(), "-n", "plan-made"];
    let plan = |source: &[&str]| {
        json_of(&program(kubeconfig, &[&["plan", "-o", "json"], source, &offline[..]].concat()))
    };
    let planned = plan(&[file.to_str().unwrap()]);
    assert_eq!(planned["exceeded"], json!([]), "{planned}");
    assert_eq!(planned["total"]["atRest"]["slots"], 7, "{planned}");

    space.api.post(&space.apps("statefulsets"), &set).await.ok();
    space.api.post(&space.apps("deployments"), &deployment).await.ok();
    eventually("what was planned is there", async || {
        let made = made(&space).await;
        if made == planned["total"]["atRest"] { Ok(()) } else { Err(format!("{made}\n{planned}")) }
    })
    .await;
    assert_eq!(
        plan(&["--workload", "sts/set"])["total"]["atRest"],
        planned["workloads"][0]["costs"]["atRest"]
    );
    let live = plan(&["--workload", "deploy/web"]);
    assert_eq!(live["workloads"][0]["costs"], planned["workloads"][1]["costs"], "{live}");

    let restart = json!({"spec": {"template": {"metadata": {"annotations": {"restarted": "once"}}}}});
    space.api.patch(&space.apps("deployments/web"), &restart).await.ok();
    let number = |case: &str| planned["total"][case]["slots"].as_u64().unwrap();
    eventually("the rolling update is over", async || {
        let slots = made(&space).await["slots"].as_u64().unwrap();
        assert!(slots <= number("atMost"), "{slots}: {planned}");
        let deployment = space.api.get(&space.apps("deployments/web")).await.ok();
        let status = &deployment["status"];
        let over = status["observedGeneration"] == deployment["metadata"]["generation"]
            && status["updatedReplicas"] == 4
            && status["replicas"] == 4;
        let routed = space.entries("web").await.values().filter(|e| e["state"] == "Routed").count();
        // the slots of the pods that are gone rest and are kept
        if over && routed == 4 && slots >= number("rolling") {
            Ok(())
        } else {
            Err(format!("{status} {slots}"))
        }
    })
    .await;
}

#[tokio::test]
async fn limits_and_mistakes_are_told_before_anything_is_there() {
    let space = Space::new("plan-limits").await;
    space.stateful_set(2, json!({})).await;
    space.routed(&["c-0", "c-1"]).await;
    let config = config(&space);
    let file = space.rig.cluster.dir().unwrap().join("plan-limits.json");
    let kubeconfig = space.rig.cluster.kubeconfig();
    let plan = |items: Value| {
        std::fs::write(&file, json!({"kind": "List", "items": items}).to_string()).unwrap();
        let arguments =
            ["plan", "-n", "plan-limits", "--config", config.to_str().unwrap(), file.to_str().unwrap()];
        let output = program(kubeconfig, &arguments);
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let many = plan(json!([workload("StatefulSet", "many", &json!({"replicas": 13, "serviceName": "m"}))]));
    assert!(many.contains("cluster plan-limits/many needs 13 of 12"), "{many}");
    let mut gold = workload("Deployment", "gold", &json!({}));
    gold["spec"]["template"]["metadata"]["annotations"] = json!({"external-ip.dev/class": "gold"});
    let none = plan(json!([gold, {"kind": "Service", "metadata": {"name": "other"}}]));
    assert!(
        none.contains("no address: the class does not exist") && none.contains("Service other"),
        "{none}"
    );
    let refused = program(kubeconfig, &["plan", "--config", config.to_str().unwrap(), "/nowhere.yaml"]);
    assert!(!refused.status.success() && said(&refused).contains("/nowhere.yaml"), "{}", said(&refused));
}
