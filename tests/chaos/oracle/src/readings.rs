//! What replicas answered, from `documents.jsonl`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::truth::{Claim, Truth, Witness};

/// The reader that moves between replicas and insists on its position.
pub(crate) const ROAMING: &str = "roaming";

/// One answer, or none.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) reader: String,
    pub(crate) asked_at: u64,
    pub(crate) at: u64,
    /// Lowest resource version per kind that `Map-Position` promises to have been seen.
    pub(crate) position: [u64; 4],
    /// etcd's revision after the answer had arrived.
    pub(crate) newest: u64,
    /// Claims by number; `None` where there was no map in the answer.
    pub(crate) claims: Option<Vec<usize>>,
    pub(crate) status: u64,
}

/// All answers, and the claims they made.
pub(crate) struct Readings<'a> {
    pub(crate) all: Vec<Reading>,
    pub(crate) claims: Claims<'a>,
}

/// Claims by number, each with its truth.
pub(crate) struct Claims<'a> {
    witness: &'a Witness<'a>,
    numbers: BTreeMap<Claim, usize>,
    pub(crate) list: Vec<(Claim, Vec<Truth>)>,
}

impl<'a> Claims<'a> {
    pub(crate) fn new(witness: &'a Witness<'a>) -> Self {
        Self { witness, numbers: BTreeMap::new(), list: Vec::new() }
    }

    pub(crate) fn number(&mut self, claim: Claim) -> usize {
        if let Some(number) = self.numbers.get(&claim) {
            return *number;
        }
        let truths = self.witness.truths(&claim);
        self.list.push((claim.clone(), truths));
        self.numbers.insert(claim, self.list.len() - 1);
        self.list.len() - 1
    }
}

impl<'a> Readings<'a> {
    pub(crate) fn read(lines: &[Value], witness: &'a Witness<'a>) -> Result<Self> {
        let mut claims = Claims::new(witness);
        let mut told: HashMap<(String, u64), Option<usize>> = HashMap::new();
        let mut all = Vec::new();
        for line in lines {
            let reader = line["reader"].as_str().context("reader")?.to_owned();
            if let Some(number) = line["number"].as_u64() {
                let of = &line["of"];
                let (namespace, cluster) = (of["namespace"].as_str(), of["cluster"].as_str());
                let claim =
                    Claim::of(namespace.unwrap_or_default(), cluster.unwrap_or_default(), &of["entry"]);
                told.insert((reader, number), claim.map(|claim| claims.number(claim)));
                continue;
            }
            let listed = line["entries"].as_array().map(|numbers| {
                let known = |n: &Value| told.get(&(reader.clone(), n.as_u64()?)).copied().flatten();
                numbers.iter().filter_map(known).collect()
            });
            all.push(Reading {
                asked_at: line["asked_at"].as_u64().unwrap_or(0),
                at: line["at"].as_u64().context("at")?,
                position: position(line["position"].as_str().unwrap_or_default()),
                newest: line["newest"].as_u64().unwrap_or(0),
                claims: listed,
                status: line["status"].as_u64().unwrap_or(0),
                reader,
            });
        }
        Ok(Self { all, claims })
    }

    pub(crate) fn readers(&self) -> BTreeSet<&str> {
        self.all.iter().map(|r| r.reader.as_str()).collect()
    }

    /// A reader's answers that held a map, in time order.
    pub(crate) fn maps<'b>(&'b self, reader: &'b str) -> impl Iterator<Item = (&'b Reading, &'b [usize])> {
        let own = self.all.iter().filter(move |r| r.reader == reader);
        own.filter_map(|r| Some((r, r.claims.as_deref()?)))
    }
}

/// `p12.s7.e9.n3`: parts of other feeds are no concern of a kind's; a kind that is not told counts as not seen at all.
fn position(text: &str) -> [u64; 4] {
    let mut position = [0; 4];
    for part in text.split('.') {
        let mark = part.trim_end_matches(|c: char| c.is_ascii_digit());
        let kind = ["p", "s", "e", "n"].iter().position(|m| *m == mark);
        if let (Some(kind), Ok(version)) = (kind, part[mark.len()..].parse()) {
            position[kind] = version;
        }
    }
    position
}

#[test]
fn positions_are_read_by_their_marks() {
    assert_eq!(position("p12.s7.e9.n3"), [12, 7, 9, 3]);
    assert_eq!(position("cab2-4.e9.n3.p12.s7"), [12, 7, 9, 3]);
    assert_eq!(position(""), [0; 4]);
}
