//! What is judged besides documents: stamps, the rest of a freed address, and that nobody is left out in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::Verdict;
use super::entries::addresses;
use super::truth::{Truth, annotation, cluster, has_ended, is_going, items, label, outside, points, texts};

const RESERVED: &str = "stamp.external-ip.dev/";
const ROUTED: &str = "external-ip.dev/routed";
const ASKED: &str = "external-ip.dev/asked-address";

/// Addresses a Service asks for or has.
fn held(service: &Value) -> impl Iterator<Item = &str> {
    let asked = annotation(service, ASKED).into_iter().flat_map(|list| list.split(','));
    asked.chain(texts(&service["status"]["loadBalancer"]["ingress"], "ip"))
}

/// What clients of one replica were shown: by UID of the Service for which pod name, and until when.
#[derive(Default)]
pub(crate) struct Shown {
    past: BTreeMap<String, (String, Duration)>,
    present: BTreeMap<String, String>,
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What is shown from `now` on; what was shown before was shown until now.
    pub(crate) fn show(&mut self, truth: &Truth<'_>, documents: &[&Value], now: Duration) {
        let before = std::mem::take(&mut self.present);
        self.past.extend(before.into_iter().map(|(service, pod)| (service, (pod, now))));
        for document in documents {
            let name = document["name"].as_str().unwrap_or_default();
            for entry in items(&document["entries"]).filter(|e| !e["external"].is_null()) {
                let uid = truth.service(name, &entry["slot"]).and_then(|s| s["metadata"]["uid"].as_str());
                let pod = entry["pod"].as_str().unwrap_or_default().to_owned();
                self.present.extend(uid.map(|uid| (uid.to_owned(), pod)));
            }
        }
    }

    /// A planned write gives a Service (as the replica saw it) to the pod `pod` with the identity `id`: an address that
    /// was shown for another pod must have rested.
    pub(crate) fn rested(
        &self,
        service: &Value,
        (id, pod): (&str, &str),
        (now, rest): (Duration, Duration),
    ) -> Verdict {
        let before = service["spec"]["selector"]["stamp.external-ip.dev/pod-id"].as_str();
        let stays = before == Some(id) || annotation(service, "external-ip.dev/pod") == Some(pod);
        let shown = service["metadata"]["uid"].as_str().and_then(|uid| self.past.get(uid));
        let Some((last, until)) = shown.filter(|(last, _)| !stays && last != pod) else { return Ok(()) };
        if *until + rest <= now {
            return Ok(());
        }
        Err(format!("the address of {last}, shown until {until:?}, goes to {pod} at {now:?}: {service}"))
    }
}

