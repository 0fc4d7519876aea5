//! Writes the map into ConfigMaps, for pods to mount. The leader's task.
//!
//! ```text
//! map::Current --documents--> wanted --+
//!                                      +-- differ? --> POST | merge patch | DELETE
//! watch of our ConfigMaps ---> held ---+
//! ```
//! What is there is known from a watch, so a new leader writes only what differs, and a ConfigMap somebody deletes or
//! edits is mended. The first write is a POST; every later one carries UID and resource version, like those of
//! Services: nothing that is not ours is ever changed.

mod calls;
mod documents;
mod held;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use external_ip_core::action::Event;
use external_ip_core::names::Key;
use external_ip_core::reason::{Code, Reason};
use external_ip_core::state::Change;
use futures::StreamExt;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::lease::{Leadership, Role};
use crate::client::call::CallError;
use crate::constants::{CONFIG_MAP_DEBOUNCE, CONFIG_MAP_DEBOUNCE_MAX};
use crate::map::{Current, Questions};
use crate::metrics::Metrics;
use crate::tls::Trusted;
use crate::watch::{Sink, follow};
use calls::{Trouble, Write};
use documents::{Builder, Documents};
use held::{Held, selection};

/// Writes at once: as many as the API server serves without a queue, and few enough to leave the slots' writes alone.
const IN_FLIGHT: usize = 4;
/// A document above this size is written at most once in [`LARGE_INTERVAL`]: each write is a new copy in etcd and at
/// every node that mounts it.
const LARGE: usize = 100_000;
const LARGE_INTERVAL: Duration = Duration::from_secs(10);
/// After a write that found no answer, or another version than was seen.
const RETRY: Duration = Duration::from_secs(2);
/// After a refusal, and while the name is somebody else's: people have to do something first.
const REFUSED_RETRY: Duration = Duration::from_secs(30);

/// What people should know about one ConfigMap. Sent when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The ConfigMap.
    pub key: Key,
    /// The cluster it is of; `None` for those of the whole installation.
    pub cluster: Option<String>,
    /// What is wrong; `None`: not any more.
    pub reason: Option<Reason>,
}

impl Report {
    /// The Event that tells it, `at` microseconds since 1970. Its ConfigMap may not be ours, or not be there: the UID
    /// stays out.
    pub fn event(self, at: i64) -> Option<Event> {
        Some(Event {
            namespace: self.key.namespace.to_string(),
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: self.key.name.to_string(),
            uid: String::new(),
            reason: self.reason?,
            at,
        })
    }
}

/// Where the documents come from.
pub struct Source {
    /// What is published.
    pub current: Arc<Current>,
    /// The CA of the mapping listener, nothing is written before it is known; `None` where nobody has said what it is.
    pub ca: Option<Trusted>,
    /// The controller's namespace: for the aggregate and the CA.
    pub namespace: String,
}

/// The task.
pub struct ConfigMaps {
    /// For watch and writes.
    pub client: Client,
    /// Checked at every write.
    pub leadership: Leadership,
    /// The owner our objects carry.
    pub installation: String,
    /// What is to be written.
    pub source: Source,
    /// Takes what people should know.
    pub reports: mpsc::UnboundedSender<Report>,
    /// Counts the writes.
    pub metrics: Arc<Metrics>,
}

impl ConfigMaps {
    /// Writes while this replica leads, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut role = self.leadership.changes();
        let leading = |role: &Role| matches!(role, Role::Leading { .. });
        let work = async {
            // the sender ends with the lease's task, and this one with it
            while role.wait_for(leading).await.is_ok() && role.has_changed().is_ok() {
                Lead::new(&self).run(&mut role).await;
            }
        };
        shutdown.run_until_cancelled(work).await;
    }
}

/// One leadership. Everything it knows is read anew.
struct Lead<'a> {
    task: &'a ConfigMaps,
    builder: Builder,
    /// Our ConfigMaps at the API server, as last seen; `None` before the first list.
    held: Option<BTreeMap<Key, Held>>,
    /// Of a list that is not complete.
    listing: Vec<Held>,
    /// Not to be tried again before.
    not_before: BTreeMap<Key, Instant>,
    told: BTreeMap<Key, Report>,
    /// First change that is not written yet, and when it will be.
    due: Option<(Instant, Instant)>,
    retry: Option<Instant>,
}

