use std::collections::BTreeMap;

use external_ip_core::action::Event;
use external_ip_core::objects::{Protocol, ServicePort};
use external_ip_core::reason::Code;
use external_ip_core::service::{GivenUp, SlotService};
use external_ip_core::settings::{Exposure, ServiceTemplate};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::client::fake::{Exchange, Fake};
use crate::map::{Current, Liveness};

const LONG: Duration = Duration::from_secs(3600);

fn writer(time: Duration) -> (Writer, Fake) {
    let (client, server) = Fake::new();
    let metrics = Arc::new(Metrics::new(Arc::new(Current::new()), Arc::new(Liveness::new())));
    (Writer::new(client, Leadership::of(time), "mine", metrics), server)
}

fn slot(number: u32) -> SlotService {
    SlotService {
        key: Key::new("data", format!("db-ext-{number}")),
        cluster: "db".into(),
        exposure: Exposure::Dedicated,
        slot: number,
        owner: "mine".into(),
        class: "default".into(),
        pod: format!("db-{number}"),
        pod_id: Some(format!("db.db-{number}")),
        ports: vec![ServicePort {
            name: "p".into(),
            protocol: Protocol::Tcp,
            port: 1,
            target: 1,
            target_name: String::new(),
        }],
        template: ServiceTemplate::default(),
        asked: vec![],
        given_up: GivenUp::default(),
    }
}

fn create() -> Action {
    Action::CreateService(slot(0))
}

fn update() -> Action {
    Action::UpdateService { uid: "u".into(), version: 7, desired: slot(0), drop_selector: vec![] }
}

fn annotate() -> Action {
    let key = Key::new("data", "db-ext-0");
    Action::AnnotateService { key, uid: "u".into(), version: 7, annotation: "a/b", value: None }
}

fn delete() -> Action {
    Action::DeleteService { key: Key::new("data", "db-ext-0"), uid: "u".into(), version: 7 }
}

fn label() -> Action {
    Action::LabelPod { key: Key::new("data", "db-0"), uid: "u".into(), pod_id: "db.db-0".into() }
}

fn event() -> Action {
    Action::RecordEvent(Event {
        namespace: "data".into(),
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: "db-0".into(),
        uid: "u".into(),
        reason: Code::NoPorts.into(),
        at: 0,
    })
}

/// Carries out `action` while `answer` is given to its requests, one after the other.
async fn outcome_with(action: Action, answers: Vec<Box<dyn FnOnce(Exchange)>>) -> Outcome {
    let (writer, mut server) = writer(LONG);
    let task: JoinHandle<Outcome> = tokio::spawn(async move { writer.perform(&action).await });
    for answer in answers {
        answer(server.next().await);
    }
    task.await.unwrap()
}

async fn outcome(action: Action, code: u16, reason: &'static str) -> Outcome {
    outcome_with(action, vec![Box::new(move |request| request.fail(code, reason))]).await
}

