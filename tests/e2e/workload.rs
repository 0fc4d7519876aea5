//! Members that say who they are, and the map as a client outside reads it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use local_cluster::MEMBER_IMAGE;
use serde_json::{Value, json};

use crate::rig::{OWN, Rig, eventually};
use crate::support::https::{self, Response};

/// Where members listen.
pub(crate) const PORT: u16 = 11222;

/// One cluster's name is its workload's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) kind: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    /// Annotations of its pods.
    pub(crate) annotations: &'static [(&'static str, &'static str)],
}

impl Workload {
    pub(crate) fn stateful_set(namespace: &'static str, name: &'static str) -> Self {
        Self { kind: "StatefulSet", namespace, name, annotations: &[] }
    }

    pub(crate) fn deployment(namespace: &'static str, name: &'static str) -> Self {
        Self { kind: "Deployment", namespace, name, annotations: &[] }
    }

    pub(crate) fn annotated(self, annotations: &'static [(&'static str, &'static str)]) -> Self {
        Self { annotations, ..self }
    }

    /// Creates it and waits until its members are ready.
    pub(crate) fn create(self, rig: &Rig, replicas: u32) {
        let Self { kind, namespace, name, annotations } = self;
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let mut spec = json!({
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {
                    "labels": {"app": name, "external-ip.dev/cluster": name}, "annotations": annotations,
                },
                "spec": {"terminationGracePeriodSeconds": 2, "containers": [container()]},
            },
        });
        if kind == "StatefulSet" {
            spec["serviceName"] = json!(name);
            spec["podManagementPolicy"] = json!("Parallel");
        }
        let metadata = json!({"namespace": namespace, "name": name});
        let object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec});
        rig.apply(&object.to_string());
        self.rolled_out(rig);
    }

    pub(crate) fn object(self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }

    pub(crate) fn rolled_out(self, rig: &Rig) {
        rig.kubectl(&["-n", self.namespace, "rollout", "status", &self.object(), "--timeout=120s"]);
    }

    pub(crate) fn restart(self, rig: &Rig) {
        rig.kubectl(&["-n", self.namespace, "rollout", "restart", &self.object()]);
        self.rolled_out(rig);
    }

    pub(crate) fn scale(self, rig: &Rig, replicas: u32) {
        let replicas = format!("--replicas={replicas}");
        rig.kubectl(&["-n", self.namespace, "scale", &self.object(), &replicas]);
    }

    /// Its pods that are not on their way out, name and uid.
    pub(crate) fn pods(self, rig: &Rig) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let selector = format!("app={}", self.name);
        let pods = rig.list(&["-n", self.namespace, "pods", "-l", &selector]);
        pods.iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"])))
            .collect()
    }

    /// Waits until the map shows exactly its running pods, `count` of them, all Routed.
    pub(crate) fn routed(self, rig: &Rig, map: &Map, count: usize) -> Vec<Entry> {
        eventually(&format!("the map shows the {count} members of {}", self.name), || {
            let wanted = self.pods(rig);
            let entries = rig.outside.run(map.clone().entries())?;
            let shown: BTreeMap<_, _> = entries.iter().map(|e| (e.pod.clone(), e.uid.clone())).collect();
            if wanted.len() == count && shown == wanted && entries.iter().all(|e| e.routed) {
                Ok(entries)
            } else {
                Err(format!("wanted {wanted:?}, shown {entries:#?}"))
            }
        })
    }
}

/// The member of the local cluster, which takes its name from the downward API.
fn container() -> Value {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "name": "member",
        "image": MEMBER_IMAGE,
        "imagePullPolicy": "Never",
        "args": ["serve", PORT.to_string()],
        "ports": [{"name": "member", "containerPort": PORT}],
        "env": [
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_UID", "metadata.uid"),
            field("POD_IP", "status.podIP"),
        ],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        // a share of the processor that a machine full of compilers cannot take away
        "resources": {"requests": {"cpu": "50m", "memory": "4Mi"}},
    })
}

