//! Where bursts take place: a control plane of its own, and namespaces full of pods that wait.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use external_ip_core::action::Action;
use external_ip_core::names::{self, Key};
use external_ip_core::objects::{Namespace, Pod};
use external_ip_core::plan::Planner;
use external_ip_core::settings::{Settings, parse};
use external_ip_core::state::{Change, PodFeed, State, Update};
use local_cluster::{Cluster, Level, Options};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::IN_FLIGHT;
use crate::api::{Api, Call};
use crate::process;
use crate::product::LIMITS;
use crate::world::{MEMBERS, NOW};

/// Class whose addresses are there at once: a status writer of our own gives them.
pub(super) const AT_ONCE: &str = "at-once";
/// Class of MetalLB, which gives about 21 addresses a second.
pub(super) const METALLB: &str = "metallb";
/// Both without node ports, of which there are only 2 700.
pub(super) const CLASSES: &str = "classes:
  default: {}
  at-once: {service: {allocateLoadBalancerNodePorts: false, loadBalancerClass: example.com/at-once}}
  metallb: {service: {allocateLoadBalancerNodePorts: false}}";

/// The account of the shipped manifests: the API server's fair queuing knows it as one of many service accounts.
const ACCOUNT: &str = "system:serviceaccount:external-ip-controller:external-ip-controller";
/// Longest wait for what Kubernetes does.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) struct Ground {
    pub(super) admin: Api,
    /// As the product.
    pub(super) account: Api,
    pub(super) kubeconfig: PathBuf,
    pub(super) runtime: Runtime,
    settings: Arc<Settings>,
    pub(super) cluster: Cluster,
}

/// Pods of one namespace.
pub(super) struct Town {
    pub(super) namespace: String,
    pub(super) pods: usize,
    pub(super) class: &'static str,
}

impl Town {
    pub(super) fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    pub(super) fn slices(&self) -> String {
        format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", self.namespace)
    }

    fn pod(&self, n: usize, node: &str) -> Value {
        let cluster = format!("cluster-{}", n / MEMBERS);
        let name = format!("{cluster}-{}", n % MEMBERS);
        json!({
            "metadata": {
                "name": name,
                "labels": {names::CLUSTER_LABEL: cluster, names::POD_ID_LABEL: names::pod_id_of_name(&cluster, &name)},
                "annotations": {names::STAMP_VERSION_ANNOTATION: "1", names::CLASS_ANNOTATION: self.class},
            },
            "spec": {
                "nodeName": node,
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "none", "ports": [{"name": "hotrod", "containerPort": 11222}]}],
            },
        })
    }
}

