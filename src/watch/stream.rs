//! List and watch of one selection.
//!
//! ```text
//!           +--- any error: Unlisted, wait -------+
//!           v                                     |
//!  start -> list (Part, Part...) -> Listed -> watch -- ended by the server, silent --> watch from the last version
//!           ^                                     |
//!           +------ 410, unreadable event --------+
//!                             (a reader waits: look where the server is, and a short watch for its bookmark)
//! ```
//! kube-runtime's watcher is not used: it hides bookmarks and list versions, from which the map's position is made,
//! and does not tell a watch that was renewed from one that hangs, from which its age is made.

#[cfg(test)]
mod tests;
mod wire;

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use external_ip_core::objects::Versioned;
use external_ip_core::state::Change;
use kube::Client;
use kube::client::Body;
use kube::core::params::{ListParams, WatchParams};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::call::{self, CallError};
use crate::constants::WATCH_RENEWAL;
use crate::map::Questions;
use wire::{Lines, Named, Page, event};

/// A watch that has not ended this long after it was asked to (`WATCH_RENEWAL`) hangs: the server stopped, or the
/// connection is half-open. Too short costs a renewal when the server is busy; too long eats into what is left until
/// `STALE_AFTER`.
const WATCH_OVERDUE: Duration = Duration::from_secs(3);
/// A watch for readers that wait. The API server sends a bookmark 2 seconds before it ends a watch, so after one to two
/// seconds here; none where a watch is no longer than those.
const SHORT_RENEWAL: Duration = Duration::from_secs(3);
/// For the head of a watch's answer. A hang and one failed attempt together stay below `STALE_AFTER`.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// For one page of a list, with its body.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// Objects per page: bounds the bytes held at once (a pod has 5 to 10 kB) against the number of calls.
const PAGE_LIMIT: u32 = 500;
/// Short watches for readers that wait: now and then one ends without the bookmark it was opened for.
const SHORT_TRIES: u8 = 2;
/// A watch shorter than this has not proved that things work: the next one waits.
const SHORT_WATCH: Duration = Duration::from_secs(1);
/// Renewals without an event or bookmark before a new list. The API server sends a bookmark before it ends a watch;
/// one that holds older data than we have seen (restored from a backup) sends nothing at all. More than two, because a
/// busy API server misses the two seconds in which it would send one now and then: a list for nothing.
const SILENT_WATCHES: u32 = 3;
/// Waits between attempts: at most twice the cap, by jitter, so that a restarted API server is noticed within seconds.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(1500);
/// A server's `Retry-After` is honoured up to here.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(10);
/// One line per outage and then one in this time, not one per attempt.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// An object as the API server sends it, reduced to what is needed.
pub trait Watched: DeserializeOwned + Versioned + Send {}
impl<T: DeserializeOwned + Versioned + Send> Watched for T {}

/// Is told when the API server was heard of, and when a list is complete.
pub trait Pulse: Send + Sync {
    /// A list begins.
    fn listing(&self) {}
    /// Something has arrived, or a renewed watch was accepted.
    fn heard(&self);
    /// A complete list has been handed on.
    fn listed(&self);
}

/// For watches whose age nobody asks for.
impl Pulse for () {
    fn heard(&self) {}
    fn listed(&self) {}
}

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Path of the collection, such as `/api/v1/pods`.
    pub path: String,
    /// Label selector.
    pub labels: Option<String>,
    /// Field selector.
    pub fields: Option<String>,
}

impl Selection {
    fn list(&self) -> ListParams {
        ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            ..ListParams::default()
        }
    }
}

/// Where changes go: a channel, and how a change becomes one of its messages.
pub struct Sink<T, U> {
    /// The channel; full means the reader is behind, and the watch waits.
    pub tx: mpsc::Sender<U>,
    /// Wraps a change.
    pub wrap: Box<dyn Fn(Change<T>) -> U + Send + Sync>,
}

/// Lists and watches until the reader of `sink` is gone. Never gives up: errors are logged under `name` and tried
/// again, what was sent stays valid meanwhile.
pub async fn follow<T: Watched, U: Send>(
    client: Client,
    name: &str,
    selection: &Selection,
    pulse: &dyn Pulse,
    questions: Questions,
    sink: Sink<T, U>,
) {
    let mut stream = Stream { client, name, selection, pulse, questions, sink };
    let mut waits = backoff();
    let mut outage: Option<Outage> = None;
    let mut position: Option<Position> = None;
    loop {
        let end = match &mut position {
            None => match stream.list().await {
                Ok(version) => {
                    position = Some(Position { version, silent: 0, opened: None, owed: 0 });
                    continue;
                }
                Err(end) => end,
            },
            Some(position) => stream.watch(position).await,
        };
        let healthy_since =
            position.as_mut().and_then(|p| p.opened.take()).filter(|at| at.elapsed() >= SHORT_WATCH);
        if let Some(at) = healthy_since {
            waits = backoff();
            if let Some(outage) = outage.take() {
                tracing::info!(watch = name, after = ?at - outage.since, "watching again");
            }
        }
        match &end {
            End::Closed => return,
            End::Asked => continue,
            End::Renew if healthy_since.is_some() => {
                position = position.filter(|p| p.silent < SILENT_WATCHES);
                continue;
            }
            End::Renew | End::Call(_) => {}
            End::Stale(_) => position = None,
        }
        outage.get_or_insert_with(Outage::begin).log(name, &end);
        let wait = waits.next().unwrap_or(LONGEST_WAIT);
        sleep(wait.max(end.retry_after().min(LONGEST_RETRY_AFTER))).await;
    }
}

