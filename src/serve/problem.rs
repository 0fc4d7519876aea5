//! What a client reads when it does not get what it asked for.

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::constants;

/// An error answer: JSON with reason, message and remedy.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    body: Text,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug, Serialize)]
struct Text {
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

impl Problem {
    /// `reason` is a stable word for programs.
    pub(crate) fn new(status: StatusCode, reason: &'static str) -> Self {
        Self {
            status,
            body: Text { reason, message: String::new(), remedy: String::new() },
            headers: Vec::new(),
        }
    }

    /// An answer 503: cannot say now, ask again or ask another replica.
    pub(crate) fn unavailable(reason: &'static str) -> Self {
        let seconds = HeaderValue::from(constants::RETRY_AFTER.as_secs());
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason).header(RETRY_AFTER, seconds)
    }

    /// The stable word.
    pub(crate) fn reason(&self) -> &'static str {
        self.body.reason
    }

    /// Whether it asks who that is.
    pub(crate) fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    /// Whether it says that somebody known may not.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    /// What is the case.
    pub(crate) fn message(mut self, text: impl Into<String>) -> Self {
        self.body.message = text.into();
        self
    }

    /// What the reader can do about it.
    pub(crate) fn remedy(mut self, text: impl Into<String>) -> Self {
        self.body.remedy = text.into();
        self
    }

    /// With a header.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut answer = (self.status, Json(self.body)).into_response();
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer.headers_mut().extend(self.headers);
        answer
    }
}

impl From<Problem> for Response<Body> {
    fn from(problem: Problem) -> Self {
        problem.into_response()
    }
}
