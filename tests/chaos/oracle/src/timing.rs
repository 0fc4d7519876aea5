//! How late maps were, how fast, and how long recovery took. Resolution: the time between two looks at a replica.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::history::{History, KINDS, Kind, Version};
use crate::readings::{ROAMING, Readings};
use crate::revisions::Revisions;
use crate::truth::{PerKind, addresses, ended, going, label, text};

/// Something the driver did, as it wrote it down. Times in milliseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct Disturbance {
    pub(crate) kind: String,
    /// Of one replica; `None` = of all.
    pub(crate) replica: Option<String>,
    pub(crate) begin: u64,
    pub(crate) end: u64,
    /// Pods may be born unstamped meanwhile.
    pub(crate) costs_admission: bool,
}

impl Disturbance {
    pub(crate) fn of(line: &Value) -> Self {
        Self {
            kind: text(&line["kind"]),
            replica: line["replica"].as_str().map(str::to_owned),
            begin: line["begin"].as_u64().unwrap_or(0),
            end: line["end"].as_u64().unwrap_or(u64::MAX),
            costs_admission: line["costs_admission"] == true,
        }
    }
}

/// Durations in milliseconds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples(Vec<u64>);

impl Samples {
    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(crate) fn json(&self) -> Value {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at =
            |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
        json!({"samples": sorted.len(), "p50_ms": at(50), "p99_ms": at(99), "max_ms": sorted.last()})
    }
}

#[derive(Debug, Default)]
pub(crate) struct Timing {
    /// From an entry's end at the API server until a replica shows it no more.
    pub(crate) late: Samples,
    pub(crate) late_disturbed: Samples,
    /// From its beginning until a replica shows it.
    pub(crate) appear: Samples,
    pub(crate) appear_disturbed: Samples,
    /// From the end of a disturbance until each pod that was there is shown by each replica, or gone.
    pub(crate) recover: BTreeMap<String, Samples>,
    /// From a lease given up until somebody has it again.
    pub(crate) hand_over: Samples,
    /// Pods that never were, by kind of disturbance.
    pub(crate) never_recovered: Vec<String>,
}

/// When a claim was shown by a replica.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: u64,
    /// First look without it; `None` = shown to the end.
    gone: Option<u64>,
}

pub(crate) fn measure(
    readings: &Readings<'_>,
    candidates: &[usize],
    history: &History,
    disturbances: &[Disturbance],
) -> Timing {
    let mut timing = Timing::default();
    let replicas: Vec<&str> = readings.readers().into_iter().filter(|r| *r != ROAMING).collect();
    for replica in &replicas {
        let spans = spans(readings, replica);
        let disturbed = |from: u64, to: u64| {
            let concerns = |d: &&Disturbance| d.replica.as_deref().is_none_or(|r| r == *replica);
            // what follows from one takes a moment: until leases, watches and lists are as they were
            disturbances.iter().filter(concerns).any(|d| from < d.end.saturating_add(SETTLED) && d.begin < to)
        };
        timing.lateness(readings, &spans, history, &disturbed);
        timing.appearance(readings, &spans, candidates, history, &disturbed);
    }
    timing.hand_overs(history);
    timing.recovery(readings, &replicas, history, disturbances);
    timing
}

/// The lease's duration and a few seconds.
const SETTLED: u64 = 20_000;

fn spans(readings: &Readings<'_>, replica: &str) -> HashMap<usize, Vec<Span>> {
    let mut spans: HashMap<usize, Vec<Span>> = HashMap::new();
    let mut shown: BTreeSet<usize> = BTreeSet::new();
    for (reading, numbers) in readings.maps(replica) {
        let now: BTreeSet<usize> = numbers.iter().copied().collect();
        for number in shown.difference(&now) {
            if let Some(span) = spans.get_mut(number).and_then(|s| s.last_mut()) {
                span.gone = Some(reading.at);
            }
        }
        for number in now.difference(&shown) {
            spans.entry(*number).or_default().push(Span { from: reading.at, gone: None });
        }
        shown = now;
    }
    spans
}

/// Revisions are etcd's, one count for all kinds: when it was true at the API server.
fn at_once(truth: &PerKind) -> Revisions {
    KINDS.iter().skip(1).fold(truth[0].clone(), |all, kind| all.intersect(&truth[*kind as usize]))
}