impl Ground {
    pub(super) fn prepare() -> Result<Self> {
        let cluster = Cluster::up(&Options::for_tests("bench", Level::ControlPlane))?;
        let kubeconfig = cluster.user_kubeconfig(ACCOUNT, &["system:serviceaccounts"])?;
        let admin = Api::new(&cluster.user_kubeconfig("bench", &["system:masters"])?)?;
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: external-ip-controller}}}}\n---\n\
             {{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {{name: bench}}, \
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}, \
             subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: '{ACCOUNT}'}}]}}\n"
        ))?;
        let settings = Arc::new(parse(&format!("version: 1\n{LIMITS}\n{CLASSES}\n"))?.settings);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { admin, account: Api::new(&kubeconfig)?, kubeconfig, runtime, settings, cluster })
    }

    fn ask(&self, call: &Call) -> Result<Value> {
        self.runtime.block_on(self.admin.ask(call))
    }

    fn until(&self, what: &str, mut look: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !look(self)? {
            if begun.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for: {what}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn is_empty(&self, collection: &str, selector: &str) -> Result<bool> {
        let list = self.ask(&Call::get(format!("{collection}?limit=1&{selector}")))?;
        Ok(list["items"].as_array().is_none_or(Vec::is_empty))
    }

    /// A namespace that takes no part yet, with pods that run.
    pub(super) fn town(&self, pods: usize, class: &'static str) -> Result<Town> {
        let town = Town { namespace: format!("{class}-{pods}"), pods, class };
        self.ask(&Call::post("/api/v1/namespaces", &json!({"metadata": {"name": town.namespace}})))?;
        let account = Call::get(town.core("serviceaccounts/default"));
        self.until("the namespace's account", |ground| Ok(ground.ask(&account).is_ok()))?;
        let nodes = self.ask(&Call::get("/api/v1/nodes"))?;
        let node = nodes["items"][0]["metadata"]["name"].as_str().context("a node")?;
        let calls = (0..pods).map(|n| Call::post(town.core("pods"), &town.pod(n, node))).collect();
        self.runtime.block_on(self.admin.all(calls, IN_FLIGHT))?;
        let pods = town.core("pods");
        self.until("all pods run", |ground| {
            ground.is_empty(&pods, "fieldSelector=status.phase%21%3DRunning")
        })?;
        Ok(town)
    }

    /// The calls that make the Services of a town's pods, as the core plans them.
    pub(super) fn services(&self, town: &Town) -> Result<Vec<Call>> {
        let mut state = State::new(Arc::clone(&self.settings));
        let namespace = json!({"metadata": {"name": town.namespace, "resourceVersion": "1",
            "labels": {names::ENABLED_LABEL: "true"}}});
        let namespace: Namespace = serde_json::from_value(namespace)?;
        state.apply(Update::Namespaces(Change::Applied(namespace)));
        let mut pods = self.ask(&Call::get(town.core("pods")))?;
        let pods: Vec<Pod> = serde_json::from_value(pods["items"].take())?;
        state.apply(Update::Pods(PodFeed::Labelled, Change::Listed { items: pods, version: 1 }));
        let mut planner = Planner::new(&state);
        planner.touch(state.take_dirty());
        let service = |action: &Action| match action {
            Action::CreateService(desired) => {
                Ok(Call::post(town.core("services"), &named(&desired.key, action)))
            }
            other => bail!("not a new Service: {other:?}"),
        };
        planner.plan(&state, NOW).iter().map(service).collect()
    }

    /// Lets a town take part, or no more.
    pub(super) fn enable(&self, town: &Town, enabled: bool) -> Result<()> {
        let label = if enabled { json!("true") } else { Value::Null };
        let patch = json!({"metadata": {"labels": {names::ENABLED_LABEL: label}}});
        self.ask(&Call::patch(format!("/api/v1/namespaces/{}", town.namespace), &patch)).map(drop)
    }

    /// Takes away what a run has made; the pods stay.
    pub(super) fn clear(&self, town: &Town) -> Result<()> {
        for what in ["services", "configmaps?labelSelector=app.kubernetes.io/managed-by"] {
            self.delete(&town.core(what))?;
        }
        let (services, slices) = (town.core("services"), town.slices());
        self.until("Services and their endpoints are gone", |ground| {
            Ok(ground.is_empty(&services, "")? && ground.is_empty(&slices, "")?)
        })
    }

    /// Ends a town's pods: those of the next one are alone.
    pub(super) fn leave(&self, town: &Town) -> Result<()> {
        let pods = town.core("pods");
        self.delete(&pods)?;
        self.until("the pods are gone", |ground| ground.is_empty(&pods, ""))
    }

    /// Deletes a collection: the API server gives up after a minute, which 5 000 Services may not be enough for.
    fn delete(&self, path: &str) -> Result<()> {
        self.until(&format!("DELETE {path} in time"), |ground| match ground.ask(&Call::delete(path)) {
            Err(error) if error.to_string().contains(": 504 ") => Ok(false),
            answer => answer.map(|_| true),
        })
    }

    /// The next product need not wait until the lease of one that was killed runs out.
    pub(super) fn forget_lease(&self) -> Result<()> {
        let leases = "/apis/coordination.k8s.io/v1/namespaces/external-ip-controller/leases";
        self.ask(&Call::delete(leases)).map(drop)
    }

    /// Processor time so far of Kubernetes' programs by name, and of this one.
    pub(super) fn cpu(&self) -> Result<BTreeMap<String, Duration>> {
        let mut used = BTreeMap::from([("bench".to_owned(), process::cpu(std::process::id())?)]);
        for program in self.cluster.processes()? {
            *used.entry(program.component).or_default() += process::cpu(program.pid.unsigned_abs())?;
        }
        Ok(used)
    }

    /// What the account has written in a town since a position of the audit log.
    pub(super) fn writes(&self, town: &Town, position: u64) -> Result<Vec<(String, usize)>> {
        let (events, _) = self.cluster.audit_events_since(position)?;
        let mut counts = BTreeMap::<String, usize>::new();
        for event in events {
            if event.user == ACCOUNT && event.is_write() && event.namespace == town.namespace {
                let refused = if event.code < 300 { String::new() } else { format!(" {}", event.code) };
                *counts.entry(format!("{} {}{refused}", event.verb, event.resource)).or_default() += 1;
            }
        }
        Ok(counts.into_iter().collect())
    }
}

/// The body of a creation.
fn named(key: &Key, action: &Action) -> Value {
    let mut body = action.body();
    body["metadata"]["name"] = json!(&*key.name);
    body
}
