//! Probes and metrics, in plain text: for the kubelet and for Prometheus, inside the Kubernetes cluster.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{StatusCode, Uri};

use super::problem::Problem;
use crate::constants::STALE_AFTER;
use crate::map::{Current, Liveness};
use crate::metrics::{self, Metrics};
use crate::tls::ServedKey;

/// Whether this replica should be asked. Readiness is earned (everything listed, keys loaded, listeners bound) and lost
/// again (a feed silent for too long, the process stopping).
pub struct Health {
    current: Arc<Current>,
    liveness: Arc<Liveness>,
    parts: Mutex<Vec<Part>>,
    stopping: AtomicBool,
}

/// Something that must be there once.
enum Part {
    Listener { name: &'static str, bound: bool },
    Key { name: &'static str, key: Arc<ServedKey> },
}

/// One line of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is checked.
    pub name: String,
    /// Why it fails; `None` = it holds.
    pub failure: Option<String>,
}

impl Health {
    /// Judges by what is published and heard. Listeners and keys are declared before the admin listener serves.
    pub fn new(current: Arc<Current>, liveness: Arc<Liveness>) -> Self {
        Self { current, liveness, parts: Mutex::default(), stopping: AtomicBool::new(false) }
    }

    /// A listener that shall be bound; [`bound`](Self::bound) says when it is.
    pub fn expect_listener(&self, name: &'static str) {
        self.parts().push(Part::Listener { name, bound: false });
    }

    /// The listener `name` takes connections from now on.
    pub fn bound(&self, name: &'static str) {
        for part in self.parts().iter_mut() {
            if let Part::Listener { name: listener, bound } = part
                && *listener == name
            {
                *bound = true;
            }
        }
    }

    /// The key a listener needs.
    pub fn expect_key(&self, name: &'static str, key: Arc<ServedKey>) {
        self.parts().push(Part::Key { name, key });
    }

    /// The process is stopping: not ready any more, so that it is taken out of its Services.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Everything readiness depends on.
    pub fn checks(&self) -> Vec<Check> {
        let check = |name: String, failure: Option<String>| Check { name, failure };
        let stopping = self.stopping.load(Ordering::Relaxed).then(|| "the process is stopping".to_owned());
        let mut checks = vec![check("running".to_owned(), stopping)];
        checks.extend(self.parts().iter().map(|part| match part {
            Part::Listener { name, bound } => {
                check(format!("listener {name}"), (!bound).then(|| "not bound yet".to_owned()))
            }
            Part::Key { name, key } => check(format!("certificate {name}"), key.problem()),
        }));
        for feed in self.liveness.feeds() {
            let failure = match (feed.listed, feed.silent_for) {
                (false, _) => Some(
                    "not listed yet: is the API server reachable, and may this account list it?".to_owned(),
                ),
                (true, Some(silence)) if silence >= STALE_AFTER => {
                    Some(format!("the API server has been silent for {} s", silence.as_secs()))
                }
                (true, _) => None,
            };
            checks.push(check(format!("feed {}", feed.name), failure));
        }
        let empty = self.current.load().is_none().then(|| "nothing is published yet".to_owned());
        checks.push(check("map".to_owned(), empty));
        checks
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Vec<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Shared {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// The routes of the admin listener.
pub fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        // says that the process turns over; what ends a task ends the process, so there is nothing else to say
        .route("/livez", get(async || plain(StatusCode::OK, "ok\n".to_owned())))
        .route("/readyz", get(async |State(s): State<Arc<Shared>>| readiness(&s.health)))
        .route(
            "/metrics",
            get(async |State(s): State<Arc<Shared>>| {
                ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], s.metrics.text())
            }),
        )
        .fallback(async |uri: Uri| {
            Problem::new(StatusCode::NOT_FOUND, "NoSuchPath")
                .message(format!("there is nothing at {}", uri.path()))
                .remedy("there are /livez, /readyz and /metrics")
        })
        .with_state(Arc::new(Shared { health, metrics }))
}

fn readiness(health: &Health) -> impl IntoResponse + use<> {
    let checks = health.checks();
    let mut text = String::new();
    for check in &checks {
        // writing into a String does not fail
        let _ = match &check.failure {
            None => writeln!(text, "[+] {}", check.name),
            Some(why) => writeln!(text, "[-] {}: {why}", check.name),
        };
    }
    let ready = checks.iter().all(|c| c.failure.is_none());
    plain(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

fn plain(status: StatusCode, text: String) -> impl IntoResponse + use<> {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")], text)
}

#[cfg(test)]
mod tests;
