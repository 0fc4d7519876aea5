//! The API server's objects as one replica had seen them.

use serde_json::Value;

use super::{History, Kind};

/// How far a replica has seen each watch: events, lists and bookmarks that reached it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) labelled: u64,
    pub(crate) stamped: u64,
    pub(crate) configured: u64,
    pub(crate) services: u64,
    pub(crate) slices: u64,
    pub(crate) namespaces: u64,
}

impl Seen {
    /// Everything up to `version`.
    pub(crate) fn all(version: u64) -> Self {
        Self {
            labelled: version,
            stamped: version,
            configured: version,
            services: version,
            slices: version,
            namespaces: version,
        }
    }
}

/// What is the case at those versions.
pub(crate) struct Truth<'h> {
    pub(super) pods: Vec<&'h Value>,
    pub(super) services: Vec<&'h Value>,
    pub(super) slices: Vec<&'h Value>,
    pub(super) enabled: bool,
}

impl<'h> Truth<'h> {
    pub(crate) fn new(history: &'h History, seen: &Seen) -> Self {
        let ours = |o: &&Value| label(o, "app.kubernetes.io/managed-by") == Some("external-ip-controller");
        let of = |kind, version| history.at(kind, version).map(AsRef::as_ref);
        Self {
            pods: pods(history, seen),
            services: of(Kind::Service, seen.services).filter(ours).collect(),
            slices: of(Kind::Slice, seen.slices).filter(ours).collect(),
            enabled: of(Kind::Namespace, seen.namespaces)
                .any(|n: &Value| label(n, "external-ip.dev/enabled") == Some("true")),
        }
    }

    /// Pods that have not ended.
    pub(super) fn living(&self) -> impl Iterator<Item = &'h Value> {
        self.pods.iter().copied().filter(|p| !has_ended(p))
    }

    pub(super) fn service(&self, cluster: &str, slot: &Value) -> Option<&'h Value> {
        let name = format!("{cluster}-ext-{slot}");
        self.services.iter().copied().find(|s| s["metadata"]["name"] == *name)
    }
}

/// A pod is seen by the watch whose selection it is in; while one watch is late it is in two, and the newer counts.
fn pods<'h>(history: &'h History, seen: &Seen) -> Vec<&'h Value> {
    let mut found: Vec<&Value> = Vec::new();
    for (selection, version) in [(0, seen.labelled), (1, seen.stamped), (2, seen.configured)] {
        found.extend(
            history.at(Kind::Pod, version).map(AsRef::as_ref).filter(|p| selection_of(p) == Some(selection)),
        );
    }
    found.sort_by_key(|p| std::cmp::Reverse(version(p)));
    let mut names = std::collections::BTreeSet::new();
    found.retain(|p| names.insert(p["metadata"]["name"].as_str()));
    found
}

fn selection_of(pod: &Value) -> Option<u8> {
    let has = |key| label(pod, key).is_some();
    match (has("external-ip.dev/cluster"), has("stamp.external-ip.dev/pod-id")) {
        (true, _) => Some(0),
        (false, true) => Some(1),
        (false, false) => (label(pod, "app") == Some("e")).then_some(2),
    }
}

/// The cluster a pod belongs to.
pub(super) fn cluster(pod: &Value) -> Option<&str> {
    label(pod, "external-ip.dev/cluster").or_else(|| label(pod, "app").filter(|app| *app == "e"))
}

pub(super) fn label<'v>(object: &'v Value, key: &str) -> Option<&'v str> {
    object["metadata"]["labels"][key].as_str()
}

pub(super) fn annotation<'v>(object: &'v Value, key: &str) -> Option<&'v str> {
    object["metadata"]["annotations"][key].as_str()
}

pub(super) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(0)
}

pub(super) fn has_ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

pub(super) fn is_going(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// The strings at `field` of each element of a list.
pub(super) fn texts<'v>(list: &'v Value, field: &'v str) -> impl Iterator<Item = &'v str> {
    items(list).filter_map(move |item| item[field].as_str())
}

pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Whether a Service's selector selects a pod; none selects nobody.
pub(super) fn selects(service: &Value, pod: &Value) -> bool {
    let selector = service["spec"]["selector"].as_object();
    selector.is_some_and(|s| !s.is_empty() && s.iter().all(|(k, v)| label(pod, k) == v.as_str()))
}

/// The addresses of a Service outside: its load balancer's, and those on record for the names without one beside them.
pub(super) fn outside(service: &Value) -> Vec<&str> {
    let ingress = &service["status"]["loadBalancer"]["ingress"];
    let named = items(ingress).filter(|i| i["ip"].is_null()).filter_map(|i| i["hostname"].as_str());
    let records = annotation(service, "external-ip.dev/resolved").unwrap_or_default();
    let of = |host: &str| records.split(' ').find_map(|record| record.strip_prefix(host)?.strip_prefix('='));
    let found = named.filter_map(of).flat_map(|ips| ips.split(',')).filter(|ip| !ip.is_empty());
    texts(ingress, "ip").chain(found).collect()
}

/// Every address or host name and port a Service answers at outside.
pub(super) fn points(service: &Value) -> Vec<(&str, String)> {
    let ingress = &service["status"]["loadBalancer"]["ingress"];
    let hosts: Vec<&str> = outside(service).into_iter().chain(texts(ingress, "hostname")).collect();
    let ports = items(&service["spec"]["ports"]).map(|p| format!("{}/{}", p["port"], p["protocol"]));
    ports.flat_map(|port| hosts.iter().map(move |host| (*host, port.clone()))).collect()
}
