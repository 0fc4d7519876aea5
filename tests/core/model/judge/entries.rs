//! Whether a published document is true.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Verdict;
use super::truth::{
    Truth, annotation, cluster, has_ended, is_going, items, label, outside, points, selects, texts,
};

fn must(holds: bool, what: &str, entry: &Value) -> Verdict {
    if holds { Ok(()) } else { Err(format!("wrong: {what}: {entry}")) }
}

impl Truth<'_> {
    /// Judges what a replica publishes: one document per cluster.
    pub(crate) fn judge(&self, documents: &[&Value]) -> Verdict {
        for document in documents {
            let name = document["name"].as_str().unwrap_or_default();
            self.complete(name, document)?;
            for entry in items(&document["entries"]) {
                self.entry(name, entry)?;
            }
        }
        nothing_twice(documents)
    }

    /// Each pod of the cluster is there once, and nobody else.
    fn complete(&self, name: &str, document: &Value) -> Verdict {
        let mut shown: Vec<&str> = texts(&document["entries"], "uid").collect();
        let members = self.pods.iter().filter(|p| cluster(p) == Some(name));
        let mut seen: Vec<&str> = members.filter_map(|p| p["metadata"]["uid"].as_str()).collect();
        shown.sort_unstable();
        seen.sort_unstable();
        if shown == seen {
            Ok(())
        } else {
            Err(format!("wrong: {name} shows {shown:?}, its pods are {seen:?}"))
        }
    }

    /// Entries that are not true of what is Routed: for measuring how late a true one is.
    pub(crate) fn late(&self, documents: &[&Value]) -> (u64, u64) {
        let mut counts = (0, 0);
        for document in documents {
            for entry in items(&document["entries"]).filter(|e| e["state"] == "Routed") {
                counts.0 += 1;
                counts.1 +=
                    u64::from(self.entry(document["name"].as_str().unwrap_or_default(), entry).is_err());
            }
        }
        counts
    }

    fn entry(&self, name: &str, entry: &Value) -> Verdict {
        let pod = self.pods.iter().find(|p| p["metadata"]["uid"] == entry["uid"] && cluster(p) == Some(name));
        let Some(pod) = pod else { return must(false, "no such pod was seen in the cluster", entry) };
        must(entry["pod"] == pod["metadata"]["name"], "its name is another", entry)?;
        must(entry["terminating"] == is_going(pod), "terminating or not", entry)?;
        let own = addresses(pod);
        let shown: BTreeSet<&str> = items(&entry["internal"]["ips"]).filter_map(Value::as_str).collect();
        if has_ended(pod) {
            must(
                shown.is_empty() && entry["external"].is_null(),
                "a pod that has ended has no address",
                entry,
            )?;
        } else {
            must(shown == own, "its internal addresses are others", entry)?;
        }
        match entry["state"].as_str() {
            Some("Routed") => {
                let service = self.leads_nowhere_else(name, entry, pod)?;
                self.leads_here(entry, pod, service)
            }
            Some("Allocated") => self.leads_nowhere_else(name, entry, pod).map(|_| ()),
            _ => must(
                entry["external"].is_null() && items(&entry["ports"]).next().is_none(),
                "Pending with an address",
                entry,
            ),
        }
    }

    /// The external address is the slot's, nobody else's, and leads to this pod or to nobody.
    fn leads_nowhere_else(&self, name: &str, entry: &Value, pod: &Value) -> Result<&Value, String> {
        must(self.enabled, "the namespace does not take part", entry)?;
        let Some(service) = self.service(name, &entry["slot"]) else {
            return Err(format!("wrong: there is no such slot: {entry}"));
        };
        must(
            annotation(service, "external-ip.dev/owner") == Some("external-ip-controller"),
            "not our Service",
            entry,
        )?;
        must(!is_going(service), "the Service is being deleted", entry)?;
        address_is_the_services(entry, service)?;
        let points = points(service);
        let others = self.services.iter().filter(|s| s["metadata"]["name"] != service["metadata"]["name"]);
        let shared = others.flat_map(|s| super::truth::points(s)).any(|p| points.contains(&p));
        must(!shared, "another Service has the external address and port", entry)?;
        let own = addresses(pod);
        let mut neighbours = self.living().filter(|p| p["metadata"]["uid"] != pod["metadata"]["uid"]);
        must(
            neighbours.all(|p| addresses(p).is_disjoint(&own)),
            "another pod has the internal address",
            entry,
        )?;
        for slice in self.slices_of(service) {
            for endpoint in items(&slice["endpoints"]) {
                must(endpoint["targetRef"]["uid"] == entry["uid"], "an endpoint is another pod", entry)?;
                let strange =
                    items(&endpoint["addresses"]).filter_map(Value::as_str).any(|a| !own.contains(a));
                must(!strange, "an endpoint's address is not the pod's", entry)?;
                let by = label(slice, "endpointslice.kubernetes.io/managed-by");
                must(by == Some("endpointslice-controller.k8s.io"), "endpoints by somebody else", entry)?;
            }
        }
        Ok(service)
    }

    /// The slot's endpoints are exactly this pod.
    fn leads_here(&self, entry: &Value, pod: &Value, service: &Value) -> Verdict {
        let claimants: Vec<&Value> = self.living().filter(|p| selects(service, p)).collect();
        must(claimants == [pod], "the selector does not select exactly this pod", entry)?;
        let mut reached = BTreeSet::new();
        for slice in self.slices_of(service).filter(|s| items(&s["endpoints"]).next().is_some()) {
            reached.extend(
                items(&slice["endpoints"]).flat_map(|e| items(&e["addresses"])).filter_map(Value::as_str),
            );
            let served: BTreeSet<String> =
                items(&slice["ports"]).map(|p| format!("{}/{}", p["port"], p["protocol"])).collect();
            let wanted: BTreeSet<String> = items(&service["spec"]["ports"])
                .map(|p| format!("{}/{}", p["targetPort"], p["protocol"]))
                .collect();
            must(served == wanted, "the endpoints' ports are not the Service's", entry)?;
            if service["spec"]["publishNotReadyAddresses"] != true {
                let ready = items(&slice["endpoints"]).all(|e| e["conditions"]["ready"] != false);
                must(ready, "it is not ready", entry)?;
            }
        }
        must(!reached.is_empty(), "there is no endpoint", entry)?;
        let mut outside = items(&entry["external"]["ips"]).filter_map(Value::as_str);
        let answered = |ip: &str| reached.iter().any(|r| r.contains(':') == ip.contains(':'));
        must(outside.all(answered), "no endpoint has the external address's family", entry)
    }

    fn slices_of<'t>(&'t self, service: &'t Value) -> impl Iterator<Item = &'t Value> {
        let name = service["metadata"]["name"].as_str();
        self.slices.iter().copied().filter(move |s| label(s, "kubernetes.io/service-name") == name)
    }
}

