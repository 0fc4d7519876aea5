//! Answers on their way to the client, and whether the client takes them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::places::Place;

/// The answers of one connection.
pub(super) struct Answers {
    pub(super) place: Place,
    numbers: AtomicU64,
    /// Since when the client could take the next piece of an answer and does not.
    untaken: Mutex<BTreeMap<u64, Instant>>,
}

impl Answers {
    pub(super) fn new(place: Place) -> Self {
        Self { place, numbers: AtomicU64::new(0), untaken: Mutex::default() }
    }

    /// A request has come.
    pub(super) fn begin(this: &Arc<Self>) -> Busy {
        this.place.request_begins();
        Busy { number: this.numbers.fetch_add(1, Ordering::Relaxed), answers: Arc::clone(this) }
    }

    /// Returns once a piece of an answer has been left untaken for this long.
    pub(super) async fn untaken_for(&self, limit: Duration) {
        loop {
            let since = self.untaken().values().min().copied();
            if since.is_some_and(|since| since.elapsed() >= limit) {
                return;
            }
            tokio::time::sleep_until(since.unwrap_or_else(Instant::now) + limit).await;
        }
    }

    fn untaken(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request, until its answer is written.
pub(super) struct Busy {
    answers: Arc<Answers>,
    number: u64,
}

impl Busy {
    /// The next piece is there for the client.
    fn offers(&self) {
        self.answers.untaken().insert(self.number, Instant::now());
    }

    /// The client has room, and we have nothing for it.
    fn has_nothing(&self) {
        self.answers.untaken().remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.has_nothing();
        self.answers.place.request_ends();
    }
}

/// An answer's body that keeps its connection busy.
pub(super) struct Delivered {
    body: Body,
    busy: Busy,
}

impl Delivered {
    pub(super) fn new(body: Body, busy: Busy) -> Self {
        busy.offers();
        Self { body, busy }
    }
}

impl HttpBody for Delivered {
    type Data = Bytes;
    type Error = axum::Error;

    // asked for when there is room for what follows
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let next = self.body.frame().poll_unpin(context);
        if next.is_ready() {
            self.busy.offers();
        } else {
            self.busy.has_nothing();
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
