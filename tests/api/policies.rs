//! The shipped admission policies: reserved keys are the controller's alone, and the controller is held to what it needs.

use local_cluster::Cluster;
use serde_json::{Value, json};

use crate::rig::{ACCOUNT, Space};
use crate::support::api::{Answer, Api};
use crate::support::eventually;

pub(crate) const ID: &str = "stamp.external-ip.dev/pod-id";
pub(crate) const ADDRESS: &str = "stamp.external-ip.dev/address";
pub(crate) const RESERVED: &str = "are set and changed by the controller alone";

/// Requests under the controller's own account.
async fn controller(cluster: &Cluster) -> Api {
    let kubeconfig = cluster.user_kubeconfig(ACCOUNT, &["system:serviceaccounts"]).unwrap();
    Api::new(&kubeconfig).await
}

pub(crate) fn refused(what: &str, answer: &Answer, why: &str) {
    let message = answer.body["message"].as_str().unwrap_or_default();
    assert!(answer.status == 403 && message.contains(why), "{what}: {} {message}", answer.status);
}

/// A pod that no scheduler touches.
fn unscheduled() -> Value {
    json!({"spec": {"schedulerName": "nobody"}})
}

#[tokio::test]
async fn nobody_else_sets_or_changes_reserved_keys_of_a_pod_by_any_way() {
    let space = Space::new("policy-forge").await;
    space.pod("victim", json!({})).await;
    space.pod("bystander", json!({"metadata": {"labels": {"external-ip.dev/cluster": null}}})).await;
    space.pod("waiting", unscheduled()).await;
    let forge = |section: &str, key: &str| json!({"metadata": {section: {key: "c.victim"}}});
    let path = |pod: &str, rest: &str| space.core(&format!("pods/{pod}{rest}?dryRun=All"));
    // a new policy takes effect in its own time
    eventually("the policy is in force", async || {
        let answer = space.api.patch(&path("bystander", ""), &forge("labels", ID)).await;
        if answer.status == 403 { Ok(()) } else { Err(answer.body.to_string()) }
    })
    .await;
    for subresource in ["", "/status"] {
        for (pod, section, key) in [
            ("bystander", "labels", ID),
            ("bystander", "annotations", ADDRESS),
            ("bystander", "labels", "stamp.external-ip.dev/of-tomorrow"),
            ("waiting", "labels", ID),
        ] {
            let answer = space.api.patch(&path(pod, subresource), &forge(section, key)).await;
            refused(&format!("{section} {key} of {pod}{subresource}"), &answer, RESERVED);
        }
    }
    for subresource in ["/ephemeralcontainers", "/resize"] {
        let answer = space.api.patch(&path("bystander", subresource), &forge("labels", ID)).await;
        assert!(answer.status == 403 || answer.body["metadata"]["labels"][ID].is_null(), "{answer:?}");
    }
    let target = json!({"kind": "Node", "name": "none"});
    for section in ["labels", "annotations"] {
        let bind = json!({"metadata": {"name": "waiting", section: {ID: "c.victim"}}, "target": target});
        refused(section, &space.api.post(&path("waiting", "/binding"), &bind).await, RESERVED);
        refused(section, &space.api.post(&space.core("bindings?dryRun=All"), &bind).await, RESERVED);
    }
}

#[tokio::test]
async fn anybody_may_keep_reserved_keys_and_take_them_away_and_the_controller_puts_them_back() {
    let space = Space::new("policy-keep").await;
    let made = space.pod("victim", json!({})).await;
    space.routed(&["victim"]).await;
    let path = space.core("pods/victim");
    let kept = json!({"metadata": {"labels": {"team": "theirs", ID: "c.victim"}}});
    assert_eq!(space.api.patch(&path, &kept).await.ok()["metadata"]["labels"]["team"], "theirs");
    let bind = json!({"metadata": {"name": "victim", "annotations": {"example.com/a": "b"}},
        "target": {"kind": "Node", "name": "none"}});
    let waiting = space.pod("waiting", unscheduled()).await;
    assert_eq!(waiting["metadata"]["labels"][ID], "c.waiting", "{made}");
    let bind = json!({"metadata": {"name": "waiting", "annotations": bind["metadata"]["annotations"]}, "target": bind["target"]});
    space.api.post(&space.core("pods/waiting/binding"), &bind).await.ok();
    space.api.patch(&path, &json!({"metadata": {"labels": {ID: null}}})).await.ok();
    eventually("the identity is back", async || {
        let pod = space.api.get(&path).await.ok();
        if pod["metadata"]["labels"][ID] == "c.victim" { Ok(()) } else { Err(pod["metadata"].to_string()) }
    })
    .await;
}

