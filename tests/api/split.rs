//! Overlay `split`: the map from a Deployment of its own.

use std::path::Path;
use std::time::Duration;

use local_cluster::{Cluster, Level};
use serde_json::{Value, json};

use crate::rig::{ACCOUNT, ca, fetch};
use crate::support::api::Api;
use crate::support::eventually;
use crate::support::install::HOME;
use crate::support::product::{Launch, Ports, Product};

const MAPPING_ACCOUNT: &str = "system:serviceaccount:external-ip-controller:external-ip-mapping";
const CONFIG: &str = "{version: 1, access: open}";

/// The overlay as it is shipped, but for what would run the product as pods and for the webhook.
fn install(cluster: &Cluster) {
    let overlay = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/overlays/split");
    let shipped = cluster.kubectl(&["kustomize", overlay]).unwrap();
    let by_hand = ["kind: Deployment", "kind: MutatingWebhookConfiguration"];
    let kept: Vec<&str> =
        shipped.split("\n---\n").filter(|d| !by_hand.iter().any(|k| d.contains(&format!("\n{k}")))).collect();
    cluster.apply(&kept.join("\n---\n")).unwrap();
}

/// Puts the Secret's leaf where the server looks for it, as a kubelet does: once both keys are there, and it is another
/// one than before.
async fn mount(api: &Api, directory: &Path) {
    let path = format!("/api/v1/namespaces/{HOME}/secrets/external-ip-controller-mapping-tls");
    let decoded = |text: &Value| data_encoding::BASE64.decode(text.as_str()?.as_bytes()).ok();
    let before = std::fs::read(directory.join("tls.crt")).ok();
    let data = eventually("the controller hands a certificate over", async || {
        let secret = api.get(&path).await.ok();
        let new = decoded(&secret["data"]["tls.crt"]).filter(|leaf| Some(leaf) != before.as_ref());
        if new.is_some() { Ok(secret["data"].clone()) } else { Err(secret.to_string()) }
    })
    .await;
    for key in ["tls.crt", "tls.key"] {
        std::fs::write(directory.join(key), decoded(&data[key]).unwrap()).unwrap();
    }
    assert_eq!(data.as_object().unwrap().len(), 3, "a leaf and what it was made for, no CA's key");
}

