use std::sync::Mutex;

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tower::BoxError;

use super::*;

/// The API server as far as one Lease goes. Every replica has a line of its own to it.
#[derive(Default)]
struct Server {
    lease: Mutex<Option<(u64, Value)>>,
    writes: Mutex<Vec<String>>,
    last_write: Mutex<Option<Instant>>,
    /// By how much the clocks of those who write are wrong.
    wrong: Mutex<jiff::SignedDuration>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Line {
    Up,
    /// Requests are neither answered nor refused.
    Hangs,
    /// Requests are carried out, the answers are lost.
    LosesAnswers,
    Refuses(u16),
    /// Answers come late.
    Slow(Duration),
}

struct Replica {
    line: Arc<Mutex<Line>>,
    leadership: Leadership,
    release: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// With the empty Lease of the manifests.
    fn new() -> Arc<Self> {
        let server = Self::default();
        *server.lease.lock().unwrap() = Some((1, json!({})));
        Arc::new(server)
    }

    fn holder(&self) -> String {
        let lease = self.lease.lock().unwrap();
        lease.as_ref().and_then(|(_, spec)| spec["holderIdentity"].as_str()).unwrap_or_default().to_owned()
    }

    fn client(self: &Arc<Self>, line: &Arc<Mutex<Line>>) -> Client {
        let (server, line) = (Arc::clone(self), Arc::clone(line));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, line) = (Arc::clone(&server), Arc::clone(&line));
            async move {
                let line = *line.lock().unwrap();
                if line == Line::Hangs {
                    std::future::pending::<()>().await;
                }
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let (code, answer) = match line {
                    Line::Refuses(code) => (code, json!({"message": "refused"})),
                    _ => server.answer(&parts.method, &serde_json::from_slice(&body).unwrap_or_default()),
                };
                match line {
                    Line::LosesAnswers => std::future::pending().await,
                    Line::Slow(by) => sleep(by).await,
                    _ => {}
                }
                let body = Full::new(axum::body::Bytes::from(answer.to_string()));
                Ok::<_, BoxError>(Response::builder().status(code).body(body)?)
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, body: &Value) -> (u16, Value) {
        let mut lease = self.lease.lock().unwrap();
        if *method != Method::GET {
            let holder = body["spec"]["holderIdentity"].as_str().unwrap_or_default();
            self.writes.lock().unwrap().push(format!("{method} {holder}"));
            *self.last_write.lock().unwrap() = Some(Instant::now());
        }
        match (method, lease.as_mut()) {
            (&Method::POST, None) => *lease = Some((100, body["spec"].clone())),
            (&Method::POST, Some(_)) => return (409, json!({"reason": "AlreadyExists"})),
            (_, None) => return (404, json!({"reason": "NotFound"})),
            (&Method::PATCH, Some((version, spec))) => {
                if body["metadata"]["resourceVersion"].as_str() != Some(&*version.to_string()) {
                    return (409, json!({"reason": "Conflict"}));
                }
                *version += 1;
                for (key, value) in body["spec"].as_object().unwrap() {
                    spec[key] = value.clone();
                }
                let written: jiff::Timestamp = spec["renewTime"].as_str().unwrap().parse().unwrap();
                spec["renewTime"] = json!(format!("{:.6}", written + *self.wrong.lock().unwrap()));
            }
            _ => {}
        }
        let (version, spec) = lease.as_ref().unwrap();
        (200, json!({"metadata": {"resourceVersion": version.to_string()}, "spec": spec}))
    }
}

impl Replica {
    fn start(server: &Arc<Server>, name: &str) -> Self {
        let line = Arc::new(Mutex::new(Line::Up));
        let (candidate, leadership) = candidate(&server.client(&line), "here", name);
        let release = CancellationToken::new();
        let task = tokio::spawn(candidate.run(release.clone()));
        Self { line, leadership, release, task }
    }

    fn line(&self, line: Line) {
        *self.line.lock().unwrap() = line;
    }

    fn leads(&self) -> bool {
        self.leadership.is_leading_now()
    }

