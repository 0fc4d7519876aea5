//! What the leader knows beyond the state: writes under way, objects that rest after a failure, since when slots are
//! free, which names are taken, which Events were sent.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::addresses::Ledger;
use super::under_way::UnderWay;
use crate::action::{Action, Event, Outcome};
use crate::names::{self, Key};
use crate::objects::{Pod, Readiness};
use crate::reach::Target;
use crate::reason::{Code, Reason};
use crate::resolve::{self, Question, Records};
use crate::service::SlotService;
use crate::settings::{Class, Exposure};
use crate::state::{State, count};

/// A reported write that the watch has not shown after this long is planned anew: longer than any watch that is not
/// stale (30 s), so that a slow watch does not cause a second write.
const PENDING_MAX: Duration = Duration::from_secs(40);
/// First pause after a failure; doubles with every further one.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest pause while the API server does not answer: short, so that all is well soon after it is back.
const BACKOFF_UNREACHABLE: Duration = Duration::from_secs(5);
/// Longest pause after a refusal (quota, policy): somebody has to act first.
const BACKOFF_REFUSED: Duration = Duration::from_secs(60);
/// A name found taken is tried again after this long.
const TAKEN_RETRY: Duration = Duration::from_secs(60);
/// Events sent at once; then one more per [`EVENT_REFILL`]. Protects etcd from a thousand labelled pods in a namespace
/// that is not enabled.
const EVENT_BURST: u32 = 50;
/// Time in which one more Event may be sent.
pub(super) const EVENT_REFILL: Duration = Duration::from_millis(200);
/// Events remembered as sent; beyond it memory starts over and the API server's `AlreadyExists` takes its place.
const EVENTS_KNOWN: usize = 20_000;

/// A planned write to a Service that the watch has not shown yet.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// Resource version it was planned from; 0 for a create.
    pub(super) from: u64,
    /// What the Service will be; `None` for a delete or annotation.
    pub(super) desired: Option<SlotService>,
}

impl Pending {
    /// The Service it creates.
    fn creates(&self) -> Option<&SlotService> {
        self.desired.as_ref().filter(|_| self.from == 0)
    }
}

/// How many Services are being created, as the state counts those that are there.
#[derive(Debug, Default)]
pub(super) struct Creating {
    slots: HashMap<(Arc<str>, Exposure), usize>,
    balancers: HashMap<String, usize>,
    /// Load balancers of all classes.
    pub(super) load_balancers: usize,
}

impl Creating {
    fn take(&mut self, service: &SlotService, begins: bool) {
        let place = (Arc::clone(&service.key.namespace), service.exposure);
        count(&mut self.slots, &place, service.slots(), begins);
        if service.exposure != Exposure::NodePort {
            count(&mut self.balancers, &service.class, 1, begins);
            self.load_balancers = self.balancers.values().sum();
        }
    }

    /// Slots of a namespace with an exposure.
    pub(super) fn slots(&self, namespace: &Arc<str>, exposure: Exposure) -> usize {
        self.slots.get(&(Arc::clone(namespace), exposure)).copied().unwrap_or(0)
    }

    /// Load balancers of a class.
    pub(super) fn balancers(&self, class: &str) -> usize {
        self.balancers.get(class).copied().unwrap_or(0)
    }
}

/// A name that somebody else has.
#[derive(Debug, Clone)]
struct Taken {
    uid: String,
    version: u64,
    adoptable: bool,
    selector: Vec<String>,
    addresses: Vec<IpAddr>,
    until: Duration,
}

/// A write to a pod under way.
#[derive(Debug, Clone)]
enum PodChange {
    /// It will carry this identity.
    Identity(String),
    /// Our scheduling gate goes.
    Gate,
    /// Our condition will be True.
    Condition,
}

#[derive(Debug, Clone)]
struct PodWrite {
    pod: Key,
    what: PodChange,
}

