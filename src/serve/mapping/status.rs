//! `/status`: the map as a page for people.

use std::sync::OnceLock;

use axum::body::Body;
use axum::response::Response;
use data_encoding::BASE64;
use external_ip_core::formats::page::{self, Page};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use super::{Shared, Wanted, request};
use crate::serve::problem::Problem;

impl Shared {
    /// The page, for those who may read the whole map.
    pub(super) async fn status(&self, headers: &HeaderMap) -> Result<Response, Problem> {
        self.check(headers, &Wanted::Aggregate).await.map_err(ask_browsers)?;
        let shown = self.show(request::position(headers)?.as_ref()).await?;
        let feeds = self.mapping.liveness.feeds();
        let html = page::html(&Page {
            mapping: &shown.published.mapping,
            kept: &shown.published.slots,
            feeds: feeds
                .iter()
                .map(|feed| (feed.name.to_string(), feed.silent_for.map(|silent| silent.as_secs())))
                .collect(),
            version: env!("CARGO_PKG_VERSION"),
        });
        let mut answer = Response::new(Body::from(html));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_SECURITY_POLICY, policy());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        shown.mark(headers);
        Ok(answer)
    }
}

/// Nothing but the page's own style: a name that got into the page as more than a word could do nothing.
fn policy() -> HeaderValue {
    static POLICY: OnceLock<HeaderValue> = OnceLock::new();
    let made = || {
        let style = BASE64.encode(&Sha256::digest(page::STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        // ASCII; were it not, nothing at all is allowed
        HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
    };
    POLICY.get_or_init(made).clone()
}

/// A browser asks its user for the token where it is told so.
fn ask_browsers(problem: Problem) -> Problem {
    if problem.is_unauthorized() {
        problem.header(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"a token as the password\", charset=\"UTF-8\""),
        )
    } else {
        problem
    }
}

#[cfg(test)]
mod browser;
#[cfg(test)]
mod tests;
