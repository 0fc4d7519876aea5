//! At which revisions of each kind an entry is true. Written from what Kubernetes does, not from what the product does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::history::{History, Kind, Object, revisions_where};
use crate::revisions::Revisions;

const POD_ID: &str = "stamp.external-ip.dev/pod-id";
const CLUSTER: &str = "external-ip.dev/cluster";

/// An external port, a container port, a protocol.
pub(crate) type Port = (u64, u64, String);

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) namespace: String,
    pub(crate) cluster: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) service: String,
    pub(crate) internal: BTreeSet<String>,
    pub(crate) external: BTreeSet<String>,
    pub(crate) ports: BTreeSet<Port>,
    /// Published to drivers. One that is not must not lead to another pod either, but need not lead anywhere yet.
    pub(crate) routed: bool,
}

impl Claim {
    /// Of an entry of the full document; `None` where it pairs no addresses.
    pub(crate) fn of(namespace: &str, cluster: &str, entry: &Value) -> Option<Self> {
        let claim = Self {
            namespace: namespace.to_owned(),
            cluster: cluster.to_owned(),
            pod: text(&entry["pod"]),
            uid: text(&entry["uid"]),
            service: format!("{cluster}-ext-{}", entry["slot"]),
            internal: texts(&entry["internal"]["ips"]),
            external: texts(&entry["external"]["ips"]),
            ports: list(&entry["ports"])
                .map(|p| (number(&p["external"]), number(&p["internal"]), text(&p["protocol"])))
                .collect(),
            routed: entry["state"] == "Routed",
        };
        (claim.routed || !(claim.internal.is_empty() || claim.external.is_empty())).then_some(claim)
    }

    /// For people.
    pub(crate) fn says(&self) -> String {
        let Self { namespace, pod, uid, service, internal, external, .. } = self;
        let state = if self.routed { "Routed" } else { "Allocated" };
        format!("{namespace}/{pod} ({uid}) {internal:?} -> {external:?} by {service}, {state}")
    }
}

/// Revisions at which a claim holds, per kind, in the order of [`crate::history::KINDS`].
pub(crate) type PerKind = [Revisions; 4];

/// When a claim is true.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    /// It leads to nobody else: an entry outside of these is wrong.
    pub(crate) may: PerKind,
    /// Nothing speaks against it: a missing entry inside of these is lost.
    pub(crate) must: PerKind,
}

/// Look-ups in a history.
pub(crate) struct Witness<'a> {
    history: &'a History,
    /// Pods by what they ever claimed: an address, an identity.
    by_address: BTreeMap<String, BTreeSet<&'a str>>,
    by_identity: BTreeMap<String, BTreeSet<&'a str>>,
    by_uid: BTreeMap<String, &'a str>,
    /// Services by the external address they ever had, and by the identity they ever selected.
    by_external: BTreeMap<String, BTreeSet<&'a str>>,
    by_selected: BTreeMap<String, BTreeSet<&'a str>>,
    /// Slices by the Service they ever belonged to.
    by_service: BTreeMap<String, BTreeSet<&'a str>>,
}

impl<'a> Witness<'a> {
    pub(crate) fn new(history: &'a History) -> Self {
        let mut witness = Self {
            history,
            by_address: BTreeMap::new(),
            by_identity: BTreeMap::new(),
            by_uid: BTreeMap::new(),
            by_external: BTreeMap::new(),
            by_selected: BTreeMap::new(),
            by_service: BTreeMap::new(),
        };
        let states = |kind| {
            history.of(kind).iter().flat_map(|(key, versions): (&'a String, &'a Object)| {
                versions.iter().filter_map(move |v| Some((key.as_str(), v.object.as_ref()?)))
            })
        };
        for (key, pod) in states(Kind::Pods) {
            for ip in addresses(pod) {
                witness.by_address.entry(ip).or_default().insert(key);
            }
            if let Some(id) = identity(pod) {
                witness.by_identity.entry(id.to_owned()).or_default().insert(key);
            }
            witness.by_uid.insert(text(&pod["metadata"]["uid"]), key);
        }
        for (key, service) in states(Kind::Services) {
            for ip in ingress(service) {
                witness.by_external.entry(ip).or_default().insert(key);
            }
            if let Some(id) = selected(service) {
                witness.by_selected.entry(id.to_owned()).or_default().insert(key);
            }
        }
        for (key, slice) in states(Kind::Slices) {
            if let Some(service) = service_of(slice) {
                witness.by_service.entry(service).or_default().insert(key);
            }
        }
        witness
    }

