//! The mapping as documents: the full one as JSON and YAML ([`document`]), the origin's ([`origin`]) and
//! the drivers' ([`nat_map`]). Equal maps
//! are equal bytes, on every replica, so that a document's hash tells whether it has changed.

pub mod document;
pub mod nat_map;
pub mod origin;
pub mod page;
mod schema;

pub use schema::SCHEMAS;

use crate::names::short_hash;

/// Characters of an `ETag`: 130 bits, more than anybody will ever see collide.
const ETAG_LENGTH: usize = 26;

/// The strong `ETag` of a document's bytes, in the quotes HTTP wants. Each encoding has its own.
pub fn etag(document: &[u8]) -> String {
    format!("\"{}\"", short_hash(document, ETAG_LENGTH))
}
