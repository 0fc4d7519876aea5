//! The state loop: watch updates in, map and actions out. The only task that owns state and plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use external_ip_core::action::{Action, Outcome};
use external_ip_core::explain;
use external_ip_core::mapping::{self, ClusterMapping, Mapping};
use external_ip_core::milestones::{Milestone, Milestones};
use external_ip_core::names::Key;
use external_ip_core::objects::Service;
use external_ip_core::plan::{Now, Planner};
use external_ip_core::reach::{self, Target};
use external_ip_core::resolve::{self, Answer, Question};
use external_ip_core::settings::Settings;
use external_ip_core::state::{Feed, Seen, State, Update};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::act::lease::Role;
use crate::dial::Targets;
use crate::map::{Current, Explained, KeptByCluster, Liveness, PodQuestion, Position, Snapshot};
use crate::metrics::Metrics;
use crate::resolve::Questions;
use crate::watch::FeedSpec;

/// Updates taken together before the map is made: a burst is one map, and one map is never far behind.
const BATCH: usize = 4096;
/// From one step to the next while updates keep coming: those in between share a map and a plan, which cost as much for one
/// pod as for all of its cluster, and a copy of the list of clusters. A change that comes alone waits for nobody; in a
/// burst it is shown this much later, against 20 ms that a reader may wait for it.
const STEP_EVERY: Duration = Duration::from_millis(10);
/// Between two looks while the watches are stale: nothing may be planned then, and nothing wakes the loop when they
/// are back but the next update.
const STALE_RECHECK: Duration = Duration::from_secs(1);

/// What the loop reads.
pub struct Inputs {
    /// Of all watches.
    pub updates: mpsc::Receiver<Update>,
    /// Of the writer.
    pub outcomes: mpsc::UnboundedReceiver<(Action, Outcome)>,
    /// Of the lease.
    pub role: watch::Receiver<Role>,
    /// The Service the mapping is published by.
    pub mapping_service: watch::Receiver<Option<Arc<Service>>>,
    /// Of readers, about single pods.
    pub questions: mpsc::Receiver<PodQuestion>,
    /// Results of dialling external addresses.
    pub dialled: mpsc::Receiver<(Target, bool)>,
    /// What DNS says of load balancers' names.
    pub answers: mpsc::Receiver<(Question, Answer)>,
    /// How fresh the watches are.
    pub liveness: Arc<Liveness>,
}

/// What the loop writes.
pub struct Outputs {
    /// The published map.
    pub current: Arc<Current>,
    /// To the writer.
    pub actions: mpsc::UnboundedSender<Action>,
    /// External addresses to dial.
    pub targets: watch::Sender<Targets>,
    /// Names of load balancers to ask for.
    pub questions: watch::Sender<Questions>,
    /// How long pods wait for their addresses.
    pub metrics: Arc<Metrics>,
}

/// State and plan of this replica.
pub struct Control {
    state: State,
    planner: Option<Planner>,
    /// The role the planner was made for; a new term begins with a new planner.
    role: Option<Role>,
    inputs: Inputs,
    outputs: Outputs,
    start: Instant,
    /// The earliest time of the next step.
    rested: Instant,
    /// Something has happened since the last step.
    due: bool,
    /// Feeds whose first list is still missing: a map of half the pods is never published, and nothing planned from it.
    unlisted: BTreeSet<Feed>,
    /// Marks of the feeds in a position.
    marks: BTreeMap<Feed, Arc<str>>,
    mapping: Arc<Mapping>,
    kept: Arc<KeptByCluster>,
    /// `None` until the first map: when the pods of that got there is not known.
    milestones: Option<Milestones>,
}

impl Control {
    /// A loop over the updates of `feeds`.
    pub fn new(settings: Arc<Settings>, feeds: &[FeedSpec], inputs: Inputs, outputs: Outputs) -> Self {
        Self {
            state: State::new(settings),
            planner: None,
            role: None,
            inputs,
            outputs,
            start: Instant::now(),
            rested: Instant::now(),
            due: false,
            unlisted: feeds.iter().map(|f| f.feed).collect(),
            marks: feeds.iter().map(|f| (f.feed, f.mark())).collect(),
            mapping: Arc::default(),
            kept: Arc::default(),
            milestones: None,
        }
    }