impl<'a> Lead<'a> {
    fn new(task: &'a ConfigMaps) -> Self {
        Self {
            task,
            builder: Builder::new(&task.source.namespace),
            held: None,
            listing: Vec::new(),
            not_before: BTreeMap::new(),
            told: BTreeMap::new(),
            due: None,
            retry: None,
        }
    }

    /// Until the role changes.
    async fn run(mut self, role: &mut watch::Receiver<Role>) {
        let (tx, mut seen) = mpsc::channel(64);
        let client = self.task.client.clone();
        let mut watching = JoinSet::new();
        watching.spawn(async move {
            let sink = Sink { tx, wrap: Box::new(|change: Change<Held>| change) };
            follow(client, "configmaps", &selection(), &(), Questions::none(), sink).await;
        });
        let mut published = self.task.source.current.subscribe();
        let mut ca = self.task.source.ca.clone();
        loop {
            let wake = [self.due.map(|(_, at)| at), self.retry].into_iter().flatten().min();
            tokio::select! {
                _ = role.changed() => return,
                change = seen.recv() => match change {
                    Some(change) => self.take(change),
                    None => return,
                },
                Ok(()) = published.changed() => self.touch(),
                () = changed(&mut ca) => self.touch(),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.flush().await,
            }
        }
    }

    /// Waits for quiet, but not for ever.
    fn touch(&mut self) {
        let now = Instant::now();
        let first = self.due.map_or(now, |(first, _)| first);
        self.due = Some((first, (now + CONFIG_MAP_DEBOUNCE).min(first + CONFIG_MAP_DEBOUNCE_MAX)));
    }

    fn take(&mut self, change: Change<Held>) {
        match change {
            Change::Part(items) => return self.listing.extend(items),
            Change::Unlisted => return self.listing.clear(),
            Change::Listed { items, .. } => {
                let items = std::mem::take(&mut self.listing).into_iter().chain(items);
                self.held = Some(items.map(|held| (held.key.clone(), held)).collect());
            }
            Change::Applied(held) => self.note(held),
            Change::Deleted(gone) => {
                self.not_before.remove(&gone.key);
                let held = self.held.get_or_insert_default();
                // the answer to our own write may have shown a newer one
                if held.get(&gone.key).is_some_and(|h| h.version <= gone.version) {
                    held.remove(&gone.key);
                }
            }
            Change::Progress(_) => return,
        }
        self.touch();
    }

    /// Keeps the newer one: answers to writes and events of the watch come in any order.
    fn note(&mut self, found: Held) {
        let held = self.held.get_or_insert_default();
        if held.get(&found.key).is_none_or(|h| h.version <= found.version) {
            held.insert(found.key.clone(), found);
        }
    }

    /// Writes what differs.
    async fn flush(&mut self) {
        (self.due, self.retry) = (None, None);
        let ca = match &self.task.source.ca {
            None => None,
            Some(ca) => match &*ca.borrow() {
                None => return,
                Some(bundle) => Some(Arc::clone(bundle)),
            },
        };
        let Some(published) = self.task.source.current.load() else { return };
        let Some(held) = &self.held else { return };
        let wanted = self.builder.build(&published, ca.as_deref());
        let (writes, retry) = self.plan(&wanted, held);
        self.retry = retry;
        let task = self.task;
        let mut done = futures::stream::iter(writes.into_iter().map(|write| task.carry_out(write)))
            .buffer_unordered(IN_FLIGHT);
        let mut results = Vec::new();
        while let Some(result) = done.next().await {
            results.push(result);
        }
        for (write, result) in results {
            self.settle(write, result);
        }
        self.tell_sizes(&wanted);
    }