impl Truth<'_> {
    /// Judges what the webhook has left on a new pod.
    pub(crate) fn judge_stamp(&self, pod: &Value) -> Verdict {
        let wrong = |what: &str| Err(format!("wrong stamp: {what}: {pod}"));
        let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
        let reserved: Vec<(&str, &str)> =
            annotations.filter_map(|(k, v)| Some((k.strip_prefix(RESERVED)?, v.as_str()?))).collect();
        let id = label(pod, "stamp.external-ip.dev/pod-id");
        let Some(cluster) = cluster(pod) else {
            return if id.is_none() && reserved.is_empty() {
                Ok(())
            } else {
                wrong("it belongs to no cluster")
            };
        };
        let name = pod["metadata"]["name"].as_str();
        match name {
            Some(name) if id != Some(&*format!("{cluster}.{name}")) => return wrong("not its own identity"),
            None if !id.is_some_and(|id| id.starts_with(&format!("{cluster}._"))) => {
                return wrong("no identity");
            }
            _ => {}
        }
        if reserved.iter().all(|(k, _)| *k == "version") {
            return Ok(());
        }
        let find = |key: &str| reserved.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        let slot: Value = find("slot").and_then(|s| s.parse().ok()).map_or(Value::Null, |n: u32| n.into());
        let Some(service) = self.service(cluster, &slot) else { return wrong("no such slot") };
        if is_going(service) || annotation(service, "external-ip.dev/pod") != name {
            return wrong("the slot is not kept for it");
        }
        if service["spec"]["selector"] != serde_json::json!({"stamp.external-ip.dev/pod-id": id}) {
            return wrong("the slot does not lead to it");
        }
        let ingress = &service["status"]["loadBalancer"]["ingress"];
        let mut ips = find("address").into_iter().flat_map(|list| list.split(','));
        if !ips.all(|ip| outside(service).contains(&ip)) {
            return wrong("not the Service's address");
        }
        if find("host").is_some_and(|h| texts(ingress, "hostname").all(|i| i != h)) {
            return wrong("not the Service's host");
        }
        let own = points(service);
        let others = self.services.iter().filter(|s| s["metadata"]["name"] != service["metadata"]["name"]);
        if others.flat_map(|s| points(s)).any(|p| own.contains(&p)) {
            return wrong("another Service has the address");
        }
        for (key, value) in reserved.iter().filter_map(|(k, v)| Some((k.strip_prefix("port-")?, v))) {
            let number = |text: &str| text.parse::<u64>().ok();
            let same =
                |p: &Value| p["targetPort"].as_u64() == number(key) && p["port"].as_u64() == number(value);
            if !items(&service["spec"]["ports"]).any(same) {
                return wrong("not the Service's port");
            }
        }
        Ok(())
    }

    /// How many static addresses Services ask for or have, of the family of which they are more.
    fn held_of_pool(&self) -> usize {
        let of_pool = |ip: &&str| {
            let number = |prefix: &str, base: u32| u32::from_str_radix(ip.strip_prefix(prefix)?, base).ok();
            number("203.0.113.", 10).is_some_and(|n| n > 100)
                || number("2001:db8::", 16).is_some_and(|n| n > 0x100)
        };
        let held: BTreeSet<&str> = self.services.iter().flat_map(|s| held(s)).filter(of_pool).collect();
        let v6 = held.iter().filter(|ip| ip.contains(':')).count();
        v6.max(held.len() - v6)
    }

    /// A planned write asks for addresses: no other Service the replica had seen asks for them or has them, unless they
    /// were its own already.
    pub(crate) fn asks_for_what_is_free(&self, name: &str, asked: &str) -> Verdict {
        let (own, others): (Vec<&Value>, Vec<&Value>) =
            self.services.iter().partition(|s| s["metadata"]["name"] == *name);
        let is_in = |services: &[&Value], ip: &str| services.iter().any(|s| held(s).any(|h| h == ip));
        match asked.split(',').find(|ip| !is_in(&own, ip) && is_in(&others, ip)) {
            Some(ip) => {
                Err(format!("{name} is to ask for {ip}, which another Service asks for or has: {others:?}"))
            }
            None => Ok(()),
        }
    }

    /// When all is quiet: each static address is one slot's. A Service whose name and labels disagree is none, and is
    /// left alone.
    pub(crate) fn nobody_asks_for_anothers(&self) -> Verdict {
        let is_slot = |s: &Value| {
            let [cluster, slot] =
                ["external-ip.dev/cluster", "external-ip.dev/slot"].map(|key| label(s, key));
            let name = format!("{}-ext-{}", cluster.unwrap_or_default(), slot.unwrap_or_default());
            s["metadata"]["name"] == *name
                && annotation(s, "external-ip.dev/owner") == Some("external-ip-controller")
        };
        let slots = self.services.iter().filter(|s| is_slot(s));
        let asked = slots.filter_map(|s| annotation(s, ASKED)).flat_map(|list| list.split(','));
        let mut seen = BTreeSet::new();
        match asked.into_iter().find(|ip| !seen.insert(*ip)) {
            Some(ip) => Err(format!("two slots ask for {ip} in the end: {:?}", self.services)),
            None => Ok(()),
        }
    }

    /// When all is quiet: every running pod of a cluster is Routed, unless a limit really is reached.
    pub(crate) fn nobody_is_left_out(&self, documents: &[&Value], limits: &BTreeMap<&str, usize>) -> Verdict {
        let entries: Vec<&Value> = documents.iter().flat_map(|d| items(&d["entries"])).collect();
        for pod in self.living().filter(|p| !is_going(p) && !addresses(p).is_empty() && !has_ended(p)) {
            let Some(name) = cluster(pod) else { continue };
            let uid = &pod["metadata"]["uid"];
            let entry = entries.iter().find(|e| e["uid"] == *uid);
            let of_cluster =
                self.services.iter().filter(|s| label(s, "external-ip.dev/cluster") == Some(name)).count();
            let excused = match entry.and_then(|e| e["reason"].as_str()) {
                Some("ClusterLimit") => of_cluster >= limits["cluster"],
                Some("NamespaceLimit") => self.services.len() >= limits["namespace"],
                Some("InstallationLimit") => self.services.len() >= limits["installation"],
                Some("NoFreeAddress") => self.held_of_pool() >= limits["pool"],
                _ => entry.is_some_and(|e| e["state"] == "Routed"),
            };
            if entry.is_some_and(|e| e["state"] == "Routed") && is_held_back(pod) {
                return Err(format!("Routed and kept from being ready in the end: {pod}"));
            }
            if !excused {
                return Err(format!(
                    "left out in the end: {pod} is shown as {entry:?}; Services: {:?}",
                    self.services
                ));
            }
        }
        Ok(())
    }
}

/// Whether a pod asks for the readiness gate and lacks its condition.
fn is_held_back(pod: &Value) -> bool {
    let asks = items(&pod["spec"]["readinessGates"]).any(|g| g["conditionType"] == ROUTED);
    let met = |c: &Value| c["type"] == ROUTED && c["status"] == "True";
    asks && !items(&pod["status"]["conditions"]).any(met)
}
