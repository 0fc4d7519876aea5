//! A small API server in memory: carries actions out by the API's rules (preconditions, names, versions), runs an
//! EndpointSlice controller and a load balancer, and feeds the state like watches do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::manual_assert)] // a failure here is a failed test

mod api;
mod controllers;
mod pod;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use external_ip_core::action::{Action, Outcome};
use external_ip_core::mapping::{self, ClusterMapping, Entry};
use external_ip_core::names::{self, Key};
use external_ip_core::objects::{Namespace, Node, Pod, Service, Slice};
use external_ip_core::plan::{Now, Planner};
use external_ip_core::settings::Settings;
use external_ip_core::state::{Change, PodFeed, State, Update};
use serde_json::{Value, json};

use controllers::list;
pub(crate) use pod::{PodBuilder, owner};

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
        PodBuilder::of_stateful_set(self, name)
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

    pub(crate) fn put_node(&mut self, name: &str, addresses: &[(&str, &str)]) {
        let addresses: Vec<Value> =
            addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
        let node = json!({"metadata": {"name": name, "resourceVersion": self.tick().to_string()},
            "status": {"addresses": addresses}});
        self.deliver(Update::Nodes(Change::Applied(parse::<Node>(&node))));
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