#[tokio::test]
async fn garbage_collector_and_stateful_set_go_on_with_stamped_pods() {
    let space = Space::new("policy-orphan").await;
    space.stateful_set(2, json!({})).await;
    let before = space.routed(&["c-0", "c-1"]).await;
    let owners = async |count: usize| {
        eventually(&format!("each pod has {count} owners"), async || {
            let list = space.api.get(&space.core("pods")).await.ok();
            let pods = list["items"].as_array().unwrap();
            let found = |p: &Value| p["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
            if pods.len() == 2 && pods.iter().all(|p| found(p) == count) {
                Ok(())
            } else {
                Err(list.to_string())
            }
        })
        .await;
    };
    owners(1).await;
    space
        .rig
        .cluster
        .kubectl(&["-n", &space.name, "delete", "statefulset", "c", "--cascade=orphan"])
        .unwrap();
    owners(0).await;
    space.stateful_set(2, json!({})).await;
    owners(1).await;
    assert_eq!(space.routed(&["c-0", "c-1"]).await, before, "the same pods throughout");
}

/// What the account may not do to a pod: what, and the change.
fn pod_attempts(pod: &Value) -> Vec<(&'static str, Value)> {
    let mut containers = pod["spec"]["containers"].clone();
    containers[0]["image"] = json!("evil");
    let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    tolerations.push(json!({"operator": "Exists"}));
    let meta = |section: &str, value: Value| json!({"metadata": {section: value}});
    vec![
        ("a user's label", meta("labels", json!({"external-ip.dev/cluster": "other"}))),
        ("a foreign label", meta("labels", json!({"app": "other"}))),
        ("a label taken away", meta("labels", json!({"external-ip.dev/cluster": null}))),
        ("a user's annotation", meta("annotations", json!({"external-ip.dev/ports": "22"}))),
        ("an annotation taken away", meta("annotations", json!({"example.com/kept": null}))),
        (
            "an owner",
            meta("ownerReferences", json!([{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "x"}])),
        ),
        ("a finalizer", meta("finalizers", json!(["example.com/mine"]))),
        ("another pod's identity", meta("labels", json!({ID: "c.other"}))),
        ("an image", json!({"spec": {"containers": containers}})),
        (
            "a foreign gate lifted",
            json!({"spec": {"schedulingGates": [{"name": "external-ip.dev/address"}]}}),
        ),
        ("all gates lifted", json!({"spec": {"schedulingGates": null}})),
        ("where it runs", json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "mine"}}})),
        (
            "our gate lifted and where it runs",
            json!({"spec": {"schedulingGates": [{"name": "example.com/other"}], "nodeSelector": {"a": "b"}}}),
        ),
        ("a toleration", json!({"spec": {"tolerations": tolerations}})),
        ("a deadline", json!({"spec": {"activeDeadlineSeconds": 1}})),
    ]
}

