//! Kubernetes' EndpointSlice controller: sees pods and Services late, each at its own pace.

use std::collections::BTreeMap;
use std::sync::Arc;

use external_ip_core::names;
use serde_json::{Value, json};

use crate::judge::Kind;
use crate::server::Server;

#[derive(Default)]
pub(crate) struct Endpoints {
    pods: u64,
    services: u64,
}

impl Endpoints {
    pub(crate) fn see(&mut self, server: &Server, pods: bool, events: u8) -> bool {
        let seen = if pods { &mut self.pods } else { &mut self.services };
        let before = *seen;
        *seen = (*seen + u64::from(events)).min(server.version());
        *seen > before
    }

    pub(crate) fn see_all(&mut self, server: &Server) {
        (self.pods, self.services) = (server.version(), server.version());
    }

    /// Writes a Service's slices, of each family one per set of ports; answers whether something was to be written.
    pub(crate) fn write(&self, server: &mut Server, service: &str) -> bool {
        let found = server
            .history
            .at(Kind::Service, self.services)
            .find(|s| s["metadata"]["name"] == service)
            .cloned();
        let Some(found) = found else { return remove(server, |slice| owner(slice) == Some(service)) };
        if found["spec"]["selector"].as_object().is_none_or(serde_json::Map::is_empty) {
            return false; // as in Kubernetes: without a selector somebody else writes them, and what is there stays
        }
        // slices that were another Service's and are labelled as this one's now: what they hold, its own hold already
        let mut changed = remove(server, |slice| {
            let label = |key: &str| &slice["metadata"]["labels"][key];
            *label(names::SLICE_SERVICE_LABEL) == service
                && *label(names::SLICE_MANAGED_BY_LABEL) == names::SLICE_CONTROLLER
                && owner(slice) != Some(service)
        });
        let dual = found["spec"]["ipFamilyPolicy"] == "PreferDualStack";
        let mut written = Vec::new();
        for v6 in [false, true].into_iter().filter(|v6| dual || !v6) {
            for (number, (ports, endpoints)) in self.groups(server, &found, v6).into_iter().enumerate() {
                let name = name(service, v6, number);
                changed |= put(server, &found, &name, &ports, &endpoints);
                written.push(name);
            }
        }
        let is_surplus = |slice: &Value| {
            let written = || written.iter().any(|name| slice["metadata"]["name"] == **name);
            owner(slice) == Some(service) && !written()
        };
        remove(server, is_surplus) || changed
    }

    /// Ports and endpoints of each slice: pods that have the same ports under the Service's names are together.
    fn groups(&self, server: &Server, service: &Value, v6: bool) -> Vec<(Value, Vec<Value>)> {
        let not_ready_too = service["spec"]["publishNotReadyAddresses"] == true;
        let mut groups: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
        let pods = server.history.at(Kind::Pod, self.pods).filter(|pod| serves(service, pod));
        for (pod, endpoint) in pods.filter_map(|p| Some((p, endpoint(p, v6, not_ready_too)?))) {
            let ports = ports(service, Some(pod));
            groups.entry(ports.to_string()).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
        }
        if groups.is_empty() {
            return vec![(ports(service, None), Vec::new())];
        }
        groups.into_values().collect()
    }
}

fn name(service: &str, v6: bool, number: usize) -> String {
    let family = if v6 { 6 } else { 4 };
    if number == 0 { format!("{service}-{family}") } else { format!("{service}-{family}-{number}") }
}

/// The Service a slice was made for.
pub(crate) fn owner(slice: &Value) -> Option<&str> {
    slice["metadata"]["ownerReferences"][0]["name"].as_str()
}

fn remove(server: &mut Server, which: impl Fn(&Value) -> bool) -> bool {
    let slices = server.all(Kind::Slice).filter(|slice: &&Arc<Value>| which(slice));
    let names: Vec<_> = slices.filter_map(|s| Some(s["metadata"]["name"].as_str()?.to_owned())).collect();
    names.iter().filter(|name| server.remove(Kind::Slice, name)).count() > 0
}

fn put(server: &mut Server, service: &Value, name: &str, ports: &Value, endpoints: &[Value]) -> bool {
    let of = &service["metadata"]["name"];
    if server.get(Kind::Slice, name).is_none() {
        let owners = json!([{"kind": "Service", "name": of}]);
        server.create(Kind::Slice, json!({"metadata": {"name": name, "ownerReferences": owners}}));
    }
    let mut labels = service["metadata"]["labels"].clone();
    labels[names::SLICE_SERVICE_LABEL] = of.clone();
    labels[names::SLICE_MANAGED_BY_LABEL] = json!(names::SLICE_CONTROLLER);
    server.edit(Kind::Slice, name, |slice| {
        slice["metadata"]["labels"] = labels;
        (slice["endpoints"], slice["ports"]) = (json!(endpoints), ports.clone());
    })
}

/// A Service's ports at a pod: those with a name the pod does not have lead nowhere.
fn ports(service: &Value, pod: Option<&Value>) -> Value {
    let declared =
        || list(pod.map_or(&Value::Null, |p| &p["spec"]["containers"])).flat_map(|c| list(&c["ports"]));
    let target = |port: &Value| match &port["targetPort"] {
        Value::String(name) => {
            let protocol = |p: &Value| p["protocol"].as_str().unwrap_or("TCP").to_owned();
            let mut same = declared().filter(|d| d["name"] == **name && protocol(d) == protocol(port));
            same.next().map(|d| d["containerPort"].clone())
        }
        number => Some(number.clone()),
    };
    let ports = list(&service["spec"]["ports"])
        .filter_map(|p| Some(json!({"name": p["name"], "port": target(p)?, "protocol": p["protocol"]})));
    ports.collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn serves(service: &Value, pod: &Value) -> bool {
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let mut selector = service["spec"]["selector"].as_object().into_iter().flatten();
    !ended && selector.all(|(key, value)| pod["metadata"]["labels"][key] == *value)
}

fn endpoint(pod: &Value, v6: bool, not_ready_too: bool) -> Option<Value> {
    let ips = pod["status"]["podIPs"].as_array()?;
    let ip = ips.iter().filter_map(|i| i["ip"].as_str()).find(|ip| ip.contains(':') == v6)?;
    let ready =
        pod["status"]["conditions"][0]["status"] == "True" && pod["metadata"]["deletionTimestamp"].is_null();
    Some(json!({"addresses": [ip], "conditions": {"ready": ready || not_ready_too},
        "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}}))
}
