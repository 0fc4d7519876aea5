//! Watches the API server: one task per selection, all feeding one channel of [`Update`](external_ip_core::state::Update)s.

pub mod feed;
pub mod stream;

pub use feed::{FeedSpec, Watchers, feeds, mapping_service, spawn};
pub use stream::{Pulse, Selection, Sink, Watched, follow, list};