#[tokio::test]
async fn on_pods_the_controllers_account_changes_its_own_keys_and_lifts_its_own_gate_and_nothing_else() {
    let space = Space::new("policy-pods").await;
    let controller = controller(&space.rig.cluster).await;
    let gates = json!([{"name": "example.com/other"}, {"name": "external-ip.dev/address"}]);
    // of a class whose pods wait for an address that does not come, so that the product itself leaves it alone
    let annotations = json!({"example.com/kept": "x", "external-ip.dev/class": "patient"});
    let merge = json!({"metadata": {"annotations": annotations}, "spec": {"schedulingGates": gates}});
    let pod = space.pod("gated", merge).await;
    let path = space.core("pods/gated?dryRun=All");
    for (what, change) in pod_attempts(&pod) {
        refused(what, &controller.patch(&path, &change).await, "controller-pods.external-ip.dev");
        let anybody = space.api.patch(&path, &change).await;
        let message = anybody.body["message"].as_str().unwrap_or_default();
        let possible = anybody.status.is_success() || message.contains(RESERVED);
        assert!(possible, "{what}: refused by the API server anyway, so this shows nothing: {message}");
    }
    for (what, change) in [
        ("its gate", json!({"spec": {"schedulingGates": [{"name": "example.com/other"}]}})),
        ("its annotations", json!({"metadata": {"annotations": {ADDRESS: "203.0.113.1"}}})),
        ("its keys taken away", json!({"metadata": {"labels": {ID: null}}})),
        ("an identity without a name", json!({"metadata": {"labels": {ID: "c._abcdefghij"}}})),
    ] {
        let answer = controller.patch(&path, &change).await;
        assert!(answer.status.is_success(), "{what}: {}", answer.body["message"]);
    }
    let plain = Space::labelled("policy-plain", json!({})).await;
    plain.pod("outside", json!({})).await;
    let stamp = json!({"metadata": {"labels": {ID: "c.outside"}}});
    let answer = controller.patch(&plain.core("pods/outside?dryRun=All"), &stamp).await;
    refused("a namespace that does not take part", &answer, "external-ip.dev/enabled=true");
}

/// A slot's Service as the controller makes it, changed by `merge`.
fn slot(name: &str, merge: &Value) -> Value {
    let mut service = json!({
        "metadata": {"name": name,
            "labels": {"app.kubernetes.io/managed-by": "external-ip-controller", "external-ip.dev/cluster": "c",
                "external-ip.dev/slot": "0"},
            "annotations": {"external-ip.dev/owner": "external-ip-controller"}},
        "spec": {"type": "LoadBalancer", "selector": {ID: "c.c-0"}, "ports": [{"port": 1}]},
    });
    json_patch::merge(&mut service, merge);
    service
}

#[tokio::test]
async fn the_controllers_account_writes_services_of_slots_and_no_others() {
    // not enabled at first, so that the product leaves these Services alone
    let space = Space::labelled("policy-services", json!({})).await;
    let controller = controller(&space.rig.cluster).await;
    let services = space.core("services?dryRun=All");
    let refusal = "controller-services.external-ip.dev";
    let good = slot("c-ext-0", &json!({}));
    refused("not enabled", &controller.post(&services, &good).await, "external-ip.dev/enabled=true");
    let meta = |section: &str, value: Value| json!({"metadata": {section: value}});
    let shapes = [
        ("another name", json!({"metadata": {"name": "database"}})),
        ("no label", meta("labels", json!({"app.kubernetes.io/managed-by": null}))),
        ("no cluster", meta("labels", json!({"external-ip.dev/cluster": null}))),
        ("no owner", meta("annotations", json!({"external-ip.dev/owner": null}))),
        ("a finalizer", meta("finalizers", json!(["example.com/mine"]))),
        ("an address of its choice", json!({"spec": {"externalIPs": ["198.51.100.1"]}})),
        ("another type", json!({"spec": {"type": "ClusterIP"}})),
        ("pods by their own labels", json!({"spec": {"selector": {ID: null, "app": "db"}}})),
        ("pods by an additional label", json!({"spec": {"selector": {"app": "db"}}})),
        ("a pod of another cluster", json!({"spec": {"selector": {ID: "d.d-0"}}})),
        ("no selector", json!({"spec": {"selector": null}})),
    ];
    for (what, change) in &shapes {
        let made = slot("c-ext-0", change);
        refused(what, &controller.post(&services, &made).await, refusal);
    }
    let enable = json!({"metadata": {"labels": {"external-ip.dev/enabled": "true"}}});
    space.api.patch(&format!("/api/v1/namespaces/{}", space.name), &enable).await.ok();
    eventually("a slot of an enabled namespace may be made", async || {
        let answer = controller.post(&services, &good).await;
        if answer.status.is_success() { Ok(()) } else { Err(answer.body.to_string()) }
    })
    .await;
    for (what, change) in &shapes {
        let made = slot("c-ext-0", change);
        refused(what, &controller.post(&services, &made).await, refusal);
    }
    // of another installation: the product leaves it alone, the policy does not know installations
    let existing = slot("c-ext-7", &meta("annotations", json!({"external-ip.dev/owner": "another"})));
    space.api.post(&space.core("services"), &existing).await.ok();
    let path = space.core("services/c-ext-7?dryRun=All");
    for (what, change) in shapes.iter().filter(|(what, _)| *what != "another name") {
        refused(what, &controller.patch(&path, change).await, refusal);
    }
    controller.patch(&path, &json!({"spec": {"selector": {ID: "nobody"}}})).await.ok();
    controller.delete(&path).await.ok();

    let foreign = json!({"metadata": {"name": "c-ext-8"}, "spec": {"ports": [{"port": 1}]}});
    space.api.post(&space.core("services"), &foreign).await.ok();
    let path = space.core("services/c-ext-8?dryRun=All");
    let takeover = slot("c-ext-8", &json!({}));
    refused("a foreign one", &controller.patch(&path, &takeover).await, refusal);
    refused("a foreign one deleted", &controller.delete(&path).await, refusal);
    let adopt = json!({"metadata": {"annotations": {"external-ip.dev/adopt": "true"}}});
    space.api.patch(&space.core("services/c-ext-8"), &adopt).await.ok();
    controller.patch(&path, &takeover).await.ok();
    refused("deleting what was handed over", &controller.delete(&path).await, refusal);
}

