//! What the leader knows beyond the state: writes under way, objects that rest after a failure, since when slots are
//! free, which names are taken, which Events were sent.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::addresses::Ledger;
use super::creating::Creating;
use super::pod_write::{PodChange, PodWrite};
use super::ports::{KeptPorts, PortMemory};
use super::sent::Sent;
use super::taken::TakenNames;
use super::under_way::UnderWay;
use crate::action::{Action, Outcome};
use crate::names::{self, Key};
use crate::objects::Service;
use crate::reach::Target;
use crate::reason::{Code, Reason};
use crate::resolve::{self, Question, Records};
use crate::service::SlotService;
use crate::settings::Exposure;
use crate::state::State;

/// A reported write that the watch has not shown after this long is planned anew: longer than any watch that is not
/// stale (30 s), so that a slow watch does not cause a second write.
const PENDING_MAX: Duration = Duration::from_secs(40);
/// First pause after a failure; doubles with every further one.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest pause while the API server does not answer: short, so that all is well soon after it is back.
const BACKOFF_UNREACHABLE: Duration = Duration::from_secs(5);
/// Longest pause after a refusal (quota, policy): somebody has to act first.
const BACKOFF_REFUSED: Duration = Duration::from_secs(60);

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
    /// By shared Service.
    ports: HashMap<Key, PortMemory>,
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
        self.ports.retain(|key, _| exists(key));
        !(self.free.is_empty() && self.ready.is_empty() && self.dialled.is_empty() && self.ports.is_empty())
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
    pub(super) taken: TakenNames,
    refused: HashMap<Key, Reason>,
    /// Who has had which address.
    pub(super) ledger: Ledger,
    /// By Service: answers about its load balancer's names that it does not show yet.
    resolved: HashMap<Key, Records>,
    pub(super) sent: Sent,
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
        self.taken.forget_old(now);
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
                (if self.taken.contains(key) { 0 } else { *version }, Some(desired.clone()))
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
                self.sent.forget(event);
            }
            return None;
        }
        let (object, cluster) = self.concerns(action)?;
        match outcome {
            Outcome::Done => {
                self.resting.remove(&object);
                self.refused.remove(&object);
                self.taken.forget(action.service());
                self.forget_written(action);
                return None;
            }
            Outcome::NameTaken { ours: true, .. } | Outcome::NotLeading => return None,
            Outcome::NameTaken { .. } => self.taken.note(action.service(), outcome, now),
            Outcome::Conflict => {
                self.taken.forget(action.service());
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

    /// Takes note of where a shared Service's ports lead; answers which are not for everybody. A free slot to which
    /// somebody has given another one's rests anew.
    pub(super) fn note_ports(
        &mut self,
        cluster: &Key,
        service: &Service,
        rest: Duration,
        now: Duration,
    ) -> KeptPorts {
        let slots = self.slots.entry(cluster.clone()).or_default();
        let ports = slots.ports.entry(service.key.clone()).or_default();
        let free_key = |slot| share_key(&service.key, slot);
        let changed = ports.note(service, |slot| slots.free.get(&free_key(slot)).copied(), rest, now);
        for slot in changed {
            slots.free.remove(&free_key(slot));
        }
        ports.kept(rest)
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
}
