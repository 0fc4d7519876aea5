//! Pods, and the kubelets and address pool behind them.

use std::collections::BTreeMap;

use external_ip_core::names;
use serde_json::{Value, json};

use crate::judge::Kind;
use crate::server::{Server, nth};
use crate::step::Home;

/// Named pods; the first letter is the cluster. `e` is a cluster of the configuration: its pods have no cluster label.
const NAMED: [&str; 7] = ["c-0", "c-1", "d-0", "e-0", "c-2", "d-1", "e-1"];
/// Pods at a time; the address pool is one larger, so that addresses are in use again at once.
const MOST: usize = 8;

/// The identity that copies carry.
pub(crate) const COPIED: &str = "c.c-0";
/// What the ports annotation says.
const PORTS: [&str; 3] = ["11222", "9042, 7000", "11222, 11222/udp"];

pub(crate) struct Pods {
    /// Addresses that running pods have.
    held: BTreeMap<String, u8>,
    /// The one released last is given first.
    free: Vec<u8>,
    dual: bool,
    made: u32,
    /// Pods that were given a node.
    bound: usize,
}

impl Pods {
    pub(crate) fn new(dual: bool) -> Self {
        let free = (1..=u8::try_from(MOST).unwrap() + 1).rev().collect();
        Self { held: BTreeMap::new(), free, dual, made: 0, bound: 0 }
    }

