//! The rights of the manifests: the product uses each of them, and without any single one it says which is missing.

use std::path::PathBuf;

use local_cluster::{Cluster, Level, free_port};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::rig::{ACCOUNT, fetch, install};
use crate::support::api::Api;
use crate::support::eventually;
use crate::support::install::HOME;
use crate::support::product::{Launch, Ports, Product};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/external-ip-controller";
const CONFIG: &str = "
version: 1
classes:
  default: {retention: 10m}
  brief: {retention: 1s, reuseAfter: 1s}
  nodes: {exposure: [nodePort]}
";

/// One verb on one resource, as a role of the manifests gives it.
#[derive(Debug, Clone)]
struct Right {
    /// Path of the role.
    role: String,
    group: String,
    resource: String,
    /// The one object it is limited to; empty: all.
    name: String,
    verb: String,
}

/// A cluster with the manifests, one round at a time.
struct Stage {
    cluster: Cluster,
    api: Api,
    kubeconfig: PathBuf,
    directory: PathBuf,
    /// Path and rules of each role, as shipped.
    roles: Vec<(String, Value)>,
    rounds: u32,
}

/// A product that has everything to do that it can be asked to do.
struct Round {
    product: Product,
    namespace: String,
}

fn start() -> (Cluster, PathBuf, PathBuf) {
    let cluster = Cluster::for_tests("rights", Level::ControlPlane).expect("a cluster to test on");
    // nobody answers there: every pod comes past the webhook
    install(&cluster, free_port().unwrap());
    let kubeconfig = cluster.user_kubeconfig(ACCOUNT, &["system:serviceaccounts"]).unwrap();
    let directory = cluster.dir().unwrap().join("product");
    std::fs::create_dir_all(&directory).unwrap();
    (cluster, kubeconfig, directory)
}

async fn stage() -> MutexGuard<'static, Stage> {
    static STAGE: OnceCell<Mutex<Stage>> = OnceCell::const_new();
    let stage = STAGE.get_or_init(async || {
        let (cluster, kubeconfig, directory) = tokio::task::spawn_blocking(start).await.unwrap();
        let api = Api::new(cluster.kubeconfig()).await;
        let mut roles = Vec::new();
        for path in [
            format!("{RBAC}/clusterroles/external-ip-controller"),
            format!("{RBAC}/namespaces/{HOME}/roles/external-ip-controller"),
        ] {
            let shipped = api.get(&path).await.ok()["rules"].clone();
            roles.push((path, shipped));
        }
        Mutex::new(Stage { cluster, api, kubeconfig, directory, roles, rounds: 0 })
    });
    let mut stage = stage.await.lock().await;
    // connections belong to the runtime of one test
    stage.api = Api::new(stage.cluster.kubeconfig()).await;
    stage
}

