use std::sync::Mutex;

use external_ip_core::mapping::ClusterMapping;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::client::fake::{Exchange, Fake};
use crate::map::{Liveness, Snapshot};
use crate::testing::{cluster, mapping};

const LONG: Duration = Duration::from_secs(36_000);

/// The API server as far as ConfigMaps go.
#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    version: u64,
    watcher: Option<mpsc::UnboundedSender<String>>,
    writes: Vec<String>,
    /// Answers of this code and cause to every write.
    refuses: Option<(u16, &'static str)>,
}

impl Server {
    fn answer(&mut self, request: Exchange) {
        let path = request.path.clone();
        match request.method.as_str() {
            "GET" if request.query.contains_key("watch") => self.watcher = Some(request.stream()),
            "GET" if path == "/api/v1/configmaps" => {
                let items: Vec<&Value> = self.objects.values().filter(|o| is_selected(o)).collect();
                let list = json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": items});
                request.ok(&list);
            }
            "GET" => match self.objects.get(&path) {
                Some(found) => request.ok(&found.clone()),
                None => request.fail(404, "NotFound"),
            },
            method => {
                self.writes.push(format!("{method} {path}"));
                self.write(path, request);
            }
        }
    }

    fn write(&mut self, mut path: String, request: Exchange) {
        if let Some((code, cause)) = self.refuses {
            let details = json!({"causes": [{"reason": cause}]});
            return request.answer(code, &json!({"code": code, "message": "no", "details": details}));
        }
        if request.method == "POST" {
            path = format!("{path}/{}", request.body["metadata"]["name"].as_str().unwrap());
            if self.objects.contains_key(&path) {
                return request.fail(409, "AlreadyExists");
            }
            let object = self.put(&path, request.body.clone());
            return request.ok(&object);
        }
        let Some(mut object) = self.objects.get(&path).cloned() else { return request.fail(404, "NotFound") };
        let (expected, deletes) = match request.body.get("preconditions") {
            Some(preconditions) => (preconditions, true),
            None => (&request.body["metadata"], false),
        };
        let meta = &object["metadata"];
        if expected["uid"] != meta["uid"] || expected["resourceVersion"] != meta["resourceVersion"] {
            return request.fail(409, "Conflict");
        }
        if deletes {
            self.remove(&path);
            request.ok(&json!({"status": "Success"}));
        } else {
            json_patch::merge(&mut object, &request.body);
            request.ok(&self.put(&path, object));
        }
    }

    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let before = self.objects.get(path).map(|o| o["metadata"]["uid"].clone());
        object["metadata"]["uid"] = before.unwrap_or_else(|| json!(format!("uid-{}", self.version)));
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        if is_selected(&object) {
            self.tell("MODIFIED", &object);
        }
        object
    }

    fn remove(&mut self, path: &str) {
        self.version += 1;
        let mut object = self.objects.remove(path).unwrap();
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell("DELETED", &object);
    }

    fn tell(&self, kind: &str, object: &Value) {
        if let Some(watcher) = &self.watcher {
            let _ = watcher.send(format!("{}\n", json!({"type": kind, "object": object})));
        }
    }
}

fn is_selected(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "external-ip-controller"
}

/// One replica that leads, and what it writes to.
struct Bench {
    server: Arc<Mutex<Server>>,
    current: Arc<Current>,
    reports: mpsc::UnboundedReceiver<Report>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

const OF_A: &str = "/api/v1/namespaces/data/configmaps/a-external-ips";
const AGGREGATE: &str = "/api/v1/namespaces/here/configmaps/external-ip-mapping";

impl Bench {
    fn new() -> Self {
        Self::on(Arc::default(), LONG, None)
    }

