//! What to write so that the slots become what the pods ask for. Pure: state + memory + time -> actions.
//!
//! Plans one cluster at a time, and only clusters that were touched or whose time has come. A planned write counts as
//! done until the watch shows it or the writer reports otherwise, so a converged cluster plans nothing and nothing is
//! planned twice. Memory is lost with leadership: a new leader counts retention anew, so addresses are kept longer,
//! never shorter.

mod addresses;
mod alarms;
mod assign;
mod creating;
mod gates;
mod line;
mod memory;
mod naming;
mod notices;
mod pod_write;
mod ports;
mod reached;
mod readiness;
mod sent;
mod sharing;
mod taken;
mod under_way;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::action::{Action, Outcome};
use crate::claim::{self, Claim};
use crate::names::{self, Key};
use crate::objects::{Pod, Service};
use crate::reach::Target;
use crate::resolve::{Answer, Question};
use crate::service::{GivenUp, SlotService};
use crate::settings::{Exposure, Retention};
use crate::state::State;
use alarms::Alarms;
use assign::{Assignment, NewSlot, Slot, Turn};
use line::{Next, Pass, Waiting, Waits};
use memory::Memory;
use sharing::{Draft, Drafts};

/// A Service without an address for this long gets the reason `NoLoadBalancer`. Trades noise with slow load balancers
/// (up to a minute is usual) against people waiting without a hint.
pub const ADDRESS_DEADLINE: Duration = Duration::from_secs(120);

/// The time, given from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since some start, never goes back: for waiting.
    pub monotonic: Duration,
    /// Microseconds since 1970: for comparing with creation timestamps, and for Events.
    pub wall: i64,
}

/// Turns state into actions, and remembers what is under way.
#[derive(Debug, Default)]
pub struct Planner {
    touched: BTreeSet<Key>,
    wakes: Alarms<Key>,
    waiting: Waiting,
    /// Clusters that lack slots ahead of their pods.
    wishing: BTreeSet<Key>,
    /// When it planned first, seconds since 1970.
    began: Option<i64>,
    memory: Memory,
}

impl Planner {
    /// A new leader's planner: knows nothing, looks at everything.
    pub fn new(state: &State) -> Self {
        Self { touched: state.clusters().cloned().collect(), ..Self::default() }
    }

    /// The cluster may look different.
    pub fn touch(&mut self, clusters: impl IntoIterator<Item = Key>) {
        self.touched.extend(clusters);
    }

    /// Nothing is planned for now, because what is known is too old. What was free before may have been in use, and shown,
    /// meanwhile: rest and retention start over, so addresses are kept longer, never shorter.
    pub fn pause(&mut self) {
        self.memory.forget_free();
    }

    /// When there may be something to plan though nothing changes.
    pub fn next_wake(&self) -> Option<Duration> {
        self.wakes.next()
    }

    /// Actions for the clusters touched since the last call or whose time has come. No two of them, nor any still under
    /// way, concern the same object.
    pub fn plan(&mut self, state: &State, now: Now) -> Vec<Action> {
        self.touched.extend(self.wakes.due(now.monotonic).cloned());
        if self.memory.forget_seen(state, &self.touched, now.monotonic) {
            self.touch_waiting();
        }
        // a new leader does not know who waits: all come into the line before anybody gets anything
        let unknown = if self.began.is_none() { i64::MIN } else { i64::MAX };
        self.began.get_or_insert(now.wall / 1_000_000);
        if self.note_addresses(state, now.monotonic) {
            self.touch_waiting();
        }
        self.plan_in_line(state, now, unknown)
    }

    /// Plans one cluster.
    fn plan_cluster(
        &mut self,
        state: &State,
        cluster: &Key,
        now: Now,
        pass: Pass,
        actions: &mut Vec<Action>,
    ) -> Next {
        self.wakes.cancel(cluster);
        self.waiting.remove(cluster);
        self.wishing.remove(cluster);
        let (until, ahead) = match pass {
            Pass::Until(until) => (until, None),
            Pass::Ahead => (i64::MAX, Some(&self.waiting)),
        };
        let began = self.began.unwrap_or_default();
        let turn = Turn { now: now.monotonic, began, until, ahead };
        let mut plan = ClusterPlan::new(state, &mut self.memory, cluster, now, turn);
        plan.run();
        actions.append(&mut plan.actions);
        let ClusterPlan { wake, waits, next, .. } = plan;
        if let Some(at) = wake {
            self.wakes.set(cluster.clone(), at);
        }
        self.waiting.put(cluster, waits);
        if let Next::Ahead = next {
            self.wishing.insert(cluster.clone());
        }
        next
    }

