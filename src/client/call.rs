//! One request to the API server, with its own timeout, and an error that says what to do next.

use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use tokio::time::timeout;

/// The name our fields are written under.
const FIELD_MANAGER: &str = "fieldManager=external-ip-controller";
/// Answers longer than this are not read: the API server's own limit of an object is about 3 MiB, a page of a list
/// holds 500 objects that are mostly far smaller.
const BODY_LIMIT: usize = 256 << 20;
/// What is read of an error's body.
const STATUS_LIMIT: usize = 1 << 20;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The API server answered with an error.
    #[error("{}", .0.text())]
    Status(ApiStatus),
    /// No connection, or it broke. Whether a write was carried out is not known.
    #[error("{0}")]
    Transport(String),
    /// No complete answer in time. Whether a write was carried out is not known.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
}

impl CallError {
    /// The HTTP status, where there was an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status.code),
            _ => None,
        }
    }

    /// Whether a later attempt of the same call may succeed by itself: no answer, an overloaded or restarting server,
    /// credentials that are just being renewed.
    pub fn is_transient(&self) -> bool {
        self.code().is_none_or(|code| code >= 500 || matches!(code, 401 | 408 | 429))
    }

    /// How long the API server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(status) => status.retry_after,
            _ => None,
        }
    }
}

/// The API server's `Status` object, as far as it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiStatus {
    /// HTTP status.
    pub code: u16,
    /// Machine-readable, such as `AlreadyExists`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Particulars.
    details: StatusDetails,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StatusDetails {
    causes: Vec<StatusCause>,
    retry_after_seconds: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct StatusCause {
    reason: String,
}

impl ApiStatus {
    /// Whether one of the causes has this reason, such as `NamespaceTerminating`.
    pub fn has_cause(&self, reason: &str) -> bool {
        self.details.causes.iter().any(|c| c.reason == reason)
    }

    /// Whether fields of the object are named as invalid (a JSON patch that does not apply names none).
    pub fn names_fields(&self) -> bool {
        !self.details.causes.is_empty()
    }

    fn text(&self) -> String {
        match (self.message.as_str(), self.reason.as_str()) {
            ("", "") => format!("HTTP {}", self.code),
            ("", reason) => format!("{reason} ({})", self.code),
            (message, _) => format!("{message} ({})", self.code),
        }
    }
}

/// How a body changes an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Json,
}

/// GET `path`.
pub fn get(path: &str) -> Request<Body> {
    build(Method::GET, path, None, Vec::new())
}

/// POST `body` to a collection.
pub fn create(collection: &str, body: Vec<u8>) -> Request<Body> {
    build(Method::POST, &format!("{collection}?{FIELD_MANAGER}"), Some("application/json"), body)
}

/// PATCH the object at `path`.
pub fn patch(path: &str, kind: Patch, body: Vec<u8>) -> Request<Body> {
    let content = match kind {
        Patch::Merge => "application/merge-patch+json",
        Patch::Json => "application/json-patch+json",
    };
    build(Method::PATCH, &format!("{path}?{FIELD_MANAGER}"), Some(content), body)
}

/// DELETE the object at `path` with delete options.
pub fn delete(path: &str, options: Vec<u8>) -> Request<Body> {
    build(Method::DELETE, path, Some("application/json"), options)
}

/// Delete options under which exactly the object that was seen is deleted, as it was seen.
pub fn preconditions(uid: &str, version: u64) -> Vec<u8> {
    serde_json::json!({"preconditions": {"uid": uid, "resourceVersion": version.to_string()}})
        .to_string()
        .into()
}

// Paths are made of names the API server has given or the configuration's parser has checked, so they need no escaping;
// a path that is no URI becomes a request for `/`, which no caller can take for its object.
fn build(method: Method, path: &str, content: Option<&str>, body: Vec<u8>) -> Request<Body> {
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, header::HeaderValue::from_static("application/json"));
    if let Some(value) = content.and_then(|c| c.parse().ok()) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    request
}

/// Sends `request` and reads the whole answer, both within `limit`.
///
/// # Errors
/// Anything but an answer of 2xx.
pub async fn whole(client: &Client, request: Request<Body>, limit: Duration) -> Result<Vec<u8>, CallError> {
    within(limit, async {
        let response = checked(client.send(request).await).await?;
        body(response.into_body(), BODY_LIMIT).await
    })
    .await
}

/// Sends `request` and returns when the answer's head is there; reading its body is the caller's to bound.
///
/// # Errors
/// Anything but an answer of 2xx.
pub async fn opened(
    client: &Client,
    request: Request<Body>,
    limit: Duration,
) -> Result<Response<Body>, CallError> {
    within(limit, async { checked(client.send(request).await).await }).await
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    timeout(limit, call).await.unwrap_or(Err(CallError::Timeout(limit)))
}

async fn checked(sent: Result<Response<Body>, kube::Error>) -> Result<Response<Body>, CallError> {
    let response = sent.map_err(|error| CallError::Transport(chain(&error)))?;
    let code = response.status();
    if code.is_success() {
        return Ok(response);
    }
    let after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let text = body(response.into_body(), STATUS_LIMIT).await?;
    Err(CallError::Status(status(code, &text, after)))
}

fn status(code: StatusCode, text: &[u8], retry_after: Option<u64>) -> ApiStatus {
    let mut status: ApiStatus = serde_json::from_slice(text).unwrap_or_else(|_| ApiStatus {
        // a proxy between us and the API server answers in its own words
        message: String::from_utf8_lossy(&text[..text.len().min(200)]).trim().to_owned(),
        ..ApiStatus::default()
    });
    status.code = code.as_u16();
    let seconds = retry_after.unwrap_or(status.details.retry_after_seconds);
    status.retry_after = (seconds > 0).then(|| Duration::from_secs(seconds));
    status
}

async fn body(body: Body, limit: usize) -> Result<Vec<u8>, CallError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(error) => Err(CallError::Transport(chain(error.as_ref()))),
    }
}

/// An error with its causes: hyper's own text alone is `client error (Connect)`.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    text
}
