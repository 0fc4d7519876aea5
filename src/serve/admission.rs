//! `POST /mutate`: the API server's reviews of new pods. Every review that can be answered is answered with "allowed";
//! what goes wrong costs a stamp, never a pod.

mod room;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use external_ip_core::mapping::SlotAddress;
use external_ip_core::names::Key;
use external_ip_core::settings::Settings;
use external_ip_core::stamp::{self, Answer, Unanswerable};
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde_json::json;

use super::problem::Problem;
use crate::constants::{BODY_TIMEOUT, REVIEW_BYTES, REVIEW_BYTES_IN_FLIGHT};
use crate::map::{Current, Liveness};
use crate::metrics::Metrics;
use room::{Room, Share};

/// The path of the registration.
pub const PATH: &str = "/mutate";

/// What admission decides from.
pub struct Admission {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Kept addresses.
    pub current: Arc<Current>,
    /// Whether those may be relied on.
    pub liveness: Arc<Liveness>,
    /// Counts answers.
    pub metrics: Arc<Metrics>,
}

struct Shared {
    admission: Admission,
    decide: Decide,
    /// For bodies that are being read.
    room: Arc<Room>,
}

/// The decision itself, exchangeable so that a test can make it panic.
type Decide = fn(&[u8], &Settings, stamp::KeptSlots<'_>) -> Result<Answer, Unanswerable>;

/// The routes of the admission listener.
pub fn router(admission: Admission) -> Router {
    with_decision(admission, stamp::answer)
}

fn with_decision(admission: Admission, decide: Decide) -> Router {
    let shared = Arc::new(Shared { admission, decide, room: Room::new(REVIEW_BYTES_IN_FLIGHT) });
    Router::new()
        .route(PATH, post(async |State(s): State<Arc<Shared>>, request: Request| s.answer(request).await))
        .fallback(async |uri: Uri| {
            Problem::new(StatusCode::NOT_FOUND, "NoSuchPath")
                .message(format!("there is nothing at {}", uri.path()))
                .remedy(format!("AdmissionReviews are answered at {PATH}"))
        })
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "OnlyPost")
                .message(format!("{PATH} answers AdmissionReviews: use POST"))
                .header(ALLOW, HeaderValue::from_static("POST"))
        })
        .with_state(shared)
}

impl Shared {
    async fn answer(&self, request: Request) -> Response {
        match self.read(request).await {
            Ok(body) => self.decide(&body).unwrap_or_else(Response::from),
            Err(problem) => {
                self.admission.metrics.admission_unread();
                problem.into()
            }
        }
    }

    async fn read(&self, request: Request) -> Result<Bytes, Problem> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "NotJson")
                .message("an AdmissionReview is expected as application/json"));
        }
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > REVIEW_BYTES) {
            return Err(too_large());
        }
        let share = self.room.begin();
        let read = async {
            tokio::select! {
                read = read_body(body, &share) => read,
                () = share.ended.cancelled() => Err(Problem::unavailable("TooManyReviews")
                    .message("the body took longer than others that needed its memory")),
            }
        };
        let late = || {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "TooSlow")
                .message(format!("the body was not complete within {} s", BODY_TIMEOUT.as_secs()))
        };
        tokio::time::timeout(BODY_TIMEOUT, read).await.map_err(|_| late())?
    }

    fn decide(&self, body: &[u8]) -> Result<Response, Problem> {
        let begun = Instant::now();
        let Admission { settings, metrics, .. } = &self.admission;
        let decided =
            catch_unwind(AssertUnwindSafe(|| (self.decide)(body, settings, &|c, p| self.kept(c, p))));
        let (result, reason, answer) = match decided {
            Ok(Ok(answer)) => {
                let (result, reason) = judged(&answer);
                (result, reason, Ok(review(answer.body)))
            }
            Ok(Err(error)) => ("unanswerable", "", Err(unanswerable(&error))),
            Err(panic) => {
                metrics.panicked("admission_decision");
                ("panic", "", allowed_in_spite_of(&*panic, body))
            }
        };
        metrics.admission(result, reason, begun.elapsed());
        answer
    }

    /// The address kept for a pod, where what this replica has seen can be relied on: an address that is late could be
    /// another pod's by now, and a stamp counts as publishing.
    fn kept(&self, cluster: &Key, pod: &str) -> Option<SlotAddress> {
        let Admission { current, liveness, .. } = &self.admission;
        current.load().filter(|_| liveness.is_live())?.kept_address(cluster, pod).cloned()
    }
}

async fn read_body(body: Body, share: &Share) -> Result<Bytes, Problem> {
    let mut body = Limited::new(body, REVIEW_BYTES);
    // one frame as a rule; more are copied together, as each by itself would cost more than its bytes
    let (mut one, mut many) = (Bytes::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.downcast_ref::<LengthLimitError>().is_some() {
                return too_large();
            }
            Problem::new(StatusCode::BAD_REQUEST, "Broken").message(format!("the body broke off: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        share.grow(data.len());
        if one.is_empty() && many.is_empty() {
            one = data;
        } else {
            many.extend_from_slice(&std::mem::take(&mut one));
            many.extend_from_slice(&data);
        }
    }
    Ok(if many.is_empty() { one } else { many.into() })
}

fn judged(answer: &Answer) -> (&'static str, &'static str) {
    let Answer { namespace, pod, dry_run, .. } = answer;
    match &answer.skipped {
        Some(reason) => {
            tracing::info!(
                namespace,
                pod,
                dry_run,
                reason = reason.code.as_str(),
                "not stamped: {}",
                reason.message()
            );
            ("skipped", reason.code.as_str())
        }
        None if answer.stamped => {
            tracing::debug!(namespace, pod, dry_run, "stamped");
            ("stamped", "")
        }
        None => ("not_a_member", ""),
    }
}

fn review(body: Vec<u8>) -> Response {
    let mut answer = Response::new(Body::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The least an answer needs.
#[derive(Deserialize)]
struct BareReview {
    request: BareRequest,
}

#[derive(Deserialize)]
struct BareRequest {
    uid: String,
}

/// A defect of ours must not cost a pod, also not where the registration says `failurePolicy: Fail`.
fn allowed_in_spite_of(panic: &(dyn Any + Send), body: &[u8]) -> Result<Response, Problem> {
    tracing::error!(
        panic = super::panic_text(panic),
        "the decision about a pod panicked; the pod is let through"
    );
    let uid = serde_json::from_slice::<BareReview>(body).map(|r| r.request.uid);
    let uid = uid.map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "Unanswerable").message("not an AdmissionReview")
    })?;
    let warning =
        "external-ip.dev: the webhook met a defect and left the pod as it is; the controller's log has more";
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"uid": uid, "allowed": true, "warnings": [warning]},
    });
    Ok(review(answer.to_string().into_bytes()))
}

fn unanswerable(error: &Unanswerable) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "Unanswerable")
        .message(error.to_string())
        .remedy("register this path for AdmissionReviews of admission.k8s.io/v1")
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge")
        .message(format!("an AdmissionReview of at most {} MiB is expected", REVIEW_BYTES >> 20))
}

fn is_json(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    media.split(';').next().is_some_and(|m| m.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests;
