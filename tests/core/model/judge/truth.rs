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
    pub(crate) nodes: u64,
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
            nodes: version,
        }
    }
}

/// What is the case at those versions.
pub(crate) struct Truth<'h> {
    pub(super) pods: Vec<&'h Value>,
    pub(super) services: Vec<&'h Value>,
    pub(super) slices: Vec<&'h Value>,
    pub(super) nodes: Vec<&'h Value>,
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
            nodes: of(Kind::Node, seen.nodes).collect(),
            enabled: of(Kind::Namespace, seen.namespaces)
                .any(|n: &Value| label(n, "external-ip.dev/enabled") == Some("true")),
        }
    }

    /// Pods that have not ended.
    pub(super) fn living(&self) -> impl Iterator<Item = &'h Value> {
        self.pods.iter().copied().filter(|p| !has_ended(p))
    }

    /// The Service of a slot: its own, or the shared one with ports of this number. Where several are there:
    /// that which answers at all that is `shown` (an entry, or null), whose label says that it is the cluster's, and
    /// that is ours.
    pub(super) fn service(&self, cluster: &str, slot: &Value, shown: &Value) -> Option<&'h Value> {
        let points = shown_points(shown);
        let own = format!("{cluster}-ext-{slot}");
        let prefix = format!("{cluster}-ext-shared-");
        let shares = |s: &Value| {
            let named = s["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(&prefix));
            named && items(&s["spec"]["ports"]).any(|p| slot_of(p).as_ref() == Some(slot))
        };
        let mut found: Vec<&Value> =
            self.services.iter().copied().filter(|s| s["metadata"]["name"] == *own || shares(s)).collect();
        found.sort_by_key(|s| {
            let (answers, of_cluster) = (self.points(s), label(s, "external-ip.dev/cluster"));
            let strange = |ip: &&Value| !answers.iter().any(|(host, _)| **ip == *host);
            let ours = annotation(s, "external-ip.dev/owner") == Some("external-ip-controller");
            (
                !points.iter().all(|point| answers.contains(point)),
                items(&shown["external"]["ips"]).filter(strange).count(),
                of_cluster != Some(cluster),
                !ours,
            )
        });
        found.first().copied()
    }

    /// Every address or host name and port a Service answers at: at its load balancer, and on every node.
    pub(super) fn points(&self, service: &Value) -> Vec<Point> {
        let ingress = &service["status"]["loadBalancer"]["ingress"];
        let hosts: Vec<&str> = outside(service).into_iter().chain(texts(ingress, "hostname")).collect();
        let nodes: Vec<&str> = self
            .nodes
            .iter()
            .flat_map(|n| items(&n["status"]["addresses"]))
            .filter(|a| a["type"] != "Hostname")
            .filter_map(|a| a["address"].as_str())
            .collect();
        let ports = || items(&service["spec"]["ports"]);
        let at = |hosts: &[&str], port: &Value, protocol: &Value| -> Vec<Point> {
            hosts.iter().map(|host| ((*host).to_owned(), format!("{port}/{protocol}"))).collect()
        };
        let balanced = ports().flat_map(|p| at(&hosts, &p["port"], &p["protocol"]));
        let by_node = ports().filter(|p| p["nodePort"].is_u64());
        balanced.chain(by_node.flat_map(|p| at(&nodes, &p["nodePort"], &p["protocol"]))).collect()
    }
}

/// An address or host name, and a port with its protocol.
pub(super) type Point = (String, String);

/// What an entry shows outside.
pub(super) fn shown_points(entry: &Value) -> Vec<Point> {
    let external = &entry["external"];
    let hosts = || items(&external["ips"]).chain([&external["host"]]).filter_map(Value::as_str);
    let ports = items(&entry["ports"]);
    ports
        .flat_map(|p| hosts().map(|h| (h.to_owned(), format!("{}/{}", p["external"], p["protocol"]))))
        .collect()
}

/// The number of the slot that a port of a shared Service is of, by its name: `s3-tcp-53`. With the name of a port of
/// another protocol it is no slot's.
pub(super) fn slot_of(port: &Value) -> Option<Value> {
    let mut name = port["name"].as_str()?.split('-');
    let number: u32 = name.next()?.strip_prefix(['s', 'a'])?.parse().ok()?;
    let sound = port["protocol"].as_str()?.eq_ignore_ascii_case(name.next()?);
    sound.then(|| number.into())
}

/// By its name, whose a shared port is, of a pod or a Service: also where it leads to nobody because another has the
/// name, too.
pub(super) fn token(target: &Value) -> Option<&str> {
    let token = target.as_str()?.split_once('-')?.0;
    let token = if token.len() == 9 { token.strip_prefix('n')? } else { token };
    (token.len() == 8 && token.starts_with('x')).then_some(token)
}

/// Whether a Service is one that slots share.
pub(super) fn is_shared(service: &Value) -> bool {
    service["metadata"]["name"].as_str().is_some_and(|name| name.contains("-ext-shared-"))
}

/// The number that a port of a Service has at a pod: a named one where a container declares the name for the protocol.
pub(super) fn number_at(pod: &Value, port: &Value) -> Option<u64> {
    let Some(name) = port["targetPort"].as_str() else { return port["targetPort"].as_u64() };
    let protocol = |p: &Value| p["protocol"].as_str().unwrap_or("TCP").to_owned();
    let declared = items(&pod["spec"]["containers"]).flat_map(|c| items(&c["ports"]));
    let mut same = declared.filter(|d| d["name"] == name && protocol(d) == protocol(port));
    same.next()?["containerPort"].as_u64()
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