fn address_is_the_services(entry: &Value, service: &Value) -> Verdict {
    let ingress = &service["status"]["loadBalancer"]["ingress"];
    let ips: BTreeSet<&str> = outside(service).into_iter().collect();
    must(entry["external"]["ips"][0].is_string(), "the name leads nowhere", entry)?;
    let host = entry["external"]["host"].as_str();
    let mut shown = items(&entry["external"]["ips"]).filter_map(Value::as_str);
    must(shown.all(|ip| ips.contains(ip)), "the external address is not the Service's", entry)?;
    must(
        host.is_none_or(|h| texts(ingress, "hostname").any(|i| i == h)),
        "the host is not the Service's",
        entry,
    )?;
    let failed = items(ingress).flat_map(|i| items(&i["ports"])).any(|p| p["error"].is_string());
    must(!failed, "the load balancer reports an error", entry)?;
    let pair = |p: &Value, inside: &str, outside: &str| {
        format!("{} {} {} {}", p["name"], p["protocol"], p[inside], p[outside])
    };
    let shown: BTreeSet<String> = items(&entry["ports"]).map(|p| pair(p, "internal", "external")).collect();
    let real: BTreeSet<String> =
        items(&service["spec"]["ports"]).map(|p| pair(p, "targetPort", "port")).collect();
    must(shown == real, "the ports are not the Service's", entry)
}

pub(super) fn addresses(pod: &Value) -> BTreeSet<&str> {
    texts(&pod["status"]["podIPs"], "ip").collect()
}

/// Among entries with an external address no internal address and no external address and port is there twice.
fn nothing_twice(documents: &[&Value]) -> Verdict {
    let (mut inside, mut outside) = (BTreeSet::new(), BTreeSet::new());
    let entries = documents.iter().flat_map(|d| items(&d["entries"])).filter(|e| !e["external"].is_null());
    for entry in entries {
        for ip in items(&entry["internal"]["ips"]) {
            must(inside.insert(ip.to_string()), "an internal address is there twice", entry)?;
        }
        let hosts =
            items(&entry["external"]["ips"]).chain([&entry["external"]["host"]]).filter(|h| !h.is_null());
        for host in hosts {
            for port in items(&entry["ports"]) {
                let point = format!("{host} {} {}", port["protocol"], port["external"]);
                must(outside.insert(point), "an external address and port is there twice", entry)?;
            }
        }
    }
    Ok(())
}
