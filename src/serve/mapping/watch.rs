//! The map as server-sent events: each event is a whole document, so a reader that misses some has missed nothing.
//!
//! ```text
//! : age 0                              seconds since the slowest watch last heard from the API server
//! id: "etag" e5.n5.p7.s5               for Last-Event-ID: the document's ETag and the Map-Position
//! data: {"namespace":"data",...}       one line of JSON
//! ```
//!
//! Nothing is queued for a reader: when it has room for the next event, it is given the document there is then. The
//! bytes are shared with everybody who reads that document.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::stream::{self, StreamExt};
use http::header::{AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::shown::Shown;
use super::{Shared, Wanted, request};
use crate::constants::{RETRY_AFTER, WATCH_ACCESS, WATCH_KEEP_ALIVE, WATCH_PACE, WATCH_RETURN};
use crate::map::{Document, Format, Position};
use crate::serve::problem::Problem;

/// Tells nginx to pass events on as they come.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// One reader of events.
struct Watcher {
    shared: Arc<Shared>,
    wanted: Wanted,
    format: Format,
    /// What shows that it may read; without the rest of its request.
    credentials: HeaderMap,
    changes: watch::Receiver<u64>,
    /// Of the document it has.
    known: Option<HeaderValue>,
    /// What it has been shown.
    position: Option<Position>,
    /// When its right to read is looked at again.
    recheck: Instant,
    /// When it may be given the next document.
    next: Instant,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

/// What happens next to a reader.
enum Next {
    Recheck,
    Stop,
    Quiet,
    Shown(Result<Shown, Problem>),
}

impl Shared {
    /// A stream of documents, beginning with the one there is unless the reader has it.
    pub(super) async fn watch(
        self: &Arc<Self>,
        wanted: Wanted,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Response, Problem> {
        let format = match request::parameter(uri, "format") {
            None | Some("json") => Format::Json,
            Some("nat-map") => Format::NatMap,
            Some(_) => return Err(request::unknown_format("events have format=json or format=nat-map")),
        };
        let last = request::last_event(headers)?;
        let position = request::position(headers)?.or(last.position);
        self.check(headers, &wanted).await?;
        let place = self.held.place()?;
        let changes = wanted.changes(&self.mapping.current);
        let shown = self.show(position.as_ref()).await?;
        shown.document(&wanted, format)?;
        let now = Instant::now();
        let watcher = Watcher {
            shared: Arc::clone(self),
            wanted,
            format,
            credentials: headers.get_all(AUTHORIZATION).iter().map(|v| (AUTHORIZATION, v.clone())).collect(),
            changes,
            known: last.etag,
            // after a reset it begins anew
            position: Some(shown.position.clone()),
            recheck: now + WATCH_ACCESS,
            next: now,
            ended: false,
            _place: place,
        };
        let first = Bytes::from(format!("retry: {}\n\n", RETRY_AFTER.as_millis()));
        let events = stream::unfold(watcher, async |mut watcher| Some((watcher.next().await?, watcher)));
        let pieces = events.flat_map(|pieces| stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)));
        let first = stream::iter([Ok(first)]);
        let mut answer = Response::new(Body::from_stream(first.chain(pieces)));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
        headers.insert(AGE, HeaderValue::from(self.age()));
        shown.mark(headers);
        Ok(answer)
    }
}

impl Watcher {
    /// The next thing to send, in pieces; `None` at the end.
    async fn next(&mut self) -> Option<Vec<Bytes>> {
        if self.ended {
            return None;
        }
        let quiet = Instant::now() + WATCH_KEEP_ALIVE;
        let stop = self.shared.mapping.stop.clone();
        loop {
            let recheck = self.recheck;
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => Next::Stop,
                () = sleep_until(recheck) => Next::Recheck,
                shown = self.differs() => Next::Shown(shown),
                () = sleep_until(quiet) => Next::Quiet,
            };
            match next {
                Next::Stop => return Some(self.end("this replica stops", scattered())),
                Next::Quiet => return Some([comment(&format!("age {}", self.shared.age()))].into()),
                Next::Shown(Ok(shown)) if shown.reset => return Some(self.end("reset", RETRY_AFTER)),
                Next::Shown(shown) => match shown.and_then(|shown| self.event(shown)) {
                    Ok(event) => return Some(event),
                    Err(problem) => return Some(self.end(problem.reason(), RETRY_AFTER)),
                },
                Next::Recheck => {
                    if let Err(problem) = self.shared.check(&self.credentials, &self.wanted).await {
                        return Some(self.end(problem.reason(), RETRY_AFTER));
                    }
                    self.recheck = Instant::now() + WATCH_ACCESS;
                }
            }
        }
    }

    /// What there is to show once it is another document than the reader has. May be given up at any time.
    async fn differs(&mut self) -> Result<Shown, Problem> {
        sleep_until(self.next).await;
        loop {
            self.changes.borrow_and_update();
            let shown = self.shared.show(self.position.as_ref()).await?;
            let document = shown.document(&self.wanted, self.format)?;
            if shown.reset || self.known.as_ref() != Some(&document.etag) {
                return Ok(shown);
            }
            // who sleeps holds no map, which may be an old one by then
            drop(shown);
            // the sender lives as long as the listener
            let _ = self.changes.changed().await;
        }
    }

    fn event(&mut self, shown: Shown) -> Result<Vec<Bytes>, Problem> {
        let Document { body, etag, .. } = shown.document(&self.wanted, self.format)?;
        let age = self.shared.age();
        let head =
            format!(": age {age}\nid: {} {}\ndata: ", etag.to_str().unwrap_or_default(), shown.position);
        let kilobytes = u32::try_from(body.len() / 1024).unwrap_or(u32::MAX);
        self.next = Instant::now() + WATCH_PACE.saturating_mul(kilobytes);
        self.known = Some(etag.clone());
        // a document is one line with its end: what is missing is the event's
        let event = [Bytes::from(head), body.clone(), Bytes::from_static(b"\n")].into();
        self.position = Some(shown.position);
        Ok(event)
    }

    /// The last thing the reader is told: why, and when to come back.
    fn end(&mut self, why: &str, back: Duration) -> Vec<Bytes> {
        self.ended = true;
        [comment(why), Bytes::from(format!("retry: {}\n\n", back.as_millis()))].into()
    }
}

/// Readers ignore it; it keeps what is between alive, and finds readers that are gone.
fn comment(text: &str) -> Bytes {
    Bytes::from(format!(": {text}\n\n"))
}

/// Not all readers of a replica that stops come back in the same moment.
fn scattered() -> Duration {
    Duration::from_millis(fastrand::u64(..u64::try_from(WATCH_RETURN.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod many;
#[cfg(test)]
mod tests;
