//! Kubernetes' EndpointSlice controller: sees pods and Services late, each at its own pace.

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

    /// Writes a Service's slices, one per family; answers whether something was to be written.
    pub(crate) fn write(&self, server: &mut Server, service: &str) -> bool {
        let found = server
            .history
            .at(Kind::Service, self.services)
            .find(|s| s["metadata"]["name"] == service)
            .cloned();
        let slices = [(format!("{service}-4"), false), (format!("{service}-6"), true)];
        let Some(found) = found else {
            return slices
                .iter()
                .fold(false, |changed, (name, _)| server.remove(Kind::Slice, name) || changed);
        };
        if found["spec"]["selector"].as_object().is_none_or(serde_json::Map::is_empty) {
            return false; // as in Kubernetes: without a selector somebody else writes them, and what is there stays
        }
        let dual = found["spec"]["ipFamilyPolicy"] == "PreferDualStack";
        let mut changed = remove_surplus(server, service);
        for (name, v6) in slices.iter().filter(|(_, v6)| dual || !v6) {
            let wanted = self.slice(server, &found, *v6);
            if server.get(Kind::Slice, name).is_none() {
                server.create(Kind::Slice, json!({"metadata": {"name": name}}));
            }
            changed |= server.edit(Kind::Slice, name, |slice| {
                slice["metadata"]["labels"] = wanted["labels"].clone();
                slice["endpoints"] = wanted["endpoints"].clone();
                slice["ports"] = wanted["ports"].clone();
            });
        }
        changed
    }

    fn slice(&self, server: &Server, service: &Value, v6: bool) -> Value {
        let mut labels = service["metadata"]["labels"].clone();
        labels[names::SLICE_SERVICE_LABEL] = service["metadata"]["name"].clone();
        labels[names::SLICE_MANAGED_BY_LABEL] = json!(names::SLICE_CONTROLLER);
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let ports: Vec<Value> = ports
            .map(|p| json!({"name": p["name"], "port": p["targetPort"], "protocol": p["protocol"]}))
            .collect();
        let not_ready_too = service["spec"]["publishNotReadyAddresses"] == true;
        let pods = server.history.at(Kind::Pod, self.pods);
        let endpoints: Vec<Value> =
            pods.filter(|p| serves(service, p)).filter_map(|p| endpoint(p, v6, not_ready_too)).collect();
        json!({"labels": labels, "endpoints": endpoints, "ports": ports})
    }
}

/// Slices of the controller that were another Service's and are labelled as this one's now: what they hold, the
/// Service's own slices hold already.
fn remove_surplus(server: &mut Server, service: &str) -> bool {
    let is_surplus = |slice: &&std::sync::Arc<Value>| {
        let metadata = &slice["metadata"];
        let of = |label: &str| &metadata["labels"][label];
        *of(names::SLICE_SERVICE_LABEL) == service
            && *of(names::SLICE_MANAGED_BY_LABEL) == names::SLICE_CONTROLLER
            && metadata["name"]
                .as_str()
                .and_then(|name| name.rsplit_once('-'))
                .is_some_and(|(of, _)| of != service)
    };
    let surplus = server.all(Kind::Slice).filter(is_surplus);
    let surplus: Vec<_> =
        surplus.filter_map(|slice| Some(slice["metadata"]["name"].as_str()?.to_owned())).collect();
    surplus.iter().filter(|name| server.remove(Kind::Slice, name)).count() > 0
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
