//! Leadership: one replica, holding the Lease, writes. By the rules of client-go's leader election.
//!
//! Clocks are never compared: a candidate takes the Lease when it has itself watched the record stand still for the
//! record's duration, and the holder stops by its own monotonic clock, counted from before it sent the last renewal
//! that succeeded. Times in the Lease are for people. A leader that hangs beyond that (a stopped process that goes on)
//! may still send a write: what it does then is refused by the resource versions its writes carry.

mod record;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::client::call::CallError;
use crate::constants::{LEASE_DURATION, LEASE_RENEW_DEADLINE, LEASE_RETRY};
use record::{Observed, Record, Store};

/// For one call. Two that hang and a third that is answered fit into `LEASE_RENEW_DEADLINE`.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// After a renewal that failed. Less than `LEASE_RETRY`, to have that third one.
const RENEWAL_RETRY: Duration = Duration::from_millis(500);
/// Waits of candidates are up to this much shorter than `LEASE_RETRY`, so that they do not all come at once; longer ones
/// would delay a hand-over by more than that.
const JITTER: f64 = 0.2;
/// One line per trouble and then one in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Whether this replica may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Another one does, or nobody.
    Following,
    /// This one. `term` counts its leaderships: what was planned in an earlier one is not to be trusted.
    Leading {
        /// From 1.
        term: u64,
    },
}

/// What other tasks know about leadership. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leadership {
    shared: Arc<Shared>,
    role: watch::Receiver<Role>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// Milliseconds after `start` up to which this replica leads; 0 = it does not.
    until: AtomicU64,
}

impl Leadership {
    /// Whether this replica leads at this moment. A write begun now has its answer, or has timed out, before another
    /// replica may begin.
    pub fn is_leading_now(&self) -> bool {
        let now = u64::try_from(self.shared.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        now < self.shared.until.load(Ordering::Acquire)
    }

    /// The role, and how to wait for its next change. The end of a leadership is announced when its deadline passes;
    /// at a single moment [`is_leading_now`](Self::is_leading_now) is what counts.
    pub fn changes(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }
}

#[cfg(test)]
impl Leadership {
    /// Leads for `time` from now.
    pub(crate) fn of(time: Duration) -> Self {
        let until = u64::try_from(time.as_millis()).unwrap();
        let (role, seen) = watch::channel(Role::Leading { term: 1 });
        std::mem::forget(role); // a sender that is gone would be a lease task that has ended
        Self { shared: Arc::new(Shared { start: Instant::now(), until: AtomicU64::new(until) }), role: seen }
    }
}

/// A candidate for leadership. Made by [`candidate`], runs until it is told to stop.
pub struct Candidate {
    store: Store,
    identity: String,
    shared: Arc<Shared>,
    role: watch::Sender<Role>,
    term: u64,
    observed: Option<Observed>,
    logged: Option<(String, Instant)>,
}

/// The Lease `external-ip-controller` of `namespace`, as seen by this process: `name` (the pod's) with a suffix, since
/// a pod's container may be started again while its former process's record still stands.
pub fn candidate(client: &Client, namespace: &str, name: &str) -> (Candidate, Leadership) {
    let shared = Arc::new(Shared { start: Instant::now(), until: AtomicU64::new(0) });
    let (role, seen) = watch::channel(Role::Following);
    let candidate = Candidate {
        store: Store::new(client.clone(), namespace),
        identity: format!("{name}_{:016x}", fastrand::u64(..)),
        shared: Arc::clone(&shared),
        role,
        term: 0,
        observed: None,
        logged: None,
    };
    (candidate, Leadership { shared, role: seen })
}

/// The holder of the Lease in `namespace` if it is alive: it renews the record, or hands it over, while this watches,
/// which takes up to the record's duration. A record without a holder, or one that stands still, is nobody's.
///
/// # Errors
/// The Lease cannot be read.
pub async fn living_holder(client: &Client, namespace: &str) -> Result<Option<String>, CallError> {
    let store = Store::new(client.clone(), namespace);
    let begun = Instant::now();
    let Some((_, first)) = store.read().await? else { return Ok(None) };
    loop {
        match store.read().await? {
            Some((_, record)) if record.holder.is_empty() => return Ok(None),
            Some((_, record)) if record != first => return Ok(Some(record.holder)),
            Some(_) if begun.elapsed() < first.duration() => sleep(RENEWAL_RETRY).await,
            _ => return Ok(None),
        }
    }
}

impl Candidate {
    /// What stands in the Lease while this process leads.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Seeks and keeps leadership until `release`, then gives it up so that another replica takes over at once. Cancel
    /// `release` only when nothing is written any more.
    pub async fn run(mut self, release: CancellationToken) {
        while !release.is_cancelled() {
            let Some(()) = release.run_until_cancelled(self.acquire()).await else { break };
            let Some(()) = release.run_until_cancelled(self.hold()).await else { break };
        }
        if self.leads_until().is_some() {
            self.follow("shutting down");
        }
        self.release().await;
    }

