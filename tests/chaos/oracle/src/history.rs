//! Every object at every revision, as it was in etcd.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::revisions::Revisions;

/// What is recorded: how a kind's keys begin in etcd.
pub(crate) const PREFIXES: [&str; 5] = [
    "/registry/pods/",
    "/registry/services/specs/",
    "/registry/endpointslices/",
    "/registry/namespaces/",
    "/registry/leases/external-ip-controller/",
];

/// The kinds a map is made from, in the order of [`PREFIXES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pods,
    Services,
    Slices,
    Namespaces,
}

pub(crate) const KINDS: [Kind; 4] = [Kind::Pods, Kind::Services, Kind::Slices, Kind::Namespaces];

/// One object's state from a revision on; `None` = deleted.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) revision: u64,
    pub(crate) object: Option<Value>,
}

pub(crate) type Object = Vec<Version>;
/// By `namespace/name`.
pub(crate) type Objects = BTreeMap<String, Object>;

#[derive(Debug, Default)]
pub(crate) struct History {
    kinds: [Objects; 5],
    /// When each revision was seen, milliseconds since 1970.
    times: BTreeMap<u64, u64>,
    /// The last revision that is recorded.
    pub(crate) end: u64,
}

impl History {
    /// Reads the lines of a record and checks it against the state in etcd at its end: a record with a gap is none.
    pub(crate) fn read(lines: &str) -> Result<Self> {
        let mut history = Self::default();
        let mut closing = None;
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).context("history")?;
            if line["gap"].is_string() {
                bail!("the history has a gap: {}", line["gap"]);
            }
            if line["end"].is_u64() {
                closing = Some(line);
            } else {
                history.add(&line)?;
            }
        }
        let closing = closing.context("the history was not closed: the record is incomplete")?;
        history.end = closing["end"].as_u64().unwrap_or(0);
        history.check(&closing["keys"])?;
        Ok(history)
    }

    fn add(&mut self, line: &Value) -> Result<()> {
        let (key, revision) = (line["key"].as_str().context("key")?, line["revision"].as_u64());
        let revision = revision.context("revision")?;
        let (kind, name) = split(key).with_context(|| format!("an unexpected key: {key}"))?;
        let versions = self.kinds[kind].entry(name.to_owned()).or_default();
        if versions.last().is_some_and(|last| last.revision >= revision) {
            return Ok(()); // heard again after a new connection
        }
        let object = (!line["object"].is_null()).then(|| line["object"].clone());
        versions.push(Version { revision, object });
        if let Some(at) = line["at"].as_u64() {
            self.times.entry(revision).or_insert(at);
        }
        Ok(())
    }

    /// `keys`: what there was at the end, with the revision each was changed at.
    fn check(&mut self, keys: &Value) -> Result<()> {
        let expected: BTreeMap<&str, u64> = keys
            .as_object()
            .context("keys at the end")?
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_u64().unwrap_or(0)))
            .collect();
        let mut found = 0;
        for (kind, objects) in self.kinds.iter_mut().enumerate() {
            for (name, versions) in objects {
                versions.retain(|version| version.revision <= self.end);
                let Some(Version { revision, object: Some(_) }) = versions.last() else { continue };
                let key = format!("{}{name}", PREFIXES[kind]);
                ensure!(
                    expected.get(key.as_str()) == Some(revision),
                    "the history is incomplete: {key} is at {revision} here, at {:?} in etcd",
                    expected.get(key.as_str())
                );
                found += 1;
            }
        }
        ensure!(found == expected.len(), "the history lacks {} objects", expected.len() - found);
        Ok(())
    }

    pub(crate) fn of(&self, kind: Kind) -> &Objects {
        &self.kinds[kind as usize]
    }

    /// Of the controller's own Lease.
    pub(crate) fn lease(&self) -> Option<&Object> {
        self.kinds[4].get("external-ip-controller")
    }

    /// When a revision was seen; 0 before the record began, `None` where it is still to come.
    pub(crate) fn time(&self, revision: u64) -> Option<u64> {
        if revision > self.end {
            return None;
        }
        Some(self.times.range(revision..).next().map_or(0, |(_, at)| *at))
    }
}

fn split(key: &str) -> Option<(usize, &str)> {
    PREFIXES.iter().enumerate().find_map(|(kind, prefix)| Some((kind, key.strip_prefix(prefix)?)))
}

/// The revisions at which something holds of several objects together.
pub(crate) fn revisions_where(objects: &[&Object], holds: impl Fn(&[Option<&Value>]) -> bool) -> Revisions {
    let mut edges: Vec<u64> = objects.iter().flat_map(|o| o.iter().map(|v| v.revision)).collect();
    edges.sort_unstable();
    edges.dedup();
    let mut result = Revisions::default();
    let mut next = vec![0; objects.len()];
    let mut now: Vec<Option<&Value>> = vec![None; objects.len()];
    for (index, edge) in edges.iter().enumerate() {
        for (position, object) in objects.iter().enumerate() {
            while let Some(version) = object.get(next[position]).filter(|v| v.revision <= *edge) {
                now[position] = version.object.as_ref();
                next[position] += 1;
            }
        }
        if holds(&now) {
            result.append(*edge, edges.get(index + 1).copied().unwrap_or(u64::MAX));
        }
    }
    result
}
