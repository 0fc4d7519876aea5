//! One replica: the real core behind watches that are told here when to deliver what, in the order of the shell's
//! state loop (`src/control.rs`): take messages, publish, then plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use external_ip_core::action::{Action, Outcome};
use external_ip_core::mapping::{self, ClusterMapping, KeptAddresses};
use external_ip_core::names::{self, Key};
use external_ip_core::plan::{Now, Planner};
use external_ip_core::resolve;
use external_ip_core::settings::Settings;
use external_ip_core::stamp;
use external_ip_core::state::{State, Update};
use serde_json::{Value, json};

use crate::feed::{Feed, SELECTIONS};
use crate::judge::{self, Kind, Seen, Shown, Truth};
use crate::server::{NS, Server};
use crate::stats::Stats;
use crate::zone::Zone;

/// Watches of a replica.
pub(crate) const FEEDS: u8 = 7;
/// Nothing is planned, and no address stamped, once a watch has been silent for longer: as in `src/constants.rs`.
const STALE: Duration = Duration::from_secs(30);

/// A write on its way to the API server.
pub(crate) struct Request {
    pub(crate) action: Action,
    /// Version of its Service as the replica had seen it; `None` where it had seen none.
    pub(crate) planned_from: Option<Value>,
    /// The process that sent it: answers to an earlier one reach nobody.
    process: u32,
}

pub(crate) struct Replica {
    settings: Arc<Settings>,
    state: State,
    pub(crate) planner: Option<Planner>,
    feeds: [Feed; FEEDS as usize],
    published: BTreeMap<Key, (ClusterMapping, Value)>,
    kept: BTreeMap<Key, KeptAddresses>,
    position: Vec<(u64, u64)>,
    /// What had been seen when the published document was judged last.
    judged: Option<Seen>,
    shown: Shown,
    pub(crate) requests: Vec<Request>,
    answers: Vec<(Action, Outcome)>,
    process: u32,
    /// Its present planner has.
    has_planned: bool,
}

