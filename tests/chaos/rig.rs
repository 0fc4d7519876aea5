//! The cluster, two replicas, the oracle, and one run of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use local_cluster::{Cluster, Component, Level, Options};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::churn::{self, Scene};
use crate::disturb::Disturbance;
use crate::front::Front;
use crate::oracle::{self, Recording};
use crate::replica::{Home, Replica};
use crate::support::api::Api;
use crate::support::install::{ca, install};
use crate::support::{https, within};

/// What has no pod for longer than the replicas' retention (3 s) and this much more is an orphan.
const ORPHANED: Duration = Duration::from_secs(13);
/// Until everything is as it should be, once nothing changes any more: a lease, a list and MetalLB's own waits fit in.
const SETTLE: Duration = Duration::from_secs(90);

/// How much, and what is demanded of it.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) pods: u16,
    /// How long a pod lives at most.
    pub(crate) life: Duration,
    /// Before the first disturbance, and between two.
    pub(crate) pause: Duration,
    pub(crate) disturbances: Vec<Disturbance>,
    /// Fewer of these, by evidence, were too quiet a run.
    pub(crate) at_least: &'static [(&'static str, u64)],
    /// Figures of the report, by JSON pointer.
    pub(crate) at_most_ms: &'static [(&'static str, u64)],
}

impl Plan {
    /// As the oracle reads them: each disturbance as often as it was planned, and the evidence.
    fn demands(&self) -> Value {
        let mut least: BTreeMap<String, u64> = BTreeMap::new();
        for disturbance in &self.disturbances {
            *least.entry(format!("disturbance: {}", disturbance.name())).or_default() += 1;
        }
        least.extend(self.at_least.iter().map(|(name, n)| ((*name).to_owned(), *n)));
        let most: BTreeMap<&str, u64> = self.at_most_ms.iter().copied().collect();
        let retention = u64::try_from(ORPHANED.as_millis()).unwrap();
        json!({"retention_ms": retention, "at_least": least, "at_most_ms": most})
    }
}

pub(crate) struct Rig {
    // dropped in this order
    tasks: JoinSet<()>,
    recording: Option<Recording>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) front: Arc<Front>,
    pub(crate) api: Api,
    scene: Arc<Scene>,
    pub(crate) notes: Vec<Value>,
    oracle: PathBuf,
    record: PathBuf,
    begun: Instant,
    pub(crate) cluster: Cluster,
}

impl Rig {
    pub(crate) async fn start(plan: &Plan) -> Self {
        let oracle = tokio::task::spawn_blocking(oracle::build).await.unwrap();
        let begun = Instant::now();
        let name = plan.name;
        let cluster = tokio::task::spawn_blocking(move || {
            // never somebody's own cluster: this one stops its parts and reads its etcd
            let options = Options { json_store: true, ..Options::for_tests(name, Level::ControlPlane) };
            Cluster::up(&options).expect("a cluster to test on")
        });
        let cluster = cluster.await.unwrap();
        let front = Arc::new(Front::new().await);
        install(&cluster, front.port);
        // the pods' kubelet is here
        cluster.kill(Component::Kwok).unwrap();
        let api = Api::new(cluster.kubeconfig()).await;
        for node in api.names("/api/v1/nodes").await {
            api.delete(&format!("/api/v1/nodes/{node}")).await.ok();
        }
        churn::prepare(&api).await;
        let record = cluster.dir().unwrap().join("record");
        std::fs::create_dir_all(&record).unwrap();
        // an older version, for the update to begin with
        let program = std::env::var_os("CHAOS_FROM").map(std::path::PathBuf::from);
        let home = Home { clock_library: crate::clock::build(&record), directory: record.clone(), program };
        let mut replicas = Vec::new();
        for name in ["a", "b"] {
            replicas.push(Replica::start(name, &cluster, &home).await);
        }
        for replica in &replicas {
            replica.product.ready().await;
        }
        let at: Vec<(&str, SocketAddr)> = replicas.iter().map(|r| (r.name, r.product.mapping)).collect();
        let recording =
            Recording::start(&oracle, cluster.etcd_address().unwrap(), &at, &ca(&api).await, &record);
        Self {
            tasks: JoinSet::new(),
            recording: Some(recording),
            replicas,
            front,
            scene: Scene::new(api.clone(), plan.pods, plan.life),
            api,
            notes: Vec::new(),
            oracle,
            record,
            begun,
            cluster,
        }
    }

    pub(crate) fn say(&self, what: &str) {
        let (elapsed, running) =
            (self.begun.elapsed().as_secs_f32(), self.scene.running.load(Ordering::Relaxed));
        println!("{elapsed:7.1}s  {running:>4} pods, {:>5} born  {what}", self.born());
    }

