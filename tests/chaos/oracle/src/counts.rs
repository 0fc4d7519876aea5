//! How much has happened, by evidence: from etcd and from the audit log, not from what the driver says it did.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::history::{History, Kind};
use crate::readings::Readings;
use crate::timing::Disturbance;
use crate::truth::{addresses, ended, identity, is_ours, label, selected, text};

/// The account the product writes under.
const ACCOUNT: &str = "system:serviceaccount:external-ip-controller:external-ip-controller";
/// Whose writes to Services belong to the scene.
const OTHERS: [&str; 2] = ["system:kube-controller-manager", "system:local-cluster:metallb"];

pub(crate) type Counts = BTreeMap<String, u64>;

pub(crate) fn count(
    history: &History,
    readings: &Readings<'_>,
    audit: &[Value],
    disturbances: &[Disturbance],
) -> Counts {
    let mut counts = Counts::new();
    let mut add = |name: &str, n: usize| *counts.entry(name.to_owned()).or_default() += n as u64;
    for disturbance in disturbances {
        add(&format!("disturbance: {}", disturbance.kind), 1);
    }
    for (name, births) in pods(history) {
        add(name, births);
    }
    add("lease changed hands", holders(history));
    for reader in readings.readers() {
        let own = || readings.all.iter().filter(|r| r.reader == reader);
        add(&format!("maps read: {reader}"), own().filter(|r| r.claims.is_some()).count());
        add(&format!("not answered: {reader}"), own().filter(|r| r.status == 0).count());
        add(&format!("refused as behind or not ready: {reader}"), own().filter(|r| r.status == 503).count());
    }
    for event in audit {
        let (verb, resource) = (text(&event["verb"]), text(&event["objectRef"]["resource"]));
        let (user, code) = (text(&event["user"]["username"]), event["responseStatus"]["code"].as_u64());
        let write = !matches!(verb.as_str(), "get" | "list" | "watch");
        let ok = code.is_some_and(|c| c < 300);
        if user == ACCOUNT {
            match (code, write) {
                (Some(409), _) => add("product: refused as conflict", 1),
                (Some(410), _) => add("product: version gone", 1),
                (_, true) if ok => add(&format!("product: {verb} {resource}"), 1),
                (_, false) if verb == "list" => add(&format!("product: list {resource}"), 1),
                _ => {}
            }
        } else if write && ok && resource == "services" && !OTHERS.contains(&user.as_str()) {
            add("foreign writes to Services", 1);
        }
    }
    counts
}

/// Pods born, those among them the webhook did not see, and addresses taken over from another pod.
fn pods(history: &History) -> [(&'static str, usize); 4] {
    let mut born: BTreeMap<String, bool> = BTreeMap::new();
    let mut holders: BTreeMap<String, BTreeSet<(u64, String)>> = BTreeMap::new();
    for version in history.of(Kind::Pods).values().flatten() {
        let Some(pod) = version.object.as_ref().filter(|p| label(p, "external-ip.dev/cluster").is_some())
        else {
            continue;
        };
        let uid = text(&pod["metadata"]["uid"]);
        born.entry(uid.clone()).or_insert_with(|| identity(pod).is_none());
        for ip in addresses(pod) {
            let held = holders.entry(ip).or_default();
            if held.iter().all(|(_, known)| *known != uid) {
                held.insert((version.revision, uid.clone()));
            }
        }
    }
    let changes = |held: &BTreeSet<(u64, String)>| {
        let times: Vec<u64> = held.iter().filter_map(|(revision, _)| history.time(*revision)).collect();
        let quick = times.windows(2).filter(|pair| pair[1].saturating_sub(pair[0]) < 60_000).count();
        (held.len().saturating_sub(1), quick)
    };
    let all: Vec<(usize, usize)> = holders.values().map(changes).collect();
    [
        ("pods born", born.len()),
        ("pods born unstamped", born.values().filter(|unstamped| **unstamped).count()),
        ("addresses taken over by another pod", all.iter().map(|c| c.0).sum()),
        ("of these within a minute", all.iter().map(|c| c.1).sum()),
    ]
}

fn holders(history: &History) -> usize {
    let mut names: Vec<String> = history
        .lease()
        .into_iter()
        .flatten()
        .filter_map(|v| Some(text(&v.object.as_ref()?["spec"]["holderIdentity"])))
        .filter(|name| !name.is_empty())
        .collect();
    names.dedup();
    names.len().saturating_sub(1)
}

/// Services of ours that nobody has used for longer than `retention` (milliseconds) at the end.
pub(crate) fn orphans(history: &History, retention: u64) -> Vec<String> {
    let end = history.time(history.end).unwrap_or(0);
    let mut last_used: BTreeMap<String, u64> = BTreeMap::new();
    for versions in history.of(Kind::Pods).values() {
        for (index, version) in versions.iter().enumerate() {
            let Some(pod) = version.object.as_ref().filter(|p| !ended(p)) else { continue };
            let until =
                versions.get(index + 1).and_then(|next| history.time(next.revision)).unwrap_or(u64::MAX);
            if let Some(id) = identity(pod) {
                let used = last_used.entry(id.to_owned()).or_default();
                *used = (*used).max(until);
            }
        }
    }
    let left = history.of(Kind::Services).iter().filter_map(|(key, versions)| {
        let version = versions.last()?;
        let service = version.object.as_ref().filter(|s| is_ours(s))?;
        let bound = selected(service)?;
        let used =
            last_used.get(bound).copied().unwrap_or(0).max(history.time(version.revision).unwrap_or(0));
        (used.saturating_add(retention) < end).then(|| format!("{key}, bound to {bound}"))
    });
    left.collect()
}

/// Pods that were born unstamped though nothing had happened to the webhook.
pub(crate) fn unstamped(history: &History, disturbances: &[Disturbance]) -> Vec<String> {
    /// Until the API server has closed connections to who is gone, and ours are ready again.
    const AFTER: u64 = 5_000;
    let excused = |at: u64| {
        let costly = disturbances.iter().filter(|d| d.costs_admission);
        costly.into_iter().any(|d| d.begin <= at && at < d.end.saturating_add(AFTER))
    };
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (key, versions) in history.of(Kind::Pods) {
        for version in versions {
            let Some(pod) = version.object.as_ref().filter(|p| label(p, "external-ip.dev/cluster").is_some())
            else {
                continue;
            };
            let first = seen.insert(text(&pod["metadata"]["uid"]));
            let at = history.time(version.revision).unwrap_or(0);
            if first && identity(pod).is_none() && !excused(at) {
                found.push(format!("{key} at {at}"));
            }
        }
    }
    found
}