    /// Runs until `shutdown`, or until the watches have ended.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let wake = if self.due { self.rested } else { self.next_wake() };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                // a lease that was given up leaves its last role: a replica that drains still follows, and is read
                Ok(()) = self.inputs.role.changed() => {}
                update = self.inputs.updates.recv() => match update {
                    Some(update) => self.take(update),
                    None => return,
                },
                Some((action, outcome)) = self.inputs.outcomes.recv() => self.settle(&action, &outcome),
                Ok(()) = self.inputs.mapping_service.changed() => {}
                Some((target, reachable)) = self.inputs.dialled.recv() => {
                    if let Some(planner) = &mut self.planner {
                        planner.dialled(target, reachable);
                    }
                }
                Some((question, answer)) = self.inputs.answers.recv() => {
                    if let Some(planner) = &mut self.planner {
                        planner.resolved(question, &answer);
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
                // of the state as it is published. However many ask, what is due is planned
                Some(question) = self.inputs.questions.recv() => {
                    if self.due { self.step() } else { self.plan() }
                    self.explain(question);
                    continue;
                }
            }
            self.due = Instant::now() < self.rested;
            if !self.due {
                self.step();
            }
        }
    }

    fn take(&mut self, first: Update) {
        self.see(first);
        for _ in 1..BATCH {
            let Ok(update) = self.inputs.updates.try_recv() else { return };
            self.see(update);
        }
    }

    fn see(&mut self, update: Update) {
        if update.is_list() {
            self.unlisted.remove(&update.feed());
        }
        self.state.apply(update);
    }

    fn settle(&mut self, action: &Action, outcome: &Outcome) {
        let now = self.now();
        if let Some(planner) = &mut self.planner {
            planner.settle(action, outcome, now);
        }
    }

    /// Map first, so that it is never behind what is written; then the plan.
    fn step(&mut self) {
        self.due = false;
        if !self.unlisted.is_empty() {
            return;
        }
        let dirty = self.state.take_dirty();
        if !dirty.is_empty() {
            self.rested = Instant::now() + STEP_EVERY;
        }
        self.publish(&dirty);
        self.follow_role();
        if let Some(planner) = &mut self.planner {
            planner.touch(dirty);
        }
        self.plan();
    }

    fn publish(&mut self, dirty: &BTreeSet<Key>) {
        let first = self.milestones.is_none();
        let mut milestones = self.milestones.take().unwrap_or_default();
        for cluster in dirty {
            let made = mapping::cluster_mapping(&self.state, cluster);
            let passed = milestones.take(cluster, made.as_ref());
            if !first {
                self.measure(cluster, &passed);
            }
            self.aim(cluster, made.as_ref());
            replace(&mut self.mapping, cluster, made);
            let kept = mapping::kept_addresses(&self.state, cluster);
            replace(&mut self.kept, cluster, Some(kept).filter(|kept| !kept.is_empty()));
        }
        self.milestones = Some(milestones);
        let service = self.inputs.mapping_service.borrow_and_update().clone();
        self.outputs.current.publish(Snapshot {
            mapping: Arc::clone(&self.mapping),
            slots: Arc::clone(&self.kept),
            service_ip: service.and_then(|s| s.ingress.iter().find_map(|i| i.ip)),
            position: self.position(|seen| seen.changed),
            reached: self.position(|seen| seen.reached),
        });
    }

    /// What of a cluster is to be dialled, and which names are to be asked for.
    fn aim(&self, cluster: &Key, mapping: Option<&ClusterMapping>) {
        let targets = mapping.into_iter().flat_map(|m| reach::targets(&self.state, cluster, m)).collect();
        aim(&self.outputs.targets, |target| target.cluster == *cluster, targets);
        let questions = resolve::questions(&self.state, cluster).into_iter().collect();
        aim(&self.outputs.questions, |question| question.cluster == *cluster, questions);
    }

    fn measure(&self, cluster: &Key, passed: &[(&str, Milestone)]) {
        let now = self.now().wall / 1_000_000;
        for (pod, milestone) in passed {
            let Some(pod) = self.state.pod(&Key::new(cluster.namespace.clone(), *pod)) else { continue };
            // clocks of other machines may be ahead
            let after = Duration::from_secs(u64::try_from(now - pod.created).unwrap_or(0));
            self.outputs.metrics.passed(*milestone, after);
        }
    }

    fn explain(&self, question: PodQuestion) {
        if !self.unlisted.is_empty() {
            return;
        }
        let explanation = explain::pod(&self.state, &question.pod);
        let position = self.position(|seen| seen.changed);
        // who asked may have gone
        let _ = question.answer.send(Explained { explanation, position });
    }

    fn position(&self, version: impl Fn(&Seen) -> u64) -> Position {
        let versions = self.state.versions().iter();
        versions.filter_map(|(feed, seen)| Some((Arc::clone(self.marks.get(feed)?), version(seen)))).collect()
    }

    fn follow_role(&mut self) {
        let role = *self.inputs.role.borrow();
        if self.role == Some(role) {
            return;
        }
        self.role = Some(role);
        self.planner = match role {
            Role::Leading { .. } => Some(Planner::new(&self.state)),
            Role::Following => None,
        };
    }

    fn plan(&mut self) {
        let now = self.now();
        let Some(planner) = &mut self.planner else { return };
        // a delete is a decision from what was not seen: nothing is decided while a watch is silent
        if !self.inputs.liveness.is_live() {
            return planner.pause();
        }
        for action in planner.plan(&self.state, now) {
            // the writer ends only with the process
            let _ = self.outputs.actions.send(action);
        }
    }

    fn next_wake(&self) -> Instant {
        const NEVER: Duration = Duration::from_secs(3600);
        let Some(planner) = &self.planner else { return Instant::now() + NEVER };
        if !self.inputs.liveness.is_live() {
            return Instant::now() + STALE_RECHECK;
        }
        planner.next_wake().map_or_else(|| Instant::now() + NEVER, |at| self.start + at)
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: self.start.elapsed(), wall: i64::try_from(wall.as_micros()).unwrap_or(i64::MAX) }
    }
}

/// Puts what one cluster has now into what readers share, and leaves that alone where it is the same.
fn replace<T: PartialEq>(all: &mut Arc<BTreeMap<Key, Arc<T>>>, cluster: &Key, now: Option<T>) {
    if all.get(cluster).map(AsRef::as_ref) == now.as_ref() {
        return;
    }
    let all = Arc::make_mut(all);
    match now {
        Some(now) => all.insert(cluster.clone(), Arc::new(now)),
        None => all.remove(cluster),
    };
}

/// Replaces the targets of one cluster.
fn aim<T: Ord + Clone>(
    all: &watch::Sender<Arc<BTreeSet<T>>>,
    is_here: impl Fn(&T) -> bool,
    wanted: BTreeSet<T>,
) {
    all.send_if_modified(|targets| {
        if targets.iter().filter(|target| is_here(target)).eq(&wanted) {
            return false;
        }
        let all = Arc::make_mut(targets);
        all.retain(|target| !is_here(target));
        all.extend(wanted);
        true
    });
}

#[cfg(test)]
mod tests;
