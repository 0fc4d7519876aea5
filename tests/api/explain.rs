//! Explanations, over HTTPS and at the terminal, as administrator and as a team: what they say is what the map says.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::rig::{CONFIG, Space};
use crate::support::eventually;

/// The program at a terminal.
pub(crate) fn program(kubeconfig: &Path, arguments: &[&str]) -> Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_external-ip-controller"))
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub(crate) fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

/// The product's configuration as a file.
pub(crate) fn config(space: &Space) -> PathBuf {
    let file = space.rig.cluster.dir().unwrap().join(format!("{}.yaml", space.name));
    std::fs::write(&file, CONFIG).unwrap();
    file
}

#[tokio::test]
async fn the_terminal_and_https_give_the_maps_own_reason() {
    let space = Space::new("explain-reasons").await;
    let annotated = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let cases = [
        ("ports", "InvalidPorts", annotated("external-ip.dev/ports", "11222//tcp")),
        ("class", "UnknownClass", annotated("external-ip.dev/class", "gold")),
        ("elsewhere", "ClassNotAllowed", annotated("external-ip.dev/class", "elsewhere")),
        ("host", "HostNetwork", json!({"spec": {"hostNetwork": true}})),
        ("waits", "WaitingForAddress", annotated("external-ip.dev/class", "nobody-serves")),
        ("good", "", json!({})),
    ];
    for (pod, _, change) in &cases {
        space.pod(pod, change.clone()).await;
    }
    let config = config(&space);
    let config = ["--config", config.to_str().unwrap()];
    for (pod, reason, _) in &cases {
        let name = format!("{}/{pod}", space.name);
        eventually(&format!("map, HTTPS and terminal agree about {pod}"), async || {
            let entry = space.entries("c").await.remove(*pod).unwrap_or_default();
            let served = space.fetch(&format!("/v1/pods/{name}"), &[]).await;
            let arguments = [&["explain", &name, "-o", "json"], &config[..]].concat();
            let told = json_of(&program(space.rig.cluster.kubeconfig(), &arguments));
            let settled = entry["reason"].as_str().unwrap_or_default() == *reason
                && (!reason.is_empty() || entry["state"] == "Routed");
            if settled && served.status == 200 && served.json() == told && holds(&told, &entry) {
                return Ok(());
            }
            Err(format!("map: {entry}\nHTTPS: {}\nterminal: {told}", served.body))
        })
        .await;
    }
    let text = program(
        space.rig.cluster.kubeconfig(),
        &[&["explain", "-n", &space.name, "waits"], &config[..]].concat(),
    );
    assert!(said(&text).contains("[>] address"), "{}", said(&text));
    let served = space.fetch(&format!("/v1/pods/{}/waits?format=text", space.name), &[]).await;
    assert_eq!(served.body, String::from_utf8_lossy(&text.stdout));
}

/// Whether an explanation holds an entry of the map, field by field.
fn holds(explanation: &Value, entry: &Value) -> bool {
    entry.as_object().is_some_and(|fields| fields.iter().all(|(key, value)| explanation[key] == *value))
}

#[tokio::test]
async fn pods_that_take_no_part_are_told_why() {
    let space = Space::new("explain-others").await;
    space.pod("plain", json!({"metadata": {"labels": {"external-ip.dev/cluster": null}}})).await;
    let kubeconfig = space.rig.cluster.kubeconfig();
    let ask = |pod: &str| program(kubeconfig, &["explain", &format!("{}/{pod}", space.name), "-o", "json"]);
    let plain = json_of(&ask("plain"));
    assert_eq!((&plain["reason"], &plain["cluster"]), (&json!("NotLabelled"), &Value::Null), "{plain}");
    let served = space.fetch(&format!("/v1/pods/{}/plain", space.name), &[]).await;
    assert_eq!(served.status, 404, "the controller does not watch it: {}", served.body);
    assert!(served.body.contains("external-ip.dev/cluster"), "{}", served.body);
    let nobody = ask("nobody");
    assert!(!nobody.status.success() && said(&nobody).contains("there is no pod explain-others/nobody"));

    let outside = Space::labelled("explain-outside", json!({})).await;
    outside.pod("c-0", json!({})).await;
    let told = json_of(&program(kubeconfig, &["explain", "explain-outside/c-0", "-o", "json"]));
    assert_eq!(told["reason"], "NamespaceNotEnabled", "{told}");
    eventually("the controller says so, too", async || {
        let served = space.fetch("/v1/pods/explain-outside/c-0", &[]).await;
        if served.status == 200 && served.json() == told { Ok(()) } else { Err(served.body) }
    })
    .await;
}