#[tokio::test]
async fn the_controllers_account_writes_config_maps_of_the_map_and_no_others() {
    let space = Space::new("policy-maps").await;
    let controller = controller(&space.rig.cluster).await;
    let maps = space.core("configmaps?dryRun=All");
    let refusal = "controller-configmaps.external-ip.dev";
    let map = |name: &str, labels: Value, annotations: Value| json!({"metadata": {"name": name, "labels": labels, "annotations": annotations}, "data": {"k": "v"}});
    let labels =
        json!({"app.kubernetes.io/managed-by": "external-ip-controller", "external-ip.dev/cluster": "x"});
    let owner = json!({"external-ip.dev/owner": "another"});
    eventually("a map of an enabled namespace may be made", async || {
        let answer = controller.post(&maps, &map("x-external-ips", labels.clone(), owner.clone())).await;
        if answer.status.is_success() { Ok(()) } else { Err(answer.body.to_string()) }
    })
    .await;
    for (what, made) in [
        ("another name", map("settings", labels.clone(), owner.clone())),
        ("another cluster's", map("y-external-ips", labels.clone(), owner.clone())),
        ("one of the installation, elsewhere", map("external-ip-mapping", labels.clone(), owner.clone())),
        ("no labels", map("x-external-ips", json!({}), owner.clone())),
        ("no owner", map("x-external-ips", labels.clone(), json!({}))),
    ] {
        refused(what, &controller.post(&maps, &made).await, refusal);
    }
    space.api.post(&space.core("configmaps"), &map("x-external-ips", json!({}), json!({}))).await.ok();
    let path = space.core("configmaps/x-external-ips?dryRun=All");
    let takeover = map("x-external-ips", labels.clone(), owner.clone());
    refused("a foreign one", &controller.patch(&path, &takeover).await, refusal);
    refused("a foreign one deleted", &controller.delete(&path).await, refusal);
    let plain = Space::labelled("policy-maps-plain", json!({})).await;
    let elsewhere = map("x-external-ips", labels, owner);
    let answer = controller.post(&plain.core("configmaps?dryRun=All"), &elsewhere).await;
    refused("a namespace that does not take part", &answer, "external-ip.dev/enabled=true");
}

