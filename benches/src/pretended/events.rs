//! One collection: its list, and its changes as a stream.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// The API server sends a bookmark this long before it ends a watch.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

pub(super) struct Feed {
    held: Mutex<Held>,
    /// Resource version of the last change.
    latest: watch::Sender<u64>,
}

struct Held {
    items: Vec<String>,
    log: Vec<(u64, Bytes)>,
    /// Watches from before it are refused.
    oldest: u64,
}

impl Feed {
    pub(super) fn new(items: &[Value], version: u64) -> Self {
        let items = items.iter().map(ToString::to_string).collect();
        let held = Mutex::new(Held { items, log: Vec::new(), oldest: version });
        Self { held, latest: watch::Sender::new(version) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, place: usize, object: &Value, version: u64) {
        let object = object.to_string();
        let line = format!("{{\"type\":\"MODIFIED\",\"object\":{object}}}\n");
        let mut held = self.held();
        held.items[place] = object;
        held.log.push((version, line.into()));
        drop(held);
        self.latest.send_replace(version);
    }

    pub(super) fn expire(&self, version: u64) {
        self.held().oldest = version;
        self.latest.send_replace(version);
    }

    /// A page, and whether it is the last.
    pub(super) fn list(&self, from: Option<u64>, limit: Option<u64>) -> (String, bool) {
        let held = self.held();
        let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(held.items.len());
        let begin = index(from.unwrap_or(0));
        let end = index(from.unwrap_or(0).saturating_add(limit.unwrap_or(u64::MAX)));
        let more = if end < held.items.len() { end.to_string() } else { String::new() };
        let version = *self.latest.borrow();
        let metadata = json!({"resourceVersion": version.to_string(), "continue": more});
        let items = held.items[begin..end].join(",");
        let last = more.is_empty();
        (format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{metadata},"items":[{items}]}}"#), last)
    }

    /// What changes after `from`, for this long; `None` where that is too long ago.
    pub(super) fn watch(self: &Arc<Self>, from: u64, length: Duration) -> Option<Events> {
        let (oldest, next) = {
            let held = self.held();
            (held.oldest, held.log.partition_point(|(version, _)| *version <= from))
        };
        if from < oldest {
            return None;
        }
        let (lines, events) = mpsc::channel(1024);
        tokio::spawn(Arc::clone(self).stream(next, oldest, length, lines));
        Some(Events(events))
    }

    async fn stream(
        self: Arc<Self>,
        mut next: usize,
        oldest: u64,
        length: Duration,
        lines: mpsc::Sender<Bytes>,
    ) {
        let end = Instant::now() + length;
        let mut bookmark = Some(end.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(end));
        let mut latest = self.latest.subscribe();
        loop {
            let version = *latest.borrow_and_update();
            let new: Vec<Bytes> = {
                let held = self.held();
                if held.oldest != oldest {
                    return;
                }
                held.log[next..].iter().map(|(_, line)| line.clone()).collect()
            };
            next += new.len();
            for line in new {
                if lines.send(line).await.is_err() {
                    return;
                }
            }
            let timer = bookmark.unwrap_or(end);
            tokio::select! {
                changed = latest.changed() => if changed.is_err() { return },
                () = sleep_until(timer) => {
                    if bookmark.take().is_none() {
                        return;
                    }
                    let mark = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version.to_string()}}});
                    if lines.send(format!("{mark}\n").into()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// The body of a watch.
pub(super) struct Events(mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