#[tokio::test]
async fn a_team_with_rights_in_its_namespace_alone_is_answered_and_told_what_was_not_seen() {
    let space = Space::new("explain-team").await;
    space.stateful_set(2, json!({})).await;
    space.routed(&["c-0", "c-1"]).await;
    let team = space.rig.cluster.user_kubeconfig("team", &["team"]).unwrap();
    let refused = program(&team, &["explain", "explain-team/c-0"]);
    assert!(!refused.status.success() && said(&refused).contains("forbidden"), "{}", said(&refused));

    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/explain-team";
    let rules = json!([
        {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "list"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]},
    ]);
    let role = json!({"metadata": {"name": "team"}, "rules": rules});
    space.api.post(&format!("{rbac}/roles"), &role).await.ok();
    let binding = json!({"metadata": {"name": "team"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "team"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "team"}]});
    space.api.post(&format!("{rbac}/rolebindings"), &binding).await.ok();
    let told = eventually("the right counts", async || {
        let told = program(&team, &["explain", "explain-team/c-0", "-o", "json"]);
        if told.status.success() { Ok(told) } else { Err(said(&told)) }
    })
    .await;
    assert_eq!(json_of(&told)["state"], "Routed", "{}", said(&told));
    for note in ["the defaults are assumed", "only namespace explain-team may be read", "taken to be enabled"]
    {
        assert!(said(&told).contains(note), "{note}: {}", said(&told));
    }
    let map = program(&team, &["map", "-n", "explain-team"]);
    let lines = String::from_utf8_lossy(&map.stdout).into_owned();
    assert_eq!(lines.lines().filter(|line| line.contains("Routed")).count(), 2, "{}", said(&map));
}

#[tokio::test]
async fn as_kubectls_plugin_it_finds_the_configuration_that_is_installed() {
    let space = Space::new("explain-plugin").await;
    space.stateful_set(1, json!({})).await;
    space.routed(&["c-0"]).await;
    // stands for the installed controller: in these tests the product runs beside the API server
    let map = json!({"metadata": {"name": "config-1"}, "data": {"config.yaml": CONFIG}});
    space.api.post(&space.core("configmaps"), &map).await.ok();
    let pod = json!({"containers": [{"name": "main", "image": "none"}],
        "volumes": [{"name": "config", "configMap": {"name": "config-1"}}]});
    let labels = json!({"app": "controller"});
    let deployment = json!({"metadata": {"name": "external-ip-controller"}, "spec": {"replicas": 0,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}});
    space.api.post(&space.apps("deployments"), &deployment).await.ok();

    let plugins = space.rig.cluster.dir().unwrap().join("plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    let link = plugins.join("kubectl-external_ip");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_external-ip-controller"), &link).unwrap();
    let kubectl = |arguments: &[&str]| {
        let mut command = space.rig.cluster.kubectl_command(arguments);
        let path = format!("{}:{}", plugins.display(), std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).stdin(Stdio::null()).output().unwrap()
    };
    let installed = ["--controller-namespace", "explain-plugin"];
    let classes = kubectl(&[&["external-ip", "classes"], &installed[..]].concat());
    assert!(classes.status.success() && said(&classes).contains("nobody-serves"), "{}", said(&classes));
    let document = kubectl(
        &[&["external-ip", "map", "c", "-n", "explain-plugin", "-o", "json"], &installed[..]].concat(),
    );
    assert!(document.stderr.is_empty(), "{}", said(&document));
    let served = space.fetch("/v1/mapping/explain-plugin/c", &[]).await;
    assert_eq!(json_of(&document), served.json());
    let asked =
        [&["external-ip", "explain", "c-0", "-n", "explain-plugin", "-o", "json"], &installed[..]].concat();
    let told = json_of(&kubectl(&asked));
    assert_eq!(told, space.fetch("/v1/pods/explain-plugin/c-0", &[]).await.json());
    assert_eq!((&told["state"], &told["reason"]), (&json!("Routed"), &Value::Null), "{told}");
    let asked = [
        &["external-ip", "plan", "--workload", "sts/c", "-n", "explain-plugin", "-o", "json"],
        &installed[..],
    ];
    let planned = json_of(&kubectl(&asked.concat()));
    assert_eq!(planned["total"]["atRest"]["loadBalancers"], 1, "{planned}");
    let help = kubectl(&["external-ip", "--help"]);
    assert!(said(&help).contains("Usage: kubectl external-ip"), "{}", said(&help));
}