    /// Takes the result of dialling an address.
    pub fn dialled(&mut self, target: Target, reachable: bool) {
        self.touched.insert(target.cluster.clone());
        self.memory.note_dialled(target, reachable);
    }

    /// Takes what DNS says of a name.
    pub fn resolved(&mut self, question: Question, answer: &Answer) {
        if let Some(ips) = answer.addresses() {
            self.touched.insert(question.cluster.clone());
            self.memory.note_resolved(question, ips);
        }
    }

    /// Takes note of who holds which address, of all that has changed before any of it is planned. Answers whether
    /// one has become free.
    fn note_addresses(&mut self, state: &State, now: Duration) -> bool {
        let mut classes = state.settings().classes.values();
        if !classes.any(|class| class.service.asks_for_address()) {
            return false;
        }
        let ledger = &mut self.memory.ledger;
        let freed = self.touched.iter().filter(|cluster| ledger.note(state, cluster, now));
        freed.count() > 0
    }

    /// Takes the writer's report of an action.
    pub fn settle(&mut self, action: &Action, outcome: &Outcome, now: Now) {
        if let Some(cluster) = self.memory.settle(action, outcome, now.monotonic) {
            self.touched.insert(cluster);
            // a Service that was to become ours counted: one to be made, or one handed over
            if *outcome != Outcome::Done
                && matches!(action, Action::CreateService(_) | Action::UpdateService { .. })
            {
                self.touch_waiting();
            }
        }
    }
}

/// One cluster's plan in the making.
struct ClusterPlan<'a> {
    state: &'a State,
    memory: &'a mut Memory,
    cluster: &'a Key,
    now: Now,
    turn: Turn<'a>,
    actions: Vec<Action>,
    wake: Option<Duration>,
    waits: Waits,
    next: Next,
}

impl<'a> ClusterPlan<'a> {
    fn new(state: &'a State, memory: &'a mut Memory, cluster: &'a Key, now: Now, turn: Turn<'a>) -> Self {
        Self {
            state,
            memory,
            cluster,
            now,
            turn,
            actions: Vec::new(),
            wake: None,
            waits: Waits::default(),
            next: Next::Nothing,
        }
    }

    fn run(&mut self) {
        let claims = claim::claims(self.state, self.cluster);
        let rest = self.state.settings().classes.values().map(|c| c.reuse_after).max().unwrap_or_default();
        self.memory.ledger.begin(rest, self.now.monotonic);
        let mut drafts = sharing::drafts(self.state, self.memory, self.cluster, self.now.monotonic);
        let slots = assign::slots(self.state, self.memory, self.cluster, &mut drafts);
        let mut assignment =
            assign::assign(self.state, self.memory, self.cluster, &claims, &slots, &mut drafts, self.turn);
        for (claim, reason) in &assignment.stepped {
            self.tell(claims[*claim].pod, reason);
        }
        self.wake_at(assignment.wake);
        self.waits = std::mem::take(&mut assignment.waits);
        if let Some(next) = assignment.next {
            // the rest when all in line before it are served
            self.next = Next::InLine(next);
            self.make_new(&claims, &assignment);
            for draft in drafts.values() {
                self.share(draft);
            }
            return;
        }
        self.next = if assignment.wishes { Next::Ahead } else { Next::Nothing };
        self.label(&claims);
        self.lift_gates(&claims, &slots, &assignment);
        self.mark_routed(&claims);
        let own = |number: &u32| slots[number].exposure != Exposure::Shared;
        // one the pod moves to as well: it may ask for what is another's by now
        let own_slots = assignment.held.iter().chain(&assignment.hoped).filter(|(_, number)| own(number));
        for (claim, number) in own_slots {
            self.keep(&claims[*claim], &slots[number]);
        }
        self.make_new(&claims, &assignment);
        for spare in &assignment.spare {
            let asked = assignment.asked.get(&spare.number).map_or(&[][..], Vec::as_slice);
            let slot = (spare.number, Exposure::Dedicated);
            let Some(desired) = self.desired(&claims[spare.like], slot, asked) else { continue };
            let pod_id = spare.name.as_ref().map(|name| names::pod_id_of_name(&self.cluster.name, name));
            self.make(SlotService { pod_id, pod: spare.name.clone().unwrap_or_default(), ..desired });
        }
        self.release(&slots, &assignment, &mut drafts);
        for draft in drafts.values() {
            self.share(draft);
        }
        self.record_reached(&claims, &slots, &assignment);
        self.record_names();
        self.notify(&claims, &assignment, &drafts);
        // every time: whoever looks at the cluster in the meantime takes the wake of the look before
        self.wake_at(self.memory.expiry(self.cluster));
    }