    /// When `claim` is true: one answer per identity its pod has ever carried.
    pub(crate) fn truths(&self, claim: &Claim) -> Vec<Truth> {
        let Some(key) = self.by_uid.get(&claim.uid) else { return Vec::new() };
        let versions = &self.history.of(Kind::Pods)[*key];
        let states = versions.iter().filter_map(|v| v.object.as_ref());
        let identities: BTreeSet<&str> =
            states.filter(|pod| has_uid(pod, claim)).filter_map(identity).collect();
        identities.into_iter().map(|id| self.truth(claim, key, id)).collect()
    }

    fn truth(&self, claim: &Claim, key: &str, id: &str) -> Truth {
        let [pods, must_pods] = self.pods(claim, key, id);
        let [services, must_services] = self.services(claim, id);
        let slices = self.slices(claim);
        let enabled = self.namespaces(claim);
        Truth {
            may: [pods, services, slices.clone(), enabled.clone()],
            must: [must_pods, must_services, slices, enabled],
        }
    }

    fn pods(&self, claim: &Claim, key: &str, id: &str) -> [Revisions; 2] {
        let mut names: BTreeSet<&str> = claim
            .internal
            .iter()
            .filter_map(|ip| self.by_address.get(ip))
            .chain(self.by_identity.get(id))
            .flatten()
            .copied()
            .collect();
        names.remove(key);
        let all = self.history.of(Kind::Pods);
        let objects: Vec<&Object> = std::iter::once(key).chain(names).map(|name| &all[name]).collect();
        let rightful = id == format!("{}.{}", claim.cluster, claim.pod)
            || id.starts_with(&format!("{}._", claim.cluster));
        let own = |now: &[Option<&Value>]| now[0].filter(|pod| is_claimed(pod, claim, id)).cloned();
        let rival = |pod: &&&Value| claims_same(pod, claim, id);
        let may = revisions_where(&objects, |now| {
            let Some(pod) = own(now) else { return false };
            let wins = |rival: &&Value| going(rival) && !going(&pod);
            now[1..].iter().flatten().filter(rival).all(|other| wins(other) || (going(&pod) && going(other)))
        });
        let must = revisions_where(&objects, |now| {
            rightful && own(now).is_some() && !now[1..].iter().flatten().any(|other| rival(&other))
        });
        [may, must]
    }

    fn services(&self, claim: &Claim, id: &str) -> [Revisions; 2] {
        let all = self.history.of(Kind::Services);
        let key = format!("{}/{}", claim.namespace, claim.service);
        let Some((key, _)) = all.get_key_value(&key) else { return Default::default() };
        let mut names: BTreeSet<&str> = claim
            .external
            .iter()
            .filter_map(|ip| self.by_external.get(ip))
            .chain(self.by_selected.get(id))
            .flatten()
            .copied()
            .collect();
        names.remove(key.as_str());
        let objects: Vec<&Object> =
            std::iter::once(key.as_str()).chain(names).map(|name| &all[name]).collect();
        let leads = |service: &Value| {
            is_ours(service)
                && !going(service)
                && selected(service) == Some(id)
                && ingress(service) == claim.external
                && (!claim.routed || service_ports(service) == claim.ports)
        };
        let same_point = |service: &Value| {
            is_ours(service)
                && ingress(service).iter().any(|ip| claim.external.contains(ip))
                && service_ports(service).iter().any(|(port, _, protocol)| {
                    claim.ports.iter().any(|(own, _, with)| own == port && with == protocol)
                })
        };
        let may = revisions_where(&objects, |now| {
            now[0].is_some_and(leads) && !now[1..].iter().flatten().any(|other| same_point(other))
        });
        let must = revisions_where(&objects, |now| {
            let rival = |other: &Value| same_point(other) || selected(other) == Some(id);
            now[0].is_some_and(|own| leads(own) && !has_errors(own))
                && !now[1..].iter().flatten().any(|other| rival(other))
        });
        [may, must]
    }

