//! Carries actions out by the API's rules: preconditions, names, versions.

use external_ip_core::action::{Action, Outcome};
use external_ip_core::names::{self, Key};
use external_ip_core::objects::{Pod, Service};
use external_ip_core::state::{Change, Update};
use serde_json::{Value, json};

use super::{World, feed_of, parse};

impl World {
    pub(super) fn perform(&mut self, action: &Action) -> Outcome {
        let outcome = match action {
            Action::CreateService(_) => self.create(&action.body()),
            Action::UpdateService { desired, .. } => self.patch(&desired.key, &action.body()),
            Action::AnnotateService { key, .. } => self.patch(key, &action.body()),
            Action::DeleteService { key, uid, version } => self.remove(key, uid, *version),
            Action::LabelPod { key, uid, pod_id } => self.label(key, uid, pod_id),
            Action::LiftGate { key, .. } | Action::MarkRouted { key, .. } => {
                self.patch_pod(&key.name, action.body())
            }
            Action::RecordEvent(event) => {
                let told = (event.kind.clone(), event.name.clone(), event.reason.code.as_str().to_owned());
                self.events.push(told);
                self.said = event.reason.message();
                Outcome::Done
            }
        };
        if outcome == Outcome::Done {
            self.writes.push(action.kind());
        }
        outcome
    }

    fn create(&mut self, body: &Value) -> Outcome {
        if let Some(message) = &self.refuse_creates {
            return Outcome::Refused(message.clone());
        }
        let balances = body["spec"]["type"] == "LoadBalancer";
        if let Some(message) = self.refuse_balancers.as_ref().filter(|_| balances) {
            return Outcome::Refused(message.clone());
        }
        let name = body["metadata"]["name"].as_str().unwrap().to_owned();
        if let Some(taken) = self.foreign.get(&name).or(self.services.get(&name)) {
            return Outcome::NameTaken {
                uid: taken["metadata"]["uid"].as_str().unwrap().into(),
                version: taken["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap(),
                ours: self.services.contains_key(&name),
                adoptable: taken["metadata"]["annotations"][names::ADOPT_ANNOTATION] == "true",
                selector: taken["spec"]["selector"]
                    .as_object()
                    .into_iter()
                    .flat_map(|m| m.keys().cloned())
                    .collect(),
                addresses: parse::<Service>(taken).given().collect(),
            };
        }
        let mut value = body.clone();
        value["metadata"]["uid"] = json!(format!("service-{}", self.version));
        self.allocate_node_ports(&mut value);
        value["metadata"]["creationTimestamp"] = json!(self.timestamp());
        self.put_service(value);
        Outcome::Done
    }

    /// As the API server does, for NodePort Services here.
    fn allocate_node_ports(&mut self, service: &mut Value) {
        if service["spec"]["type"] != "NodePort" {
            return;
        }
        for port in service["spec"]["ports"].as_array_mut().unwrap() {
            if port["nodePort"].is_null() {
                port["nodePort"] = json!(self.next_node_port);
                self.next_node_port += 1;
            }
        }
    }

    fn patch(&mut self, key: &Key, patch: &Value) -> Outcome {
        let name = &*key.name;
        let found = self.services.get(name).or(self.foreign.get(name)).cloned();
        let Some(mut value) = found else { return Outcome::Conflict };
        let same = |field: &str| value["metadata"][field] == patch["metadata"][field];
        if !same("uid") || !same("resourceVersion") {
            return Outcome::Conflict;
        }
        json_patch::merge(&mut value, patch);
        self.allocate_node_ports(&mut value);
        self.foreign.remove(name);
        self.put_service(value);
        Outcome::Done
    }

    fn remove(&mut self, key: &Key, uid: &str, version: u64) -> Outcome {
        let Some(value) = self.services.get(&*key.name) else { return Outcome::Conflict };
        let version = version.to_string();
        if value["metadata"]["uid"] != uid || value["metadata"]["resourceVersion"] != version {
            return Outcome::Conflict;
        }
        self.delete_service(&key.name);
        Outcome::Done
    }

    fn label(&mut self, key: &Key, uid: &str, pod_id: &str) -> Outcome {
        let Some(value) = self.pods.get(&*key.name).cloned() else { return Outcome::Conflict };
        if value["metadata"]["uid"] != uid {
            return Outcome::Conflict;
        }
        let before = feed_of(&value);
        self.edit_pod(&key.name, |v| v["metadata"]["labels"][names::POD_ID_LABEL] = json!(pod_id));
        if before != feed_of(&self.pods[&*key.name]) {
            self.deliver(Update::Pods(before, Change::Deleted(parse::<Pod>(&value))));
        }
        Outcome::Done
    }

    fn patch_pod(&mut self, name: &str, patch: Value) -> Outcome {
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        let Some(mut value) = self.pods.get(name).cloned() else { return Outcome::Conflict };
        if json_patch::patch(&mut value, &patch).is_err() {
            return Outcome::Conflict;
        }
        self.put_pod(value);
        Outcome::Done
    }
}
