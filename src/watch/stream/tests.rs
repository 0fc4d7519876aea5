use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use external_ip_core::objects::Namespace;

use super::*;
use crate::client::fake::{Exchange, Fake};
use crate::map::Refresh;

/// What a test sees of a watch: the requests it makes, the changes it sends and its pulse.
struct Bench {
    server: Fake,
    changes: mpsc::Receiver<Change<Namespace>>,
    pulse: &'static Heard,
    refresh: Refresh,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    at: Mutex<Vec<Instant>>,
    lists: AtomicU32,
}

impl Pulse for Heard {
    fn heard(&self) {
        self.at.lock().unwrap().push(Instant::now());
    }
    fn listed(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bench {
    fn new() -> Self {
        let (client, server) = Fake::new();
        let (tx, changes) = mpsc::channel(64);
        let pulse: &'static Heard = Box::leak(Box::default());
        let selection =
            Selection { path: "/api/v1/namespaces".into(), labels: Some("a=b".into()), fields: None };
        let refresh = Refresh::default();
        let questions = refresh.feed("n".into());
        let task = tokio::spawn(async move {
            let sink = Sink { tx, wrap: Box::new(|c| c) };
            follow(client, "test", &selection, pulse, questions, sink).await;
        });
        Self { server, changes, pulse, refresh, task }
    }

    /// Has listed nothing at version 5 and watches.
    async fn watching() -> (Self, mpsc::UnboundedSender<String>) {
        let mut bench = Self::new();
        bench.list().await.ok(&page(5, &[], None));
        assert_eq!(bench.change().await, listed(&[], 5));
        let events = bench.watch(5).await.stream();
        (bench, events)
    }

    async fn list(&mut self) -> Exchange {
        let request = self.server.next().await;
        assert!(!request.query.contains_key("watch"), "a list is expected: {request:?}");
        assert_eq!(request.query.get("limit").map(String::as_str), Some("500"));
        assert!(!request.query.contains_key("resourceVersion"), "a list is consistent: {request:?}");
        request
    }

    async fn watch(&mut self, version: u64) -> Exchange {
        self.watch_for(version, "20").await
    }

    async fn watch_for(&mut self, version: u64, seconds: &str) -> Exchange {
        let request = self.server.next().await;
        let query = |key: &str| request.query.get(key).map(String::as_str);
        assert_eq!(query("watch"), Some("true"), "a watch is expected: {request:?}");
        assert_eq!(query("resourceVersion"), Some(&*version.to_string()));
        assert_eq!(query("allowWatchBookmarks"), Some("true"));
        assert_eq!(query("timeoutSeconds"), Some(seconds));
        assert_eq!(query("labelSelector"), Some("a%3Db"));
        request
    }

    async fn change(&mut self) -> Change<Namespace> {
        self.changes.recv().await.unwrap()
    }
}

fn object(name: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string()}})
}

fn namespace(name: &str, version: u64) -> Namespace {
    serde_json::from_value(object(name, version)).unwrap()
}

fn page(version: u64, items: &[Value], more: Option<&str>) -> Value {
    json!({"metadata": {"resourceVersion": version.to_string(), "continue": more}, "items": items})
}

