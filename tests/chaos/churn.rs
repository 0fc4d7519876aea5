//! Pods come and go, with this as their kubelet. Each *seat* has one pod at a time. Addresses come from one pool that is
//! hardly larger than the number of pods, and the one given back last is the first to be used again.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::api::{Answer, Api};
use crate::support::within;

/// For one call; the API server may be frozen.
const CALL: Duration = Duration::from_secs(5);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(200);
pub(crate) const NODE: &str = "pretended";
pub(crate) const NAMESPACES: [&str; 2] = ["chaos-east", "chaos-west"];
const CLUSTERS: [&str; 2] = ["data", "cache"];

/// What all seats share.
pub(crate) struct Scene {
    api: Api,
    addresses: Mutex<VecDeque<Ipv4Addr>>,
    /// New pods are made no more, those there stay.
    pub(crate) calm: CancellationToken,
    /// How long a pod lives at most.
    longest_life: Duration,
    pub(crate) born: AtomicUsize,
    pub(crate) running: AtomicUsize,
}

impl Scene {
    pub(crate) fn new(api: Api, pods: u16, longest_life: Duration) -> Arc<Self> {
        let pool = pods + pods.div_ceil(5);
        let address = |n: u16| {
            let [high, low] = (n + 10).to_be_bytes();
            Ipv4Addr::new(198, 18, 100 + high, low)
        };
        Arc::new(Self {
            api,
            addresses: Mutex::new((0..pool).map(address).collect()),
            calm: CancellationToken::new(),
            longest_life,
            born: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        })
    }

    /// Calls until there is an answer that is none of the API server's own trouble.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let content =
            if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        loop {
            match timeout(CALL, self.api.try_send(method.clone(), path, body, content)).await {
                Ok(Ok(answer)) if !answer.status.is_server_error() && answer.status != 429 => return answer,
                _ => sleep(RETRY).await,
            }
        }
    }

    async fn address(&self) -> Ipv4Addr {
        loop {
            if let Some(address) = self.addresses.lock().unwrap().pop_front() {
                return address;
            }
            sleep(RETRY).await; // pods that have ended but are not gone hold none, so this is short
        }
    }

    fn give_back(&self, address: Ipv4Addr) {
        self.addresses.lock().unwrap().push_front(address);
    }

    /// Keeps the pretended node alive: without heartbeats its pods would be evicted.
    pub(crate) async fn heartbeats(self: Arc<Self>) {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}");
        loop {
            let now = jiff::Timestamp::now();
            let spec =
                json!({"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")});
            let renewal = json!({"spec": spec});
            if self.call(Method::PATCH, &path, Some(&renewal)).await.status == 404 {
                let made = json!({"metadata": {"name": NODE}, "spec": spec});
                let (collection, _) = path.rsplit_once('/').unwrap();
                self.call(Method::POST, collection, Some(&made)).await;
            }
            sleep(Duration::from_secs(5)).await;
        }
    }
}

