//! Whether a published document is true.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Verdict;
use super::truth::{
    Truth, annotation, cluster, has_ended, is_going, is_shared, items, label, number_at, outside, selects,
    shown_points, slot_of, texts, token,
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

    /// By what an entry's address is reached.
    pub(crate) fn kind(&self, document: &Value, entry: &Value) -> Option<&'static str> {
        let service = self.service(document["name"].as_str()?, &entry["slot"], entry);
        service.map(super::quiet::exposure)
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
        let shown = shown_points(entry);
        let Some(service) = self.service(name, &entry["slot"], entry) else {
            return Err(format!("wrong: there is no such slot: {entry}"));
        };
        must(
            annotation(service, "external-ip.dev/owner") == Some("external-ip-controller"),
            "not our Service",
            entry,
        )?;
        must(!is_going(service), "the Service is being deleted", entry)?;
        must(entry["external"]["ips"][0].is_string(), "the name leads nowhere", entry)?;
        if service["spec"]["type"] == "NodePort" {
            self.address_is_the_nodes(entry, pod)?;
            ports_are_the_services(entry, service, "nodePort")?;
        } else {
            address_is_the_services(entry, service)?;
            if is_shared(service) {
                ports_are_the_pods(entry, pod, service)?;
            } else {
                ports_are_the_services(entry, service, "port")?;
            }
        }
        let mut others =
            self.services.iter().filter(|s| s["metadata"]["name"] != service["metadata"]["name"]);
        let shared = others.any(|s| self.points(s).iter().any(|point| shown.contains(point)));
        must(!shared, "another Service has the external address and port", entry)?;
        let own = addresses(pod);
        let mut neighbours = self.living().filter(|p| p["metadata"]["uid"] != pod["metadata"]["uid"]);
        must(
            neighbours.all(|p| addresses(p).is_disjoint(&own)),
            "another pod has the internal address",
            entry,
        )?;
        for slice in self.slices_behind(service, entry) {
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
        let ports: Vec<&Value> = ports_of(service, entry).collect();
        for port in &ports {
            let claims = |p: &&Value| selects(service, p) && number_at(p, port).is_some();
            let claimants: Vec<&Value> = self.living().filter(claims).collect();
            must(claimants == [pod], "the port does not lead to exactly this pod", entry)?;
        }
        let shown = items(&entry["ports"]).count();
        must(shown > 0 && shown == ports.len(), "some of the slot's ports are not shown", entry)?;
        let slices: Vec<&Value> =
            self.slices_behind(service, entry).filter(|s| items(&s["endpoints"]).next().is_some()).collect();
        if service["spec"]["publishNotReadyAddresses"] != true {
            let mut endpoints = slices.iter().flat_map(|s| items(&s["endpoints"]));
            must(endpoints.all(|e| e["conditions"]["ready"] != false), "it is not ready", entry)?;
        }
        if !is_shared(service) {
            for slice in &slices {
                let served = pairs(items(&slice["ports"]), "port");
                must(
                    served == pairs(ports.iter().copied(), "targetPort"),
                    "the endpoints' ports are not the Service's",
                    entry,
                )?;
            }
        }
        for port in &ports {
            let number = number_at(pod, port);
            let of_port = |s: &&&Value| items(&s["ports"]).any(|p| p["name"] == port["name"]);
            let same = |p: &Value| {
                p["name"] != port["name"]
                    || (p["port"].as_u64(), &p["protocol"]) == (number, &port["protocol"])
            };
            let reached: Vec<&str> = slices
                .iter()
                .filter(|s| !is_shared(service) || of_port(s))
                .flat_map(|s| items(&s["endpoints"]))
                .flat_map(|e| items(&e["addresses"]))
                .filter_map(Value::as_str)
                .collect();
            must(!reached.is_empty(), "there is no endpoint", entry)?;
            must(
                !is_shared(service) || slices.iter().flat_map(|s| items(&s["ports"])).all(same),
                "the endpoints' port is not the pod's",
                entry,
            )?;
            let mut outside = items(&entry["external"]["ips"]).filter_map(Value::as_str);
            let answered = |ip: &str| reached.iter().any(|r| r.contains(':') == ip.contains(':'));
            must(outside.all(answered), "no endpoint has the external address's family", entry)?;
        }
        Ok(())
    }

    /// The slices from which proxies take what is behind an entry's ports: of a Service of its own all, of a shared one
    /// those that have a port of the same name as one that is shown.
    fn slices_behind<'t>(&'t self, service: &'t Value, entry: &'t Value) -> impl Iterator<Item = &'t Value> {
        let name = service["metadata"]["name"].as_str();
        let same =
            |p: &Value, shown: &Value| p["port"] == shown["external"] && p["protocol"] == shown["protocol"];
        let shown = |p: &&Value| items(&entry["ports"]).any(|shown| same(p, shown));
        let names: Vec<&Value> = ports_of(service, entry).filter(shown).map(|p| &p["name"]).collect();
        let concerns = move |slice: &&Value| {
            !is_shared(service) || items(&slice["ports"]).any(|p| names.contains(&&p["name"]))
        };
        self.slices
            .iter()
            .copied()
            .filter(move |s| label(s, "kubernetes.io/service-name") == name)
            .filter(concerns)
    }

    /// Of each family the addresses outside of the node the pod is on, else those inside.
    fn address_is_the_nodes(&self, entry: &Value, pod: &Value) -> Verdict {
        let node = self.nodes.iter().find(|n| n["metadata"]["name"] == pod["spec"]["nodeName"]);
        let Some(node) = node else { return must(false, "the pod's node is not there", entry) };
        let of = |kind: &str, v6: bool| -> Vec<&str> {
            let found = items(&node["status"]["addresses"]).filter(|a| a["type"] == kind);
            found.filter_map(|a| a["address"].as_str()).filter(|a| a.contains(':') == v6).collect()
        };
        let family = |v6| {
            let outside = of("ExternalIP", v6);
            if outside.is_empty() { of("InternalIP", v6) } else { outside }
        };
        let wanted = [family(false), family(true)].concat();
        let mut shown = items(&entry["external"]["ips"]).filter_map(Value::as_str);
        must(shown.all(|ip| wanted.contains(&ip)), "the external address is not the node's", entry)?;
        must(entry["external"]["host"].is_null(), "a node is not known by a name", entry)
    }
}