fn listed(items: &[(&str, u64)], version: u64) -> Change<Namespace> {
    Change::Listed { items: items.iter().map(|(name, v)| namespace(name, *v)).collect(), version }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

#[tokio::test(start_paused = true)]
async fn each_page_is_a_part_of_the_list_and_it_is_watched_from_its_version() {
    let mut bench = Bench::new();
    bench.list().await.ok(&page(7, &[object("a", 3)], Some("next")));
    let second = bench.list().await;
    assert_eq!(second.query["continue"], "next");
    assert_eq!(bench.change().await, Change::Part(vec![namespace("a", 3)]));
    second.ok(&page(7, &[object("b", 4)], None));
    assert_eq!(bench.change().await, listed(&[("b", 4)], 7));
    bench.watch(7).await;
    assert_eq!(bench.pulse.lists.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_half_way_leaves_no_ghosts() {
    for code in [410, 500] {
        let mut bench = Bench::new();
        bench.list().await.ok(&page(7, &[object("ghost", 3)], Some("next")));
        bench.list().await.fail(code, "Broken");
        let again = bench.list().await;
        let sent: Vec<_> = std::iter::from_fn(|| bench.changes.try_recv().ok()).collect();
        assert_eq!(sent, [Change::Part(vec![namespace("ghost", 3)]), Change::Unlisted], "its parts are void");
        assert!(!again.query.contains_key("continue"), "from the first page: {again:?}");
        again.ok(&page(9, &[object("a", 8)], None));
        assert_eq!(bench.change().await, listed(&[("a", 8)], 9));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_renewed_from_the_last_version_without_a_list() {
    let (mut bench, events) = Bench::watching().await;
    events.send(line("ADDED", &object("a", 6))).unwrap();
    events.send(line("MODIFIED", &object("a", 7)) + &line("DELETED", &object("a", 8))).unwrap();
    events.send(line("BOOKMARK", &object("", 12))).unwrap();
    assert_eq!(bench.change().await, Change::Applied(namespace("a", 6)));
    assert_eq!(bench.change().await, Change::Applied(namespace("a", 7)));
    assert_eq!(bench.change().await, Change::Deleted(namespace("a", 8)));
    assert_eq!(bench.change().await, Change::Progress(12));
    sleep(Duration::from_secs(20)).await;
    drop(events);
    let end = Instant::now();
    bench.watch(12).await;
    assert_eq!(end.elapsed(), Duration::ZERO, "a renewal does not wait");
}

#[tokio::test(start_paused = true)]
async fn an_event_may_come_in_pieces() {
    let (mut bench, events) = Bench::watching().await;
    let text = line("ADDED", &object("a", 6)) + &line("BOOKMARK", &object("", 9));
    for piece in text.as_bytes().chunks(7) {
        events.send(String::from_utf8(piece.to_vec()).unwrap()).unwrap();
    }
    assert_eq!(bench.change().await, Change::Applied(namespace("a", 6)));
    assert_eq!(bench.change().await, Change::Progress(9));
}

#[tokio::test(start_paused = true)]
async fn an_expired_version_is_listed_anew() {
    let (mut bench, events) = Bench::watching().await;
    events.send(line("ERROR", &json!({"kind": "Status", "code": 410, "reason": "Expired"}))).unwrap();
    bench.list().await.ok(&page(20, &[], None));
    bench.watch(20).await.fail(410, "Gone");
    bench.list().await.ok(&page(30, &[], None));
    bench.watch(30).await;
}

#[tokio::test(start_paused = true)]
async fn other_failures_keep_objects_and_version() {
    let (mut bench, events) = Bench::watching().await;
    events.send(line("ADDED", &object("a", 6))).unwrap();
    assert_eq!(bench.change().await, Change::Applied(namespace("a", 6)));
    drop(events);
    for code in [403, 429, 500, 503] {
        bench.watch(6).await.fail(code, "Unwell");
    }
    drop(bench.watch(6).await); // the connection breaks
    bench.watch(6).await;
    assert!(bench.changes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restarted_server_is_noticed_within_seconds() {
    let (mut bench, events) = Bench::watching().await;
    drop(events);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(600) {
        drop(bench.watch(5).await);
    }
    let last = Instant::now();
    bench.watch(5).await;
    assert!(last.elapsed() <= 2 * LONGEST_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_time_gets_it() {
    let (mut bench, events) = Bench::watching().await;
    drop(events);
    bench.watch(5).await.answer(429, &json!({"code": 429, "details": {"retryAfterSeconds": 7}}));
    let asked = Instant::now();
    bench.watch(5).await;
    assert!(asked.elapsed() >= Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_hang_and_one_failed_attempt_are_over_before_the_watch_counts_as_stale() {
    let (mut bench, hanging) = Bench::watching().await;
    let unanswered = bench.watch(5).await;
    let answered = bench.watch(5).await.stream();
    answered.send(line("BOOKMARK", &object("", 6))).unwrap();
    assert_eq!(bench.change().await, Change::Progress(6));
    let heard = bench.pulse.at.lock().unwrap().clone();
    let longest = heard.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest >= WATCH_RENEWAL + WATCH_OVERDUE + OPEN_TIMEOUT, "both hung: {longest:?}");
    assert!(longest < crate::constants::STALE_AFTER, "silent for {longest:?}");
    drop((hanging, unanswered));
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_object_is_left_out_and_the_rest_goes_on() {
    let bad = json!({"metadata": {"name": "bad", "labels": 7}});
    let mut bench = Bench::new();
    bench.list().await.ok(&page(7, &[object("a", 3), bad.clone()], None));
    assert_eq!(bench.change().await, listed(&[("a", 3)], 7));
    let events = bench.watch(7).await.stream();
    events.send(line("MODIFIED", &bad)).unwrap();
    bench.list().await.ok(&page(9, &[bad], None));
    assert_eq!(bench.change().await, listed(&[], 9));
}

#[tokio::test(start_paused = true)]
async fn a_server_with_older_data_than_ours_is_listed_anew() {
    let (mut bench, mut events) = Bench::watching().await;
    for _ in 1..SILENT_WATCHES {
        sleep(Duration::from_secs(20)).await;
        drop(events);
        events = bench.watch(5).await.stream();
    }
    sleep(Duration::from_secs(20)).await;
    drop(events);
    bench.list().await.ok(&page(2, &[], None));
    assert_eq!(bench.change().await, listed(&[], 2));
    bench.watch(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_learns_where_the_server_is_and_a_short_watch_brings_the_bookmark() {
    let (mut bench, _events) = Bench::watching().await;
    let asked = bench.refresh.ask("n");
    let look = bench.server.next().await;
    assert_eq!(look.query.get("limit").map(String::as_str), Some("1"));
    assert!(!look.query.contains_key("resourceVersion"), "consistent: {look:?}");
    look.ok(&page(9, &[], None));
    assert_eq!(asked.await, 9);
    let events = bench.watch_for(5, "3").await.stream();
    events.send(line("BOOKMARK", &object("", 9))).unwrap();
    assert_eq!(bench.change().await, Change::Progress(9));
    sleep(Duration::from_secs(3)).await;
    drop(events);
    bench.watch(9).await;
    assert_eq!(bench.pulse.lists.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_that_does_not_come_is_given_one_more_short_watch() {
    let (mut bench, _events) = Bench::watching().await;
    let _asked = bench.refresh.ask("n");
    bench.server.next().await.ok(&page(9, &[], None));
    for length in ["3", "3", "20"] {
        let events = bench.watch_for(5, length).await.stream();
        sleep(Duration::from_secs(3)).await;
        drop(events);
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_before_the_bookmark_is_there_is_served_by_it_and_who_asks_later_by_the_next() {
    let (mut bench, _events) = Bench::watching().await;
    let _first = bench.refresh.ask("n");
    bench.server.next().await.ok(&page(9, &[], None));
    let events = bench.watch_for(5, "3").await.stream();
    let second = bench.refresh.ask("n");
    bench.server.next().await.ok(&page(11, &[], None));
    assert_eq!(second.await, 11);
    events.send(line("BOOKMARK", &object("", 11))).unwrap();
    assert_eq!(bench.change().await, Change::Progress(11));
    let _third = bench.refresh.ask("n");
    bench.server.next().await.ok(&page(12, &[], None));
    bench.watch_for(11, "3").await;
    assert_eq!(bench.pulse.lists.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn readers_that_ask_all_the_time_cost_four_looks_a_second_and_no_list() {
    let (mut bench, _events) = Bench::watching().await;
    let begun = Instant::now();
    let mut looks = 0;
    let mut watches = Vec::new();
    while begun.elapsed() < Duration::from_secs(60) {
        let _asked = bench.refresh.ask("n");
        let request = tokio::time::timeout(Duration::from_millis(10), bench.server.next()).await;
        match request {
            Ok(look) if look.query.contains_key("limit") => {
                looks += 1;
                look.ok(&page(5, &[], None));
            }
            // silent ones
            Ok(watch) => watches.push((Instant::now(), watch.stream())),
            Err(_) => watches.retain(|(since, _)| since.elapsed() < SHORT_RENEWAL),
        }
    }
    assert!((60..=300).contains(&looks), "{looks}");
    assert_eq!(bench.pulse.lists.load(Ordering::Relaxed), 1, "short watches may be silent");
}

#[tokio::test(start_paused = true)]
async fn a_reader_shows_that_the_server_was_restored() {
    let (mut bench, _events) = Bench::watching().await;
    let asked = bench.refresh.ask("n");
    bench.server.next().await.ok(&page(3, &[], None));
    assert_eq!(asked.await, 3);
    bench.list().await.ok(&page(3, &[], None));
    assert_eq!(bench.change().await, listed(&[], 3));
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_nobody_reads() {
    let (mut bench, events) = Bench::watching().await;
    bench.changes.close();
    events.send(line("ADDED", &object("a", 6))).unwrap();
    bench.task.await.unwrap();
}
