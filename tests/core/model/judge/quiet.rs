//! When all is quiet nobody is left out.

use std::collections::BTreeSet;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Verdict;
use super::entries::addresses;
use super::truth::{Truth, annotation, cluster, has_ended, is_going, items, label, outside, slot_of};

const ROUTED: &str = "external-ip.dev/routed";
/// By what a Service asks its load balancer for an address.
const ASKS: &str = "lb.example/addresses";

/// What the configuration says of limits.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    /// What the class wants first, and its steps down.
    pub(crate) exposures: Vec<&'static str>,
    /// Of each exposure.
    pub(crate) slots_per_cluster: usize,
    /// Of each exposure.
    pub(crate) slots_per_namespace: usize,
    /// Load balancers.
    pub(crate) balancers: usize,
    /// Static addresses of each family; 0: the load balancer chooses.
    pub(crate) pool: usize,
    /// Ports of a shared Service.
    pub(crate) room: usize,
}

/// How a Service exposes its slots. One whose name and labels disagree has none, and its load balancer counts.
pub(super) fn exposure(service: &Value) -> &'static str {
    let [cluster, number] =
        ["external-ip.dev/cluster", "external-ip.dev/shared"].map(|key| label(service, key));
    let name = format!("{}-ext-shared-{}", cluster.unwrap_or_default(), number.unwrap_or_default());
    match annotation(service, "external-ip.dev/exposure") {
        _ if service["metadata"]["name"] == *name => "shared",
        Some("nodePort") => "nodePort",
        _ => "dedicated",
    }
}

fn slots(service: &Value) -> usize {
    if exposure(service) == "shared" {
        let slots: BTreeSet<String> =
            items(&service["spec"]["ports"]).filter_map(slot_of).map(|n| n.to_string()).collect();
        return slots.len();
    }
    1
}

/// Numbers and protocols a pod exposes.
fn exposed(pod: &Value) -> Vec<(u64, String)> {
    let Some(text) = annotation(pod, "external-ip.dev/ports") else { return vec![(11222, "TCP".to_owned())] };
    let one = |part: &str| {
        let (number, protocol) = part.trim().split_once('/').unwrap_or((part.trim(), "tcp"));
        (number.parse().unwrap_or(0), protocol.to_uppercase())
    };
    text.split(',').map(one).collect()
}

/// Whether a shared Service of its cluster can lead to a pod: it carries the names made from its own identity.
fn can_share(pod: &Value) -> bool {
    let id = label(pod, "stamp.external-ip.dev/pod-id").unwrap_or_default();
    let hash = data_encoding::BASE32_NOPAD.encode(&Sha256::digest(id.as_bytes())).to_ascii_lowercase();
    let token = format!("x{}-", &hash[..7]);
    let declared = || items(&pod["spec"]["containers"]).flat_map(|c| items(&c["ports"]));
    let has = |(number, protocol): &(u64, String)| {
        declared().any(|p| {
            p["containerPort"] == *number
                && p["protocol"].as_str().unwrap_or("TCP") == protocol
                && p["name"].as_str().is_some_and(|name| name.starts_with(&token))
        })
    };
    label(pod, "stamp.external-ip.dev/shared") == cluster(pod) && exposed(pod).iter().all(has)
}

