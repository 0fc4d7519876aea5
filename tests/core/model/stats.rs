//! What the histories held. A run in which something hardly happened proves nothing: it fails.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::judge::Truth;
use crate::step::Step;

/// Everything that has to occur, by the words [`word`] gives a step.
const STEPS: [&str; 59] = [
    "Answers",
    "Ask",
    "Balance Change",
    "Balance Host",
    "Balance Named",
    "Balance PortError",
    "Balance SameAs",
    "Balance Serve",
    "Balance Withdraw",
    "Bookmark",
    "Born Absent",
    "Born Of",
    "CatchUp",
    "CopyIdentity",
    "Crash",
    "Delete",
    "Deliver",
    "DropIdentity",
    "EditService ClusterLabel",
    "EditService Delete",
    "EditService ExtraSelector",
    "EditService KeptFor",
    "EditService NoSelector",
    "EditService Owner",
    "EditService Recreate",
    "EditService Relabel",
    "EditService SelectorOf",
    "EditService TargetPort",
    "EditService Unlabel",
    "EditSlice AddressOf",
    "EditSlice Delete",
    "EditSlice Foreign",
    "EditSlice Port",
    "EditSlice Service",
    "Endpoints",
    "EndpointsSee",
    "Finish",
    "ForceDelete",
    "Kubelet",
    "Lead",
    "Move C",
    "Move D",
    "Move Nowhere",
    "Name Astray",
    "Name Home",
    "Name Nowhere",
    "Namespace",
    "NewIp",
    "Pass",
    "Ports",
    "Ready",
    "Relist",
    "Repeat",
    "Settle",
    "Squat",
    "Write Answered",
    "Write Lost",
    "Write Refused",
    "Write Unanswered",
];
/// Entries by state and reason that have to be published.
const ENTRIES: [&str; 22] = [
    "Routed",
    "Allocated NotReady",
    "Allocated ServiceChanging",
    "Allocated WaitingForEndpoints",
    "Allocated WaitingForPodIp",
    "Pending ClusterLimit",
    "Pending DuplicateExternalAddress",
    "Pending DuplicateIdentity",
    "Pending DuplicateInternalAddress",
    "Pending Finished",
    "Pending ForeignEndpoint",
    "Pending InstallationLimit",
    "Pending NamespaceLimit",
    "Pending NamespaceNotEnabled",
    "Pending NoFreeAddress",
    "Pending NoLoadBalancer",
    "Pending PortError",
    "Pending ServiceDeleted",
    "Pending WaitingForAddress",
    "Pending WaitingForEndpoints",
    "Pending WaitingForName",
    "Pending WaitingForSlot",
];
/// Each of them at least once in so many histories.
const HISTORIES_PER_OCCURRENCE: u64 = 50;

#[derive(Default)]
pub(crate) struct Stats {
    histories: u64,
    steps: BTreeMap<String, u64>,
    entries: BTreeMap<String, u64>,
    pub(crate) conflicts: u64,
    pub(crate) stamped: u64,
    routed: u64,
    late: u64,
}

impl Stats {
    pub(crate) fn history(&mut self) {
        self.histories += 1;
    }

    pub(crate) fn step(&mut self, step: Step) {
        *self.steps.entry(word(step)).or_default() += 1;
    }

    pub(crate) fn published(&mut self, documents: &[&Value], now: &Truth<'_>) {
        for entry in documents.iter().flat_map(|d| d["entries"].as_array().unwrap()) {
            let state = entry["state"].as_str().unwrap();
            let word =
                entry["reason"].as_str().map_or(state.to_owned(), |reason| format!("{state} {reason}"));
            *self.entries.entry(word).or_default() += 1;
        }
        let (routed, late) = now.late(documents);
        self.routed += routed;
        self.late += late;
    }

    pub(crate) fn tell(&self, name: &str) {
        let steps: u64 = self.steps.values().sum();
        println!("{name}: {} histories, {steps} steps that changed something", self.histories);
        println!(
            "  {} conflicts, {} addresses stamped, {} Routed entries published, of which {} late",
            self.conflicts, self.stamped, self.routed, self.late
        );
        for counts in [&self.steps, &self.entries] {
            let words: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
            println!("  {}", words.join(", "));
        }
    }

    /// What hardly occurred.
    pub(crate) fn too_rare(&self) -> Vec<String> {
        let least = self.histories / HISTORIES_PER_OCCURRENCE;
        let rare = |counts: &BTreeMap<String, u64>, words: &[&str]| -> Vec<String> {
            let count = |word: &str| counts.get(word).copied().unwrap_or(0);
            words
                .iter()
                .filter(|word| count(word) < least.max(1))
                .map(|word| format!("{word}: {}", count(word)))
                .collect()
        };
        let mut found = rare(&self.steps, &STEPS);
        found.extend(rare(&self.entries, &ENTRIES));
        for (word, count) in [("conflicts", self.conflicts), ("stamped", self.stamped), ("late", self.late)] {
            if count < least.max(1) {
                found.push(format!("{word}: {count}"));
            }
        }
        found.extend(
            self.steps
                .keys()
                .filter(|word| !STEPS.contains(&&***word))
                .map(|word| format!("{word}: not in the list")),
        );
        found
    }
}

/// The capitalised words of a step: what happened, without to whom.
fn word(step: Step) -> String {
    let text = format!("{step:?}");
    let words = text.split(|c: char| !c.is_alphabetic()).filter(|w| w.starts_with(char::is_uppercase));
    words.collect::<Vec<_>>().join(" ")
}
