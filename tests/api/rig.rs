//! One cluster and one product for all tests of this binary; a namespace for each test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use local_cluster::{AuditEvent, Cluster, Level, free_port};
use serde_json::{Value, json};

use crate::providers::with_presets;
use crate::support::api::Api;
use crate::support::dns::Dns;
use crate::support::eventually;
use crate::support::https::{self, Response};
pub(crate) use crate::support::install::{ACCOUNT, ca, install};
use crate::support::product::{Launch, Ports, Product};

/// Classes the tests use: `default` and one that gives addresses back at once.
pub(crate) const CONFIG: &str = "
version: 1
access: open
limits: {slotsPerCluster: 12, slotsPerNamespace: 40}
classes:
  default: {retention: 10m, reuseAfter: 1s}
  brief: {retention: 2s, reuseAfter: 1s}
  anew: {service: {loadBalancerClass: example.com/nobody}, reuseAfter: 1s}
  nobody-serves: {service: {loadBalancerClass: example.com/nobody}}
  nobody-shares: {exposure: [shared], service: {loadBalancerClass: example.com/nobody}, reuseAfter: 5s}
  steps-down: {exposure: [dedicated, nodePort], service: {loadBalancerClass: example.com/nobody}}
  sharing: {exposure: [shared, dedicated], shared: {firstPort: 20000, portsPerService: 4}, reuseAfter: 1s}
  keyed-one:
    exposure: [shared]
    shared: {firstPort: 21000}
    service: {loadBalancerIP: 203.0.113.180, annotations: {metallb.universe.tf/allow-shared-ip: together}}
  keyed-other:
    exposure: [shared]
    shared: {firstPort: 22000}
    service: {loadBalancerIP: 203.0.113.180, annotations: {metallb.universe.tf/allow-shared-ip: together}}
  budget: {exposure: [dedicated, nodePort], loadBalancers: 1}
  down: {exposure: [dedicated, nodePort]}
  nodes: {exposure: [nodePort], reuseAfter: 1s}
  hasty: {await: {enabled: true, timeout: 4s}, service: {loadBalancerClass: example.com/hasty}}
  patient: {await: {enabled: true}, service: {loadBalancerClass: example.com/nobody}}
  ahead: {await: {enabled: true, members: 2}, spareSlots: 1}
  gated: {readinessGate: true, reuseAfter: 1s}
  elsewhere: {allow: {namespaces: [nowhere]}}
  dual: {service: {ipFamilyPolicy: PreferDualStack}}
  dialled: {service: {loadBalancerClass: example.com/nobody}, reachable: {interval: 1s, timeout: 1s}}
  dialled-shared:
    exposure: [shared]
    shared: {firstPort: 29000}
    service: {loadBalancerClass: example.com/nobody}
    reachable: {interval: 1s, timeout: 1s}
  static: {addresses: [203.0.113.240-203.0.113.242], service: {loadBalancerIP: \"{address}\"}, retention: 1s, reuseAfter: 1s}
  static-forever:
    addresses: [203.0.113.243-203.0.113.245]
    service: {annotations: {metallb.universe.tf/loadBalancerIPs: \"{address}\", metallb.io/loadBalancerIPs: \"{address}\"}}
    retention: forever
    reuseAfter: 1s
  static-adopted: {addresses: [203.0.113.246, 203.0.113.247], service: {loadBalancerIP: \"{address}\"}, reuseAfter: 1s}
  static-ahead: {addresses: [203.0.113.248, 203.0.113.249], service: {loadBalancerIP: \"{address}\"}, spareSlots: 1}
clusters:
- {name: operated, namespace: operated, selector: {clusterName: operated}, ports: [11222]}
";

pub(crate) struct Rig {
    // dropped in this order: the product before its API server
    pub(crate) product: Product,
    /// The product's name server.
    pub(crate) dns: Dns,
    kubeconfig: PathBuf,
    directory: PathBuf,
    pub(crate) cluster: Cluster,
}

static RIG: OnceLock<Arc<Rig>> = OnceLock::new();

/// The shared cluster and product, ready.
pub(crate) async fn rig() -> Arc<Rig> {
    let rig = tokio::task::spawn_blocking(|| {
        Arc::clone(RIG.get_or_init(|| Arc::new(Rig::start("api", &with_presets(CONFIG)))))
    });
    let rig = rig.await.unwrap();
    rig.product.ready().await;
    rig
}

impl Rig {
    /// A cluster of its own with a product, for tests that break things. Blocks while the cluster starts.
    pub(crate) fn start(name: &str, config: &str) -> Self {
        let cluster = Cluster::for_tests(name, Level::ControlPlane).expect("a cluster to test on");
        let admission_port = free_port().unwrap();
        install(&cluster, admission_port);
        let kubeconfig = cluster.user_kubeconfig(ACCOUNT, &["system:serviceaccounts"]).unwrap();
        let directory = cluster.dir().unwrap().join("product");
        std::fs::create_dir_all(&directory).unwrap();
        let dns = Dns::start();
        let name_server = PathBuf::from(dns.address().to_string());
        let launch = Launch {
            name: "first",
            kubeconfig: &kubeconfig,
            config,
            directory: &directory,
            ports: Ports { admission: admission_port, ..Ports::default() },
            program: None,
            env: &[("NAME_SERVERS", &name_server)],
            cluster: &cluster,
        };
        let product = Product::start(&launch);
        Self { product, dns, kubeconfig, directory, cluster }
    }

    /// A further replica.
    pub(crate) fn replica(&self, name: &str, config: &str) -> Product {
        let Self { cluster, kubeconfig, directory, .. } = self;
        let ports = Ports::default();
        Product::start(&Launch {
            name,
            kubeconfig,
            config: &with_presets(config),
            directory,
            ports,
            program: None,
            env: &[],
            cluster,
        })
    }
}

/// One test's namespace.
pub(crate) struct Space {
    pub(crate) rig: Arc<Rig>,
    pub(crate) name: String,
    pub(crate) api: Api,
}

impl Space {
    /// An enabled namespace.
    pub(crate) async fn new(name: &str) -> Self {
        Self::labelled(name, json!({"external-ip.dev/enabled": "true"})).await
    }

    /// An enabled namespace on a cluster of the test's own.
    pub(crate) async fn on(rig: Arc<Rig>, name: &str) -> Self {
        Self::make(rig, name, json!({"external-ip.dev/enabled": "true"})).await
    }

    /// A namespace with these labels.
    pub(crate) async fn labelled(name: &str, labels: Value) -> Self {
        Self::make(rig().await, name, labels).await
    }

    async fn make(rig: Arc<Rig>, name: &str, labels: Value) -> Self {
        let api = Api::new(rig.cluster.kubeconfig()).await;
        let body = json!({"metadata": {"name": name, "labels": labels}});
        api.post("/api/v1/namespaces", &body).await.ok();
        let space = Self { rig, name: name.to_owned(), api };
        // pods need the namespace's account
        eventually("the default account", async || {
            match space.api.get(&space.core("serviceaccounts/default")).await {
                a if a.status.is_success() => Ok(()),
                a => Err(a.body.to_string()),
            }
        })
        .await;
        space
    }

    pub(crate) fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.name)
    }

    pub(crate) fn apps(&self, rest: &str) -> String {
        format!("/apis/apps/v1/namespaces/{}/{rest}", self.name)
    }

    /// A StatefulSet `c` whose pods are labelled as cluster `c`, all started at once.
    pub(crate) async fn stateful_set(&self, replicas: u32, annotations: Value) {
        let template = json!({
            "metadata": {"labels": {"app": "c", "external-ip.dev/cluster": "c"}, "annotations": annotations},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container()]},
        });
        let set = json!({
            "metadata": {"name": "c"},
            "spec": {"replicas": replicas, "serviceName": "c", "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"app": "c"}}, "template": template},
        });
        self.api.post(&self.apps("statefulsets"), &set).await.ok();
    }

    pub(crate) async fn scale(&self, replicas: u32) {
        let patch = json!({"spec": {"replicas": replicas}});
        self.api.patch(&self.apps("statefulsets/c"), &patch).await.ok();
    }

    /// A pod of cluster `c` on its own.
    pub(crate) async fn pod(&self, name: &str, merge: Value) -> Value {
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"external-ip.dev/cluster": "c"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container()]},
        });
        json_patch::merge(&mut pod, &merge);
        self.api.post(&self.core("pods"), &pod).await.ok()
    }

    pub(crate) async fn fetch(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        fetch(self.rig.product.mapping, &self.api, path, headers).await
    }

    /// Entries of a cluster by pod name; empty where the cluster is not in the map.
    pub(crate) async fn entries(&self, cluster: &str) -> BTreeMap<String, Value> {
        let answer = self.fetch(&format!("/v1/mapping/{}/{cluster}", self.name), &[]).await;
        if answer.status == 404 {
            return BTreeMap::new();
        }
        assert_eq!(answer.status, 200, "{}", answer.body);
        let entries = answer.json()["entries"].as_array().cloned().unwrap_or_default();
        entries.into_iter().map(|e| (e["pod"].as_str().unwrap().to_owned(), e)).collect()
    }

    /// Waits until the map shows these pods, all Routed, and nothing else; their external addresses by pod.
    pub(crate) async fn routed(&self, pods: &[&str]) -> BTreeMap<String, String> {
        eventually(&format!("{pods:?} are routed in {}", self.name), async || {
            let entries = self.entries("c").await;
            let all = entries.keys().map(String::as_str).eq(pods.iter().copied());
            if all && entries.values().all(|e| e["state"] == "Routed") {
                return Ok(entries
                    .into_iter()
                    .map(|(pod, e)| (pod, e["external"]["ips"][0].as_str().unwrap_or_default().to_owned()))
                    .collect());
            }
            Err(format!(
                "{entries:#?}\n{}",
                self.rig.product.log().lines().rev().take(20).collect::<Vec<_>>().join("\n")
            ))
        })
        .await
    }

    /// Waits until a pod's entry has this reason; its message.
    pub(crate) async fn reason(&self, cluster: &str, pod: &str, reason: &str) -> String {
        eventually(&format!("{pod} has reason {reason}"), async || {
            let entry = self.entries(cluster).await.remove(pod).unwrap_or_default();
            if entry["reason"] == reason {
                Ok(entry["message"].as_str().unwrap().to_owned())
            } else {
                Err(entry.to_string())
            }
        })
        .await
    }

    /// Waits until an Event with this reason is there about an object.
    pub(crate) async fn event(&self, kind: &str, name: &str, reason: &str) {
        eventually(&format!("event {reason} about {kind} {name}"), async || {
            let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.name);
            let list = self.api.get(&path).await.ok();
            let found = list["items"].as_array().is_some_and(|items| {
                items.iter().any(|e| {
                    e["reason"] == reason && e["regarding"]["kind"] == kind && e["regarding"]["name"] == name
                })
            });
            if found { Ok(()) } else { Err(list["items"].to_string()) }
        })
        .await;
    }

    pub(crate) async fn services(&self) -> Vec<String> {
        self.api.names(&self.core("services?labelSelector=external-ip.dev/slot")).await
    }

    /// The product's writes in this namespace since `position`, once they have been quiet for two seconds:
    /// `verb resource/subresource` with their number. Refused ones are named with their code.
    pub(crate) async fn writes(&self, position: u64) -> BTreeMap<String, usize> {
        let mut before: Option<Vec<AuditEvent>> = None;
        loop {
            let events: Vec<AuditEvent> = self
                .rig
                .cluster
                .audit_events_since(position)
                .unwrap()
                .0
                .into_iter()
                .filter(|e| e.user == ACCOUNT && e.is_write() && e.namespace == self.name)
                .collect();
            if before.as_ref() == Some(&events) {
                break;
            }
            before = Some(events);
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
        let mut counts = BTreeMap::new();
        for event in before.unwrap_or_default() {
            let sub =
                if event.subresource.is_empty() { String::new() } else { format!("/{}", event.subresource) };
            let code = if event.code < 300 { String::new() } else { format!(" {}", event.code) };
            *counts.entry(format!("{} {}{sub}{code}", event.verb, event.resource)).or_default() += 1;
        }
        counts
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // not waited for: the next test has a namespace of its own
        let _ = self.rig.cluster.kubectl(&[
            "delete",
            "namespace",
            &self.name,
            "--wait=false",
            "--ignore-not-found",
        ]);
    }
}

fn container() -> Value {
    json!({"name": "main", "image": "none", "ports": [{"name": "hotrod", "containerPort": 11222}]})
}

/// GET from a mapping listener, verified against the published CA.
pub(crate) async fn fetch(at: SocketAddr, api: &Api, path: &str, headers: &[(&str, &str)]) -> Response {
    https::get(at, &ca(api).await, path, headers).await.expect("the mapping listener answers")
}