#[tokio::test(start_paused = true)]
async fn every_action_is_one_request() {
    let merge = "application/merge-patch+json";
    for (action, method, path, content) in [
        (create(), "POST", "/api/v1/namespaces/data/services", "application/json"),
        (update(), "PATCH", "/api/v1/namespaces/data/services/db-ext-0", merge),
        (annotate(), "PATCH", "/api/v1/namespaces/data/services/db-ext-0", merge),
        (delete(), "DELETE", "/api/v1/namespaces/data/services/db-ext-0", "application/json"),
        (label(), "PATCH", "/api/v1/namespaces/data/pods/db-0", "application/json-patch+json"),
        (event(), "POST", "/apis/events.k8s.io/v1/namespaces/data/events", "application/json"),
    ] {
        let body = action.body();
        let done = outcome_with(
            action,
            vec![Box::new(move |request| {
                assert_eq!(
                    (request.method.as_str(), &*request.path, &*request.content),
                    (method, path, content)
                );
                assert_eq!(request.body, body);
                let manager = request.query.get("fieldManager").map(String::as_str);
                assert_eq!(manager, (method != "DELETE").then_some("external-ip-controller"));
                request.ok(&json!({}));
            })],
        );
        assert_eq!(done.await, Outcome::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn what_changed_meanwhile_is_a_conflict() {
    for action in [update(), annotate(), delete(), label()] {
        for (code, reason) in [(409, "Conflict"), (404, "NotFound")] {
            assert_eq!(outcome(action.clone(), code, reason).await, Outcome::Conflict);
        }
    }
    assert_eq!(outcome(label(), 422, "Invalid").await, Outcome::Conflict, "the test of the UID failed");
    assert_eq!(outcome(create(), 404, "NotFound").await, Outcome::Conflict, "the namespace is gone");
}

#[tokio::test(start_paused = true)]
async fn a_no_is_refused_with_its_message() {
    for action in [create(), update(), annotate(), delete(), label(), event()] {
        for (code, reason) in [(400, "BadRequest"), (403, "Forbidden")] {
            let Outcome::Refused(why) = outcome(action.clone(), code, reason).await else {
                panic!("{action:?}")
            };
            assert!(why.contains(&format!("it is {reason}")), "{why}");
        }
    }
    assert!(matches!(outcome(update(), 422, "Invalid").await, Outcome::Refused(_)));
    let invalid_label =
        json!({"code": 422, "reason": "Invalid", "details": {"causes": [{"field": "metadata"}]}});
    let answer: Box<dyn FnOnce(Exchange)> = Box::new(move |request| request.answer(422, &invalid_label));
    assert!(matches!(outcome_with(label(), vec![answer]).await, Outcome::Refused(_)));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_answer_now_is_unreachable() {
    for action in [create(), update(), annotate(), delete(), label(), event()] {
        for code in [401, 429, 500, 503, 504] {
            assert!(
                matches!(outcome(action.clone(), code, "Unwell").await, Outcome::Unreachable(_)),
                "{code}"
            );
        }
        let broken: Box<dyn FnOnce(Exchange)> = Box::new(drop);
        assert!(matches!(outcome_with(action, vec![broken]).await, Outcome::Unreachable(_)));
    }
    // a quota that two creations count against at once
    assert!(matches!(outcome(create(), 409, "Conflict").await, Outcome::Unreachable(_)));
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_is_given_up_in_time() {
    let (writer, mut server) = writer(LONG);
    let begun = Instant::now();
    let action = update();
    let (outcome, _unanswered) = tokio::join!(writer.perform(&action), server.next());
    assert!(matches!(outcome, Outcome::Unreachable(_)));
    assert_eq!(begun.elapsed().as_secs(), WRITE_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_repeated_event_is_done() {
    assert_eq!(outcome(event(), 409, "AlreadyExists").await, Outcome::Done);
}

async fn name_taken_by(labels: Value, annotations: Value) -> Outcome {
    let taken: Box<dyn FnOnce(Exchange)> = Box::new(|request| request.fail(409, "AlreadyExists"));
    let found: Box<dyn FnOnce(Exchange)> = Box::new(move |request| {
        assert_eq!(
            (request.method.as_str(), &*request.path),
            ("GET", "/api/v1/namespaces/data/services/db-ext-0")
        );
        request.ok(&json!({
            "metadata": {"name": "db-ext-0", "namespace": "data", "uid": "theirs", "resourceVersion": "42",
                "labels": labels, "annotations": annotations},
            "spec": {"selector": {"app": "x"}},
        }));
    });
    outcome_with(create(), vec![taken, found]).await
}

#[tokio::test(start_paused = true)]
async fn a_taken_name_is_judged_by_label_and_owner() {
    let label = json!({"app.kubernetes.io/managed-by": "external-ip-controller"});
    let owner = json!({"external-ip.dev/owner": "mine"});
    for (labels, annotations, ours, adoptable) in [
        (label.clone(), owner.clone(), true, false),
        (label, json!({"external-ip.dev/owner": "another installation"}), false, false),
        (json!({}), owner, false, false),
        (json!({}), json!({"external-ip.dev/adopt": "true"}), false, true),
        (json!({}), json!({"external-ip.dev/adopt": "yes"}), false, false),
    ] {
        let expected = Outcome::NameTaken {
            uid: "theirs".into(),
            version: 42,
            ours,
            adoptable,
            selector: vec!["app".into()],
            addresses: vec![],
        };
        assert_eq!(name_taken_by(labels, annotations).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn without_leadership_nothing_is_sent() {
    let (writer, mut server) = writer(Duration::from_secs(10));
    sleep(Duration::from_secs(10)).await;
    for action in [create(), update(), annotate(), delete(), label(), event()] {
        assert_eq!(writer.perform(&action).await, Outcome::NotLeading);
    }
    assert!(server.is_idle());
}

fn answer(requests: Vec<Exchange>) {
    for request in requests {
        request.ok(&json!({}));
    }
}

struct Pool {
    server: Fake,
    actions: mpsc::UnboundedSender<Action>,
    outcomes: mpsc::UnboundedReceiver<(Action, Outcome)>,
    drain: CancellationToken,
    task: JoinHandle<()>,
}

fn pool(time: Duration) -> Pool {
    let (writer, server) = writer(time);
    let (actions, queue) = mpsc::unbounded_channel();
    let (answers, outcomes) = mpsc::unbounded_channel();
    let drain = CancellationToken::new();
    let task = tokio::spawn(writer.run(queue, answers, drain.clone()));
    Pool { server, actions, outcomes, drain, task }
}

impl Pool {
    fn queue(&self, count: u32) {
        for number in 0..count {
            self.actions.send(Action::CreateService(slot(number))).unwrap();
        }
    }

    /// Requests under way once nothing moves any more.
    async fn under_way(&mut self) -> Vec<Exchange> {
        sleep(Duration::from_millis(1)).await;
        std::iter::from_fn(|| self.server.taken()).collect()
    }

    async fn rest(mut self) -> BTreeMap<&'static str, usize> {
        self.task.await.unwrap();
        let mut counts = BTreeMap::new();
        while let Some((_, outcome)) = self.outcomes.recv().await {
            let name = match outcome {
                Outcome::Done => "done",
                Outcome::NotLeading => "not leading",
                _ => "other",
            };
            *counts.entry(name).or_default() += 1;
        }
        counts
    }
}

#[tokio::test(start_paused = true)]
async fn sixteen_writes_are_under_way_at_once_and_each_answer_makes_room() {
    let mut pool = pool(LONG);
    pool.queue(20);
    let mut requests = pool.under_way().await;
    assert_eq!(requests.len(), IN_FLIGHT);
    for request in requests.drain(..3) {
        request.ok(&json!({}));
    }
    requests.extend(pool.under_way().await);
    assert_eq!(requests.len(), IN_FLIGHT);
    answer(requests);
    let last = pool.under_way().await;
    assert_eq!(last.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_writes_under_way_and_sends_no_more() {
    let mut pool = pool(LONG);
    pool.queue(20);
    let requests = pool.under_way().await;
    pool.drain.cancel();
    sleep(Duration::from_secs(1)).await;
    assert!(!pool.task.is_finished() && pool.server.is_idle());
    answer(requests);
    assert_eq!(pool.rest().await, BTreeMap::from([("done", 16), ("not leading", 4)]));
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_a_hanging_server_ends_with_the_write_timeout() {
    let mut pool = pool(LONG);
    pool.queue(20);
    let _unanswered = pool.under_way().await;
    pool.drain.cancel();
    let begun = Instant::now();
    assert_eq!(pool.rest().await, BTreeMap::from([("other", 16), ("not leading", 4)]));
    assert!(begun.elapsed() <= WRITE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_when_leadership_ends_is_not_sent() {
    let mut pool = pool(Duration::from_secs(2));
    pool.queue(20);
    let requests = pool.under_way().await;
    sleep(Duration::from_secs(2)).await;
    answer(requests);
    assert!(pool.under_way().await.is_empty());
    pool.drain.cancel();
    assert_eq!(pool.rest().await, BTreeMap::from([("done", 16), ("not leading", 4)]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_time_gets_it() {
    let mut pool = pool(LONG);
    pool.queue(17);
    let requests = pool.under_way().await;
    let busy = json!({"code": 429, "details": {"retryAfterSeconds": 2}});
    for request in requests {
        request.answer(429, &busy);
    }
    assert!(pool.under_way().await.is_empty());
    let asked = Instant::now();
    pool.server.next().await;
    assert!(asked.elapsed() >= Duration::from_millis(1990), "{:?}", asked.elapsed());
}