/// Up to where a watch has come.
struct Position {
    /// Resource version to go on from.
    version: u64,
    /// Watches in a row that said nothing.
    silent: u32,
    /// When the current watch was accepted.
    opened: Option<Instant>,
    /// Short watches that may follow while a reader waits for a bookmark.
    owed: u8,
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Why a list or watch is over.
enum End {
    /// The watch ended without an error, as it does every [`WATCH_RENEWAL`].
    Renew,
    /// A reader waits: look where the API server is, and go on where we were.
    Asked,
    /// A call failed; go on where we were.
    Call(CallError),
    /// What we have cannot be continued: list anew.
    Stale(String),
    /// Nobody listens.
    Closed,
}

impl End {
    fn retry_after(&self) -> Duration {
        match self {
            Self::Call(error) => error.retry_after().unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

impl From<CallError> for End {
    fn from(error: CallError) -> Self {
        // 410: the version is compacted, or a list's continuation has expired
        if error.code() == Some(410) { Self::Stale(error.to_string()) } else { Self::Call(error) }
    }
}

struct Outage {
    since: Instant,
    logged: Option<Instant>,
}

impl Outage {
    fn begin() -> Self {
        Self { since: Instant::now(), logged: None }
    }

    fn log(&mut self, name: &str, end: &End) {
        let why = match end {
            End::Call(error) => error.to_string(),
            End::Stale(why) => {
                tracing::info!(watch = name, why, "listing anew");
                return;
            }
            End::Renew | End::Asked | End::Closed => return,
        };
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::warn!(watch = name, "watch interrupted, trying again: {why}");
        }
    }
}

struct Stream<'a, T, U> {
    client: Client,
    name: &'a str,
    selection: &'a Selection,
    pulse: &'a dyn Pulse,
    questions: Questions,
    sink: Sink<T, U>,
}

impl<T: Watched, U: Send> Stream<'_, T, U> {
    async fn send(&self, change: Change<T>) -> Result<(), End> {
        self.sink.tx.send((self.sink.wrap)(change)).await.map_err(|_| End::Closed)
    }

    /// Reads all pages and sends each; gives the version to watch from.
    async fn list(&self) -> Result<u64, End> {
        self.pulse.listing();
        let mut pages = Pages::new(&self.client, self.name, self.selection, self.pulse);
        let mut parts = 0;
        let end = loop {
            match pages.next().await {
                Ok((items, Some(version))) => {
                    self.send(Change::Listed { items, version }).await?;
                    self.pulse.listed();
                    return Ok(version);
                }
                Ok((items, None)) => self.send(Change::Part(items)).await?,
                Err(end) => break end,
            }
            parts += 1;
        };
        if parts > 0 {
            self.send(Change::Unlisted).await?;
        }
        Err(end)
    }

    /// Watches from `position` and keeps it up to date.
    async fn watch(&mut self, position: &mut Position) -> End {
        match self.watch_once(position).await {
            Ok(()) => End::Renew,
            Err(end) => end,
        }
    }

    async fn watch_once(&mut self, position: &mut Position) -> Result<(), End> {
        let asked = self.answer_readers(position.version).await?;
        if asked {
            position.owed = SHORT_TRIES;
        }
        let short = position.owed > 0;
        position.owed = position.owed.saturating_sub(1);
        let length = if short { SHORT_RENEWAL } else { WATCH_RENEWAL };
        let mut lines = Lines::new(self.open(position.version, length).await?.into_body());
        self.pulse.heard();
        position.silent += u32::from(!short);
        position.opened = Some(Instant::now());
        let bound = length + WATCH_OVERDUE;
        let deadline = Instant::now() + bound;
        // a bookmark that is still to come serves those who ask before it does
        let mut bookmark_is_near = short;
        loop {
            let line = tokio::select! {
                line = timeout_at(deadline, lines.next()) => line.map_err(|_| CallError::Timeout(bound))??,
                () = self.questions.wait() => {
                    if bookmark_is_near {
                        self.answer_readers(position.version).await?;
                        continue;
                    }
                    position.silent = position.silent.saturating_sub(1);
                    return Err(End::Asked);
                }
            };
            let Some(line) = line else { return Ok(()) };
            self.pulse.heard();
            let Some(change) = event::<T>(line)? else { continue };
            position.silent = 0;
            let seen = match &change {
                Change::Applied(object) | Change::Deleted(object) => object.version(),
                Change::Progress(seen) => {
                    bookmark_is_near = false;
                    position.owed = 0;
                    *seen
                }
                Change::Part(_) | Change::Unlisted | Change::Listed { .. } => 0,
            };
            self.send(change).await?;
            position.version = seen.max(position.version);
        }
    }