impl PodWrite {
    fn is_seen(&self, uid: &str, state: &State) -> bool {
        let done = |pod: &Pod| match &self.what {
            PodChange::Identity(pod_id) => pod.pod_id.as_ref() == Some(pod_id),
            PodChange::Gate => pod.gate.is_none(),
            PodChange::Condition => pod.readiness.is_none_or(|r| r == Readiness::Met),
        };
        state.pod(&self.pod).is_none_or(|pod| pod.uid != uid || done(pod))
    }
}

#[derive(Debug, Clone)]
struct Rest {
    until: Duration,
    failures: u32,
}

/// What is known of one cluster's slots, by Service, or by share.
#[derive(Debug, Default)]
struct SlotsMemory {
    free: HashMap<Key, Duration>,
    /// Free slots that are wanted ahead of the pods.
    ready: HashSet<Key>,
    /// By Service and UID of the pod: what was dialled last, and whether it answered.
    dialled: HashMap<Key, HashMap<String, (Target, bool)>>,
}

impl SlotsMemory {
    /// Answers whether anything is left once what is gone is forgotten.
    fn keep_existing(&mut self, state: &State, cluster: &Key) -> bool {
        let exists =
            |service: &Key| state.service(service).is_some_and(|s| s.cluster() == Some(&*cluster.name));
        self.free.retain(|key, _| exists(&service_of(key)));
        self.ready.retain(|key| exists(&service_of(key)));
        self.dialled.retain(|key, of| {
            of.retain(|uid, _| state.is_alive(uid));
            exists(key)
        });
        !(self.free.is_empty() && self.ready.is_empty() && self.dialled.is_empty())
    }
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// By Service.
    pending: UnderWay<Key, Pending>,
    creating: Creating,
    /// By UID.
    pod_writes: UnderWay<String, PodWrite>,
    resting: HashMap<Key, Rest>,
    /// By cluster.
    slots: HashMap<Key, SlotsMemory>,
    taken: HashMap<Key, Taken>,
    refused: HashMap<Key, Reason>,
    /// Who has had which address.
    pub(super) ledger: Ledger,
    /// By Service: answers about its load balancer's names that it does not show yet.
    resolved: HashMap<Key, Records>,
    events: HashSet<String>,
    events_left: Option<(u32, Duration)>,
}

/// Pods rest under their UID: a successor of the same name starts afresh.
pub(super) fn pod_key(uid: &str) -> Key {
    Key::new("uid", uid)
}

/// What a Service to be created rests under: by node ports it may be possible where a load balancer is refused.
pub(super) fn creation_key(service: &Key, exposure: Exposure) -> Key {
    match exposure {
        Exposure::Dedicated | Exposure::Shared => service.clone(),
        Exposure::NodePort => Key::new(service.namespace.clone(), format!("{} by node ports", service.name)),
    }
}

/// What a slot on a shared Service is free under.
pub(super) fn share_key(service: &Key, slot: u32) -> Key {
    Key::new(service.namespace.clone(), format!("{}/{slot}", service.name))
}

/// The Service of a slot, from what it is free under.
fn service_of(key: &Key) -> Key {
    match key.name.split_once('/') {
        Some((service, _)) => Key::new(key.namespace.clone(), service),
        None => key.clone(),
    }
}

impl Memory {
    /// Drops what the watches have shown by now, in the clusters they have touched, and what has waited too long. Answers
    /// whether a creation was given up: there is room for another one then.
    pub(super) fn forget_seen(&mut self, state: &State, touched: &BTreeSet<Key>, now: Duration) -> bool {
        let mut given_up = false;
        // a Service may have left the cluster it was written for
        let services = touched.iter().flat_map(|cluster| state.services_of(cluster)).map(|s| &s.key);
        let moved: Vec<Key> = services.filter(|key| self.pending.get(key).is_some()).cloned().collect();
        for key in self.pending.to_judge(touched, now).into_iter().chain(moved) {
            let seen = state.service(&key).map_or(0, |s| s.version);
            let Some(from) = self.pending.get(&key).map(|p| p.from) else { continue };
            if seen != from || self.pending.until(&key) <= Some(now) {
                given_up |= seen == 0 && from == 0;
                self.end(&key);
            }
        }
        for uid in self.pod_writes.to_judge(touched, now) {
            let seen = self.pod_writes.get(&uid).is_some_and(|w| w.is_seen(&uid, state));
            if seen || self.pod_writes.until(&uid) <= Some(now) {
                self.pod_writes.end(&uid);
            }
        }
        for cluster in touched {
            if self.slots.get_mut(cluster).is_some_and(|slots| !slots.keep_existing(state, cluster)) {
                self.slots.remove(cluster);
            }
        }
        self.resolved.retain(|key, answers| {
            state.service(key).is_some_and(|service| resolve::are_news(answers, resolve::annotation(service)))
        });
        self.taken.retain(|_, t| t.until > now);
        self.resting.retain(|_, r| r.until + BACKOFF_REFUSED > now);
        given_up
    }

