//! A Kubernetes in which nothing is left to do: pods in clusters of twenty, each with its Service, address and
//! EndpointSlice, as the watches show them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use external_ip_core::action::{Action, Outcome};
use external_ip_core::names::{self, Key};
use external_ip_core::objects::{Namespace, Pod, Service, Slice};
use external_ip_core::plan::{Now, Planner};
use external_ip_core::settings::Settings;
use external_ip_core::state::{Change, PodFeed, State, Update};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Pods of a cluster.
pub(crate) const MEMBERS: usize = 20;
/// Clusters of a namespace.
const CLUSTERS: usize = 10;

/// The objects of a world, as JSON.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) namespaces: Vec<Value>,
    pub(crate) pods: Vec<Value>,
    pub(crate) services: Vec<Value>,
    pub(crate) slices: Vec<Value>,
}

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) planner: Planner,
    version: u64,
    /// What there is, where somebody asks.
    pub(crate) objects: Option<Objects>,
}

pub(crate) const NOW: Now = Now { monotonic: Duration::from_secs(1_000), wall: 1_790_000_000_000_000 };

/// The cluster a pod belongs to.
pub(crate) fn cluster_of(pod: usize) -> Key {
    let cluster = pod / MEMBERS;
    Key::new(format!("data-{}", cluster / CLUSTERS), format!("cluster-{cluster}"))
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.limits.slots_per_namespace = 10_000;
    settings.limits.load_balancers = 100_000;
    settings
}

#[allow(clippy::expect_used)] // what is written here by hand can be read
fn read<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).expect("an object")
}

fn address(base: [u8; 2], n: usize) -> Ipv4Addr {
    let [.., high, low] = n.to_be_bytes();
    Ipv4Addr::new(base[0], base[1], high, low)
}

impl World {
    /// Pods that were admitted, and nothing done about them yet.
    pub(crate) fn new(pods: usize, objects: Option<Objects>) -> Self {
        let mut state = State::new(Arc::new(settings()));
        let mut objects = objects;
        for n in 0..=pods / MEMBERS / CLUSTERS {
            let text = format!(
                r#"{{"metadata":{{"name":"data-{n}","resourceVersion":"1","labels":{{"external-ip.dev/enabled":"true"}}}}}}"#
            );
            if let Some(objects) = &mut objects {
                objects.namespaces.push(read(&text));
            }
            state.apply(Update::Namespaces(Change::Applied(read::<Namespace>(&text))));
        }
        let planner = Planner::new(&state);
        let mut world = Self { state, planner, version: 10, objects };
        for n in 0..pods {
            world.show_pod(n, true);
        }
        world
    }

    /// Pods that have all they ask for.
    pub(crate) fn converged(pods: usize, objects: Option<Objects>) -> Self {
        let mut world = Self::new(pods, objects);
        let actions = world.plan();
        assert_eq!(actions.len(), pods, "a Service for each");
        for action in &actions {
            world.carry_out(action);
        }
        let left = world.plan();
        assert!(left.is_empty(), "converged: {left:?}");
        world
    }

    fn tick(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// The watch shows a pod.
    pub(crate) fn show_pod(&mut self, n: usize, ready: bool) {
        let update = self.pod_update(n, ready);
        self.state.apply(update);
    }

    /// What the watch says of a pod.
    pub(crate) fn pod_update(&mut self, n: usize, ready: bool) -> Update {
        let text = self.pod(n, ready);
        if let Some(objects) = &mut self.objects {
            objects.pods.push(read(&text));
        }
        Update::Pods(PodFeed::Labelled, Change::Applied(read::<Pod>(&text)))
    }

    fn pod(&mut self, n: usize, ready: bool) -> String {
        let (version, Key { namespace, name: cluster }) = (self.tick(), cluster_of(n));
        let name = format!("{cluster}-{}", n % MEMBERS);
        let (id, ip) = (names::pod_id_of_name(&cluster, &name), address([10, 0], n));
        let ready = if ready { "True" } else { "False" };
        format!(
            r#"{{"metadata":{{"namespace":"{namespace}","name":"{name}","uid":"pod-{n}","resourceVersion":"{version}",
            "creationTimestamp":"2026-09-21T13:00:00Z","labels":{{"external-ip.dev/cluster":"{cluster}","app":"{cluster}",
            "stamp.external-ip.dev/pod-id":"{id}"}},"annotations":{{"stamp.external-ip.dev/version":"1"}},
            "ownerReferences":[{{"apiVersion":"apps/v1","kind":"StatefulSet","name":"{cluster}","uid":"set-{cluster}","controller":true}}]}},
            "spec":{{"containers":[{{"ports":[{{"name":"hotrod","containerPort":11222}}]}}],"hostname":"{name}","subdomain":"{cluster}",
            "nodeName":"node-{}"}},"status":{{"phase":"Running","podIPs":[{{"ip":"{ip}"}}],
            "conditions":[{{"type":"Ready","status":"{ready}","lastTransitionTime":"2026-09-21T13:00:05Z"}}]}}}}"#,
            n % 50
        )
    }

    /// What is to be done now.
    pub(crate) fn plan(&mut self) -> Vec<Action> {
        self.planner.touch(self.state.take_dirty());
        self.planner.plan(&self.state, NOW)
    }

    /// A Service is made as it was planned; it gets its address, and its endpoints.
    fn carry_out(&mut self, action: &Action) {
        let Action::CreateService(desired) = action else { return };
        let version = self.tick();
        self.planner.settle(action, &Outcome::Done, NOW);
        let mut service = action.body();
        let n = usize::try_from(version).unwrap_or_default();
        let ip = address([11, 0], n);
        service["metadata"]["uid"] = json!(format!("service-{n}"));
        service["metadata"]["resourceVersion"] = json!(version.to_string());
        service["metadata"]["creationTimestamp"] = json!("2026-09-21T13:00:01Z");
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
        self.state.apply(Update::Services(Change::Applied(read::<Service>(&service.to_string()))));
        let pod = Key::new(desired.key.namespace.clone(), desired.pod.as_str());
        let Some(pod) = self.state.pod(&pod) else { return };
        let mut labels = service["metadata"]["labels"].clone();
        labels[names::SLICE_SERVICE_LABEL] = json!(&*desired.key.name);
        labels[names::SLICE_MANAGED_BY_LABEL] = json!(names::SLICE_CONTROLLER);
        let ports: Vec<Value> = desired
            .ports
            .iter()
            .map(|p| json!({"name": p.name, "port": p.target, "protocol": p.protocol}))
            .collect();
        let slice = json!({"metadata": {"namespace": &*desired.key.namespace, "name": format!("{}-x", desired.key.name),
            "uid": "slice", "resourceVersion": version.to_string(), "labels": labels}, "ports": ports,
            "endpoints": [{"addresses": pod.ips, "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "uid": pod.uid}}]});
        self.state.apply(Update::Slices(Change::Applied(read::<Slice>(&slice.to_string()))));
        if let Some(objects) = &mut self.objects {
            objects.services.push(service);
            objects.slices.push(slice);
        }
    }
}
