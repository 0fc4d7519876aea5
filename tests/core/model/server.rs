//! An API server: objects, one growing version for all kinds, preconditions, and a log for the watches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use external_ip_core::action::{Action, Outcome};
use external_ip_core::names;
use serde_json::{Value, json};

use crate::judge::{History, Kind};
use crate::node_ports::{self, NodePorts};

pub(crate) const NS: &str = "data";

/// One change of one object.
pub(crate) struct Event {
    pub(crate) kind: Kind,
    pub(crate) version: u64,
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) after: Option<Arc<Value>>,
}

#[derive(Default)]
pub(crate) struct Server {
    pub(crate) clock: Duration,
    version: u64,
    objects: BTreeMap<(Kind, String), Arc<Value>>,
    pub(crate) log: Vec<Event>,
    pub(crate) history: History,
    node_ports: NodePorts,
}

impl Server {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&(kind, name.to_owned()))
    }

    pub(crate) fn all(&self, kind: Kind) -> impl Iterator<Item = &Arc<Value>> {
        self.objects.iter().filter(move |((k, _), _)| *k == kind).map(|(_, v)| v)
    }

    /// Names of a kind's objects, in order.
    pub(crate) fn names(&self, kind: Kind) -> Vec<String> {
        self.objects.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.clone()).collect()
    }

    /// The `index`th object of a kind, modulo what there is.
    pub(crate) fn nth(&self, kind: Kind, index: u8) -> Option<String> {
        nth(&self.names(kind), index).cloned()
    }

    fn put(&mut self, kind: Kind, name: &str, after: Option<Value>) {
        self.version += 1;
        let version = self.version;
        let after = after.map(|mut value| {
            value["metadata"]["resourceVersion"] = json!(version.to_string());
            Arc::new(value)
        });
        let place = (kind, name.to_owned());
        let before = match &after {
            Some(value) => self.objects.insert(place, value.clone()),
            None => self.objects.remove(&place),
        };
        if kind == Kind::Service {
            self.node_ports.release(before.as_deref(), after.as_deref());
        }
        self.history.record(kind, name, version, after.clone());
        self.log.push(Event { kind, version, before, after });
    }

    /// Makes an object with a UID of its own.
    pub(crate) fn create(&mut self, kind: Kind, mut value: Value) {
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(self.get(kind, &name).is_none(), "{name} exists");
        if kind != Kind::Node {
            value["metadata"]["namespace"] = json!(NS);
        }
        if kind == Kind::Service {
            self.node_ports.fill(None, &mut value);
        }
        value["metadata"]["uid"] = json!(format!("{kind:?}-{}", self.version + 1));
        value["metadata"]["creationTimestamp"] = json!(self.timestamp());
        self.put(kind, &name, Some(value));
    }

    /// Changes an object; answers whether it is there and was another before.
    pub(crate) fn edit(&mut self, kind: Kind, name: &str, edit: impl FnOnce(&mut Value)) -> bool {
        let Some(found) = self.get(kind, name).cloned() else { return false };
        let mut value = (*found).clone();
        edit(&mut value);
        if kind == Kind::Service {
            self.node_ports.fill(Some(&found), &mut value);
        }
        let changed = value != *found;
        if changed {
            self.put(kind, name, Some(value));
        }
        changed
    }

    pub(crate) fn remove(&mut self, kind: Kind, name: &str) -> bool {
        let there = self.get(kind, name).is_some();
        if there {
            self.put(kind, name, None);
        }
        there
    }

    pub(crate) fn timestamp(&self) -> String {
        jiff::Timestamp::from_second(i64::try_from(self.clock.as_secs()).unwrap()).unwrap().to_string()
    }

    /// Deletes a Service; one with an address is held by its load balancer's finalizer.
    pub(crate) fn delete_service(&mut self, name: &str) -> bool {
        let Some(found) = self.get(Kind::Service, name) else { return false };
        if found["status"]["loadBalancer"]["ingress"][0].is_null() {
            return self.remove(Kind::Service, name);
        }
        let at = self.timestamp();
        self.edit(Kind::Service, name, |s| {
            if s["metadata"]["deletionTimestamp"].is_null() {
                s["metadata"]["deletionTimestamp"] = json!(at);
            }
        })
    }

    /// Carries out a write of the product by what its body says.
    pub(crate) fn perform(&mut self, action: &Action) -> Outcome {
        let body = action.body();
        match action {
            Action::CreateService(_) => self.post(body),
            Action::UpdateService { desired, .. } => self.merge(&desired.key.name, &body),
            Action::AnnotateService { key, .. } => self.merge(&key.name, &body),
            Action::DeleteService { key, .. } => {
                let Some(found) = self.get(Kind::Service, &key.name) else { return Outcome::Conflict };
                if !meets(found, &body["preconditions"]) {
                    return Outcome::Conflict;
                }
                self.delete_service(&key.name);
                Outcome::Done
            }
            Action::LabelPod { key, .. } | Action::LiftGate { key, .. } | Action::MarkRouted { key, .. } => {
                self.patch_pod(&key.name, body)
            }
            Action::RecordEvent(_) => Outcome::Done,
        }
    }

    /// A Service's first port has another node port from now on.
    pub(crate) fn renumber(&mut self, name: &str) -> bool {
        let number = self.node_ports.another();
        self.edit(Kind::Service, name, |s| s["spec"]["ports"][0]["nodePort"] = json!(number))
    }

    fn post(&mut self, body: Value) -> Outcome {
        if let Some(why) = node_ports::invalid(&body) {
            return Outcome::Refused(why);
        }
        let Some(taken) = self.get(Kind::Service, body["metadata"]["name"].as_str().unwrap()) else {
            self.create(Kind::Service, body);
            return Outcome::Done;
        };
        let metadata = &taken["metadata"];
        Outcome::NameTaken {
            uid: metadata["uid"].as_str().unwrap().into(),
            version: metadata["resourceVersion"].as_str().unwrap().parse().unwrap(),
            ours: metadata["labels"][names::MANAGED_BY_LABEL] == names::CONTROLLER_NAME
                && metadata["annotations"][names::OWNER_ANNOTATION] == names::CONTROLLER_NAME,
            adoptable: metadata["annotations"][names::ADOPT_ANNOTATION] == "true",
            selector: taken["spec"]["selector"]
                .as_object()
                .into_iter()
                .flat_map(|m| m.keys().cloned())
                .collect(),
            addresses: serde_json::from_value::<external_ip_core::objects::Service>((**taken).clone())
                .unwrap()
                .given()
                .collect(),
        }
    }

    fn merge(&mut self, name: &str, patch: &Value) -> Outcome {
        let Some(found) = self.get(Kind::Service, name) else { return Outcome::Conflict };
        if !meets(found, &patch["metadata"]) {
            return Outcome::Conflict;
        }
        let mut merged = (**found).clone();
        json_patch::merge(&mut merged, patch);
        if let Some(why) = node_ports::invalid(&merged) {
            return Outcome::Refused(why);
        }
        self.edit(Kind::Service, name, |service| *service = merged);
        Outcome::Done
    }

    fn patch_pod(&mut self, name: &str, body: Value) -> Outcome {
        let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
        let Some(found) = self.get(Kind::Pod, name) else { return Outcome::Conflict };
        let mut pod = (**found).clone();
        if json_patch::patch(&mut pod, &patch).is_err() {
            return Outcome::Conflict;
        }
        self.edit(Kind::Pod, name, |found| *found = pod);
        Outcome::Done
    }
}

/// Whether an object is the one a write was planned from, as far as the write says so.
fn meets(found: &Value, preconditions: &Value) -> bool {
    ["uid", "resourceVersion"]
        .iter()
        .all(|field| preconditions[field].is_null() || preconditions[field] == found["metadata"][field])
}

/// An element by its number, modulo how many there are.
pub(crate) fn nth<T>(list: &[T], index: u8) -> Option<&T> {
    list.get(usize::from(index) % list.len().max(1))
}