/// The Service's ports that are a slot's: all, or by their names those that lead to an identity.
fn ports_of<'v>(service: &'v Value, entry: &'v Value) -> impl Iterator<Item = &'v Value> {
    let of_slot = |p: &&Value| {
        let is_own = slot_of(p).as_ref() == Some(&entry["slot"]) && token(&p["targetPort"]).is_some();
        !is_shared(service) || is_own
    };
    items(&service["spec"]["ports"]).filter(of_slot)
}

fn pairs<'v>(ports: impl Iterator<Item = &'v Value>, number: &str) -> BTreeSet<String> {
    ports.map(|p| format!("{}/{}", p[number], p["protocol"])).collect()
}

fn address_is_the_services(entry: &Value, service: &Value) -> Verdict {
    let ingress = &service["status"]["loadBalancer"]["ingress"];
    let ips: BTreeSet<&str> = outside(service).into_iter().collect();
    let host = entry["external"]["host"].as_str();
    let mut shown = items(&entry["external"]["ips"]).filter_map(Value::as_str);
    must(shown.all(|ip| ips.contains(ip)), "the external address is not the Service's", entry)?;
    must(
        host.is_none_or(|h| texts(ingress, "hostname").any(|i| i == h)),
        "the host is not the Service's",
        entry,
    )?;
    let concerns =
        |p: &&Value| !is_shared(service) || items(&entry["ports"]).any(|own| own["external"] == p["port"]);
    let mut failed = items(ingress).flat_map(|i| items(&i["ports"])).filter(concerns);
    must(!failed.any(|p| p["error"].is_string()), "the load balancer reports an error", entry)
}

/// All of a Service's ports are shown, as they are.
fn ports_are_the_services(entry: &Value, service: &Value, outside: &str) -> Verdict {
    let pair = |p: &Value, inside: &str, outside: &str| {
        format!("{} {} {} {}", p["name"], p["protocol"], p[inside], p[outside])
    };
    let shown: BTreeSet<String> = items(&entry["ports"]).map(|p| pair(p, "internal", "external")).collect();
    let real: BTreeSet<String> =
        items(&service["spec"]["ports"]).map(|p| pair(p, "targetPort", outside)).collect();
    must(shown == real, "the ports are not the Service's", entry)
}

/// Every port shown is one of the slot's on the shared Service, and leads to the port inside that it says.
fn ports_are_the_pods(entry: &Value, pod: &Value, service: &Value) -> Verdict {
    for shown in items(&entry["ports"]) {
        let found = ports_of(service, entry)
            .find(|p| p["port"] == shown["external"] && p["protocol"] == shown["protocol"]);
        let Some(port) = found else { return must(false, "a port is not the slot's", entry) };
        let inside = number_at(pod, port);
        must(
            inside.is_some() && inside == shown["internal"].as_u64(),
            "a port leads to another port",
            entry,
        )?;
    }
    Ok(())
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