    fn slices(&self, claim: &Claim) -> Revisions {
        let all = self.history.of(Kind::Slices);
        let service = format!("{}/{}", claim.namespace, claim.service);
        let names = self.by_service.get(&service).into_iter().flatten();
        let objects: Vec<&Object> = names.map(|name| &all[*name]).collect();
        let targets: BTreeSet<(u64, String)> = claim.ports.iter().map(|p| (p.1, p.2.clone())).collect();
        let holds = |now: &[Option<&Value>]| {
            let mut found = false;
            for slice in now.iter().flatten().filter(|s| service_of(s).as_ref() == Some(&service)) {
                for endpoint in list(&slice["endpoints"]) {
                    found = true;
                    let target = &endpoint["targetRef"];
                    let own = target["kind"] == "Pod" && target["uid"] == claim.uid.as_str();
                    let addresses = texts(&endpoint["addresses"]);
                    let trusted = label(slice, "endpointslice.kubernetes.io/managed-by")
                        == Some("endpointslice-controller.k8s.io");
                    if !own || !trusted || !addresses.is_subset(&claim.internal) {
                        return false;
                    }
                    if claim.routed && slice_ports(slice) != targets {
                        return false;
                    }
                }
            }
            found || !claim.routed
        };
        let mut result = revisions_where(&objects, holds);
        // before the first slice there is no endpoint, which does no harm where nothing is routed
        if !claim.routed {
            let first =
                objects.iter().filter_map(|o| o.first()).map(|v| v.revision).min().unwrap_or(u64::MAX);
            let mut early = Revisions::default();
            early.append(0, first);
            result.ranges().iter().for_each(|(from, to)| early.append(*from, *to));
            result = early;
        }
        result
    }

    fn namespaces(&self, claim: &Claim) -> Revisions {
        let Some(namespace) = self.history.of(Kind::Namespaces).get(&claim.namespace) else {
            return Revisions::default();
        };
        revisions_where(&[namespace], |now| {
            now[0].is_some_and(|n| label(n, "external-ip.dev/enabled") == Some("true"))
        })
    }

    /// Every claim that was ever true of some pod and Service, whether a replica published it or not.
    pub(crate) fn candidates(&self) -> BTreeSet<Claim> {
        let mut claims = BTreeSet::new();
        let services = self.history.of(Kind::Services);
        for (id, keys) in &self.by_selected {
            let members = self.by_identity.get(id).into_iter().flatten();
            let states = members.flat_map(|key| {
                let (namespace, name) = key.split_once('/').unwrap_or_default();
                let versions = self.history.of(Kind::Pods)[*key].iter().filter_map(|v| v.object.as_ref());
                versions.filter(|p| identity(p) == Some(id)).map(move |pod| (namespace, name, pod))
            });
            let pods: BTreeSet<(&str, &str, String, String, BTreeSet<String>)> = states
                .filter_map(|(namespace, name, pod)| {
                    let cluster = label(pod, CLUSTER)?.to_owned();
                    let ips = addresses(pod);
                    let uid = text(&pod["metadata"]["uid"]);
                    (!ips.is_empty()).then_some((namespace, name, uid, cluster, ips))
                })
                .collect();
            for key in keys {
                let (namespace, name) = key.split_once('/').unwrap_or_default();
                let states = services[*key].iter().filter_map(|v| v.object.as_ref());
                let shapes: BTreeSet<(BTreeSet<String>, BTreeSet<Port>)> = states
                    .filter(|s| is_ours(s) && selected(s) == Some(id) && !ingress(s).is_empty())
                    .map(|s| (ingress(s), service_ports(s)))
                    .collect();
                for (external, ports) in &shapes {
                    claims.extend(pods.iter().filter(|p| p.0 == namespace).map(|pod| Claim {
                        namespace: namespace.to_owned(),
                        cluster: pod.3.clone(),
                        pod: pod.1.to_owned(),
                        uid: pod.2.clone(),
                        service: name.to_owned(),
                        internal: pod.4.clone(),
                        external: external.clone(),
                        ports: ports.clone(),
                        routed: true,
                    }));
                }
            }
        }
        claims
    }
}

