//! Whether what was published was true.
//!
//! Behind every map lies one state of the replica: for each kind a revision up to which it has seen everything. It is not
//! told exactly, but bounded: from below by `Map-Position` and by what the same reader was shown before, from above by
//! etcd's revision after the answer had arrived. An entry is *wrong* where it was true at no revision of some kind within
//! these bounds; a map is *wrong* where no single revision of a kind makes all its entries true. An entry is *lost* where
//! it was true, and nothing spoke against it, at all of them, and it is not shown.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::KINDS;
use crate::readings::{Claims, Reading, Readings};
use crate::revisions::Revisions;
use crate::truth::{Claim, PerKind};

/// Complaints by kind; each list holds the first ones only.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) wrong: Complaints,
    pub(crate) lost: Complaints,
    pub(crate) duplicates: Complaints,
    pub(crate) went_back: Complaints,
    /// Maps judged, entries in them, entries that had to be in them.
    pub(crate) maps: u64,
    pub(crate) entries: u64,
    pub(crate) expected: u64,
}

/// How often, and the first of them in words.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    pub(crate) count: u64,
    pub(crate) first: Vec<String>,
}

impl Complaints {
    pub(crate) const SHOWN: usize = 10;

    fn add(&mut self, reading: &Reading, what: &str) {
        self.count += 1;
        if self.first.len() < Self::SHOWN {
            let Reading { reader, at, position, newest, .. } = reading;
            self.first.push(format!("{reader} at {at}, seen {position:?} to {newest}: {what}"));
        }
    }
}

/// Judges every map of every reader. `candidates`: numbers of the claims that a map may have to show.
pub(crate) fn judge(readings: &Readings<'_>, candidates: &[usize]) -> Verdict {
    let mut verdict = Verdict::default();
    for reader in readings.readers() {
        let mut bounds = [0; 4];
        let mut before = [0; 4];
        for (reading, numbers) in readings.maps(reader) {
            verdict.maps += 1;
            verdict.entries += numbers.len() as u64;
            if KINDS.iter().any(|k| reading.position[*k as usize] < before[*k as usize]) {
                verdict.went_back.add(reading, &format!("after {before:?}"));
            }
            before = reading.position;
            let from: [u64; 4] = std::array::from_fn(|k| bounds[k].max(reading.position[k]));
            verdict.duplicates(reading, numbers, &readings.claims);
            let seen = verdict.truth(reading, numbers, &readings.claims, from);
            verdict.completeness(reading, numbers, &readings.claims, candidates, from);
            bounds = std::array::from_fn(|k| seen[k].max(from[k]));
        }
    }
    verdict
}

impl Verdict {
    /// The lowest revisions that make all entries true.
    fn truth(
        &mut self,
        reading: &Reading,
        numbers: &[usize],
        claims: &Claims<'_>,
        from: [u64; 4],
    ) -> [u64; 4] {
        let mut common: PerKind = std::array::from_fn(|k| window(from[k], reading.newest));
        let mut sound = true;
        for number in numbers {
            let (claim, _) = &claims.list[*number];
            match feasible(claims, *number, from, reading.newest) {
                Some(may) => {
                    for kind in KINDS {
                        let kind = kind as usize;
                        common[kind] = common[kind].intersect(&may[kind]);
                    }
                }
                None => {
                    sound = false;
                    if feasible(claims, *number, reading.position, reading.newest).is_some() {
                        self.went_back.add(reading, &format!("to {}, after {from:?}", claim.says()));
                    } else {
                        self.wrong
                            .add(reading, &format!("{}: {}", claim.says(), why(claims, *number, reading)));
                    }
                }
            }
        }
        if sound && let Some(kind) = KINDS.into_iter().find(|k| common[*k as usize].is_empty()) {
            self.wrong
                .add(reading, &format!("entries of different moments: no revision of {kind:?} has them all"));
        }
        std::array::from_fn(|k| common[k].first().unwrap_or(0))
    }

    fn completeness(
        &mut self,
        reading: &Reading,
        numbers: &[usize],
        claims: &Claims<'_>,
        candidates: &[usize],
        from: [u64; 4],
    ) {
        let shown: BTreeSet<usize> = numbers.iter().copied().collect();
        for number in candidates {
            let (claim, truths) = &claims.list[*number];
            let stands = |must: &PerKind| {
                KINDS.iter().all(|k| must[*k as usize].covers(from[*k as usize], reading.newest))
            };
            if truths.iter().any(|truth| stands(&truth.must)) {
                self.expected += 1;
                if !shown.contains(number) {
                    self.lost.add(reading, &claim.says());
                }
            }
        }
    }

    /// No two entries with one internal address, or one external address and port.
    fn duplicates(&mut self, reading: &Reading, numbers: &[usize], claims: &Claims<'_>) {
        let mut inside: BTreeMap<&str, &Claim> = BTreeMap::new();
        let mut outside: BTreeMap<(&str, u64, &str), &Claim> = BTreeMap::new();
        for claim in numbers.iter().map(|n| &claims.list[*n].0).filter(|c| !c.external.is_empty()) {
            let twice = claim.internal.iter().find_map(|ip| inside.insert(ip, claim));
            let points = claim.external.iter().flat_map(|ip| {
                claim.ports.iter().map(move |(port, _, protocol)| (ip.as_str(), *port, protocol.as_str()))
            });
            let mut shared = None;
            for point in points {
                shared = outside.insert(point, claim).or(shared);
            }
            if let Some(other) = twice.or(shared) {
                self.duplicates.add(reading, &format!("{} and {}", claim.says(), other.says()));
            }
        }
    }
}

fn window(from: u64, to: u64) -> Revisions {
    let mut window = Revisions::default();
    window.append(from, to.saturating_add(1));
    window
}

/// When the claim may be true within the bounds; `None` where it is not for some kind.
fn feasible<'c>(claims: &'c Claims<'_>, number: usize, from: [u64; 4], to: u64) -> Option<&'c PerKind> {
    let possible = |may: &PerKind| KINDS.iter().all(|k| may[*k as usize].touches(from[*k as usize], to));
    claims.list[number].1.iter().map(|truth| &truth.may).find(|may| possible(may))
}

fn why(claims: &Claims<'_>, number: usize, reading: &Reading) -> String {
    let (_, truths) = &claims.list[number];
    if truths.is_empty() {
        return "there never was such a pod with an identity".to_owned();
    }
    let untrue = KINDS.into_iter().filter_map(|kind| {
        let k = kind as usize;
        let may: Vec<_> = truths.iter().map(|t| t.may[k].ranges()).collect();
        let possible = truths.iter().any(|t| t.may[k].touches(reading.position[k], reading.newest));
        (!possible).then(|| format!("by {kind:?} true at {may:?} only"))
    });
    untrue.collect::<Vec<_>>().join(", ")
}
