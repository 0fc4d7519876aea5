//! Watches on a real API server that is killed, frozen, or cannot be reached.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use external_ip_controller::constants::{STALE_AFTER, WATCH_RENEWAL};
use external_ip_controller::map::Questions;
use external_ip_controller::watch::{Pulse, Selection, Sink, follow};
use external_ip_core::objects::Service;
use external_ip_core::state::Change;
use kube::Client;
use local_cluster::Component;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::bare::Bare;
use crate::support::api::Api;
use crate::support::install::ACCOUNT;
use crate::support::proxy::Wire;
use crate::support::{eventually, within};

/// What one watch has made of the Services of a namespace.
struct View {
    seen: Arc<Seen>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Default)]
struct Seen {
    names: Mutex<BTreeSet<String>>,
    version: Mutex<u64>,
    lists: AtomicU32,
    bookmarks: AtomicU32,
    heard: Mutex<Option<Instant>>,
    longest_silence: Mutex<Duration>,
}

impl Pulse for Seen {
    fn listing(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
    }
    fn heard(&self) {
        let silence = self.heard.lock().unwrap().replace(Instant::now()).map(|at| at.elapsed());
        let mut longest = self.longest_silence.lock().unwrap();
        *longest = longest.max(silence.unwrap_or_default());
    }
    fn listed(&self) {}
}

impl View {
    fn start(client: Client, namespace: &str) -> Self {
        let seen = Arc::new(Seen::default());
        let (tx, mut changes) = mpsc::channel(16);
        let selection = Selection {
            path: format!("/api/v1/namespaces/{namespace}/services"),
            labels: Some("app=c".into()),
            fields: None,
        };
        let pulse = Arc::clone(&seen);
        let watching = tokio::spawn(async move {
            let sink = Sink { tx, wrap: Box::new(|change: Change<Service>| change) };
            follow(client, "test", &selection, &*pulse, Questions::none(), sink).await;
        });
        let state = Arc::clone(&seen);
        let applying = tokio::spawn(async move {
            while let Some(change) = changes.recv().await {
                state.apply(change);
            }
        });
        Self { seen, tasks: [watching, applying] }
    }