#[tokio::test]
async fn of_its_registration_the_controllers_account_writes_the_bundle_and_nothing_else() {
    let space = Space::new("policy-registration").await;
    let controller = controller(&space.rig.cluster).await;
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/external-ip-controller?dryRun=All";
    let webhook = controller.get(path).await.ok()["webhooks"][0].clone();
    let changed = |merge: Value| {
        let mut webhook = webhook.clone();
        json_patch::merge(&mut webhook, &merge);
        json!({"webhooks": [webhook]})
    };
    let refusal = "controller-registration.external-ip.dev";
    let second =
        json!({"webhooks": [webhook, changed(json!({"name": "more.external-ip.dev"}))["webhooks"][0]]});
    let secrets = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"], "scope": "*"}]);
    for (what, change) in [
        ("another place", changed(json!({"clientConfig": {"url": "https://198.51.100.1/mutate"}}))),
        (
            "a Service",
            changed(json!({"clientConfig": {"url": null, "service": {"namespace": "a", "name": "b"}}})),
        ),
        ("other resources", changed(json!({"rules": secrets}))),
        ("all namespaces", changed(json!({"namespaceSelector": null}))),
        ("selected objects", changed(json!({"objectSelector": {"matchLabels": {"a": "b"}}}))),
        ("conditions", changed(json!({"matchConditions": [{"name": "never", "expression": "false"}]}))),
        ("failing closed", changed(json!({"failurePolicy": "Fail"}))),
        ("calling again", changed(json!({"reinvocationPolicy": "IfNeeded"}))),
        ("waiting longer", changed(json!({"timeoutSeconds": 30}))),
        ("the match policy", changed(json!({"matchPolicy": "Exact"}))),
        ("another name", changed(json!({"name": "other.external-ip.dev"}))),
        ("one more", second),
        ("none", json!({"webhooks": []})),
        ("a label", json!({"metadata": {"labels": {"a": "b"}}})),
        ("an annotation", json!({"metadata": {"annotations": {"cert-manager.io/inject-ca-from": "a/b"}}})),
        ("a finalizer", json!({"metadata": {"finalizers": ["example.com/mine"]}})),
    ] {
        refused(what, &controller.patch(path, &change).await, refusal);
    }
    let bundle = json!({"clientConfig": {"caBundle": webhook["clientConfig"]["caBundle"]}});
    controller.patch(path, &changed(bundle)).await.ok();
    let other = controller.get(&path.replace("external-ip-controller", "other")).await;
    assert_eq!(other.status, 403, "no other registration");
}

#[tokio::test]
async fn the_products_pods_run_at_the_restricted_level_which_its_namespace_enforces() {
    let space = Space::new("policy-restricted").await;
    let cluster = &space.rig.cluster;
    let root = env!("CARGO_MANIFEST_DIR");
    // the split overlay's account, which this cluster has no use for otherwise, is not what is judged here
    let overlay = cluster.kubectl(&["kustomize", &format!("{root}/manifests/overlays/split")]).unwrap();
    let job = std::fs::read_to_string(format!("{root}/manifests/examples/cleanup.yaml")).unwrap();
    let workload = |d: &&str| d.contains("\nkind: Deployment\n") || d.contains("\nkind: Job\n");
    let documents: Vec<&str> = overlay.split("\n---\n").chain([job.as_str()]).filter(workload).collect();
    assert_eq!(documents.len(), 3, "controller, map servers, cleanup");
    let pods = "/api/v1/namespaces/external-ip-controller/pods?dryRun=All";
    for document in documents {
        let made =
            cluster.kubectl_with(&["create", "--dry-run=client", "-o", "json", "-f", "-"], document).unwrap();
        let workload: Value = serde_json::from_str(&made).unwrap();
        let mut pod = json!({"metadata": {"name": "judged"}, "spec": workload["spec"]["template"]["spec"]});
        pod["spec"]["serviceAccountName"] = json!("external-ip-controller");
        space.api.post(pods, &pod).await.ok();
        pod["spec"]["securityContext"]["runAsNonRoot"] = json!(false);
        refused("as root", &space.api.post(pods, &pod).await, "violates PodSecurity \"restricted");
    }
}