    /// A pod as its author sends it: `who` is one of the named ones, beyond them a ReplicaSet's. `None` where the name
    /// is in use or there are enough.
    pub(crate) fn wanted(server: &Server, who: u8, ports: u8, forged: bool) -> Option<Value> {
        let named = NAMED.get(usize::from(who)).copied();
        let taken = named.is_some_and(|name| server.get(Kind::Pod, name).is_some());
        if taken || server.names(Kind::Pod).len() >= MOST {
            return None;
        }
        let cluster = named.map_or(["c", "d", "e"][usize::from(who) % 3], |name| &name[..1]);
        let label = if cluster == "e" { "app" } else { names::CLUSTER_LABEL };
        let kind = if named.is_some() { "StatefulSet" } else { "ReplicaSet" };
        let mut pod = json!({
            "metadata": {"labels": {label: cluster}, "annotations": {},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": cluster, "uid": "owner", "controller": true}]},
            "spec": {"containers": [{"ports": [{"name": "hotrod", "containerPort": 11222}]}]},
            "status": {"phase": "Pending"},
        });
        match named {
            Some(name) => pod["metadata"]["name"] = json!(name),
            None => pod["metadata"]["generateName"] = json!(format!("{cluster}-x")),
        }
        if ports > 0 {
            pod["metadata"]["annotations"][names::PORTS_ANNOTATION] = json!(nth(&PORTS, ports).unwrap());
        }
        if forged {
            let name = names::Target { token: &names::share_token(COPIED), blocked: false, index: 0 };
            pod["metadata"]["labels"][names::POD_ID_LABEL] = json!(COPIED);
            pod["metadata"]["labels"][names::SHARED_LABEL] = json!("c");
            pod["metadata"]["annotations"][names::STAMP_ADDRESS_ANNOTATION] = json!("203.0.113.99");
            let ports = pod["spec"]["containers"][0]["ports"].as_array_mut().unwrap();
            ports.push(json!({"name": name.to_string(), "containerPort": 11222}));
        }
        Some(pod)
    }

    /// Stores an admitted pod; one without a name gets one.
    pub(crate) fn store(&mut self, server: &mut Server, mut pod: Value) {
        if pod["metadata"]["name"].is_null() {
            self.made += 1;
            let prefix = pod["metadata"]["generateName"].as_str().unwrap().to_owned();
            pod["metadata"]["name"] = json!(format!("{prefix}{}", self.made));
        }
        server.create(Kind::Pod, pod);
    }

    /// The next step of a pod's life: an address and running; where it terminates: the address is released while the
    /// API still shows it, then the phase, then it goes.
    pub(crate) fn kubelet(&mut self, server: &mut Server, name: &str) -> bool {
        let Some(pod) = server.get(Kind::Pod, name).cloned() else { return false };
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if pod["metadata"]["deletionTimestamp"].is_null() {
            return !ended && pod["status"]["podIPs"].is_null() && self.start(server, name);
        }
        if self.held.contains_key(name) {
            self.release(name);
            return true;
        }
        if ended {
            return server.remove(Kind::Pod, name);
        }
        server.edit(Kind::Pod, name, |p| p["status"]["phase"] = json!("Succeeded"))
    }

    fn start(&mut self, server: &mut Server, name: &str) -> bool {
        if !self.bind(server, name) {
            return false;
        }
        let Some(ip) = self.free.pop() else { return false };
        self.held.insert(name.to_owned(), ip);
        let mut ips = vec![json!({"ip": format!("198.18.0.{ip}")})];
        if self.dual {
            ips.push(json!({"ip": format!("fd00::{ip}")}));
        }
        server.edit(Kind::Pod, name, |p| {
            p["status"] = json!({"phase": "Running", "podIPs": ips, "conditions": [{"type": "Ready", "status": "True"}]});
        })
    }

    /// The scheduler gives a pod a node, the next one each time: whoever takes a pod's place is elsewhere.
    fn bind(&mut self, server: &mut Server, name: &str) -> bool {
        if server.get(Kind::Pod, name).is_some_and(|p| p["spec"]["nodeName"].is_string()) {
            return true;
        }
        let nodes = server.names(Kind::Node);
        let Some(node) = nodes.get(self.bound % nodes.len().max(1)) else { return false };
        self.bound += 1;
        server.edit(Kind::Pod, name, |p| p["spec"]["nodeName"] = json!(node))
    }

    fn release(&mut self, name: &str) {
        self.free.extend(self.held.remove(name));
    }

    /// A new sandbox: its old address is the next pod's.
    pub(crate) fn new_ip(&mut self, server: &mut Server, name: &str) -> bool {
        let Some(old) = self.held.remove(name) else { return false };
        let started = self.start(server, name);
        if started {
            self.free.push(old);
        } else {
            self.held.insert(name.to_owned(), old);
        }
        started
    }

    pub(crate) fn delete(server: &mut Server, name: &str) -> bool {
        let at = server.timestamp();
        server.edit(Kind::Pod, name, |p| {
            if p["metadata"]["deletionTimestamp"].is_null() {
                p["metadata"]["deletionTimestamp"] = json!(at);
            }
        })
    }

    pub(crate) fn force_delete(&mut self, server: &mut Server, name: &str) -> bool {
        self.release(name);
        server.remove(Kind::Pod, name)
    }

    /// It ends: the status keeps the address, which is another's from now on.
    pub(crate) fn finish(&mut self, server: &mut Server, name: &str, failed: bool) -> bool {
        if !self.held.contains_key(name) {
            return false;
        }
        self.release(name);
        let phase = if failed { "Failed" } else { "Succeeded" };
        server.edit(Kind::Pod, name, |p| {
            p["status"]["phase"] = json!(phase);
            p["status"]["conditions"] = json!([]);
        })
    }

    pub(crate) fn ready(&self, server: &mut Server, name: &str) -> bool {
        if !self.held.contains_key(name) {
            return false;
        }
        server.edit(Kind::Pod, name, |p| {
            let status = &mut p["status"]["conditions"][0]["status"];
            *status = json!(if *status == "True" { "False" } else { "True" });
        })
    }

    /// All that has begun comes to its end: pods that wait start, those that terminate go, all are ready.
    pub(crate) fn finish_what_has_begun(&mut self, server: &mut Server) {
        for name in server.names(Kind::Pod) {
            let terminates = |s: &Server| {
                s.get(Kind::Pod, &name).is_some_and(|p| !p["metadata"]["deletionTimestamp"].is_null())
            };
            while terminates(server) {
                self.kubelet(server, &name);
            }
        }
        for name in server.names(Kind::Pod) {
            self.kubelet(server, &name);
            if self.held.contains_key(&name) {
                server.edit(Kind::Pod, &name, |p| p["status"]["conditions"][0]["status"] = json!("True"));
            }
        }
    }
}

/// What people do to pods' metadata.
pub(crate) fn relabel(server: &mut Server, name: &str, to: Home) -> bool {
    server.edit(Kind::Pod, name, |p| {
        let labels = p["metadata"]["labels"].as_object_mut().unwrap();
        match to {
            Home::C => drop(labels.insert(names::CLUSTER_LABEL.into(), json!("c"))),
            Home::D => drop(labels.insert(names::CLUSTER_LABEL.into(), json!("d"))),
            Home::Nowhere => drop(labels.remove(names::CLUSTER_LABEL)),
        }
    })
}

pub(crate) fn identify(server: &mut Server, name: &str, id: Option<&Value>) -> bool {
    server.edit(Kind::Pod, name, |p| {
        let labels = p["metadata"]["labels"].as_object_mut().unwrap();
        match id {
            Some(id) => drop(labels.insert(names::POD_ID_LABEL.into(), id.clone())),
            None => drop(labels.remove(names::POD_ID_LABEL)),
        }
    })
}

/// Somebody changes the cluster whose shared Services select the pod.
pub(crate) fn share(server: &mut Server, name: &str, with: Home) -> bool {
    server.edit(Kind::Pod, name, |p| {
        let labels = p["metadata"]["labels"].as_object_mut().unwrap();
        match with {
            Home::C => drop(labels.insert(names::SHARED_LABEL.into(), json!("c"))),
            Home::D => drop(labels.insert(names::SHARED_LABEL.into(), json!("d"))),
            Home::Nowhere => drop(labels.remove(names::SHARED_LABEL)),
        }
    })
}

pub(crate) fn ports(server: &mut Server, name: &str, ports: u8) -> bool {
    let text = nth(&PORTS, ports).unwrap();
    server.edit(Kind::Pod, name, |p| p["metadata"]["annotations"][names::PORTS_ANNOTATION] = json!(text))
}
