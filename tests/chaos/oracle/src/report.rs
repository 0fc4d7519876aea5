//! A judged run: figures, complaints, and whether it was a run at all.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::counts::{self, Counts};
use crate::history::History;
use crate::judge::{Complaints, judge};
use crate::readings::Readings;
use crate::timing::{Disturbance, Timing, measure};
use crate::truth::Witness;

/// Everything a run left behind.
pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) documents: Vec<Value>,
    pub(crate) disturbances: Vec<Disturbance>,
    audit: Vec<Value>,
    /// What the driver demands: `{"at_least": {COUNT: N}, "at_most_ms": {FIGURE: N}, "retention_ms": N}`.
    expect: Value,
}

pub(crate) fn lines(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| path.display().to_string())).collect()
}

impl Run {
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let file = |name: &str| directory.join(name);
        let history = std::fs::read_to_string(file("history.jsonl")).context("history.jsonl")?;
        let expect = std::fs::read_to_string(file("expect.json")).context("expect.json")?;
        Ok(Self {
            history: History::read(&history)?,
            documents: lines(&file("documents.jsonl"))?,
            disturbances: lines(&file("disturbances.jsonl"))?.iter().map(Disturbance::of).collect(),
            audit: lines(&file("audit.jsonl"))?,
            expect: serde_json::from_str(&expect).context("expect.json")?,
        })
    }

    /// Judges what replicas published.
    pub(crate) fn judged(&self) -> Result<Report> {
        let witness = Witness::new(&self.history);
        let mut readings = Readings::read(&self.documents, &witness)?;
        let candidates: Vec<usize> =
            witness.candidates().into_iter().map(|claim| readings.claims.number(claim)).collect();
        let verdict = judge(&readings, &candidates);
        let timing = measure(&readings, &candidates, &self.history, &self.disturbances);
        let mut report = Report {
            counts: counts::count(&self.history, &readings, &self.audit, &self.disturbances),
            timing,
            complaints: BTreeMap::new(),
        };
        let taken = report.timing.hand_over.len();
        report.counts.insert("lease free until taken".to_owned(), taken);
        report.counts.insert("maps judged".to_owned(), verdict.maps);
        report.counts.insert("entries judged".to_owned(), verdict.entries);
        report.counts.insert("entries that had to be there".to_owned(), verdict.expected);
        let found = [
            ("wrong", verdict.wrong),
            ("lost", verdict.lost),
            ("duplicates", verdict.duplicates),
            ("went back", verdict.went_back),
        ];
        report.complaints.extend(found);
        let retention = self.expect["retention_ms"].as_u64().unwrap_or(0);
        report.complain("orphans", counts::orphans(&self.history, retention));
        report.complain("admission lost", counts::unstamped(&self.history, &self.disturbances));
        report.complain("never recovered", report.timing.never_recovered.clone());
        report.complain("too few", self.too_few(&report.counts));
        report.complain("too slow", self.too_slow(&report.json()));
        Ok(report)
    }

    /// A quiet run proves nothing.
    fn too_few(&self, counts: &Counts) -> Vec<String> {
        let wanted = self.expect["at_least"].as_object().into_iter().flatten();
        let short = wanted.filter_map(|(name, least)| {
            let found = counts.get(name).copied().unwrap_or(0);
            (found < least.as_u64().unwrap_or(u64::MAX)).then(|| format!("{name}: {found}, at least {least}"))
        });
        short.collect()
    }

    /// Figures by JSON pointer into the report.
    fn too_slow(&self, figures: &Value) -> Vec<String> {
        let wanted = self.expect["at_most_ms"].as_object().into_iter().flatten();
        let slow = wanted.filter_map(|(pointer, most)| {
            let found = figures.pointer(pointer).and_then(Value::as_u64);
            // a figure that is not there was not measured
            let held = found.zip(most.as_u64()).is_some_and(|(found, most)| found <= most);
            (!held).then(|| format!("{pointer}: {found:?} ms, at most {most}"))
        });
        slow.collect()
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) complaints: BTreeMap<&'static str, Complaints>,
    counts: Counts,
    timing: Timing,
}

impl Report {
    fn complain(&mut self, kind: &'static str, list: Vec<String>) {
        let count = list.len() as u64;
        let first = list.into_iter().take(Complaints::SHOWN).collect();
        self.complaints.insert(kind, Complaints { count, first });
    }

    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.complaints.get(kind).map_or(0, |c| c.count)
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.complaints.values().all(|c| c.count == 0)
    }

    /// Writes per pod: every write of the product that was accepted, the Lease's and Events' aside.
    fn writes_per_pod(&self) -> Option<f64> {
        let writes = |resource: &str| -> u64 {
            let of = |(name, _): &(&String, &u64)| {
                name.starts_with("product: ")
                    && name.ends_with(resource)
                    && !name.starts_with("product: list")
            };
            self.counts.iter().filter(of).map(|(_, n)| n).sum()
        };
        let born = u32::try_from(*self.counts.get("pods born")?).ok().filter(|born| *born > 0)?;
        Some(f64::from(u32::try_from(writes(" services") + writes(" pods")).ok()?) / f64::from(born))
    }

    pub(crate) fn json(&self) -> Value {
        let complaints: Value = self
            .complaints
            .iter()
            .map(|(kind, c)| ((*kind).to_owned(), json!({"count": c.count, "first": c.first})))
            .collect();
        let recover: Value = self.timing.recover.iter().map(|(kind, s)| (kind.clone(), s.json())).collect();
        json!({
            "clean": self.is_clean(),
            "complaints": complaints,
            "late": self.timing.late.json(),
            "late_disturbed": self.timing.late_disturbed.json(),
            "appear": self.timing.appear.json(),
            "appear_disturbed": self.timing.appear_disturbed.json(),
            "hand_over": self.timing.hand_over.json(),
            "recover": recover,
            "writes_per_pod": self.writes_per_pod(),
            "counts": self.counts,
        })
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec!["-- complaints (all must be 0)".to_owned()];
        lines.extend(self.complaints.iter().map(|(kind, c)| format!("{:>9}  {kind}", c.count)));
        for (kind, complaints) in self.complaints.iter().filter(|(_, c)| c.count > 0) {
            lines.extend(complaints.first.iter().map(|first| format!("           {kind}: {first}")));
        }
        lines.push("-- milliseconds: p50, p99, most, samples".to_owned());
        let timing = &self.timing;
        let figures = [
            ("late, undisturbed", &timing.late),
            ("late, disturbed", &timing.late_disturbed),
            ("until shown, undisturbed", &timing.appear),
            ("until shown, disturbed", &timing.appear_disturbed),
            ("lease free until taken", &timing.hand_over),
        ];
        let row = |name: &str, samples: &crate::timing::Samples| {
            let json = samples.json();
            let cell = |key: &str| json[key].as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string());
            format!(
                "{:>9} {:>7} {:>7} {:>6}  {name}",
                cell("p50_ms"),
                cell("p99_ms"),
                cell("max_ms"),
                cell("samples")
            )
        };
        lines.extend(figures.iter().map(|(name, samples)| row(name, samples)));
        lines.extend(
            timing.recover.iter().map(|(kind, samples)| row(&format!("recovered after: {kind}"), samples)),
        );
        lines.push("-- counts".to_owned());
        lines.extend(self.counts.iter().map(|(name, n)| format!("{n:>9}  {name}")));
        if let Some(per_pod) = self.writes_per_pod() {
            lines.push(format!("{per_pod:>9.2}  writes per pod (pods and Services)"));
        }
        lines.join("\n")
    }
}
