//! Carries out the plan's actions and says what became of each.
//!
//! Every write carries the precondition it was planned from, so nothing is sent twice here and nothing repeated: after
//! a failure the plan is made again from what the watches show.

use std::sync::Arc;
use std::time::Duration;

use external_ip_core::action::{Action, Outcome};
use external_ip_core::names::{ADOPT_ANNOTATION, Key};
use external_ip_core::objects::Service;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Request;
use kube::Client;
use kube::client::Body;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::lease::Leadership;
use crate::client::call::{self, CallError, Patch};
use crate::constants::WRITE_TIMEOUT;
use crate::metrics::Metrics;

/// Writes at once. One at a time would make a thousand Services in several seconds; each is a connection at the API
/// server and a seat in its fair queuing, which gives an account about as many.
const IN_FLIGHT: usize = 16;
/// A server's `Retry-After` holds back further writes for at most this long: leadership is shorter-lived than some.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Writes for one installation, while this replica leads.
pub struct Writer {
    client: Client,
    leadership: Leadership,
    installation: String,
    metrics: Arc<Metrics>,
}

impl Writer {
    /// Writes under `leadership`; `installation` is the owner by which our objects are known.
    pub fn new(client: Client, leadership: Leadership, installation: &str, metrics: Arc<Metrics>) -> Self {
        Self { client, leadership, installation: installation.to_owned(), metrics }
    }

    /// Carries out one action. Takes at most `WRITE_TIMEOUT`, and as long again to look at an object that has the
    /// name of one to be created.
    pub async fn perform(&self, action: &Action) -> Outcome {
        self.carry_out(action).await.0
    }

    /// The outcome, and how long the API server asks to be left alone.
    async fn carry_out(&self, action: &Action) -> (Outcome, Option<Duration>) {
        if !self.leadership.is_leading_now() {
            return (Outcome::NotLeading, None);
        }
        let begun = Instant::now();
        let sent = call::whole(&self.client, request(action), WRITE_TIMEOUT).await;
        self.metrics.write_duration.observe(begun.elapsed().as_secs_f64());
        match sent {
            Ok(_) => (Outcome::Done, None),
            Err(error) => {
                let pause = error.retry_after();
                (self.judge(action, error).await, pause)
            }
        }
    }

    async fn judge(&self, action: &Action, error: CallError) -> Outcome {
        let status = match &error {
            CallError::Status(status) => status,
            CallError::Transport(_) | CallError::Timeout(_) => {
                return Outcome::Unreachable(error.to_string());
            }
        };
        match (action, status.code, status.reason.as_str()) {
            (Action::RecordEvent(_), 409, "AlreadyExists") => Outcome::Done,
            (Action::CreateService(desired), 409, "AlreadyExists") => self.who_has(&desired.key).await,
            // such as two creations that count against one quota: nothing a watch would show
            (Action::CreateService(_) | Action::RecordEvent(_), 409, _) => {
                Outcome::Unreachable(error.to_string())
            }
            (_, 404 | 409, _) => Outcome::Conflict,
            // a JSON patch whose test fails does not apply; a field that is not valid would be named
            _ if action.pod().is_some() && status.code == 422 && !status.names_fields() => Outcome::Conflict,
            _ if error.is_transient() => Outcome::Unreachable(error.to_string()),
            _ => Outcome::Refused(error.to_string()),
        }
    }