impl Timing {
    fn lateness(
        &mut self,
        readings: &Readings<'_>,
        spans: &HashMap<usize, Vec<Span>>,
        history: &History,
        disturbed: &dyn Fn(u64, u64) -> bool,
    ) {
        for (number, spans) in spans {
            let (claim, truths) = &readings.claims.list[*number];
            if !claim.routed {
                continue;
            }
            let ends: Vec<u64> = truths
                .iter()
                .flat_map(|t| at_once(&t.may).ranges().to_vec())
                .filter_map(|(_, end)| history.time(end))
                .collect();
            for span in spans {
                let Some(gone) = span.gone else { continue };
                // the last end before it went; one withdrawn in doubt has none
                let end = ends.iter().filter(|end| **end <= gone).max().copied();
                if let Some(end) = end.filter(|end| *end >= span.from.saturating_sub(SETTLED)) {
                    let list = if disturbed(end, gone) { &mut self.late_disturbed } else { &mut self.late };
                    list.0.push(gone - end);
                }
            }
        }
    }

    fn appearance(
        &mut self,
        readings: &Readings<'_>,
        spans: &HashMap<usize, Vec<Span>>,
        candidates: &[usize],
        history: &History,
        disturbed: &dyn Fn(u64, u64) -> bool,
    ) {
        for number in candidates {
            let (_, truths) = &readings.claims.list[*number];
            for (from, to) in truths.iter().flat_map(|t| at_once(&t.must).ranges().to_vec()) {
                let Some(begin) = history.time(from) else { continue };
                let end = history.time(to).unwrap_or(u64::MAX);
                let shown = spans.get(number).into_iter().flatten();
                let first = shown.filter(|s| s.gone.is_none_or(|gone| gone > begin)).map(|s| s.from).min();
                if let Some(first) = first.filter(|first| *first < end) {
                    let list =
                        if disturbed(begin, first) { &mut self.appear_disturbed } else { &mut self.appear };
                    list.0.push(first.saturating_sub(begin));
                }
            }
        }
    }

    fn hand_overs(&mut self, history: &History) {
        let versions = history.lease().map(Vec::as_slice).unwrap_or_default();
        let holder =
            |v: &Version| v.object.as_ref().map(|o| text(&o["spec"]["holderIdentity"])).unwrap_or_default();
        for pair in versions.windows(2) {
            if let [before, after] = pair
                && holder(before).is_empty()
                && !holder(after).is_empty()
                && let (Some(free), Some(taken)) =
                    (history.time(before.revision), history.time(after.revision))
            {
                self.hand_over.0.push(taken - free);
            }
        }
    }

    fn recovery(
        &mut self,
        readings: &Readings<'_>,
        replicas: &[&str],
        history: &History,
        disturbances: &[Disturbance],
    ) {
        for disturbance in disturbances {
            let mut longest = 0;
            for (uid, gone) in living(history, disturbance.end) {
                for replica in replicas {
                    let shows = |numbers: &[usize]| {
                        numbers.iter().map(|n| &readings.claims.list[*n].0).any(|c| c.routed && c.uid == uid)
                    };
                    let mut later = readings.maps(replica).filter(|(r, _)| r.asked_at >= disturbance.end);
                    let first = later.find(|(_, numbers)| shows(numbers)).map(|(r, _)| r.at);
                    match first.into_iter().chain(gone).min() {
                        Some(at) => longest = longest.max(at.saturating_sub(disturbance.end)),
                        None => {
                            self.never_recovered
                                .push(format!("{}: pod {uid} at {replica}", disturbance.kind));
                        }
                    }
                }
            }
            self.recover.entry(disturbance.kind.clone()).or_default().0.push(longest);
        }
    }
}

/// UIDs of pods of ours that ran at a time, and when they stopped to.
fn living(history: &History, at: u64) -> Vec<(String, Option<u64>)> {
    let time = |revision: u64| history.time(revision).unwrap_or(u64::MAX);
    let runs = |pod: &Value| {
        label(pod, "external-ip.dev/cluster").is_some()
            && !ended(pod)
            && !going(pod)
            && !addresses(pod).is_empty()
    };
    let mut found = Vec::new();
    for versions in history.of(Kind::Pods).values() {
        let Some(now) = versions.iter().rposition(|v| time(v.revision) <= at) else { continue };
        let Some(pod) = versions[now].object.as_ref().filter(|p| runs(p)) else { continue };
        let uid = &pod["metadata"]["uid"];
        let same = |v: &&Version| v.object.as_ref().is_some_and(|p| runs(p) && p["metadata"]["uid"] == *uid);
        let end = versions[now..].iter().find(|v| !same(v)).map(|v| time(v.revision));
        found.push((text(uid), end));
    }
    found
}
