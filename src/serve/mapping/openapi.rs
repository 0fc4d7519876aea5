//! `/openapi.json`: what is said by hand, with the schemas of the documents, which are made from their types. Tests hold
//! both against what is served.

use std::sync::OnceLock;

use axum::response::Response;
use external_ip_core::formats::SCHEMAS;
use http::HeaderMap;
use serde_json::Value;

use super::request;
use crate::map::{Document, Format};

const BY_HAND: &str = include_str!("openapi.json");

/// The description. The same for everybody and for as long as the process runs.
fn description() -> &'static Document {
    static DESCRIPTION: OnceLock<Document> = OnceLock::new();
    DESCRIPTION.get_or_init(|| Document::new(together().unwrap_or_default()))
}

/// A test reads both.
fn together() -> Option<String> {
    let mut all: Value = serde_json::from_str(BY_HAND).ok()?;
    let schemas: serde_json::Map<String, Value> = serde_json::from_str(SCHEMAS).ok()?;
    all["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    all["components"]["schemas"].as_object_mut()?.extend(schemas);
    serde_json::to_string(&all).ok()
}

/// It says nothing that the program's source does not: everybody may read it.
pub(super) async fn answer(asked: &HeaderMap) -> Response {
    let document = description();
    let compressed = if request::takes_gzip(asked) { document.gzip().await } else { None };
    super::written(document, compressed, Format::Json.media_type(), asked)
}

#[cfg(test)]
mod tests;