/// One published entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) slot: u64,
    pub(crate) routed: bool,
    pub(crate) inside: String,
    pub(crate) outside: String,
    pub(crate) port: u16,
}

impl Entry {
    fn of(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let port = value["ports"][0]["external"].as_u64().unwrap_or_default();
        Self {
            pod: text(&value["pod"]),
            uid: text(&value["uid"]),
            slot: value["slot"].as_u64().unwrap_or_default(),
            routed: value["state"] == "Routed",
            inside: text(&value["internal"]["ips"][0]),
            outside: text(&value["external"]["ips"][0]),
            port: u16::try_from(port).unwrap(),
        }
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.outside.parse().ok()?, self.port))
    }
}

/// How a client outside reads the map: the address, the CA it trusts, its token.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    pub(crate) address: SocketAddr,
    pub(crate) ca: String,
    pub(crate) token: String,
    pub(crate) path: String,
}

impl Map {
    /// What the README tells a reader to do, for one cluster.
    pub(crate) fn of_cluster(rig: &Rig, namespace: &str, cluster: &str) -> Self {
        let (account, whole) = (format!("reader-{cluster}"), format!("{namespace}:reader-{cluster}"));
        let config_map = format!("--resource-name={cluster}-external-ips");
        rig.kubectl(&["-n", namespace, "create", "serviceaccount", &account]);
        let role = ["create", "role", &account, "--verb=get", "--resource=configmaps", &config_map];
        rig.kubectl(&[&["-n", namespace], &role[..]].concat());
        let (role, subject) = (format!("--role={account}"), format!("--serviceaccount={whole}"));
        rig.kubectl(&["-n", namespace, "create", "rolebinding", &account, &role, &subject]);
        let path = format!("/v1/mapping/{namespace}/{cluster}");
        Self::with_account(rig, namespace, &account, &path)
    }

    /// The same with an account that has its rights already.
    pub(crate) fn with_account(rig: &Rig, namespace: &str, account: &str, path: &str) -> Self {
        let token = rig.kubectl(&["-n", namespace, "create", "token", account, "--audience=external-ip.dev"]);
        let ca = published(rig, "configmap/external-ip-ca", "{.data.ca\\.crt}");
        let ip =
            published(rig, "service/external-ip-controller-mapping", "{.status.loadBalancer.ingress[0].ip}");
        let address = SocketAddr::new(ip.parse().unwrap(), 8888);
        Self { address, ca, token, path: path.to_owned() }
    }

    pub(crate) async fn fetch(self, headers: &[(&str, &str)]) -> Result<Response, String> {
        let bearer = format!("Bearer {}", self.token);
        let headers = [&[("authorization", bearer.as_str())], headers].concat();
        https::get(self.address, &self.ca, &self.path, &headers).await
    }

    /// The entries; none where the cluster is not in the map.
    pub(crate) async fn entries(self) -> Result<Vec<Entry>, String> {
        let answer = self.fetch(&[]).await?;
        match answer.status.as_u16() {
            200 => Ok(entries(&answer)),
            404 => Ok(Vec::new()),
            _ => Err(format!("{}: {}", answer.status, answer.body)),
        }
    }
}

/// The entries of one cluster's document.
pub(crate) fn entries(answer: &Response) -> Vec<Entry> {
    answer.json()["entries"].as_array().into_iter().flatten().map(Entry::of).collect()
}

/// A value that somebody writes after the installation.
fn published(rig: &Rig, object: &str, path: &str) -> String {
    let output = format!("jsonpath={path}");
    eventually(&format!("{object} {path}"), || {
        let found = rig.try_kubectl(&["-n", OWN, "get", object, "-o", &output])?;
        if found.is_empty() { Err("nothing yet".to_owned()) } else { Ok(found) }
    })
}