    async fn shows(&self, names: &[&str]) {
        let wanted: BTreeSet<String> = names.iter().map(|n| (*n).to_owned()).collect();
        eventually(&format!("{names:?} are seen"), async || {
            let now = self.seen.names.lock().unwrap().clone();
            if now == wanted { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }

    fn lists(&self) -> u32 {
        self.seen.lists.load(Ordering::Relaxed)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Seen {
    fn apply(&self, change: Change<Service>) {
        let mut names = self.names.lock().unwrap();
        let mut version = self.version.lock().unwrap();
        match change {
            Change::Listed { items, version: listed } => {
                *names = items.iter().map(|s| s.key.name.to_string()).collect();
                *version = listed;
            }
            Change::Part(_) | Change::Unlisted => panic!("more than one page"),
            Change::Applied(service) => {
                assert!(service.version > *version, "versions only grow");
                *version = service.version;
                names.insert(service.key.name.to_string());
            }
            Change::Deleted(service) => {
                assert!(service.version > *version, "a deletion has a version of its own");
                *version = service.version;
                names.remove(&*service.key.name);
            }
            Change::Progress(seen) => {
                self.bookmarks.fetch_add(1, Ordering::Relaxed);
                *version = seen.max(*version);
            }
        }
    }
}

async fn create(api: &Api, namespace: &str, name: &str) {
    let service =
        json!({"metadata": {"name": name, "labels": {"app": "c"}}, "spec": {"ports": [{"port": 1}]}});
    api.post(&format!("/api/v1/namespaces/{namespace}/services"), &service).await.ok();
}

async fn delete(api: &Api, namespace: &str, name: &str) {
    api.delete(&format!("/api/v1/namespaces/{namespace}/services/{name}")).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaves_the_selection_is_deleted_and_a_quiet_watch_has_bookmarks_and_no_new_lists() {
    let bare = Bare::new().await;
    bare.namespace("quiet").await;
    create(&bare.admin, "quiet", "a").await;
    create(&bare.admin, "quiet", "b").await;
    let audited = bare.cluster.audit_position().unwrap();
    let view = View::start(bare.client().await, "quiet");
    view.shows(&["a", "b"]).await;
    let unlabel = json!({"metadata": {"labels": {"app": null}}});
    bare.admin.patch("/api/v1/namespaces/quiet/services/b", &unlabel).await.ok();
    view.shows(&["a"]).await;
    // a busy API server leaves a bookmark out now and then
    within(6 * WATCH_RENEWAL, "two watches have been renewed", async || {
        match view.seen.bookmarks.load(Ordering::Relaxed) {
            n if n >= 2 => Ok(()),
            n => Err(format!("{n} bookmarks")),
        }
    })
    .await;
    assert_eq!(view.lists(), 1);
    // a watch without a bookmark is silent until it is renewed
    let silence = *view.seen.longest_silence.lock().unwrap();
    assert!(silence < STALE_AFTER, "{silence:?}");
    let (events, _) = bare.cluster.audit_events_since(audited).unwrap();
    let lists = events.iter().filter(|e| e.user == ACCOUNT && e.verb == "list" && e.namespace == "quiet");
    assert_eq!(lists.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_the_api_server_has_forgotten_is_listed_anew_without_ghosts() {
    let bare = Bare::new().await;
    bare.namespace("ghosts").await;
    for name in ["a", "ghost"] {
        create(&bare.admin, "ghosts", name).await;
    }
    let (client, wire) = bare.wired().await;
    let view = View::start(client, "ghosts");
    view.shows(&["a", "ghost"]).await;
    wire.set(Wire::Cut);
    delete(&bare.admin, "ghosts", "ghost").await;
    create(&bare.admin, "ghosts", "new").await;
    // a new API server knows nothing from before its start
    bare.cluster.kill(Component::ApiServer).unwrap();
    bare.cluster.start(Component::ApiServer).unwrap();
    bare.cluster.wait_ready(Duration::from_secs(60)).unwrap();
    assert_eq!(view.lists(), 1);
    wire.set(Wire::Open);
    let open = Instant::now();
    view.shows(&["a", "new"]).await;
    println!("right again {:.1} s after the wire was mended", open.elapsed().as_secs_f32());
    assert_eq!(view.lists(), 2, "410 and one list");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_api_server_is_watched_again_within_seconds_of_its_return() {
    let bare = Bare::new().await;
    bare.namespace("killed").await;
    create(&bare.admin, "killed", "a").await;
    let view = View::start(bare.client().await, "killed");
    view.shows(&["a"]).await;
    bare.cluster.kill(Component::ApiServer).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(view.seen.names.lock().unwrap().len(), 1, "what was seen stays");
    bare.cluster.start(Component::ApiServer).unwrap();
    bare.cluster.wait_ready(Duration::from_secs(60)).unwrap();
    let ready = Instant::now();
    create(&bare.admin, "killed", "b").await;
    view.shows(&["a", "b"]).await;
    let took = ready.elapsed();
    println!("a new object is seen {:.1} s after the API server is ready", took.as_secs_f32());
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_given_up_before_the_watch_is_stale_and_nothing_is_missed() {
    let bare = Bare::new().await;
    bare.namespace("half-open").await;
    create(&bare.admin, "half-open", "a").await;
    let (client, wire) = bare.wired().await;
    let view = View::start(client, "half-open");
    view.shows(&["a"]).await;
    // by an event, so the watch is open: what is frozen is not its request
    create(&bare.admin, "half-open", "b").await;
    view.shows(&["a", "b"]).await;
    wire.set(Wire::Frozen);
    create(&bare.admin, "half-open", "c").await;
    view.shows(&["a", "b", "c"]).await;
    let silence = *view.seen.longest_silence.lock().unwrap();
    println!("silent for {:.1} s", silence.as_secs_f32());
    assert!(silence > WATCH_RENEWAL, "it was frozen: {silence:?}");
    assert!(silence < STALE_AFTER, "{silence:?}");
    assert_eq!(view.lists(), 1, "from where it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_api_server_is_watched_from_where_it_was_once_it_goes_on() {
    let bare = Bare::new().await;
    bare.namespace("frozen").await;
    create(&bare.admin, "frozen", "a").await;
    let view = View::start(bare.client().await, "frozen");
    view.shows(&["a"]).await;
    bare.cluster.pause(Component::ApiServer).unwrap();
    tokio::time::sleep(STALE_AFTER + Duration::from_secs(5)).await;
    bare.cluster.resume(Component::ApiServer).unwrap();
    let thawed = Instant::now();
    create(&bare.admin, "frozen", "b").await;
    view.shows(&["a", "b"]).await;
    let took = thawed.elapsed();
    println!("a new object is seen {:.1} s after the API server goes on", took.as_secs_f32());
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(view.lists(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_is_seen_though_its_versions_are_older_than_ours() {
    let bare = Bare::new().await;
    bare.namespace("restored").await;
    create(&bare.admin, "restored", "a").await;
    bare.stop_store();
    let (data, copy) = (bare.cluster.etcd_data().unwrap(), bare.cluster.dir().unwrap().join("backup"));
    copy_tree(&data, &copy);
    bare.start_store();
    let view = View::start(bare.client().await, "restored");
    for number in 0..20 {
        create(&bare.admin, "restored", &format!("lost-{number}")).await;
    }
    eventually("all are seen", async || match view.seen.names.lock().unwrap().len() {
        21 => Ok(()),
        n => Err(n.to_string()),
    })
    .await;
    let before = *view.seen.version.lock().unwrap();

    bare.stop_store();
    std::fs::remove_dir_all(&data).unwrap();
    copy_tree(&copy, &data);
    bare.start_store();
    let restored = Instant::now();
    within(8 * WATCH_RENEWAL, "the backup is seen", async || {
        let names = view.seen.names.lock().unwrap().clone();
        if names.len() == 1 { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    let now = *view.seen.version.lock().unwrap();
    println!("version {before}, then {now}, {:.0} s after the restore", restored.elapsed().as_secs_f32());
    assert!(now < before);
    std::fs::remove_dir_all(&copy).unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}