    fn wake_at(&mut self, at: Option<Duration>) {
        self.wake = self.wake.into_iter().chain(at).min();
    }

    /// Whether a write to a pod is under way: the cluster is looked at again when it is given up.
    fn is_writing(&mut self, pod: &Pod) -> bool {
        let until = self.memory.pod_write_expiry(&pod.uid);
        self.wake_at(until);
        until.is_some()
    }

    /// Plans a write to an object unless it rests after a failure, or one to it is planned already.
    fn act(&mut self, object: &Key, action: Action) -> bool {
        if action.service().is_some_and(|service| self.memory.pending(service).is_some()) {
            return false;
        }
        if let Some(until) = self.memory.rests_until(object, self.now.monotonic) {
            self.wake_at(Some(until));
            return false;
        }
        self.memory.begin(self.cluster, &action, self.now.monotonic);
        self.actions.push(action);
        true
    }

    /// Adoption: the label is on the live pod before a Service selects it.
    fn label(&mut self, claims: &[Claim<'_>]) {
        for claim in claims {
            let Some(pod_id) = claim.missing_id(&self.cluster.name) else { continue };
            let pod = claim.pod;
            if !self.is_writing(pod) {
                let action = Action::LabelPod { key: pod.key.clone(), uid: pod.uid.clone(), pod_id };
                self.act(&memory::pod_key(&pod.uid), action);
            }
        }
    }

    fn desired(
        &self,
        claim: &Claim<'_>,
        (number, exposure): (u32, Exposure),
        asked: &[IpAddr],
    ) -> Option<SlotService> {
        let (demand, pod_id) = claim.granted()?;
        let Key { namespace, name } = self.cluster;
        Some(SlotService {
            key: Key::new(namespace.clone(), names::slot_service(name, number)),
            cluster: name.to_string(),
            slot: number,
            exposure,
            owner: self.state.settings().installation.clone(),
            class: demand.class_name.to_owned(),
            pod: claim.pod.key.name.to_string(),
            pod_id: (!claim.is_contested(exposure)).then(|| pod_id.to_owned()),
            ports: demand.ports.clone(),
            template: SlotService::template_for(demand.class, exposure, (namespace, name, number), asked),
            asked: asked.to_vec(),
            given_up: GivenUp::default(),
        })
    }

    /// Makes a slot's Service what its pod asks for.
    fn keep(&mut self, claim: &Claim<'_>, slot: &Slot<'_>) {
        let (Some((demand, _)), Some(service)) = (claim.granted(), slot.settled()) else { return };
        if claim.pod.terminating && !claim.is_contested(slot.exposure) {
            return; // its successor says what the Service shall be
        }
        let asked = self.asks(claim.pod, demand, service);
        let Some(mut desired) = self.desired(claim, (slot.number, slot.exposure), &asked) else { return };
        if asked.is_empty() && service.asked().next().is_some() {
            desired.given_up = GivenUp::of(demand.class);
        }
        self.adjust(service, desired);
    }

    /// Makes a Service what it shall be; where it is, looks at its address.
    fn adjust(&mut self, service: &Service, desired: SlotService) {
        if desired.is_met_by(service) {
            return self.mark_overdue(service);
        }
        let owned =
            if desired.exposure == Exposure::Shared { names::SHARED_LABEL } else { names::POD_ID_LABEL };
        let foreign = service.selector.keys().filter(|k| *k != owned).map(str::to_owned).collect();
        let (uid, version) = (service.uid.clone(), service.version);
        self.act(&service.key, Action::UpdateService { uid, version, desired, drop_selector: foreign });
    }

    /// Records on the Service that its address is overdue, or that it has come after all.
    fn mark_overdue(&mut self, service: &Service) {
        let marked = service.annotations.contains_key(names::OVERDUE_ANNOTATION);
        let waiting = !service.has_address();
        let age = Duration::from_secs((self.now.wall / 1_000_000 - service.created).max(0).unsigned_abs());
        let value = match (waiting, marked) {
            (true, false) if age >= ADDRESS_DEADLINE => Some("true".to_owned()),
            (true, false) => {
                let left = ADDRESS_DEADLINE.saturating_sub(age);
                return self.wake_at(Some(self.now.monotonic + left));
            }
            (false, true) => None,
            _ => return,
        };
        let action = Action::AnnotateService {
            key: service.key.clone(),
            uid: service.uid.clone(),
            version: service.version,
            annotation: names::OVERDUE_ANNOTATION,
            value,
        };
        self.act(&service.key, action);
    }

    fn make_new(&mut self, claims: &[Claim<'_>], assignment: &Assignment) {
        for new in assignment.new.iter().filter(|new| new.exposure != Exposure::Shared) {
            let asked = assignment.asked.get(&new.number).map_or(&[][..], Vec::as_slice);
            self.create(&claims[new.claim], new, asked);
        }
    }

    fn create(&mut self, claim: &Claim<'_>, new: &NewSlot, asked: &[IpAddr]) {
        let Some((demand, _)) = claim.granted() else { return };
        let name = names::slot_service(&self.cluster.name, new.number);
        let key = Key::new(self.cluster.namespace.clone(), name);
        let asked = self.memory.taken.keeps(self.state, &key, demand.class, asked);
        if let Some(desired) = self.desired(claim, (new.number, new.exposure), &asked) {
            self.make(desired);
        }
    }

    fn make(&mut self, desired: SlotService) {
        if self.state.namespace(&self.cluster.namespace).is_none_or(|n| n.deleting) {
            return; // nothing can be made in a namespace that is being deleted
        }
        let key = desired.key.clone();
        if let Some((uid, version, drop_selector)) = self.memory.taken.handed_over(&key) {
            self.act(&key, Action::UpdateService { uid, version, desired, drop_selector });
        } else {
            self.act(&memory::creation_key(&key, desired.exposure), Action::CreateService(desired));
        }
    }

    /// Deletes surplus slots at once and free ones whose retention is over.
    fn release(&mut self, slots: &BTreeMap<u32, Slot<'_>>, assignment: &Assignment, drafts: &mut Drafts<'_>) {
        for number in assignment.free.difference(&assignment.ready) {
            let slot = &slots[number];
            let Some(service) = slot.settled() else { continue };
            let Some(free_key) = slot.free_key() else { continue };
            let since = self.memory.free_since(self.cluster, &free_key, self.now.monotonic);
            let surplus = assignment.surplus.contains(number);
            // another slot may have a shared one's ports at once: they rest here. Clients still go where a pod has been
            // moved from on purpose
            let rests = slot.home().is_some() || service.gives_way();
            let rest = if rests { self.state.settings().reuse_after(service) } else { Duration::ZERO };
            let expiry = match self.retention(service) {
                _ if surplus => since + rest,
                Retention::For(kept) => since + kept.max(rest),
                Retention::Forever => continue,
            };
            if expiry > self.now.monotonic {
                self.wake_at(Some(expiry));
                continue;
            }
            if let Some(home) = slot.home() {
                drafts.get_mut(&home).map(|draft| draft.slots.remove(number));
                continue;
            }
            let (key, uid) = (service.key.clone(), service.uid.clone());
            let action = Action::DeleteService { key: key.clone(), uid, version: service.version };
            self.act(&key, action);
        }
    }

    /// Makes a shared Service what its slots ask for.
    fn share(&mut self, draft: &Draft<'_>) {
        if draft.busy || draft.service.is_some_and(|s| s.terminating) {
            return;
        }
        if let (Some(service), true) = (draft.service, draft.slots.is_empty()) {
            let (key, uid) = (service.key.clone(), service.uid.clone());
            let action = Action::DeleteService { key: key.clone(), uid, version: service.version };
            self.act(&key, action);
            return;
        }
        let Some(desired) = draft.desired(self.state.settings(), self.cluster) else { return };
        match draft.service {
            Some(service) => self.adjust(service, desired),
            None => self.make(desired),
        }
    }

    fn retention(&self, service: &Service) -> Retention {
        self.state.settings().class_of(service).map_or(Retention::For(Duration::ZERO), |c| c.retention)
    }
}