#[tokio::test]
async fn a_server_that_may_only_read_shows_the_same_map_and_writes_nothing() {
    let cluster = tokio::task::spawn_blocking(|| Cluster::for_tests("split", Level::ControlPlane).unwrap())
        .await
        .unwrap();
    install(&cluster);
    let api = Api::new(cluster.kubeconfig()).await;
    let directory = cluster.dir().unwrap().join("product");
    std::fs::create_dir_all(&directory).unwrap();
    let start = |name: &str, account: &str, env: &[(&str, &Path)]| {
        let kubeconfig = cluster.user_kubeconfig(account, &["system:serviceaccounts"]).unwrap();
        let launch = Launch {
            name,
            kubeconfig: &kubeconfig,
            config: CONFIG,
            directory: &directory,
            ports: Ports::default(),
            program: None,
            env,
            cluster: &cluster,
        };
        Product::start(&launch)
    };
    let controller = start("controller", ACCOUNT, &[("ROLES", Path::new("controller"))]);
    controller.ready().await;
    assert!(tokio::net::TcpStream::connect(controller.mapping).await.is_err(), "it serves no map");
    mount(&api, &directory).await;
    let position = cluster.audit_position().unwrap();
    let roles = [("ROLES", Path::new("mapping")), ("MAPPING_TLS", directory.as_path())];
    let mut server = start("mapping", MAPPING_ACCOUNT, &roles);
    server.ready().await;
    assert!(tokio::net::TcpStream::connect(server.admission).await.is_err(), "it answers no admission");

    let labels = json!({"external-ip.dev/enabled": "true"});
    api.post("/api/v1/namespaces", &json!({"metadata": {"name": "data", "labels": labels}})).await.ok();
    let pod = json!({"metadata": {"name": "c-0", "labels": {"external-ip.dev/cluster": "c"}},
        "spec": {"containers": [{"name": "main", "image": "none", "ports": [{"containerPort": 11222}]}]}});
    eventually("the pod is made", async || {
        let made = api.post("/api/v1/namespaces/data/pods", &pod).await;
        if made.status.is_success() { Ok(()) } else { Err(made.body.to_string()) }
    })
    .await;
    let map = "/api/v1/namespaces/data/configmaps/c-external-ips";
    eventually("server and controller show the same map", async || {
        let shown = fetch(server.mapping, &api, "/v1/mapping/data/c", &[]).await.body;
        let written = api.get(map).await.body["data"]["mapping.json"].clone();
        let equal = serde_json::from_str::<Value>(written.as_str().unwrap_or_default()).ok()
            == serde_json::from_str::<Value>(&shown).ok();
        if equal && shown.contains("Routed") { Ok(()) } else { Err(format!("{shown}\n{written}")) }
    })
    .await;
    let whole = fetch(server.mapping, &api, "/", &[]).await;
    assert_eq!((whole.status.as_u16(), whole.body.contains(':')), (200, true), "{}", whole.body);
    assert!(ca(&api).await.contains("BEGIN CERTIFICATE"), "verified against the published CA above");

    // what the load balancer answers to gets into the leaf, and the leaf to the server, without a restart
    let service = format!("/api/v1/namespaces/{HOME}/services/external-ip-controller-mapping");
    api.patch(&service, &json!({"spec": {"type": "LoadBalancer"}})).await.ok();
    mount(&api, &directory).await;
    eventually("it is served", async || {
        if server.log().contains("serving a new certificate") { Ok(()) } else { Err(server.log()) }
    })
    .await;
    assert_eq!(fetch(server.mapping, &api, "/", &[]).await.status, 200);

    server.signal("TERM");
    let (status, _) = server.ended(Duration::from_secs(30)).await;
    assert!(status.success(), "it drains: {status}");
    let (events, _) = cluster.audit_events_since(position).unwrap();
    let of_server: Vec<_> = events.iter().filter(|e| e.user == MAPPING_ACCOUNT).collect();
    assert!(!of_server.is_empty());
    let beyond: Vec<_> =
        of_server.iter().filter(|e| e.is_write() || e.verb == "get" || e.code >= 300).collect();
    assert!(beyond.is_empty(), "it lists and watches and does nothing else: {beyond:?}");
    may_write_nothing(&cluster, &api).await;
}

/// Asks the API server about every verb on every resource it has.
async fn may_write_nothing(cluster: &Cluster, api: &Api) {
    let may = async |verb: &str, resource: &str, name: &str| {
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": MAPPING_ACCOUNT,
            "groups": ["system:serviceaccounts", "system:serviceaccounts:external-ip-controller", "system:authenticated"],
            "resourceAttributes": {"namespace": HOME, "group": group, "resource": resource, "name": name, "verb": verb}}});
        let answer = api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await.ok();
        answer["status"]["allowed"] == true
    };
    assert!(may("list", "pods", "").await, "the question is put right");
    for verb in ["create", "update", "patch", "delete", "deletecollection"] {
        let verbs = format!("--verbs={verb}");
        let resources = cluster.kubectl(&["api-resources", "-o", "name", &verbs]).unwrap();
        assert!(resources.lines().count() > 20, "{resources}");
        // reviews leave nothing behind; some are everybody's, two are what the account is for
        for resource in resources.lines().filter(|r| !r.contains("reviews.")) {
            assert!(!may(verb, resource, "").await, "may {verb} {resource}");
        }
    }
    for secret in ["external-ip-controller-ca", "external-ip-controller-mapping-tls"] {
        assert!(!may("get", "secrets", secret).await, "may read {secret}");
    }
}