    async fn open(&self, version: u64, length: Duration) -> Result<http::Response<Body>, End> {
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: u32::try_from(length.as_secs()).ok(),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = kube::core::Request::new(&self.selection.path)
            .watch(&params, &version.to_string())
            .map_err(invalid)?;
        Ok(call::opened(&self.client, request.map(Body::from), OPEN_TIMEOUT).await?)
    }

    /// Where readers wait: tells them where the API server is. A consistent read also makes it learn that itself, so
    /// that the bookmark which follows is not older. Answers whether they do.
    async fn answer_readers(&mut self, reached: u64) -> Result<bool, End> {
        let Some(question) = self.questions.take() else { return Ok(false) };
        let current = self.current_version().await?;
        self.questions.answer(question, current);
        if current < reached {
            return Err(End::Stale(format!(
                "the API server is at {current}, before {reached}: was it restored?"
            )));
        }
        Ok(true)
    }

    async fn current_version(&self) -> Result<u64, End> {
        let nothing = ListParams { limit: Some(1), ..self.selection.list() };
        let request = kube::core::Request::new(&self.selection.path).list(&nothing).map_err(invalid)?;
        let bytes = call::whole(&self.client, request.map(Body::from), OPEN_TIMEOUT).await?;
        self.pulse.heard();
        let page: Page<'_> = serde_json::from_slice(&bytes).map_err(|e| End::Stale(e.to_string()))?;
        page.metadata.version().ok_or_else(no_version)
    }
}

/// All objects of a selection, as they are now. For those who do not watch.
///
/// # Errors
/// A page could not be had.
pub async fn list<T: DeserializeOwned>(client: &Client, selection: &Selection) -> anyhow::Result<Vec<T>> {
    let mut pages = Pages::new(client, "list", selection, &());
    let mut items = Vec::new();
    loop {
        match pages.next().await {
            Ok((more, version)) => {
                items.extend(more);
                if version.is_some() {
                    return Ok(items);
                }
            }
            Err(End::Call(error)) => return Err(error.into()),
            Err(End::Stale(why)) => return Err(anyhow::anyhow!(why)),
            Err(End::Renew | End::Asked | End::Closed) => return Ok(items), // ends of watches only
        }
    }
}

/// The pages of a consistent list.
struct Pages<'a> {
    client: &'a Client,
    name: &'a str,
    selection: &'a Selection,
    pulse: &'a dyn Pulse,
    params: ListParams,
    version: Option<u64>,
}

impl<'a> Pages<'a> {
    fn new(client: &'a Client, name: &'a str, selection: &'a Selection, pulse: &'a dyn Pulse) -> Self {
        let params = ListParams { limit: Some(PAGE_LIMIT), ..selection.list() };
        Self { client, name, selection, pulse, params, version: None }
    }

    /// The objects of the next page; with the last one the version of the list.
    async fn next<T: DeserializeOwned>(&mut self) -> Result<(Vec<T>, Option<u64>), End> {
        let request = kube::core::Request::new(&self.selection.path).list(&self.params).map_err(invalid)?;
        let bytes = call::whole(self.client, request.map(Body::from), PAGE_TIMEOUT).await?;
        self.pulse.heard();
        let page: Page<'_> = serde_json::from_slice(&bytes).map_err(|e| End::Stale(e.to_string()))?;
        // all pages show the version of the first
        let version = self.version.or(page.metadata.version()).ok_or_else(no_version)?;
        self.version = Some(version);
        let items = page.items.iter().flatten().filter_map(|item| readable(self.name, item)).collect();
        self.params.continue_token = page.metadata.continue_token.filter(|token| !token.is_empty());
        Ok((items, self.params.continue_token.is_none().then_some(version)))
    }
}

fn no_version() -> End {
    End::Stale("the list has no numeric resourceVersion".to_owned())
}

/// One object of a list; one that cannot be read is out of the state, the others are not held up by it.
fn readable<T: DeserializeOwned>(name: &str, item: &RawValue) -> Option<T> {
    serde_json::from_str(item.get())
        .inspect_err(|error| {
            let named: Named = serde_json::from_str(item.get()).unwrap_or_default();
            let (namespace, object) = (named.metadata.namespace, named.metadata.name);
            tracing::error!(watch = name, namespace, object, %error, "object cannot be read, left out");
        })
        .ok()
}

fn invalid(error: impl std::fmt::Display) -> End {
    End::Call(CallError::Transport(format!("not a request: {error}")))
}