fn is_claimed(pod: &Value, claim: &Claim, id: &str) -> bool {
    has_uid(pod, claim)
        && !ended(pod)
        && pod["spec"]["hostNetwork"] != true
        && addresses(pod) == claim.internal
        && identity(pod) == Some(id)
        && label(pod, CLUSTER) == Some(&claim.cluster)
}

/// Another pod that has not ended and has the same identity, or one of the same addresses. Pods without any label of
/// ours are nobody's business: the controller has no right to see them.
fn claims_same(pod: &Value, claim: &Claim, id: &str) -> bool {
    let known = label(pod, CLUSTER).is_some() || identity(pod).is_some();
    let same_identity = identity(pod) == Some(id) && pod["metadata"]["namespace"] == claim.namespace.as_str();
    let same_address = pod["spec"]["hostNetwork"] != true && !addresses(pod).is_disjoint(&claim.internal);
    known && !ended(pod) && (same_identity || same_address)
}

fn has_uid(pod: &Value, claim: &Claim) -> bool {
    pod["metadata"]["uid"] == claim.uid.as_str()
}

pub(crate) fn ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

pub(crate) fn going(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

pub(crate) fn addresses(pod: &Value) -> BTreeSet<String> {
    list(&pod["status"]["podIPs"]).map(|ip| text(&ip["ip"])).collect()
}

pub(crate) fn identity(pod: &Value) -> Option<&str> {
    label(pod, POD_ID)
}

pub(crate) fn is_ours(service: &Value) -> bool {
    label(service, "app.kubernetes.io/managed-by") == Some("external-ip-controller")
}

/// The one identity a Service selects by; `None` where it selects otherwise.
pub(crate) fn selected(service: &Value) -> Option<&str> {
    let selector = service["spec"]["selector"].as_object().filter(|s| s.len() == 1)?;
    selector.get(POD_ID)?.as_str()
}

fn ingress(service: &Value) -> BTreeSet<String> {
    list(&service["status"]["loadBalancer"]["ingress"]).map(|i| text(&i["ip"])).collect()
}

fn has_errors(service: &Value) -> bool {
    list(&service["status"]["loadBalancer"]["ingress"])
        .any(|i| list(&i["ports"]).any(|p| p["error"].is_string()))
}

fn service_ports(service: &Value) -> BTreeSet<Port> {
    let ports = list(&service["spec"]["ports"]);
    ports.map(|p| (number(&p["port"]), number(&p["targetPort"]), text(&p["protocol"]))).collect()
}

fn slice_ports(slice: &Value) -> BTreeSet<(u64, String)> {
    list(&slice["ports"]).map(|p| (number(&p["port"]), text(&p["protocol"]))).collect()
}

fn service_of(slice: &Value) -> Option<String> {
    let namespace = slice["metadata"]["namespace"].as_str()?;
    Some(format!("{namespace}/{}", label(slice, "kubernetes.io/service-name")?))
}

pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"].get(key)?.as_str()
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> BTreeSet<String> {
    list(value).map(text).collect()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