impl Replica {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        Self {
            state: State::new(settings.clone()),
            settings,
            planner: None,
            feeds: SELECTIONS.map(Feed::new),
            published: BTreeMap::new(),
            kept: BTreeMap::new(),
            position: Vec::new(),
            judged: None,
            shown: Shown::new(),
            requests: Vec::new(),
            answers: Vec::new(),
            process: 0,
            has_planned: false,
        }
    }

    /// It starts again, by these settings, and knows nothing. What it sent is on its way; what it showed was seen by
    /// clients.
    pub(crate) fn crash(&mut self, settings: Arc<Settings>) {
        let (shown, requests) = (std::mem::take(&mut self.shown), std::mem::take(&mut self.requests));
        *self = Self { shown, requests, process: self.process + 1, ..Self::new(settings) };
    }

    /// Whether it goes by these settings.
    pub(crate) fn has(&self, settings: &Settings) -> bool {
        *self.settings == *settings
    }

    pub(crate) fn is_configured_like(&self, other: &Self) -> bool {
        self.has(&other.settings)
    }

    pub(crate) fn feed(&mut self, number: u8) -> &mut Feed {
        &mut self.feeds[usize::from(number % FEEDS)]
    }

    /// Takes up to `messages` of a watch; answers whether there were any.
    pub(crate) fn deliver(&mut self, server: &Server, feed: u8, messages: usize) -> bool {
        let updates = self.feed(feed).next(server, messages);
        let some = !updates.is_empty();
        self.apply(updates);
        some
    }

    fn apply(&mut self, updates: impl IntoIterator<Item = Update>) {
        for update in updates {
            self.state.apply(update);
        }
    }

    pub(crate) fn repeat(&mut self, server: &Server, feed: u8) -> bool {
        let update = self.feed(feed).again(server);
        let some = update.is_some();
        self.apply(update);
        some
    }

    pub(crate) fn bookmark(&mut self, server: &Server, feed: u8) -> bool {
        let update = self.feed(feed).bookmark(server);
        let some = update.is_some();
        self.apply(update);
        some
    }

    /// Connections on which nothing is late hear of the API server every few seconds.
    pub(crate) fn hear(&mut self, server: &Server) {
        self.feeds.iter_mut().for_each(|feed| feed.hear(server));
    }

    fn is_listed(&self) -> bool {
        self.feeds.iter().all(Feed::is_listed)
    }

    pub(crate) fn is_live(&self, now: Duration) -> bool {
        self.is_listed() && self.feeds.iter().all(|f| f.heard() + STALE >= now)
    }

    pub(crate) fn lead(&mut self, leads: bool) -> bool {
        let changed = self.planner.is_some() != leads;
        if changed {
            self.planner = leads.then(|| Planner::new(&self.state));
            self.has_planned = false;
        }
        changed
    }

    /// DNS is asked one of the leader's questions; answers whether there was one.
    pub(crate) fn ask(&mut self, zone: &mut Zone, which: u8) -> bool {
        let Some(planner) = &mut self.planner else { return false };
        let clusters: Vec<&Key> = self.state.clusters().collect();
        let mut questions: Vec<_> =
            clusters.into_iter().flat_map(|cluster| resolve::questions(&self.state, cluster)).collect();
        if questions.is_empty() {
            return false;
        }
        let question = questions.swap_remove(usize::from(which) % questions.len());
        let answer = zone.answer(&question.host);
        planner.resolved(question, &answer);
        true
    }

    pub(crate) fn seen(&self) -> Seen {
        let version = |n: usize| self.feeds[n].seen();
        Seen {
            namespaces: version(0),
            services: version(1),
            slices: version(2),
            labelled: version(3),
            stamped: version(4),
            configured: version(5),
            nodes: version(6),
        }
    }

    /// Publishes and plans, as after every message; what is published and planned is judged.
    pub(crate) fn look(&mut self, server: &Server, stats: &mut Stats) -> judge::Verdict {
        if !self.is_listed() {
            return Ok(());
        }
        let dirty = self.state.take_dirty();
        self.publish(&dirty, server, stats)?;
        let now = server.clock;
        let live = self.is_live(now);
        let Some(planner) = &mut self.planner else { return Ok(()) };
        planner.touch(dirty);
        if !live {
            planner.pause();
            return Ok(());
        }
        if !std::mem::replace(&mut self.has_planned, true) {
            self.shown.begin();
        }
        for action in planner.plan(&self.state, at(now)) {
            self.send(action, server)?;
        }
        Ok(())
    }

    fn publish(
        &mut self,
        dirty: &std::collections::BTreeSet<Key>,
        server: &Server,
        stats: &mut Stats,
    ) -> judge::Verdict {
        let seen = self.seen();
        if dirty.is_empty() && self.judged == Some(seen) {
            return Ok(()); // the same document, and nothing new is known
        }
        self.judged = Some(seen);
        let truth = Truth::new(&server.history, &seen);
        for cluster in dirty {
            self.published.remove(cluster);
            self.kept.remove(cluster);
            if let Some(made) = mapping::cluster_mapping(&self.state, cluster) {
                let document = serde_json::to_value(&made).unwrap();
                self.published.insert(cluster.clone(), (made, document));
                self.kept.insert(cluster.clone(), mapping::kept_addresses(&self.state, cluster));
            }
        }
        let documents: Vec<&Value> = self.published.values().map(|(_, document)| document).collect();
        truth.judge(&documents)?;
        self.shown.show(&truth, &documents, server.clock);
        stats.published(&documents, &Truth::new(&server.history, &Seen::all(server.version())));
        let position = position(&self.state);
        let back = |(before, now): (&(u64, u64), &(u64, u64))| now.0 < before.0 || now.1 < before.1;
        if self.position.iter().zip(&position).any(back) {
            return Err(format!("the position goes back from {:?} to {position:?}", self.position));
        }
        self.position = position;
        Ok(())
    }

    fn send(&mut self, action: Action, server: &Server) -> judge::Verdict {
        let seen = self.seen().services;
        let service = action.service().and_then(|key| {
            // one that is handed over was read by name and is in no watch
            let ours =
                |s: &&Arc<Value>| s["metadata"]["labels"][names::MANAGED_BY_LABEL] == names::CONTROLLER_NAME;
            server.history.at(Kind::Service, seen).filter(ours).find(|s| s["metadata"]["name"] == *key.name)
        });
        if let (Action::UpdateService { .. }, Some(service)) = (&action, service) {
            let (truth, planned) = (Truth::new(&server.history, &self.seen()), action.body());
            let rest = self.settings.classes["default"].reuse_after;
            self.shown.rested(&truth, service, &planned, (server.clock, rest))?;
            judge::ports_stay(service, &planned)?;
        }
        if let Action::CreateService(desired) | Action::UpdateService { desired, .. } = &action
            && let Some(asked) = action.body()["metadata"]["annotations"][names::ASKED_ANNOTATION].as_str()
        {
            let truth = Truth::new(&server.history, &self.seen());
            truth.asks_for_what_is_free(&desired.key.name, asked)?;
        }
        if let Action::MarkRouted { uid, reason: "Routed", .. } = &action {
            let entries =
                self.documents().into_iter().flat_map(|d| d["entries"].as_array().into_iter().flatten());
            let mut routed = entries.filter(|e| e["state"] == "Routed").map(|e| &e["uid"]);
            if !routed.any(|of| of == uid) {
                return Err(format!(
                    "{uid} is to be ready and is not shown as Routed: {:?}",
                    self.documents()
                ));
            }
        }
        let planned_from = service.map(|s| s["metadata"]["resourceVersion"].clone());
        self.requests.push(Request { action, planned_from, process: self.process });
        Ok(())
    }

    /// The API server has answered, or nobody has for long enough.
    pub(crate) fn answered(&mut self, request: Request, outcome: Outcome) {
        if request.process == self.process {
            self.answers.push((request.action, outcome));
        }
    }

    pub(crate) fn take_answers(&mut self, now: Duration) -> bool {
        let answers = std::mem::take(&mut self.answers);
        let some = !answers.is_empty();
        for (action, outcome) in answers {
            if let Some(planner) = &mut self.planner {
                planner.settle(&action, &outcome, at(now));
            }
        }
        some
    }

    /// When it looks by itself.
    pub(crate) fn next_wake(&self, now: Duration) -> Option<Duration> {
        self.planner.as_ref().filter(|_| self.is_live(now))?.next_wake()
    }

    /// The webhook's answer to a new pod.
    pub(crate) fn admit(&self, server: &Server, pod: &Value) -> Value {
        let live = self.is_live(server.clock);
        let kept = |cluster: &Key, name: &str| self.kept.get(cluster).filter(|_| live)?.get(name).cloned();
        let review = json!({"request": {"uid": format!("review-{}", server.version()), "operation": "CREATE",
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": NS, "object": pod}});
        let answer = stamp::answer(review.to_string().as_bytes(), &self.settings, &kept).unwrap();
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        let mut admitted = pod.clone();
        if let Some(patch) = answer["response"]["patch"].as_str() {
            let patch = data_encoding::BASE64.decode(patch.as_bytes()).unwrap();
            let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
            json_patch::patch(&mut admitted, &patch).unwrap();
        }
        admitted
    }

    pub(crate) fn documents(&self) -> Vec<&Value> {
        self.published.values().map(|(_, document)| document).collect()
    }

    /// Who is not behind shows nothing older: where neither of two is, they show the same.
    pub(crate) fn agrees_with(&self, other: &Self) -> judge::Verdict {
        let (own, theirs) = (&self.position, &other.position);
        let both = !own.is_empty() && !theirs.is_empty() && self.is_configured_like(other);
        if both && !is_behind(own, theirs) && !is_behind(theirs, own) && self.documents() != other.documents()
        {
            return Err(format!(
                "at {own:?} and {theirs:?} they show {:?} and {:?}",
                self.documents(),
                other.documents()
            ));
        }
        Ok(())
    }

    /// What is published is what would be published if everything were made anew.
    pub(crate) fn nothing_is_forgotten(&self) -> judge::Verdict {
        let made = |key: &Key| Some((key.clone(), mapping::cluster_mapping(&self.state, key)?));
        let anew: BTreeMap<Key, ClusterMapping> = self.state.clusters().filter_map(made).collect();
        if self.is_listed()
            && !anew.iter().eq(self.published.iter().map(|(k, (m, _))| (k, m)).collect::<Vec<_>>())
        {
            return Err(format!("published {:?}, made anew {anew:?}", self.published));
        }
        Ok(())
    }

    /// Where all is as it shall be, even a leader that knows nothing writes nothing.
    pub(crate) fn plans_nothing(&self, now: Duration) -> judge::Verdict {
        let actions = Planner::new(&self.state).plan(&self.state, at(now));
        let writes: Vec<&Action> = actions.iter().filter(|a| !matches!(a, Action::RecordEvent(_))).collect();
        if writes.is_empty() {
            Ok(())
        } else {
            Err(format!("all is done, and a new leader writes {writes:?}"))
        }
    }
}

/// The one place that knows what a position is made of: per feed the last change, and how far has been seen.
fn position(state: &State) -> Vec<(u64, u64)> {
    state.versions().values().map(|seen| (seen.changed, seen.reached)).collect()
}

/// Whether one of two replicas has not seen a change the other has, by what their positions say.
fn is_behind(own: &[(u64, u64)], wanted: &[(u64, u64)]) -> bool {
    own.iter().zip(wanted).any(|((_, reached), (changed, _))| reached < changed)
}

fn at(clock: Duration) -> Now {
    Now { monotonic: clock, wall: i64::try_from(clock.as_micros()).unwrap() }
}