    fn on(server: Arc<Mutex<Server>>, leads: Duration, ca: Option<Trusted>) -> Self {
        let (client, mut fake) = Fake::new();
        let answering = {
            let server = Arc::clone(&server);
            async move {
                loop {
                    let request = fake.next().await;
                    server.lock().unwrap().answer(request);
                }
            }
        };
        let current = Arc::new(Current::new());
        let (tx, reports) = mpsc::unbounded_channel();
        let metrics = Arc::new(Metrics::new(Arc::clone(&current), Arc::new(Liveness::new())));
        let source = Source { current: Arc::clone(&current), ca, namespace: "here".into() };
        let task = ConfigMaps {
            client,
            leadership: Leadership::of(leads),
            installation: "mine".into(),
            source,
            reports: tx,
            metrics,
        };
        let tasks = vec![tokio::spawn(answering), tokio::spawn(task.run(CancellationToken::new()))];
        Self { server, current, reports, tasks }
    }

    fn publish(&self, clusters: impl IntoIterator<Item = ClusterMapping>) {
        self.current.publish(Snapshot { mapping: mapping(clusters).into(), ..Snapshot::default() });
    }

    /// Writes since the last call, once `time` has passed.
    async fn writes_in(&self, time: Duration) -> Vec<String> {
        sleep(time).await;
        let mut writes = std::mem::take(&mut self.server.lock().unwrap().writes);
        writes.sort();
        writes
    }

    async fn writes(&self) -> Vec<String> {
        self.writes_in(Duration::from_secs(1)).await
    }

    fn object(&self, path: &str) -> Value {
        self.server.lock().unwrap().objects.get(path).cloned().unwrap_or_default()
    }

    /// Somebody else changes an object.
    fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.object(path);
        change(&mut object);
        self.server.lock().unwrap().put(path, object);
    }

    fn reported(&mut self) -> Vec<Option<Code>> {
        std::iter::from_fn(|| self.reports.try_recv().ok()).map(|r| r.reason.map(|r| r.code)).collect()
    }

