//! An explanation for people.

use std::fmt::{Display, Write};

use super::{Explanation, Progress};
use crate::mapping::{Entry, External};

impl Explanation {
    /// The reason with its particulars and without the remedy; empty where there is none.
    pub(super) fn why(&self) -> String {
        let message = self.entry.message.as_deref().unwrap_or_default();
        let remedy = self.remedy.unwrap_or_default();
        message.strip_suffix(remedy).and_then(|m| m.strip_suffix(": ")).unwrap_or(message).to_owned()
    }
}

impl External {
    /// Addresses and host name, comma separated.
    pub(crate) fn list(&self) -> String {
        let host = self.host.iter().cloned();
        self.ips.iter().map(ToString::to_string).chain(host).collect::<Vec<_>>().join(", ")
    }
}

pub(super) fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `11222/TCP`, or `20001 -> 11222/TCP` where outside differs from inside.
pub(super) fn ports(entry: &Entry) -> String {
    let pair = |p: &crate::mapping::PortPair| {
        let outside = if p.external == p.internal { String::new() } else { format!("{} -> ", p.external) };
        format!("{outside}{}/{}", p.internal, p.protocol)
    };
    entry.ports.iter().map(pair).collect::<Vec<_>>().join(", ")
}

/// Lines for a terminal.
pub fn text(explanation: &Explanation) -> String {
    let entry = &explanation.entry;
    let mut lines = String::new();
    let going = if entry.terminating { ", terminating" } else { "" };
    // writing to a String cannot fail
    let _ = writeln!(
        lines,
        "{}/{}: {:?} since {}{going}",
        explanation.namespace, entry.pod, entry.state, explanation.since
    );
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(lines, "  {name:<9} {value}");
        }
    };
    line("reason", entry.reason.map(|code| format!("{code}: {}", explanation.why())).unwrap_or_default());
    line("remedy", explanation.remedy.unwrap_or_default().to_owned());
    line("inside", list(&entry.internal.ips));
    line("outside", entry.external.as_ref().map(External::list).unwrap_or_default());
    line("ports", ports(entry));
    let reachable =
        entry.reachable.map(|yes| if yes { "yes" } else { "no: nobody answered when it was dialled last" });
    line("reachable", reachable.unwrap_or_default().to_owned());
    line("drift", entry.drift.as_ref().map(|d| format!("{}: {}", d.reason, d.message)).unwrap_or_default());
    line("told", entry.told.as_ref().map(|told| told.message.clone()).unwrap_or_default());
    for step in &explanation.steps {
        let mark = match step.progress {
            Progress::Done => "[x]",
            Progress::Here => "[>]",
            Progress::Open => "[ ]",
        };
        let _ =
            writeln!(lines, "  {}", format!("{mark} {:<10}{}", step.stage.as_str(), step.detail).trim_end());
    }
    lines
}