    pub(super) fn note_dialled(&mut self, target: Target, reachable: bool) {
        let slots = self.slots.entry(target.cluster.clone()).or_default();
        let of_service = slots.dialled.entry(target.service.clone()).or_default();
        of_service.insert(target.pod_uid.clone(), (target, reachable));
    }

    pub(super) fn dialled(&self, cluster: &Key, service: &Key) -> Option<&HashMap<String, (Target, bool)>> {
        self.slots.get(cluster)?.dialled.get(service)
    }

    pub(super) fn note_resolved(&mut self, question: Question, ips: Vec<IpAddr>) {
        self.resolved.entry(question.service).or_default().insert(question.host, ips);
    }

    pub(super) fn resolved(&self, service: &Key) -> Option<&Records> {
        self.resolved.get(service)
    }

    pub(super) fn pending(&self, service: &Key) -> Option<&Pending> {
        self.pending.get(service)
    }

    /// Services of a cluster that are being created.
    pub(super) fn creating<'m>(&'m self, cluster: &Key) -> impl Iterator<Item = (&'m Key, &'m SlotService)> {
        self.pending.of(cluster).filter_map(|(key, p)| Some((key, p.creates()?)))
    }

    /// How many Services of all clusters are being created.
    pub(super) fn all_creating(&self) -> &Creating {
        &self.creating
    }

    /// When the write to a pod that is under way is given up; it may be one for a cluster the pod has left.
    pub(super) fn pod_write_expiry(&self, uid: &String) -> Option<Duration> {
        self.pod_writes.until(uid)
    }

    /// A write to a Service has ended.
    fn end(&mut self, service: &Key) {
        let Some(pending) = self.pending.end(service) else { return };
        if let Some(creates) = pending.creates() {
            self.creating.take(creates, false);
        }
        self.ledger.under_way(pending.desired.iter().flat_map(|d| &d.asked), false);
    }

    /// Notes a write as under way.
    pub(super) fn begin(&mut self, cluster: &Key, action: &Action, now: Duration) {
        let until = now + PENDING_MAX;
        let mut write_pod = |pod: &Key, uid: &String, what| {
            self.pod_writes.begin(uid.clone(), cluster.clone(), PodWrite { pod: pod.clone(), what }, until);
        };
        match action {
            Action::LabelPod { key, uid, pod_id } => write_pod(key, uid, PodChange::Identity(pod_id.clone())),
            Action::LiftGate { key, uid, .. } => write_pod(key, uid, PodChange::Gate),
            Action::MarkRouted { key, uid, .. } => write_pod(key, uid, PodChange::Condition),
            _ => {}
        }
        let Some(key) = action.service() else { return };
        let (from, desired) = match action {
            Action::CreateService(desired) => (0, Some(desired.clone())),
            // a foreign Service handed over is not in the state yet: until it is, it counts as being created
            Action::UpdateService { desired, version, .. } => {
                (if self.taken.contains_key(key) { 0 } else { *version }, Some(desired.clone()))
            }
            Action::AnnotateService { version, .. } | Action::DeleteService { version, .. } => {
                (*version, None)
            }
            Action::LabelPod { .. }
            | Action::LiftGate { .. }
            | Action::MarkRouted { .. }
            | Action::RecordEvent(_) => return,
        };
        self.end(key);
        let pending = Pending { from, desired };
        if let Some(creates) = pending.creates() {
            self.creating.take(creates, true);
        }
        self.ledger.under_way(pending.desired.iter().flat_map(|d| &d.asked), true);
        self.pending.begin(key.clone(), cluster.clone(), pending, until);
    }

    /// When the oldest write under way for a cluster is given up.
    pub(super) fn expiry(&self, cluster: &Key) -> Option<Duration> {
        self.pending.expiry(cluster).into_iter().chain(self.pod_writes.expiry(cluster)).min()
    }

    /// Takes a report; answers the cluster to look at again.
    pub(super) fn settle(&mut self, action: &Action, outcome: &Outcome, now: Duration) -> Option<Key> {
        if let Action::RecordEvent(event) = action {
            // an Event that was not sent is sent when its cause is looked at again
            if matches!(outcome, Outcome::Unreachable(_)) {
                self.events.remove(&event.object_name());
            }
            return None;
        }
        let (object, cluster) = self.concerns(action)?;
        match outcome {
            Outcome::Done => {
                self.resting.remove(&object);
                self.refused.remove(&object);
                action.service().map(|key| self.taken.remove(key));
                self.forget_written(action);
                return None;
            }
            Outcome::NameTaken { ours: true, .. } | Outcome::NotLeading => return None,
            Outcome::NameTaken { uid, version, adoptable, selector, addresses, .. } => {
                let (uid, selector, addresses) = (uid.clone(), selector.clone(), addresses.clone());
                let until = now + TAKEN_RETRY;
                let taken =
                    Taken { uid, version: *version, adoptable: *adoptable, selector, addresses, until };
                self.taken.extend(action.service().map(|key| (key.clone(), taken)));
            }
            Outcome::Conflict => {
                action.service().map(|key| self.taken.remove(key));
                self.rest(&object, BACKOFF_MIN, now);
            }
            Outcome::Unreachable(_) => self.rest(&object, BACKOFF_UNREACHABLE, now),
            Outcome::Refused(message) => {
                self.refused.insert(object.clone(), Reason::new(Code::WriteRefused, message.clone()));
                self.rest(&object, BACKOFF_REFUSED, now);
            }
        }
        if let Some(service) = action.service() {
            self.end(service);
        }
        if let Some(uid) = action.pod() {
            self.pod_writes.end(uid);
        }
        cluster
    }

    /// An answer is written once: a former leader that still writes and the present one do not take turns.
    fn forget_written(&mut self, action: &Action) {
        if let Action::AnnotateService { key, annotation: names::RESOLVED_ANNOTATION, value, .. } = action
            && let Some(answers) = self.resolved.get_mut(key)
            && !resolve::are_news(answers, value.as_deref())
        {
            self.resolved.remove(key);
        }
    }

    /// The object an action rests under, and its cluster where that is still known.
    fn concerns(&self, action: &Action) -> Option<(Key, Option<Key>)> {
        if let Some(uid) = action.pod() {
            return Some((pod_key(uid), self.pod_writes.cluster(uid).cloned()));
        }
        let key = action.service()?;
        let cluster = self.pending.cluster(key).cloned();
        let object = match action {
            Action::CreateService(desired) => creation_key(key, desired.exposure),
            _ => key.clone(),
        };
        Some((object, cluster))
    }

    fn rest(&mut self, object: &Key, longest: Duration, now: Duration) {
        let failures = self.resting.get(object).map_or(0, |r| r.failures);
        let pause = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(longest);
        self.resting.insert(object.clone(), Rest { until: now + pause, failures: failures + 1 });
    }

    pub(super) fn rests_until(&self, object: &Key, now: Duration) -> Option<Duration> {
        self.resting.get(object).map(|r| r.until).filter(|until| *until > now)
    }

    /// What the API server said of the last write to an object, while it is refused.
    pub(super) fn refusal(&self, object: &Key) -> Option<&Reason> {
        self.refused.get(object)
    }

    /// Since when a slot is free; from now on where that is new.
    pub(super) fn free_since(&mut self, cluster: &Key, service: &Key, now: Duration) -> Duration {
        let slots = self.slots.entry(cluster.clone()).or_default();
        *slots.free.entry(service.clone()).or_insert(now)
    }

    /// Notes a free slot, and whether it is wanted ahead of the pods. Retention begins when it is not wanted any more.
    pub(super) fn is_ready(&mut self, cluster: &Key, service: &Key, wanted: bool, now: Duration) {
        let slots = self.slots.entry(cluster.clone()).or_default();
        let before = slots.ready.contains(service);
        if before && !wanted {
            slots.ready.remove(service);
            slots.free.insert(service.clone(), now);
        } else if wanted && !before {
            slots.ready.insert(service.clone());
        }
        self.free_since(cluster, service, now);
    }

    pub(super) fn known_free_since(&self, cluster: &Key, service: &Key) -> Option<Duration> {
        self.slots.get(cluster)?.free.get(service).copied()
    }

    pub(super) fn is_used(&mut self, cluster: &Key, service: &Key) {
        if let Some(slots) = self.slots.get_mut(cluster) {
            slots.ready.remove(service);
            slots.free.remove(service);
        }
    }

    pub(super) fn forget_free(&mut self) {
        self.slots.values_mut().for_each(|slots| slots.free.clear());
    }

    /// Whether a name belongs to somebody who does not hand it over.
    pub(super) fn is_taken(&self, service: &Key) -> bool {
        self.taken.get(service).is_some_and(|t| !t.adoptable)
    }

    /// UID, resource version and selector keys of a foreign Service that is handed over.
    pub(super) fn handed_over(&self, service: &Key) -> Option<(String, u64, Vec<String>)> {
        let taken = self.taken.get(service).filter(|t| t.adoptable)?;
        Some((taken.uid.clone(), taken.version, taken.selector.clone()))
    }

    /// What a slot asks for that is about to be made: a Service that is handed over keeps the address it has, and asks for
    /// it where it is nobody else's.
    pub(super) fn keeps(&self, state: &State, service: &Key, class: &Class, asked: &[IpAddr]) -> Vec<IpAddr> {
        let taken = self.taken.get(service).filter(|t| t.adoptable && !t.addresses.is_empty());
        let Some(taken) = taken.filter(|_| class.service.asks_for_address()) else { return asked.to_vec() };
        let may_ask = |ip: &&IpAddr| class.addresses.is_empty() || class.addresses.contains(ip);
        let is_anothers = |ip: &IpAddr| state.holders(ip).any(|other| other.key != *service);
        taken.addresses.iter().filter(may_ask).filter(|ip| !is_anothers(ip)).copied().collect()
    }

    /// Names of a cluster's slots that somebody else has.
    pub(super) fn taken<'m>(&'m self, namespace: &'m str) -> impl Iterator<Item = &'m Key> {
        self.taken.iter().filter(move |(k, t)| &*k.namespace == namespace && !t.adoptable).map(|(k, _)| k)
    }

    /// Whether an Event is new and may be sent now; `Err` = at this time.
    pub(super) fn may_send(&mut self, event: &Event, now: Duration) -> Result<bool, Duration> {
        let name = event.object_name();
        if self.events.contains(&name) {
            return Ok(false);
        }
        let (left, since) = self.events_left.unwrap_or((EVENT_BURST, now));
        let refilled = u32::try_from(now.saturating_sub(since).as_millis() / EVENT_REFILL.as_millis())
            .unwrap_or(EVENT_BURST);
        let left = left.saturating_add(refilled).min(EVENT_BURST);
        if left == 0 {
            return Err(now + EVENT_REFILL);
        }
        self.events_left = Some((left - 1, if refilled == 0 { since } else { now }));
        if self.events.len() >= EVENTS_KNOWN {
            self.events.clear();
        }
        self.events.insert(name);
        Ok(true)
    }
}