    /// Waits for the role; gives how long that took.
    async fn when(&self, leading: bool) -> Duration {
        let begun = Instant::now();
        let mut changes = self.leadership.changes();
        changes.wait_for(|role| matches!(role, Role::Leading { .. }) == leading).await.unwrap();
        begun.elapsed()
    }
}

async fn two() -> (Arc<Server>, Replica, Replica) {
    let server = Server::new();
    let a = Replica::start(&server, "a");
    a.when(true).await;
    let b = Replica::start(&server, "b");
    (server, a, b)
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_goes_on_leading() {
    let (server, a, b) = two().await;
    for _ in 0..300 {
        sleep(Duration::from_secs(1)).await;
        assert!(a.leads() && !b.leads());
    }
    assert!(server.holder().starts_with("a_"));
    assert!(server.writes.lock().unwrap().iter().all(|w| w.starts_with("PATCH a_")));
    let (_, spec) = server.lease.lock().unwrap().clone().unwrap();
    assert_eq!((&spec["leaseTransitions"], &spec["leaseDurationSeconds"]), (&json!(1), &json!(15)));
    assert!(spec["renewTime"].as_str().unwrap() >= spec["acquireTime"].as_str().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_replaced_after_the_lease_and_not_before() {
    let (_server, a, b) = two().await;
    sleep(Duration::from_secs(60)).await;
    a.task.abort();
    let took = b.when(true).await;
    assert!(
        took + LEASE_RETRY > LEASE_DURATION && took < LEASE_DURATION + 2 * LEASE_RETRY,
        "it took {took:?}"
    );
    assert_eq!(*b.leadership.changes().borrow(), Role::Leading { term: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_judged_by_how_long_it_stands_still_whatever_the_clocks_say() {
    for hours in [-3, 3] {
        let (server, a, b) = two().await;
        *server.wrong.lock().unwrap() = jiff::SignedDuration::from_hours(hours);
        for _ in 0..60 {
            sleep(Duration::from_secs(1)).await;
            assert!(a.leads() && !b.leads());
        }
        a.task.abort();
        let took = b.when(true).await;
        assert!(took < LEASE_DURATION + 2 * LEASE_RETRY, "{hours} hours: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_calls_hang_or_fail_stops_before_another_begins() {
    for line in [Line::Hangs, Line::LosesAnswers, Line::Refuses(500), Line::Refuses(403)] {
        let (_server, a, b) = two().await;
        sleep(Duration::from_secs(60)).await;
        a.line(line);
        let cut = Instant::now();
        a.when(false).await;
        assert!(!a.leads());
        assert!(cut.elapsed() <= LEASE_RENEW_DEADLINE, "{line:?}: {:?}", cut.elapsed());
        while !b.leads() {
            assert!(!a.leads(), "{line:?}: two leaders");
            sleep(Duration::from_millis(10)).await;
        }
        if line != Line::LosesAnswers {
            // a write begun at the last moment has timed out by now
            assert!(cut.elapsed() + LEASE_RETRY >= LEASE_DURATION, "{line:?}: {:?}", cut.elapsed());
        }
        a.line(Line::Up);
        sleep(Duration::from_secs(60)).await;
        assert!(b.leads() && !a.leads());
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_before_the_renewal_was_sent() {
    let (server, a, _b) = two().await;
    a.line(Line::Slow(Duration::from_millis(2500)));
    sleep(Duration::from_secs(60)).await;
    a.line(Line::Hangs);
    while a.leads() {
        sleep(Duration::from_millis(1)).await;
    }
    let written = server.last_write.lock().unwrap().unwrap();
    assert!(
        written.elapsed() <= LEASE_RENEW_DEADLINE,
        "led for {:?} after its last write",
        written.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_costs_no_leadership() {
    let (_server, a, b) = two().await;
    for line in [Line::Hangs, Line::LosesAnswers, Line::Refuses(503)] {
        a.line(line);
        sleep(Duration::from_secs(5)).await;
        a.line(Line::Up);
        sleep(Duration::from_secs(10)).await;
        assert!(a.leads() && !b.leads(), "{line:?}");
    }
    assert_eq!(*a.leadership.changes().borrow(), Role::Leading { term: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_does_not_pass_the_check() {
    let (server, a, _b) = two().await;
    // somebody takes the Lease by hand, as a leader that was cut off and came back would see it
    if let Some((version, spec)) = server.lease.lock().unwrap().as_mut() {
        *version += 1;
        spec["holderIdentity"] = json!("somebody");
    }
    assert!(a.when(false).await <= 2 * LEASE_RETRY);
    assert!(!a.leads());
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_the_next_look() {
    let (server, a, b) = two().await;
    sleep(Duration::from_secs(60)).await;
    a.release.cancel();
    a.task.await.unwrap();
    assert!(!a.leadership.is_leading_now());
    assert_eq!(server.holder(), "");
    assert!(b.when(true).await <= LEASE_RETRY);
}

#[tokio::test(start_paused = true)]
async fn a_release_during_a_renewal_whose_answer_is_lost_still_hands_over() {
    let (server, a, _b) = two().await;
    a.line(Line::LosesAnswers);
    sleep(LEASE_RETRY + Duration::from_secs(1)).await;
    a.line(Line::Up);
    a.release.cancel();
    a.task.await.unwrap();
    assert_eq!(server.holder(), "");
}

#[tokio::test(start_paused = true)]
async fn a_missing_lease_is_made_and_a_deleted_one_made_again() {
    let server = Arc::new(Server::default());
    let a = Replica::start(&server, "a");
    a.when(true).await;
    *server.lease.lock().unwrap() = None;
    sleep(Duration::from_secs(60)).await;
    assert!(a.leads() && server.holder().starts_with("a_"));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_not_there_at_start_is_waited_for() {
    let server = Server::new();
    let a = Replica::start(&server, "a");
    a.line(Line::Refuses(503));
    sleep(Duration::from_secs(100)).await;
    assert!(!a.leads());
    a.line(Line::Up);
    assert!(a.when(true).await <= LEASE_RETRY);
}
