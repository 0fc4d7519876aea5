//! The load balancer and the EndpointSlice controller.

use std::collections::BTreeMap;

use external_ip_core::names;
use external_ip_core::objects::Slice;
use external_ip_core::state::{Change, Update};
use serde_json::{Value, json};

use super::{ASKS, NS, World, parse};

impl World {
    /// The load balancer and the EndpointSlice controller; answers whether they changed anything.
    pub(super) fn run_controllers(&mut self) -> bool {
        let mut changed = false;
        for (name, service) in self.services.clone() {
            if self.load_balancer
                && service["spec"]["type"] == "LoadBalancer"
                && service["status"]["loadBalancer"]["ingress"].is_null()
                && let Some(ingress) = self.serve(&service)
            {
                self.edit_service(&name, |v| v["status"]["loadBalancer"]["ingress"] = ingress);
                changed = true;
            }
            changed |= !self.slices_held && self.write_slice(&name, &service);
        }
        let service = |slice: &str| slice.split('/').next().unwrap_or_default().to_owned();
        let orphans: Vec<String> =
            self.slices.keys().filter(|name| !self.services.contains_key(&service(name))).cloned().collect();
        let orphans = if self.slices_held { Vec::new() } else { orphans };
        for name in orphans {
            self.drop_slice(&name);
            changed = true;
        }
        changed
    }

    /// What the load balancer gives a Service: the addresses it asks for where nobody has them, else any.
    fn serve(&mut self, service: &Value) -> Option<Value> {
        let Some(asked) = service["metadata"]["annotations"][ASKS].as_str() else {
            return Some(json!([{"ip": self.allocate()}]));
        };
        let given: Vec<Value> = self
            .services
            .values()
            .flat_map(|s| s["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default())
            .map(|ingress| ingress["ip"].clone())
            .collect();
        let asked: Vec<&str> = asked.split(',').collect();
        let free = asked.iter().all(|ip| !given.contains(&json!(ip)));
        free.then(|| asked.iter().map(|ip| json!({"ip": ip})).collect())
    }

    pub(super) fn allocate(&mut self) -> String {
        let ip = self.free_ips.pop_first().unwrap_or_else(|| {
            self.next_ip += 1;
            self.next_ip
        });
        format!("203.0.113.{ip}")
    }

    /// One slice per family and set of ports that pods have under the Service's targets, as Kubernetes' controller makes them.
    fn write_slice(&mut self, name: &str, service: &Value) -> bool {
        let selector = service["spec"]["selector"].as_object().cloned().unwrap_or_default();
        let matches = |pod: &Value| selector.iter().all(|(k, v)| pod["metadata"]["labels"][k] == *v);
        let mut by_ports: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
        for pod in self.pods.values().filter(|p| matches(p)) {
            if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
                continue;
            }
            let dual =
                service["spec"]["ipFamilyPolicy"].as_str().is_some_and(|policy| policy != "SingleStack");
            let served = if dual { 2 } else { 1 };
            let ports: Vec<Value> = list(&service["spec"]["ports"])
                .filter_map(|p| {
                    let number = number_of(pod, p)?;
                    Some(json!({"name": p["name"], "port": number, "protocol": p["protocol"]}))
                })
                .collect();
            for ip in list(&pod["status"]["podIPs"]).filter_map(|ip| ip["ip"].as_str()).take(served) {
                let endpoint = json!({"addresses": [ip], "conditions": {"ready": true},
                    "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}});
                // and one per family
                let kind = format!("{} {}", ip.contains(':'), json!(ports));
                by_ports.entry(kind).or_insert((ports.clone(), Vec::new())).1.push(endpoint);
            }
        }
        let mut labels = service["metadata"]["labels"].clone();
        labels[names::SLICE_SERVICE_LABEL] = json!(name);
        labels[names::SLICE_MANAGED_BY_LABEL] = json!(names::SLICE_CONTROLLER);
        let mut wanted = BTreeMap::new();
        for (index, (ports, endpoints)) in by_ports.into_values().enumerate() {
            let content = json!({"labels": labels, "endpoints": endpoints, "ports": ports});
            wanted.insert(format!("{name}/{index}"), content);
        }
        let prefix = format!("{name}/");
        let surplus: Vec<String> = self
            .slices
            .keys()
            .filter(|k| k.starts_with(&prefix) && !wanted.contains_key(*k))
            .cloned()
            .collect();
        let mut changed = !surplus.is_empty();
        for slice in surplus {
            self.drop_slice(&slice);
        }
        for (slice, content) in wanted {
            if self.slices.get(&slice).is_some_and(|s| s["content"] == content) {
                continue;
            }
            let value = json!({"metadata": {"namespace": NS, "name": slice.replace('/', "-x"), "uid": format!("slice-{slice}"),
                "resourceVersion": self.tick().to_string(), "labels": content["labels"]},
                "endpoints": content["endpoints"], "ports": content["ports"], "content": content});
            self.slices.insert(slice, value.clone());
            self.slice(&value);
            changed = true;
        }
        changed
    }

    fn drop_slice(&mut self, slice: &str) {
        let mut value = self.slices.remove(slice).unwrap();
        value["metadata"]["resourceVersion"] = json!(self.tick().to_string());
        self.deliver(Update::Slices(Change::Deleted(parse::<Slice>(&value))));
    }
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What a Service's port leads to on a pod: by number as it is, by name what the first container calls so.
fn number_of(pod: &Value, port: &Value) -> Option<Value> {
    if port["targetPort"].is_number() {
        return Some(port["targetPort"].clone());
    }
    let mut declared = list(&pod["spec"]["containers"]).flat_map(|c| list(&c["ports"]));
    let protocol = |p: &Value| p["protocol"].as_str().unwrap_or("TCP").to_owned();
    let found = declared.find(|p| p["name"] == port["targetPort"] && protocol(p) == protocol(port));
    Some(found?["containerPort"].clone())
}
