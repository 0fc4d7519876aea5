//! A small API server in memory: carries actions out by the API's rules (preconditions, names, versions), runs an
//! EndpointSlice controller and a load balancer, and feeds the state like watches do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::manual_assert)] // a failure here is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use external_ip_core::action::{Action, Outcome};
use external_ip_core::mapping::{self, ClusterMapping, Entry};
use external_ip_core::names::{self, Key};
use external_ip_core::objects::{Namespace, Node, Pod, Service, Slice};
use external_ip_core::plan::{Now, Planner};
use external_ip_core::settings::Settings;
use external_ip_core::stamp;
use external_ip_core::state::{Change, PodFeed, State, Update};
use serde_json::{Value, json};

pub(crate) const NS: &str = "data";

/// The annotation in which the load balancer is asked for addresses.
pub(crate) const ASKS: &str = "example.com/ip";

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) planner: Planner,
    pub(crate) clock: Duration,
    version: u64,
    pub(crate) pods: BTreeMap<String, Value>,
    pub(crate) services: BTreeMap<String, Value>,
    slices: BTreeMap<String, Value>,
    /// Services of other people, by name: not in our watch.
    pub(crate) foreign: BTreeMap<String, Value>,
    pub(crate) events: Vec<(String, String, String)>,
    /// What the last Event said.
    pub(crate) said: String,
    /// Every write carried out, by kind.
    pub(crate) writes: Vec<&'static str>,
    pub(crate) load_balancer: bool,
    slices_held: bool,
    /// What the API server answers to creates instead of doing them.
    pub(crate) refuse_creates: Option<String>,
    /// What it answers to creates of LoadBalancer Services only.
    pub(crate) refuse_balancers: Option<String>,
    next_node_port: u16,
    next_ip: u8,
    free_ips: BTreeSet<u8>,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut state = State::new(Arc::new(settings));
        state.apply(Update::Namespaces(Change::Listed { items: vec![namespace(1, false)], version: 1 }));
        let planner = Planner::new(&state);
        Self {
            state,
            planner,
            clock: Duration::from_secs(1000),
            version: 10,
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            foreign: BTreeMap::new(),
            events: Vec::new(),
            said: String::new(),
            writes: Vec::new(),
            load_balancer: true,
            slices_held: false,
            refuse_creates: None,
            refuse_balancers: None,
            next_node_port: 30_000,
            next_ip: 1,
            free_ips: BTreeSet::new(),
        }
    }

    pub(crate) fn seconds(&self) -> i64 {
        i64::try_from(self.clock.as_secs()).unwrap()
    }

    /// A replica with other settings takes over and sees what is there.
    pub(crate) fn restart(&mut self, settings: Settings) {
        self.state = State::new(Arc::new(settings));
        let version = self.tick();
        self.deliver(Update::Namespaces(Change::Listed { items: vec![namespace(1, false)], version }));
        for value in self.pods.clone().values() {
            self.deliver(Update::Pods(feed_of(value), Change::Applied(parse::<Pod>(value))));
        }
        for value in self.services.clone().values() {
            self.deliver(Update::Services(Change::Applied(parse::<Service>(value))));
        }
        for value in self.slices.clone().values() {
            self.slice(value);
        }
        self.planner = Planner::new(&self.state);
    }

    pub(crate) fn now(&self) -> Now {
        Now { monotonic: self.clock, wall: i64::try_from(self.clock.as_micros()).unwrap() }
    }

    fn deliver(&mut self, update: Update) {
        self.state.apply(update);
    }

    pub(crate) fn tick(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Plans, writes and delivers until nothing is left to do now. Panics where that never ends.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            let dirty = self.state.take_dirty();
            self.planner.touch(dirty);
            let actions = self.planner.plan(&self.state, self.now());
            if actions.is_empty() && !self.run_controllers() {
                return;
            }
            for action in actions {
                let outcome = self.perform(&action);
                self.planner.settle(&action, &outcome, self.now());
            }
        }
        panic!("never settles; last writes: {:?}", &self.writes[self.writes.len().saturating_sub(10)..]);
    }

    /// Lets time pass, with whatever the planner wants to do on the way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.clock + time;
        self.settle();
        while let Some(at) = self.planner.next_wake().filter(|at| *at <= end) {
            self.clock = self.clock.max(at);
            self.settle();
            if self.planner.next_wake() == Some(at) {
                panic!("wakes at {at:?} again and again");
            }
        }
        self.clock = end;
        self.settle();
    }

    pub(crate) fn pod(&mut self, name: &str) -> PodBuilder<'_> {
        PodBuilder { value: pod_json(name), world: self, named: true }
    }

    pub(crate) fn put_pod(&mut self, mut value: Value) {
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        value["metadata"]["resourceVersion"] = json!(self.tick().to_string());
        self.pods.insert(name, value.clone());
        self.deliver(Update::Pods(feed_of(&value), Change::Applied(parse::<Pod>(&value))));
    }

    pub(crate) fn has_pod(&self, name: &str) -> bool {
        self.pods.contains_key(name)
    }

    pub(crate) fn all_pods(&self) -> impl Iterator<Item = &Value> {
        self.pods.values()
    }

    /// Whether the EndpointSlice controller rests: what is seen of it stays as it is.
    pub(crate) fn hold_slices(&mut self, held: bool) {
        self.slices_held = held;
    }

    /// UIDs of the pods that the slices, as seen, have behind a port of a Service.
    pub(crate) fn seen_behind(&self, service: &Value, port: &Value) -> Vec<&str> {
        let of =
            |s: &&Value| s["metadata"]["labels"][names::SLICE_SERVICE_LABEL] == service["metadata"]["name"];
        let slices =
            self.slices.values().filter(of).filter(|s| list(&s["ports"]).any(|p| p["name"] == port["name"]));
        slices.flat_map(|s| list(&s["endpoints"])).filter_map(|e| e["targetRef"]["uid"].as_str()).collect()
    }

    pub(crate) fn pod_value(&self, name: &str) -> Value {
        self.pods[name].clone()
    }

    pub(crate) fn edit_pod(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = self.pods[name].clone();
        edit(&mut value);
        self.put_pod(value);
    }

    pub(crate) fn delete_pod(&mut self, name: &str) {
        let Some(mut value) = self.pods.remove(name) else { return };
        value["metadata"]["resourceVersion"] = json!(self.tick().to_string());
        self.deliver(Update::Pods(feed_of(&value), Change::Deleted(parse::<Pod>(&value))));
    }

    pub(crate) fn enable_namespace(&mut self, enabled: bool) {
        let version = self.tick();
        let change = if enabled {
            Change::Applied(namespace(version, false))
        } else {
            Change::Deleted(namespace(version, false))
        };
        self.deliver(Update::Namespaces(change));
    }

    pub(crate) fn edit_service(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = self.services[name].clone();
        edit(&mut value);
        self.put_service(value);
    }

    pub(crate) fn put_service(&mut self, mut value: Value) {
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        value["metadata"]["resourceVersion"] = json!(self.tick().to_string());
        self.services.insert(name, value.clone());
        self.deliver(Update::Services(Change::Applied(parse::<Service>(&value))));
    }

    pub(crate) fn delete_service(&mut self, name: &str) {
        let Some(mut value) = self.services.remove(name) else { return };
        let ip = value["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
        self.free_ips.extend(ip.and_then(|ip| ip.rsplit('.').next()?.parse::<u8>().ok()));
        value["metadata"]["resourceVersion"] = json!(self.tick().to_string());
        self.deliver(Update::Services(Change::Deleted(parse::<Service>(&value))));
    }

    /// Edits the slice of a Service.
    pub(crate) fn edit_slice(&mut self, service: &str, edit: impl FnOnce(&mut Value)) {
        let place = format!("{service}/0");
        let mut value = self.slices[&place].clone();
        edit(&mut value);
        value["metadata"]["resourceVersion"] = json!(self.tick().to_string());
        self.slices.insert(place, value.clone());
        self.slice(&value);
    }

    pub(crate) fn slice(&mut self, value: &Value) {
        self.deliver(Update::Slices(Change::Applied(parse::<Slice>(value))));
    }

    pub(crate) fn mapping(&self, cluster: &str) -> Option<ClusterMapping> {
        mapping::cluster_mapping(&self.state, &Key::new(NS, cluster))
    }

    pub(crate) fn entry(&self, cluster: &str, pod: &str) -> Entry {
        let mapping = self.mapping(cluster).expect("cluster is in the map");
        mapping.entries.into_iter().find(|e| e.pod == pod).expect("pod is in the map")
    }

    /// `state reason address` of every entry, for short assertions.
    pub(crate) fn summary(&self, cluster: &str) -> Vec<String> {
        let entries = self.mapping(cluster).map(|m| m.entries).unwrap_or_default();
        entries
            .iter()
            .map(|e| {
                let address = e.external.iter().flat_map(|x| &x.ips).map(ToString::to_string).next();
                let last = address.unwrap_or_else(|| e.reason.unwrap_or("-").to_owned());
                format!("{} {:?} {last}", e.pod, e.state)
            })
            .collect()
    }

    pub(crate) fn take_writes(&mut self) -> Vec<&'static str> {
        let mut writes = std::mem::take(&mut self.writes);
        writes.sort_unstable();
        writes
    }

    fn perform(&mut self, action: &Action) -> Outcome {
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

    pub(crate) fn put_node(&mut self, name: &str, addresses: &[(&str, &str)]) {
        let addresses: Vec<Value> =
            addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
        let node = json!({"metadata": {"name": name, "resourceVersion": self.tick().to_string()},
            "status": {"addresses": addresses}});
        self.deliver(Update::Nodes(Change::Applied(parse::<Node>(&node))));
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

    /// Another replica takes over and knows nothing.
    pub(crate) fn new_leader(&mut self) {
        self.planner = Planner::new(&self.state);
    }

    /// Plans without anything being carried out or delivered but pod writes.
    pub(crate) fn plan_once(&mut self) {
        self.planner.touch(self.state.take_dirty());
        for action in self.planner.plan(&self.state, self.now()) {
            if matches!(action, Action::LiftGate { .. }) {
                self.perform(&action);
            }
            self.planner.settle(&action, &Outcome::NotLeading, self.now());
        }
        self.new_leader();
    }

    pub(crate) fn kept(&self, cluster: &str) -> mapping::KeptAddresses {
        mapping::kept_addresses(&self.state, &Key::new(NS, cluster))
    }

    pub(crate) fn timestamp(&self) -> String {
        jiff::Timestamp::from_second(i64::try_from(self.clock.as_secs()).unwrap()).unwrap().to_string()
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

    /// The load balancer and the EndpointSlice controller; answers whether they changed anything.
    fn run_controllers(&mut self) -> bool {
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

    fn allocate(&mut self) -> String {
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

fn list(value: &Value) -> impl Iterator<Item = &Value> {
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

pub(crate) struct PodBuilder<'w> {
    world: &'w mut World,
    value: Value,
    named: bool,
}

impl PodBuilder<'_> {
    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.value["metadata"]["labels"][key] = json!(value);
        self
    }

    pub(crate) fn annotation(mut self, key: &str, value: &str) -> Self {
        self.value["metadata"]["annotations"][key] = json!(value);
        self
    }

    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        self.value.pointer_mut(parent).unwrap()[field] = value;
        self
    }

    /// As a review shows a pod that is to get its name later.
    pub(crate) fn without_name(self) -> Self {
        self.set("/metadata/name", json!(""))
    }

    pub(crate) fn named(self, name: &str) -> Self {
        self.set("/metadata/name", json!(name))
    }

    /// Made at this second instead of one by one.
    pub(crate) fn created(self, second: i64) -> Self {
        self.set(
            "/metadata/creationTimestamp",
            json!(jiff::Timestamp::from_second(second).unwrap().to_string()),
        )
    }

    pub(crate) fn without(mut self, parent: &str, field: &str) -> Self {
        self.value.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field);
        self
    }

    /// Of a ReplicaSet: its name never comes back.
    pub(crate) fn anonymous(mut self) -> Self {
        self.named = false;
        self.set("/metadata/ownerReferences", owner("ReplicaSet"))
    }

    /// What the real webhook makes of it.
    pub(crate) fn admitted(mut self) -> Self {
        let review = json!({"request": {"uid": format!("review-{}", self.world.version), "operation": "CREATE", "namespace": NS, "object": self.value,
            "resource": {"group": "", "version": "v1", "resource": "pods"}}});
        let state = &self.world.state;
        let kept = |cluster: &Key, name: &str| mapping::kept_addresses(state, cluster).get(name).cloned();
        let answer = stamp::answer(review.to_string().as_bytes(), state.settings(), &kept).unwrap();
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        if let Some(patch) = answer["response"]["patch"].as_str() {
            let patch = data_encoding::BASE64.decode(patch.as_bytes()).unwrap();
            let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
            json_patch::patch(&mut self.value, &patch).unwrap();
        }
        self
    }

    /// Held by our gate behind another one, made now, and not started.
    pub(crate) fn gated(self) -> Self {
        let now = self.world.timestamp();
        self.set(
            "/spec/schedulingGates",
            json!([{"name": "example.com/quota"}, {"name": names::ADDRESS_GATE}]),
        )
        .set("/metadata/creationTimestamp", json!(now))
        .set("/status/podIPs", json!([]))
    }

    /// Created while the webhook was there.
    pub(crate) fn stamped(self) -> Self {
        let cluster =
            self.value["metadata"]["labels"][names::CLUSTER_LABEL].as_str().unwrap_or("c").to_owned();
        let name = self.value["metadata"]["name"].as_str().unwrap().to_owned();
        let id = if self.named {
            names::pod_id_of_name(&cluster, &name)
        } else {
            names::pod_id_of_seed(&cluster, &name)
        };
        self.label(names::POD_ID_LABEL, &id)
    }

    pub(crate) fn create(mut self) {
        let version = self.world.tick();
        let (second, ip) = (i64::try_from(version).unwrap(), u8::try_from(version % 250).unwrap());
        let created = jiff::Timestamp::from_second(second).unwrap();
        let metadata = &mut self.value["metadata"];
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("pod-{version}"));
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!(created.to_string());
        }
        if self.value["status"]["podIPs"].is_null() {
            self.value["status"]["podIPs"] = json!([{"ip": format!("198.18.{}.{ip}", version / 250)}]);
        }
        self.world.put_pod(self.value);
    }
}

pub(crate) fn owner(kind: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": "c", "uid": "owner", "controller": true}])
}

fn pod_json(name: &str) -> Value {
    json!({
        "metadata": {"namespace": NS, "name": name, "labels": {names::CLUSTER_LABEL: "c"}, "annotations": {},
            "ownerReferences": owner("StatefulSet")},
        "spec": {"containers": [{"ports": [{"name": "hotrod", "containerPort": 11222}]}],
            "hostname": name, "subdomain": "c"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn namespace(version: u64, deleting: bool) -> Namespace {
    let mut value = json!({"metadata": {"name": NS, "resourceVersion": version.to_string(),
        "labels": {names::ENABLED_LABEL: "true"}}});
    if deleting {
        value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    parse(&value)
}

fn feed_of(pod: &Value) -> PodFeed {
    let labels = &pod["metadata"]["labels"];
    match (labels[names::CLUSTER_LABEL].is_string(), labels[names::POD_ID_LABEL].is_string()) {
        (true, _) => PodFeed::Labelled,
        (false, true) => PodFeed::Stamped,
        (false, false) => PodFeed::Configured(0),
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("projection reads what the API server writes")
}