impl Truth<'_> {
    /// Every running pod of a cluster is Routed, unless there really is no room for it by any exposure of its class.
    pub(crate) fn nobody_is_left_out(&self, documents: &[&Value], promise: &Promise) -> Verdict {
        let entries: Vec<&Value> = documents.iter().flat_map(|d| items(&d["entries"])).collect();
        for pod in self.living().filter(|p| !is_going(p) && !addresses(p).is_empty() && !has_ended(p)) {
            let Some(name) = cluster(pod) else { continue };
            let entry = entries.iter().find(|e| e["uid"] == pod["metadata"]["uid"]);
            let routed = entry.is_some_and(|e| e["state"] == "Routed");
            if routed && is_held_back(pod) {
                return Err(format!("Routed and kept from being ready in the end: {pod}"));
            }
            if !routed && !self.is_excused(name, pod, entry.copied().unwrap_or(&Value::Null), promise) {
                return Err(format!(
                    "left out in the end: {pod} is shown as {entry:?}; Services: {:?}",
                    self.services
                ));
            }
        }
        Ok(())
    }

    /// Whether there is no room for a pod, and its entry says why.
    fn is_excused(&self, cluster: &str, pod: &Value, entry: &Value, promise: &Promise) -> bool {
        let in_the_way = |exposure: &&str| self.in_the_way(cluster, pod, exposure, promise);
        let no_room = || promise.exposures.iter().all(|e| !in_the_way(e).is_empty());
        let reason = entry["reason"].as_str().unwrap_or_default();
        let service = self.service(cluster, &entry["slot"], entry).filter(|_| reason == "NoLoadBalancer");
        match service {
            Some(service) if self.asks_in_vain(service) => true,
            // it stays where it has no address and its class does not want it any more
            Some(service) if !promise.exposures.contains(&exposure(service)) => no_room(),
            _ => in_the_way(&promise.exposures[0]).contains(&reason) && no_room(),
        }
    }

    /// Whether a Service asks its load balancer for what another one has: what its class had it ask for stays there when
    /// the class has no pool any more.
    fn asks_in_vain(&self, service: &Value) -> bool {
        let asked = annotation(service, ASKS).unwrap_or_default();
        let mut others = self.services.iter().filter(|s| s["metadata"]["uid"] != service["metadata"]["uid"]);
        others.any(|s| outside(s).iter().any(|ip| asked.split(',').any(|asked| asked == *ip)))
    }

    /// Why a pod has no slot with an exposure.
    fn in_the_way(&self, cluster: &str, pod: &Value, by: &str, promise: &Promise) -> Vec<&'static str> {
        let alike = || self.services.iter().filter(|s| exposure(s) == by);
        let of_cluster = || alike().filter(|s| label(s, "external-ip.dev/cluster") == Some(cluster));
        let balancers = self.services.iter().filter(|s| exposure(s) != "nodePort").count();
        let numbers: BTreeSet<u64> = exposed(pod).into_iter().map(|(number, _)| number).collect();
        let has_room = |s: &&&Value| {
            let range = 20_000..20_000 + promise.room as u64;
            let ports = items(&s["spec"]["ports"]).filter_map(|p| p["port"].as_u64());
            let used: BTreeSet<u64> = ports.filter(|port| range.contains(port)).collect();
            used.len() + numbers.len() <= promise.room
                && annotation(s, "external-ip.dev/owner") == Some("external-ip-controller")
                && annotation(s, "external-ip.dev/recreate") != Some("true")
        };
        let needs_balancer = match by {
            "nodePort" => false,
            "shared" => of_cluster().find(has_room).is_none(),
            _ => true,
        };
        let full = needs_balancer && balancers >= promise.balancers;
        let cannot = by == "shared" && (!can_share(pod) || numbers.len() > promise.room);
        [
            ("CannotShare", cannot),
            ("ClusterLimit", of_cluster().map(|s| slots(s)).sum::<usize>() >= promise.slots_per_cluster),
            ("NamespaceLimit", alike().map(|s| slots(s)).sum::<usize>() >= promise.slots_per_namespace),
            ("ClassLimit", full),
            ("InstallationLimit", full),
            (
                "NoFreeAddress",
                by == "dedicated" && promise.pool > 0 && self.held_of_pool(promise.pool) >= promise.pool,
            ),
        ]
        .into_iter()
        .filter_map(|(reason, holds)| holds.then_some(reason))
        .collect()
    }
}

/// Whether a pod asks for the readiness gate and lacks its condition.
fn is_held_back(pod: &Value) -> bool {
    let asks = items(&pod["spec"]["readinessGates"]).any(|g| g["conditionType"] == ROUTED);
    let met = |c: &Value| c["type"] == ROUTED && c["status"] == "True";
    asks && !items(&pod["status"]["conditions"]).any(met)
}