    fn leads_until(&self) -> Option<Instant> {
        let until = self.shared.until.load(Ordering::Acquire);
        (until > 0).then(|| self.shared.start + Duration::from_millis(until))
    }

    /// Tries until it leads.
    async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => self.logged = None,
                Err(error) => self.log(&error),
            }
            sleep(LEASE_RETRY.mul_f64(1.0 - JITTER * fastrand::f64())).await;
        }
    }

    /// Renews until the deadline passes or somebody else has the Lease.
    async fn hold(&mut self) {
        let mut wait = LEASE_RETRY;
        while let Some(deadline) = self.leads_until() {
            let renewal = async {
                sleep(wait).await;
                self.attempt().await
            };
            let renewed = tokio::select! {
                biased;
                () = sleep_until(deadline) => {
                    return self.follow("the Lease could not be renewed in time");
                }
                renewed = renewal => renewed,
            };
            match renewed {
                Ok(true) => {
                    self.logged = None;
                    wait = LEASE_RETRY;
                }
                Ok(false) => return self.follow("another replica has the Lease"),
                Err(error) => {
                    self.log(&error);
                    wait = RENEWAL_RETRY;
                }
            }
        }
    }

    /// Reads where needed, and takes or renews the Lease where it may. Gives whether this replica has it.
    async fn attempt(&mut self) -> Result<bool, CallError> {
        let begun = Instant::now();
        let mine = self.observed.as_ref().filter(|o| o.record.holder == self.identity);
        // as leader the last answer is the record; only when somebody wrote over it, it must be read
        if mine.is_none() || self.leads_until().is_none() {
            let found = self.store.read().await?;
            self.observe(found);
        }
        let now = Instant::now();
        let next = match &self.observed {
            Some(observed) if observed.is_held_by_another(&self.identity, now) => return Ok(false),
            Some(observed) => observed.record.taken_by(&self.identity),
            None => Record::default().taken_by(&self.identity),
        };
        let version = self.observed.as_ref().map(|o| o.version.clone());
        match self.store.write(version.as_deref(), &next).await {
            Ok(written) => self.observe(Some(written)),
            Err(error) => {
                // somebody wrote over it, or deleted it: the next attempt reads what is there now
                self.observed = self.observed.take().filter(|_| !matches!(error.code(), Some(404 | 409)));
                return Err(error);
            }
        }
        self.lead(begun + LEASE_RENEW_DEADLINE);
        Ok(true)
    }

    /// Keeps what was found and since when it has stood there, by our own clock.
    fn observe(&mut self, found: Option<(String, Record)>) {
        let before = self.observed.take();
        if let Some((_, found)) = &found {
            let known = before.as_ref().map_or("", |b| &b.record.holder);
            if found.holder != known && found.holder != self.identity && !found.holder.is_empty() {
                tracing::info!(leader = found.holder, "following");
            }
        }
        self.observed = found.map(|(version, record)| match before {
            Some(before) if before.record == record => Observed { version, ..before },
            _ => Observed { version, record, since: Instant::now() },
        });
    }

    fn lead(&mut self, deadline: Instant) {
        let until = u64::try_from((deadline - self.shared.start).as_millis()).unwrap_or(u64::MAX);
        let led = self.shared.until.swap(until, Ordering::AcqRel) > 0;
        if !led {
            self.term += 1;
            tracing::info!(identity = self.identity, term = self.term, "leading");
            self.role.send_replace(Role::Leading { term: self.term });
        }
    }

    fn follow(&mut self, why: &str) {
        self.shared.until.store(0, Ordering::Release);
        tracing::warn!(identity = self.identity, term = self.term, "not leading any more: {why}");
        self.role.send_replace(Role::Following);
    }

    /// Hands the Lease over: without a holder, and short, as client-go does. It is read first, because an attempt may
    /// have been cut off after it was sent. One try: it expires by itself too.
    async fn release(&self) {
        let released = async {
            match self.store.read().await? {
                Some((version, record)) if record.holder == self.identity => {
                    self.store.write(Some(&version), &record.released()).await.map(|_| true)
                }
                _ => Ok(false),
            }
        };
        match released.await {
            Ok(true) => tracing::info!("Lease released"),
            Ok(false) => {}
            Err(error) => tracing::warn!("Lease not released, it expires in {LEASE_DURATION:?}: {error}"),
        }
    }

    fn log(&mut self, error: &CallError) {
        let text = match error.code() {
            Some(403) if self.observed.is_none() => format!(
                "no right to the Lease {}, or it is missing: apply the manifests, which hold both ({error})",
                self.store
            ),
            Some(409) => return,
            _ => format!("the Lease {} cannot be taken or renewed: {error}", self.store),
        };
        let known = self.logged.as_ref().is_some_and(|(last, at)| *last == text && at.elapsed() < LOG_EVERY);
        if !known {
            tracing::warn!("{text}");
            self.logged = Some((text, Instant::now()));
        }
    }
}
