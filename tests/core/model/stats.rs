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
const ENTRIES: [&str; 20] = [
    "Routed dedicated",
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
    "Pending PortError",
    "Pending ServiceDeleted",
    "Pending WaitingForAddress",
    "Pending WaitingForEndpoints",
    "Pending WaitingForName",
    "Pending WaitingForSlot",
];
/// And those where most slots have a load balancer of their own.
const ENTRIES_OF_BALANCERS: [&str; 2] = ["Pending NoFreeAddress", "Pending NoLoadBalancer"];
/// And those where classes share, use nodes and change.
const STEPS_OF_CLASSES: [&str; 14] = [
    "Configure",
    "EditService Exposure",
    "EditService Renumber",
    "EditService Swap Name",
    "EditService Swap Number",
    "EditService Swap Target",
    "Node Back",
    "Node Bare",
    "Node Gone",
    "Node Inside",
    "Node Outside",
    "Share C",
    "Share D",
    "Share Nowhere",
];
const ENTRIES_OF_CLASSES: [&str; 5] = [
    "Routed nodePort",
    "Routed shared",
    "Pending CannotShare",
    "Pending ClassLimit",
    "Pending WaitingForNode",
];
/// Each of them at least once in so many histories.
const HISTORIES_PER_OCCURRENCE: u64 = 60;

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
        let entries = documents.iter().flat_map(|d| d["entries"].as_array().unwrap().iter().map(|e| (*d, e)));
        for (document, entry) in entries {
            let state = entry["state"].as_str().unwrap();
            let what = entry["reason"].as_str().or_else(|| now.kind(document, entry)).unwrap_or("late");
            let word = format!("{state} {what}");
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
    pub(crate) fn too_rare(&self, classes: bool) -> Vec<String> {
        let least = self.histories / HISTORIES_PER_OCCURRENCE;
        let rare = |counts: &BTreeMap<String, u64>, words: &[&str]| -> Vec<String> {
            let count = |word: &str| counts.get(word).copied().unwrap_or(0);
            words
                .iter()
                .filter(|word| count(word) < least.max(1))
                .map(|word| format!("{word}: {}", count(word)))
                .collect()
        };
        let mut found = [rare(&self.steps, &STEPS), rare(&self.entries, &ENTRIES)].concat();
        let mut counts = vec![("conflicts", self.conflicts), ("late", self.late)];
        if classes {
            found.extend(rare(&self.steps, &STEPS_OF_CLASSES));
            found.extend(rare(&self.entries, &ENTRIES_OF_CLASSES));
        } else {
            found.extend(rare(&self.entries, &ENTRIES_OF_BALANCERS));
            counts.push(("stamped", self.stamped));
        }
        for (word, count) in counts {
            if count < least.max(1) {
                found.push(format!("{word}: {count}"));
            }
        }
        found.extend(
            self.steps
                .keys()
                .filter(|word| STEPS.iter().chain(&STEPS_OF_CLASSES).all(|known| known != word))
                .map(|word| format!("{word}: not in the list")),
        );
        found
    }
}

/// The capitalised words of a step: what happened, without to whom.
fn word(step: Step) -> String {
    if matches!(step, Step::Configure { .. }) {
        return "Configure".to_owned();
    }
    let text = format!("{step:?}");
    let words = text.split(|c: char| !c.is_alphabetic()).filter(|w| w.starts_with(char::is_uppercase));
    words.collect::<Vec<_>>().join(" ")
}
