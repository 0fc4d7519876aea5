//! Pods that are ready only once their address leads to them, on a real API server. Nobody plays their kubelet but the
//! test: the simulated one says of every readiness gate that it is met.

use serde_json::{Value, json};

use crate::rig::{ACCOUNT, Space};
use crate::support::api::Api;
use crate::support::eventually;

const CONDITION: &str = "external-ip.dev/routed";

fn ours(pod: &Value) -> Value {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|c| c["type"] == CONDITION).unwrap_or_default()
}

#[tokio::test]
async fn a_routed_pod_is_told_so_by_one_write_to_its_status_and_where_that_is_forbidden_an_event_says_so() {
    let space = Space::new("readiness").await;
    let class = json!({"metadata": {"annotations": {"external-ip.dev/class": "gated"}}, "spec": {"schedulerName": "nobody"}});
    let made = space.pod("c-0", class).await;
    assert_eq!(made["spec"]["readinessGates"], json!([{"conditionType": CONDITION}]));
    let status = space.core("pods/c-0/status");
    let started = json!({"status": {"phase": "Running", "podIP": "198.18.250.1", "podIPs": [{"ip": "198.18.250.1"}],
        "conditions": [{"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"}]}});
    space.api.patch(&status, &started).await.ok();
    space.routed(&["c-0"]).await;
    space.event("Pod", "c-0", "WriteRefused").await;
    assert_eq!(ours(&space.api.get(&status).await.ok()), Value::Null);

    let right = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/components/readiness-gate/rbac.yaml");
    let position = space.rig.cluster.audit_position().unwrap();
    space.rig.cluster.kubectl(&["apply", "-f", right]).unwrap();
    let pod = eventually("the condition is there", async || {
        let pod = space.api.get(&status).await.ok();
        if ours(&pod)["status"] == "True" { Ok(pod) } else { Err(pod["status"].to_string()) }
    })
    .await;
    assert_eq!(ours(&pod)["reason"], "Routed");
    assert_eq!(pod["status"]["conditions"].as_array().map(Vec::len), Some(2), "{}", pod["status"]);
    assert_eq!(space.writes(position).await.get("patch pods/status"), Some(&1));

    let kubeconfig = space.rig.cluster.user_kubeconfig(ACCOUNT, &["system:serviceaccounts"]).unwrap();
    let controller = Api::new(&kubeconfig).await;
    let path = format!("{status}?dryRun=All");
    let [ready, theirs] = ["Ready", CONDITION].map(|kind| json!([{"type": kind, "status": "True"}]));
    for (what, change) in [
        ("another condition", json!({"conditions": ready})),
        ("a phase", json!({"phase": "Failed"})),
        ("an address", json!({"podIP": "198.18.250.2", "podIPs": [{"ip": "198.18.250.2"}]})),
        ("conditions taken away", json!({"conditions": theirs})),
    ] {
        let change = json!({"status": change});
        let answer = controller.patch(&path, &change).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(answer.status == 403 && message.contains("but its condition"), "{what}: {message}");
        space.api.patch(&path, &change).await.ok();
    }
    let mut conditions = pod["status"]["conditions"].clone();
    conditions[1]["status"] = json!("False");
    controller.patch(&path, &json!({"status": {"conditions": conditions}})).await.ok();
}