    /// Looks at the Service that has the name of one to be created.
    async fn who_has(&self, key: &Key) -> Outcome {
        let bytes = match call::whole(&self.client, call::get(&service(key)), WRITE_TIMEOUT).await {
            Ok(bytes) => bytes,
            Err(error) if error.code() == Some(404) => return Outcome::Conflict,
            Err(error) if error.is_transient() => return Outcome::Unreachable(error.to_string()),
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        match serde_json::from_slice::<Service>(&bytes) {
            Ok(found) => Outcome::NameTaken {
                ours: found.owned_by(&self.installation),
                adoptable: found.annotations.get(ADOPT_ANNOTATION).is_some_and(|v| v == "true"),
                addresses: found.given().collect(),
                selector: found.selector.keys().map(str::to_owned).collect(),
                uid: found.uid,
                version: found.version,
            },
            Err(error) => Outcome::Refused(format!("the Service {key} exists and cannot be read: {error}")),
        }
    }

    /// Carries out `actions`, up to 16 at once, and answers each on `outcomes`. Two actions on one object must not be
    /// queued together. From `drain` on nothing new is sent: what is queued is answered `NotLeading`, and this
    /// returns when the writes under way have their answers.
    pub async fn run(
        self,
        mut actions: UnboundedReceiver<Action>,
        outcomes: UnboundedSender<(Action, Outcome)>,
        drain: CancellationToken,
    ) {
        let mut under_way = FuturesUnordered::new();
        let mut not_before = Instant::now();
        loop {
            let room = under_way.len() < IN_FLIGHT;
            tokio::select! {
                biased;
                Some((action, outcome, pause)) = under_way.next() => {
                    self.metrics.action(&action, &outcome);
                    if let Some(pause) = pause {
                        not_before = Instant::now() + LONGEST_PAUSE.min(pause);
                    }
                    // nobody listens any more only when the process ends
                    let _ = outcomes.send((action, outcome));
                }
                () = drain.cancelled() => break,
                () = sleep_until(not_before), if room && not_before > Instant::now() => {}
                action = actions.recv(), if room && not_before <= Instant::now() => {
                    let Some(action) = action else { break };
                    under_way.push(self.answered(action));
                }
            }
        }
        actions.close();
        while let Ok(action) = actions.try_recv() {
            let _ = outcomes.send((action, Outcome::NotLeading));
        }
        while let Some((action, outcome, _)) = under_way.next().await {
            self.metrics.action(&action, &outcome);
            let _ = outcomes.send((action, outcome));
        }
    }

    async fn answered(&self, action: Action) -> (Action, Outcome, Option<Duration>) {
        let (outcome, pause) = self.carry_out(&action).await;
        if let Outcome::Refused(why) = &outcome {
            tracing::warn!(action = action.kind(), object = object(&action), "refused: {why}");
        } else {
            tracing::debug!(action = action.kind(), object = object(&action), ?outcome);
        }
        (action, outcome, pause)
    }
}

fn request(action: &Action) -> Request<Body> {
    let body = action.body().to_string().into_bytes();
    match action {
        Action::CreateService(desired) => call::create(&services(&desired.key.namespace), body),
        Action::UpdateService { desired, .. } => call::patch(&service(&desired.key), Patch::Merge, body),
        Action::AnnotateService { key, .. } => call::patch(&service(key), Patch::Merge, body),
        Action::DeleteService { key, .. } => call::delete(&service(key), body),
        Action::LabelPod { key, .. } | Action::LiftGate { key, .. } => {
            call::patch(&pod(key), Patch::Json, body)
        }
        Action::MarkRouted { key, .. } => call::patch(&format!("{}/status", pod(key)), Patch::Json, body),
        Action::RecordEvent(event) => {
            call::create(&format!("/apis/events.k8s.io/v1/namespaces/{}/events", event.namespace), body)
        }
    }
}

fn pod(key: &Key) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", key.namespace, key.name)
}

fn services(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/services")
}

fn service(key: &Key) -> String {
    format!("{}/{}", services(&key.namespace), key.name)
}

/// What an action is about, for logs.
fn object(action: &Action) -> String {
    match action {
        Action::LabelPod { key, .. } | Action::LiftGate { key, .. } | Action::MarkRouted { key, .. } => {
            key.to_string()
        }
        Action::RecordEvent(event) => format!("{}/{}", event.namespace, event.object_name()),
        _ => action.service().map(ToString::to_string).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