impl Stage {
    fn rights(&self) -> Vec<Right> {
        let texts = |list: &Value| -> Vec<String> {
            let items = list.as_array().into_iter().flatten();
            items.map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let mut rights = Vec::new();
        for (role, rules) in &self.roles {
            for rule in rules.as_array().unwrap() {
                for (resource, verb) in texts(&rule["resources"])
                    .iter()
                    .flat_map(|r| texts(&rule["verbs"]).into_iter().map(move |v| (r.clone(), v)))
                {
                    rights.push(Right {
                        role: role.clone(),
                        group: rule["apiGroups"][0].as_str().unwrap().to_owned(),
                        name: rule["resourceNames"][0].as_str().unwrap_or_default().to_owned(),
                        resource,
                        verb,
                    });
                }
            }
        }
        rights
    }

    /// The role without the right, or as it was; returns when the API server decides by it.
    async fn allow(&self, right: &Right, allowed: bool) {
        let (_, shipped) = self.roles.iter().find(|(path, _)| *path == right.role).unwrap();
        let mut rules = shipped.as_array().unwrap().clone();
        if !allowed {
            for rule in &mut rules {
                if rule["resources"] == json!([right.resource]) {
                    rule["verbs"].as_array_mut().unwrap().retain(|verb| *verb != json!(right.verb));
                }
            }
            rules.retain(|rule| rule["verbs"] != json!([]));
        }
        self.api.patch(&right.role, &json!({"rules": rules})).await.ok();
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": ACCOUNT, "groups": ["system:serviceaccounts"], "resourceAttributes": {
                "namespace": HOME, "group": right.group, "resource": right.resource, "name": right.name, "verb": right.verb}}});
        eventually("the role is in force", async || {
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let answer = self.api.post(path, &review).await.ok();
            if answer["status"]["allowed"] == json!(allowed) { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }

    /// A product that has never run here as far as it can see, and something to do for each of its rights.
    async fn round(&mut self) -> Round {
        self.rounds += 1;
        let namespace = format!("rights-{}", self.rounds);
        self.forget().await;
        self.world(&namespace).await;
        let launch = Launch {
            name: &namespace,
            kubeconfig: &self.kubeconfig,
            config: CONFIG,
            directory: &self.directory,
            ports: Ports::default(),
            program: None,
            env: &[],
            cluster: &self.cluster,
        };
        Round { product: Product::start(&launch), namespace }
    }

    /// Takes away what an earlier product has written for itself.
    async fn forget(&self) {
        let own = |rest: &str| format!("/api/v1/namespaces/{HOME}/{rest}");
        self.api.patch(&own("secrets/external-ip-controller-ca"), &json!({"data": null})).await.ok();
        let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{HOME}/leases/external-ip-controller");
        self.api.patch(&lease, &json!({"spec": null})).await.ok();
        let mut webhooks = self.api.get(REGISTRATION).await.ok()["webhooks"].clone();
        webhooks[0]["clientConfig"].as_object_mut().unwrap().remove("caBundle");
        self.api.patch(REGISTRATION, &json!({"webhooks": webhooks})).await.ok();
        for map in ["external-ip-ca", "external-ip-mapping"] {
            self.api.delete(&own(&format!("configmaps/{map}"))).await;
        }
    }

    async fn world(&self, namespace: &str) {
        let labels = json!({"external-ip.dev/enabled": "true"});
        self.api
            .post("/api/v1/namespaces", &json!({"metadata": {"name": namespace, "labels": labels}}))
            .await
            .ok();
        let of = |rest: &str| format!("/api/v1/namespaces/{namespace}/{rest}");
        let ours = |name: &str, cluster: &str, class: &str| {
            json!({"name": name,
                "labels": {"app.kubernetes.io/managed-by": "external-ip-controller",
                    "external-ip.dev/cluster": cluster, "external-ip.dev/slot": "0"},
                "annotations": {"external-ip.dev/owner": "external-ip-controller",
                    "external-ip.dev/slot-class": class, "external-ip.dev/pod": format!("{cluster}-0")}})
        };
        let service = |metadata: Value, id: &str| {
            json!({"metadata": metadata, "spec": {"type": "LoadBalancer", "ports": [{"port": 1}],
                "selector": {"stamp.external-ip.dev/pod-id": id}}})
        };
        let map = |metadata: Value| json!({"metadata": metadata, "data": {"mapping.yaml": "old"}});
        for (path, object) in [
            // a name that is taken, of a Service and of a ConfigMap
            ("services", json!({"metadata": {"name": "a-ext-0"}, "spec": {"ports": [{"port": 1}]}})),
            ("configmaps", map(json!({"name": "a-external-ips"}))),
            // something to change
            ("services", service(ours("b-ext-0", "b", "default"), "b.b-0")),
            ("configmaps", map(ours("b-external-ips", "b", "default"))),
            // something to delete
            ("services", service(ours("c-ext-0", "c", "brief"), "c.c-0")),
            ("configmaps", map(ours("d-external-ips", "d", "default"))),
        ] {
            self.api.post(&of(path), &object).await.ok();
        }
        eventually("the default account", async || {
            match self.api.get(&of("serviceaccounts/default")).await {
                a if a.status.is_success() => Ok(()),
                a => Err(a.body.to_string()),
            }
        })
        .await;
        for (name, cluster, ports) in [("a-0", "a", "1"), ("b-0", "b", "2"), ("e-0", "e", "none//of these")] {
            let pod = json!({
                "metadata": {"name": name, "labels": {"external-ip.dev/cluster": cluster},
                    "annotations": {"external-ip.dev/ports": ports}},
                "spec": {"containers": [{"name": "main", "image": "none"}]},
            });
            self.api.post(&of("pods"), &pod).await.ok();
        }
    }

    /// Asks for the map with a token, as far as the product is.
    async fn read_map(&self, round: &Round) {
        let body = json!({"spec": {"audiences": ["external-ip.dev"]}});
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/default/token", round.namespace);
        let token = self.api.post(&path, &body).await.ok()["status"]["token"].clone();
        let bearer = format!("Bearer {}", token.as_str().unwrap());
        fetch(round.product.mapping, &self.api, "/v1/mapping", &[("authorization", &bearer)]).await;
    }

    /// Rights the account has not used successfully since `position`.
    fn unused(&self, position: u64, rights: &[Right]) -> Vec<String> {
        let (events, _) = self.cluster.audit_events_since(position).unwrap();
        let used = |right: &&Right| {
            events.iter().any(|e| {
                e.user == ACCOUNT
                    && e.code < 300
                    && (e.verb.as_str(), e.resource.as_str(), e.subresource.as_str())
                        == (right.verb.as_str(), right.resource.as_str(), "")
            })
        };
        rights.iter().filter(|r| !used(r)).map(|r| format!("{} {}", r.verb, r.resource)).collect()
    }

    async fn end(&self, round: Round) {
        drop(round.product);
        self.api.delete(&format!("/api/v1/namespaces/{}", round.namespace)).await.ok();
    }
}

#[tokio::test]
async fn the_product_uses_every_right_the_manifests_give_it() {
    let mut stage = stage().await;
    let rights = stage.rights();
    assert!(rights.len() > 20, "the roles were read: {rights:?}");
    let position = stage.cluster.audit_position().unwrap();
    let round = stage.round().await;
    round.product.ready().await;
    stage.read_map(&round).await;
    // a watch is in the audit log when it has ended
    let (watches, others): (Vec<_>, Vec<_>) = rights.into_iter().partition(|r| r.verb == "watch");
    let all_used = async |rights: &[Right]| {
        eventually("every right is used", async || {
            let unused = stage.unused(position, rights);
            if unused.is_empty() { Ok(()) } else { Err(format!("not used: {unused:?}")) }
        })
        .await;
    };
    all_used(&others).await;
    stage.end(round).await;
    all_used(&watches).await;
}

#[tokio::test]
async fn without_any_single_right_the_product_names_the_one_it_lacks() {
    let mut stage = stage().await;
    for right in stage.rights() {
        stage.allow(&right, false).await;
        let round = stage.round().await;
        let complaint = format!("cannot {} resource \"{}\"", right.verb, right.resource);
        if right.resource.ends_with("reviews") {
            round.product.ready().await;
            stage.read_map(&round).await;
        }
        eventually(
            &format!("a product that may not {} {} says so", right.verb, right.resource),
            async || {
                if round.product.log().contains(&complaint) { Ok(()) } else { Err(round.product.log()) }
            },
        )
        .await;
        // what it cannot start without keeps it from becoming ready, and so out of its Services
        let listed = right.verb == "list" && right.resource != "configmaps";
        if listed || right.resource == "secrets" {
            let ready = round.product.admin("/readyz").await;
            assert_eq!(ready.status, 503, "without {} {}: {}", right.verb, right.resource, ready.body);
        }
        stage.end(round).await;
        stage.allow(&right, true).await;
    }
}