    /// With cluster `a` of `members` pods, written.
    async fn with(members: u8) -> Self {
        let bench = Self::new();
        bench.publish([cluster("data", "a", members)]);
        assert_eq!(bench.writes().await.len(), 2, "the aggregate and that of the cluster");
        bench
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_gets_its_config_map_with_label_and_owner() {
    let bench = Bench::new();
    bench.publish([cluster("data", "a", 2)]);
    let post = |namespace| format!("POST /api/v1/namespaces/{namespace}/configmaps");
    assert_eq!(bench.writes().await, [post("data"), post("here")]);
    let object = bench.object(OF_A);
    let labels =
        json!({"app.kubernetes.io/managed-by": "external-ip-controller", "external-ip.dev/cluster": "a"});
    assert_eq!(object["metadata"]["labels"], labels);
    assert_eq!(object["metadata"]["annotations"], json!({"external-ip.dev/owner": "mine"}));
    let full: Value = serde_json::from_str(object["data"]["mapping.json"].as_str().unwrap()).unwrap();
    assert_eq!(full["entries"].as_array().unwrap().len(), 2);
    assert!(bench.object(AGGREGATE)["metadata"]["labels"].get("external-ip.dev/cluster").is_none());
}

#[tokio::test(start_paused = true)]
async fn only_what_changed_is_written_and_once_per_burst() {
    let bench = Bench::with(1).await;
    bench.publish([cluster("data", "a", 1)]);
    assert!(bench.writes().await.is_empty());
    for members in 2..10 {
        bench.publish([cluster("data", "a", members), cluster("data", "b", 1)]);
        sleep(Duration::from_millis(50)).await;
    }
    let writes = bench.writes().await;
    assert_eq!(writes.iter().filter(|w| **w == format!("PATCH {OF_A}")).count(), 1, "{writes:?}");
    bench.publish([cluster("data", "a", 9), cluster("data", "b", 2)]);
    assert!(!bench.writes().await.contains(&format!("PATCH {OF_A}")));
}

#[tokio::test(start_paused = true)]
async fn steady_change_is_written_every_two_seconds() {
    let bench = Bench::with(1).await;
    for step in 0..200_u8 {
        bench.publish([cluster("data", "a", 2 + step)]);
        sleep(Duration::from_millis(100)).await;
    }
    let writes = bench.writes().await.iter().filter(|w| **w == format!("PATCH {OF_A}")).count();
    assert!((9..=11).contains(&writes), "{writes} in 20 s");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_pods_keeps_its_config_map_until_its_last_slot_is_gone() {
    let bench = Bench::with(1).await;
    bench.publish([cluster("data", "a", 0)]);
    assert!(bench.writes().await.contains(&format!("PATCH {OF_A}")));
    bench.publish([]);
    assert!(bench.writes().await.contains(&format!("DELETE {OF_A}")));
    assert!(bench.object(OF_A).is_null() && !bench.object(AGGREGATE).is_null());
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_writes_only_what_differs() {
    let before = Bench::with(1).await;
    let server = Arc::clone(&before.server);
    drop(before);
    server.lock().unwrap().watcher = None;
    let after = Bench::on(server, LONG, None);
    after.publish([cluster("data", "a", 1), cluster("data", "b", 1)]);
    let writes = after.writes().await;
    assert!(!writes.contains(&format!("PATCH {OF_A}")), "{writes:?}");
    assert!(writes.contains(&"POST /api/v1/namespaces/data/configmaps".to_owned()), "{writes:?}");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_deletes_or_edits_is_mended_within_seconds() {
    let bench = Bench::with(1).await;
    bench.server.lock().unwrap().remove(OF_A);
    assert_eq!(bench.writes().await, ["POST /api/v1/namespaces/data/configmaps"]);
    let good = bench.object(OF_A)["data"].clone();
    bench.edit(OF_A, |object| object["data"]["mapping.json"] = json!("{}"));
    assert_eq!(bench.writes().await, [format!("PATCH {OF_A}")]);
    assert_eq!(bench.object(OF_A)["data"], good, "mended as it was seen");
    bench.edit(OF_A, |object| object["data"]["theirs"] = json!("kept"));
    assert!(bench.writes().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_foreign_config_map_of_the_same_name_is_reported_and_never_touched() {
    let label = json!({"app.kubernetes.io/managed-by": "external-ip-controller"});
    for (labels, owner) in [(json!({}), "mine"), (json!({}), ""), (label, "another installation")] {
        let mut bench = Bench::new();
        let theirs = json!({
            "metadata": {"namespace": "data", "name": "a-external-ips", "labels": labels,
                "annotations": {"external-ip.dev/owner": owner}},
            "data": {"mapping.json": "theirs"},
        });
        bench.edit(OF_A, |object| *object = theirs);
        bench.publish([cluster("data", "a", 1)]);
        let writes = bench.writes_in(Duration::from_secs(100)).await;
        assert!(writes.iter().all(|w| w.starts_with("POST")) && writes.len() < 6, "{writes:?}");
        assert_eq!(bench.object(OF_A)["data"], json!({"mapping.json": "theirs"}));
        assert_eq!(bench.reported(), [Some(Code::NameTaken)], "once");
        bench.publish([]);
        bench.writes_in(Duration::from_secs(100)).await;
        assert!(!bench.object(OF_A).is_null());
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_config_map_that_goes_away_makes_room() {
    let mut bench = Bench::new();
    bench.edit(OF_A, |o| *o = json!({"metadata": {"namespace": "data", "name": "a-external-ips"}}));
    bench.publish([cluster("data", "a", 1)]);
    bench.writes().await;
    bench.server.lock().unwrap().objects.remove(OF_A);
    bench.writes_in(REFUSED_RETRY).await;
    assert!(!bench.object(OF_A)["data"]["mapping.json"].is_null());
    assert_eq!(bench.reported(), [Some(Code::NameTaken), None]);
}

fn large(bytes: usize, seed: usize) -> ClusterMapping {
    let mut made = cluster("data", "a", 1);
    made.entries[0].message = Some(format!("{seed}{}", "x".repeat(bytes)));
    made
}

#[tokio::test(start_paused = true)]
async fn a_large_document_is_written_every_ten_seconds_at_most() {
    let bench = Bench::with(1).await;
    for seed in 0..100 {
        bench.publish([large(LARGE, seed)]);
        sleep(Duration::from_secs(1)).await;
    }
    let writes = bench.writes().await.iter().filter(|w| **w == format!("PATCH {OF_A}")).count();
    assert!((9..=11).contains(&writes), "{writes} in 100 s");
    let last = bench.object(OF_A)["data"]["mapping.json"].as_str().unwrap().contains("\"99xxx");
    assert!(last || bench.writes_in(LARGE_INTERVAL).await.contains(&format!("PATCH {OF_A}")));
}

#[tokio::test(start_paused = true)]
async fn a_document_that_does_not_fit_is_withdrawn_and_told_and_comes_back() {
    let mut bench = Bench::with(1).await;
    bench.publish([large(2 << 20, 0)]);
    bench.writes_in(LARGE_INTERVAL).await;
    assert_eq!(bench.object(OF_A)["data"], json!({}), "not an old one");
    assert_eq!(bench.reported(), [Some(Code::DocumentTooLarge)]);
    bench.publish([cluster("data", "a", 2)]);
    bench.writes_in(LARGE_INTERVAL).await;
    assert!(bench.object(OF_A)["data"]["mapping.json"].is_string());
    assert_eq!(bench.reported(), [None]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_once_and_tried_again_slowly() {
    let mut bench = Bench::new();
    bench.server.lock().unwrap().refuses = Some((403, ""));
    bench.publish([cluster("data", "a", 1)]);
    let writes = bench.writes_in(Duration::from_secs(100)).await;
    assert!(writes.len() <= 8, "{writes:?}");
    assert_eq!(
        bench.reported(),
        [Some(Code::WriteRefused), Some(Code::WriteRefused)],
        "one for each ConfigMap"
    );
    bench.server.lock().unwrap().refuses = None;
    bench.writes_in(REFUSED_RETRY).await;
    assert!(!bench.object(OF_A).is_null());
    assert_eq!(bench.reported(), [None, None]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_going_is_no_news_and_no_endless_retry() {
    let mut bench = Bench::new();
    bench.server.lock().unwrap().refuses = Some((403, "NamespaceTerminating"));
    bench.publish([cluster("data", "a", 1)]);
    assert!(bench.writes_in(Duration::from_secs(100)).await.len() <= 8);
    assert!(bench.reported().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_does_not_take_part_gets_nothing_new() {
    let outside = || {
        let mut made = cluster("data", "a", 1);
        made.entries[0].reason = Some(Code::NamespaceNotEnabled.as_str());
        made
    };
    let bench = Bench::new();
    bench.publish([outside()]);
    bench.writes().await;
    assert!(bench.object(OF_A).is_null());
    bench.publish([cluster("data", "a", 1)]);
    bench.writes().await;
    bench.publish([outside()]);
    assert!(bench.writes().await.contains(&format!("PATCH {OF_A}")), "what is there is kept up");
}

#[tokio::test(start_paused = true)]
async fn without_leadership_nothing_is_sent() {
    let bench = Bench::on(Arc::default(), Duration::from_millis(1), None);
    bench.publish([cluster("data", "a", 1)]);
    assert!(bench.writes_in(Duration::from_secs(60)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_ca_lies_beside_every_document_and_nothing_is_written_before_it_is_known() {
    let (tx, ca) = watch::channel(None);
    let bench = Bench::on(Arc::default(), LONG, Some(ca));
    bench.publish([cluster("data", "a", 1)]);
    assert!(bench.writes().await.is_empty());
    tx.send_replace(Some("PEM".into()));
    bench.writes().await;
    for path in [OF_A, AGGREGATE, "/api/v1/namespaces/here/configmaps/external-ip-ca"] {
        assert_eq!(bench.object(path)["data"]["ca.crt"], "PEM", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_nobody_names_any_more_is_taken_away() {
    let (_tx, ca) = watch::channel(Some("PEM".into()));
    let api = Arc::default();
    let bench = Bench::on(Arc::clone(&api), LONG, Some(ca));
    bench.publish([cluster("data", "a", 1)]);
    bench.writes().await;
    drop(bench);
    let bench = Bench::on(api, LONG, None);
    bench.publish([cluster("data", "a", 1)]);
    bench.writes().await;
    for path in [OF_A, AGGREGATE] {
        assert!(bench.object(path)["data"]["mapping.yaml"].is_string(), "{path}");
        assert!(bench.object(path)["data"]["ca.crt"].is_null(), "{path}");
    }
    assert!(bench.object("/api/v1/namespaces/here/configmaps/external-ip-ca").is_null());
}