    /// What differs and may be tried now, and when to look again for the rest.
    fn plan(&self, wanted: &Documents, held: &BTreeMap<Key, Held>) -> (Vec<Write>, Option<Instant>) {
        let now = Instant::now();
        let (mut writes, mut retry) = (Vec::new(), None);
        let keys: BTreeSet<&Key> = wanted.keys().chain(held.keys()).collect();
        for key in keys {
            let (wanted, held) = (wanted.get(key), held.get(key));
            let differs = match (wanted, held) {
                (Some(wanted), Some(held)) => !wanted.is_met_by(held),
                (Some(wanted), None) => wanted.may_be_made,
                (None, Some(held)) => held.is_of(&self.task.installation),
                (None, None) => false,
            };
            if !differs {
                continue;
            }
            match self.not_before.get(key).filter(|at| **at > now) {
                Some(at) => retry = Some(retry.map_or(*at, |r: Instant| r.min(*at))),
                None => {
                    writes.push(Write { key: key.clone(), wanted: wanted.cloned(), held: held.cloned() });
                }
            }
        }
        (writes, retry)
    }

    fn settle(&mut self, write: Write, result: Result<Option<Held>, Trouble>) {
        let Write { key, wanted, .. } = write;
        let now = Instant::now();
        let mut wait = None;
        let reason = match result {
            Ok(found) => {
                match found {
                    Some(found) => self.note(found),
                    None => drop(self.held.get_or_insert_default().remove(&key)),
                }
                wait = wanted.as_ref().filter(|w| w.size > LARGE).map(|_| LARGE_INTERVAL);
                None
            }
            Err(Trouble::NotLeading) => return,
            Err(Trouble::Foreign) => {
                wait = Some(REFUSED_RETRY);
                Some(Reason::new(Code::NameTaken, format!("ConfigMap {key}")))
            }
            Err(Trouble::Call(error)) => {
                let (after, reason) = self.missed(&key, &error);
                wait = wait.or(Some(after));
                reason
            }
        };
        if let Some(wait) = wait {
            let at = now + wait;
            self.not_before.insert(key.clone(), at);
            self.retry = Some(self.retry.map_or(at, |r| r.min(at)));
        } else {
            self.not_before.remove(&key);
        }
        self.tell(Report { cluster: wanted.and_then(|w| w.cluster.clone()), key, reason });
    }

    /// A write that failed: how long to wait, and what to tell.
    fn missed(&mut self, key: &Key, error: &CallError) -> (Duration, Option<Reason>) {
        let told = self.told.get(key).and_then(|report| report.reason.clone());
        match error {
            CallError::Status(status) if status.has_cause("NamespaceTerminating") => (REFUSED_RETRY, None),
            // the namespace is gone, or so is the ConfigMap: the watch says which
            CallError::Status(status) if matches!(status.code, 404 | 409) => {
                if status.code == 404 {
                    self.held.get_or_insert_default().remove(key);
                }
                (RETRY, told)
            }
            error if error.is_transient() => (error.retry_after().unwrap_or(RETRY).max(RETRY), told),
            error => {
                let why = format!("ConfigMap {key}: {error}");
                (REFUSED_RETRY, Some(Reason::new(Code::WriteRefused, why)))
            }
        }
    }

    /// Documents that had to be left out of their ConfigMaps, and those that fit again.
    fn tell_sizes(&mut self, wanted: &Documents) {
        for (key, document) in wanted {
            let told = self.told.get(key).and_then(|t| t.reason.as_ref()).map(|r| r.code);
            let reason = match (document.too_large, told) {
                (Some(bytes), None) => {
                    Some(Reason::new(Code::DocumentTooLarge, format!("ConfigMap {key}, {bytes} bytes")))
                }
                (None, Some(Code::DocumentTooLarge)) => None,
                _ => continue,
            };
            self.tell(Report { key: key.clone(), cluster: document.cluster.clone(), reason });
        }
    }

    fn tell(&mut self, report: Report) {
        let told = self.told.get(&report.key).and_then(|t| t.reason.as_ref());
        if told == report.reason.as_ref() {
            return;
        }
        match &report.reason {
            Some(reason) => tracing::warn!(configmap = %report.key, "{}", reason.message()),
            None => tracing::info!(configmap = %report.key, "written again"),
        }
        // nobody listens any more only when the process ends
        let _ = self.task.reports.send(report.clone());
        self.told.insert(report.key.clone(), report);
    }
}

/// The next CA; never, where there is none to come.
async fn changed(ca: &mut Option<Trusted>) {
    if let Some(receiver) = ca
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