/// Makes the node and the namespaces.
pub(crate) async fn prepare(api: &Api) {
    let node = json!({"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}});
    api.post("/api/v1/nodes", &node).await.ok();
    let ready =
        json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Pretended"}]}});
    api.patch(&format!("/api/v1/nodes/{NODE}/status"), &ready).await.ok();
    for name in NAMESPACES {
        let labels = json!({"external-ip.dev/enabled": "true"});
        api.post("/api/v1/namespaces", &json!({"metadata": {"name": name, "labels": labels}})).await.ok();
        crate::support::eventually("the default account", async || {
            let path = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
            match api.get(&path).await {
                answer if answer.status.is_success() => Ok(()),
                answer => Err(answer.body.to_string()),
            }
        })
        .await;
    }
}

/// A pod as its kubelet knows it.
struct Pod {
    path: String,
    uid: String,
    address: Ipv4Addr,
}

/// One seat: its pods follow each other until it gets calm. `leave`: the last one goes, too; gives the UID of one that
/// stays.
pub(crate) async fn seat(scene: Arc<Scene>, number: u16, leave: bool) -> Option<String> {
    let namespace = NAMESPACES[usize::from(number) % 2];
    let cluster = CLUSTERS[usize::from(number / 2) % 2];
    let collection = format!("/api/v1/namespaces/{namespace}/pods");
    loop {
        let named = (fastrand::u8(..) < 150).then(|| format!("{cluster}-{number}"));
        let pod = scene.birth(&collection, named.as_deref(), cluster, number).await;
        scene.running.fetch_add(1, Ordering::Relaxed);
        let pod = scene.life(pod).await;
        if scene.calm.is_cancelled() && !leave {
            return Some(pod.uid);
        }
        scene.running.fetch_sub(1, Ordering::Relaxed);
        scene.death(pod).await;
        if scene.calm.is_cancelled() {
            return None;
        }
    }
}

impl Scene {
    /// Removes pods of no seat, until there are none: where the API server makes a pod and its answer is lost, the next
    /// attempt makes another one under another generated name, and nobody knows of the first.
    pub(crate) async fn remove_strays(&self, kept: &BTreeSet<String>) {
        within(CALL * 10, "pods of no seat are gone", async || {
            let mut strays = Vec::new();
            for namespace in NAMESPACES {
                let collection = format!("/api/v1/namespaces/{namespace}/pods");
                let list = self.call(Method::GET, &collection, None).await.ok();
                let metadata = list["items"].as_array().into_iter().flatten().map(|pod| &pod["metadata"]);
                let path = |m: &Value| Some(format!("{collection}/{}", m["name"].as_str()?));
                let stray = metadata.filter(|m| m["uid"].as_str().is_some_and(|uid| !kept.contains(uid)));
                strays.extend(stray.filter_map(path));
            }
            for path in &strays {
                self.call(Method::DELETE, path, Some(&json!({"gracePeriodSeconds": 0}))).await;
            }
            if strays.is_empty() { Ok(()) } else { Err(format!("{strays:?}")) }
        })
        .await;
    }

    async fn birth(&self, collection: &str, name: Option<&str>, cluster: &str, seat: u16) -> Pod {
        let mut metadata = json!({"labels": {"external-ip.dev/cluster": cluster}});
        match name {
            Some(name) => metadata["name"] = json!(name),
            None => metadata["generateName"] = json!(format!("{cluster}-{seat}-")),
        }
        let container = json!({"name": "main", "image": "none", "ports": [{"containerPort": 11222}]});
        let spec = json!({"nodeName": NODE, "containers": [container], "terminationGracePeriodSeconds": 2});
        let body = json!({"metadata": metadata, "spec": spec});
        let made = loop {
            let answer = self.call(Method::POST, collection, Some(&body)).await;
            match (answer.status.as_u16(), name) {
                (201, _) => break answer.body,
                // an earlier attempt was answered to nobody
                (409, Some(name)) => {
                    let there = self.call(Method::GET, &format!("{collection}/{name}"), None).await;
                    if there.status.is_success() && there.body["metadata"]["deletionTimestamp"].is_null() {
                        break there.body;
                    }
                }
                _ => {}
            }
            sleep(RETRY).await;
        };
        let (name, uid) =
            (made["metadata"]["name"].as_str().unwrap(), made["metadata"]["uid"].as_str().unwrap());
        let address = self.address().await;
        let pod = Pod { path: format!("{collection}/{name}"), uid: uid.to_owned(), address };
        self.status(&pod, "Running").await;
        self.born.fetch_add(1, Ordering::Relaxed);
        pod
    }

    async fn status(&self, pod: &Pod, phase: &str) {
        let ip = pod.address.to_string();
        let ready = if phase == "Running" { "True" } else { "False" };
        let status = json!({"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": ready}]});
        let patch = json!({"metadata": {"uid": pod.uid}, "status": status});
        let answer = self.call(Method::PATCH, &format!("{}/status", pod.path), Some(&patch)).await;
        assert!(answer.status.is_success(), "nobody else ends our pods: {} {}", pod.path, answer.body);
    }

    /// Runs for a while; some change their address meanwhile.
    async fn life(&self, mut pod: Pod) -> Pod {
        let longest = u64::try_from(self.longest_life.as_millis()).unwrap();
        let time = || Duration::from_millis(fastrand::u64(longest / 20..longest));
        tokio::select! {
            () = sleep(time()) => {}
            () = self.calm.cancelled() => return pod,
        }
        if fastrand::u8(..) < 20 {
            let old = std::mem::replace(&mut pod.address, self.address().await);
            self.status(&pod, "Running").await;
            self.give_back(old);
        }
        pod
    }

    async fn death(&self, pod: Pod) {
        match fastrand::u8(..) % 4 {
            // its containers end: the object stays for a while, the address is free at once
            0 => {
                self.status(&pod, if fastrand::bool() { "Succeeded" } else { "Failed" }).await;
                self.give_back(pod.address);
                sleep(Duration::from_millis(fastrand::u64(0..1500))).await;
                self.delete(&pod, 0).await;
            }
            // asked to go, gone when its kubelet says so
            1 => {
                self.delete(&pod, 2).await;
                sleep(Duration::from_millis(fastrand::u64(0..1000))).await;
                self.delete(&pod, 0).await;
                self.give_back(pod.address);
            }
            // by force
            _ => {
                self.delete(&pod, 0).await;
                self.give_back(pod.address);
            }
        }
    }

    async fn delete(&self, pod: &Pod, grace: u32) {
        let body = json!({"gracePeriodSeconds": grace, "preconditions": {"uid": pod.uid}});
        let answer = self.call(Method::DELETE, &pod.path, Some(&body)).await;
        let status = answer.status.as_u16();
        assert!(matches!(status, 200 | 202 | 404 | 409), "{} {}", pod.path, answer.body);
    }
}