    pub(crate) fn born(&self) -> usize {
        self.scene.born.load(Ordering::Relaxed)
    }

    /// Churns, disturbs, waits for calm, has it judged.
    pub(crate) async fn run(mut self, plan: &Plan) {
        let audited = self.cluster.audit_position().unwrap();
        self.tasks.spawn(Arc::clone(&self.scene).heartbeats());
        let replicas = self.replicas.iter().map(|r| (r.product.admin, r.admission())).collect();
        self.tasks.spawn(Arc::clone(&self.front).follow(replicas));
        within(SETTLE, "the webhook's way is known", async || {
            if self.front.leads_somewhere() { Ok(()) } else { Err("no replica is ready".to_owned()) }
        })
        .await;
        let mut seats = JoinSet::new();
        for number in 0..plan.pods {
            seats.spawn(churn::seat(Arc::clone(&self.scene), number, number % 4 == 3));
        }
        for disturbance in &plan.disturbances {
            tokio::time::sleep(plan.pause).await;
            self.disturb(*disturbance).await;
        }
        tokio::time::sleep(plan.pause).await;
        self.calm(seats).await;
        let demands = plan.demands();
        tokio::task::spawn_blocking(move || self.judge(audited, &demands)).await.unwrap();
    }

    /// Lets the last pods be, and waits until every replica shows them and no slot is left over.
    async fn calm(&mut self, mut seats: JoinSet<Option<String>>) {
        self.scene.calm.cancel();
        let mut kept = BTreeSet::new();
        while let Some(ended) = seats.join_next().await {
            kept.extend(ended.expect("a seat does not fail"));
        }
        self.scene.remove_strays(&kept).await;
        let pods = kept.len();
        self.say("calm: no pod comes or goes any more");
        let authority = ca(&self.api).await;
        for replica in &self.replicas {
            within(SETTLE, "all pods are routed", async || {
                let map = https::get(replica.product.mapping, &authority, "/v1/mapping", &[]).await?;
                let map: Value = serde_json::from_str(&map.body).map_err(|e| e.to_string())?;
                let clusters = map["clusters"].as_array().into_iter().flatten();
                let entries: Vec<&Value> =
                    clusters.flat_map(|c| c["entries"].as_array().into_iter().flatten()).collect();
                let amiss: Vec<&&Value> = entries.iter().filter(|e| e["state"] != "Routed").collect();
                let done = amiss.is_empty() && entries.len() == pods;
                if done {
                    Ok(())
                } else {
                    Err(format!("{} entries for {pods} pods, {amiss:?}", entries.len()))
                }
            })
            .await;
        }
        self.say("every replica shows every pod");
        within(SETTLE, "slots without pods are gone", async || {
            let services = self.api.names("/api/v1/services?labelSelector=external-ip.dev/slot").await;
            if services.len() == pods { Ok(()) } else { Err(format!("{} for {pods}", services.len())) }
        })
        .await;
        self.say("no slot is left over");
    }

    fn judge(mut self, audited: u64, demands: &Value) {
        self.recording.take().expect("recording").stop();
        let position = |at: u64| usize::try_from(at).unwrap();
        let whole = position(audited)..position(self.cluster.audit_position().unwrap());
        let log = std::fs::read(self.cluster.dir().unwrap().join("audit.log")).unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(self.record.join(name), bytes).unwrap();
        write("audit.jsonl", &log[whole]);
        let notes: Vec<String> = self.notes.iter().map(Value::to_string).collect();
        write("disturbances.jsonl", notes.join("\n").as_bytes());
        write("expect.json", demands.to_string().as_bytes());
        self.say("judging");
        let report = oracle::judge(&self.oracle, &self.record);
        self.keep();
        assert!(report["clean"] == true, "the oracle complains: {:#}", report["complaints"]);
        oracle::self_test(&self.oracle, &self.record);
        self.say("done");
    }

    /// The record outlives the cluster where somebody names a directory for it.
    fn keep(&self) {
        let Some(kept) = std::env::var_os("CHAOS_RECORD").map(PathBuf::from) else { return };
        std::fs::create_dir_all(&kept).unwrap();
        for file in std::fs::read_dir(&self.record).unwrap().flatten() {
            let name = file.file_name();
            let text = name.to_string_lossy();
            // no keys: kubeconfigs stay behind
            if [".jsonl", ".json", ".log"].iter().any(|end| text.ends_with(end)) {
                std::fs::copy(file.path(), kept.join(&name)).unwrap();
            }
        }
        self.say(&format!("the record is in {}", kept.display()));
    }
}
