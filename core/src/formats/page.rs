//! The map as a page for people: HTML without script, images or anything from elsewhere, readable on a phone.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::net::IpAddr;
use std::sync::Arc;

use crate::mapping::{ClusterMapping, Entry, EntryState, External, KeptAddresses, Mapping};
use crate::names::Key;

/// The page's only style. Its hash stands in the page's Content-Security-Policy.
pub const STYLE: &str = include_str!("page.css");

/// Entries shown with their addresses; of more, those that are Routed are left out. A page of 2 000 is 1 MB.
const ENTRIES: usize = 2000;

/// What the page shows.
#[derive(Debug)]
pub struct Page<'m> {
    /// The map.
    pub mapping: &'m Mapping,
    /// Addresses kept for names, by cluster.
    pub kept: &'m BTreeMap<Key, Arc<KeptAddresses>>,
    /// What is watched, and the seconds since it last heard from the API server.
    pub feeds: Vec<(String, Option<u64>)>,
    /// The program's version.
    pub version: &'static str,
}

/// The page.
pub fn html(page: &Page<'_>) -> String {
    let mut out = String::new();
    // a String takes everything
    let _ = write(page, &mut out);
    out
}

fn write(page: &Page<'_>, out: &mut String) -> fmt::Result {
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>External addresses</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>External addresses</h1>\n"
    )?;
    summary(page, out)?;
    if page.mapping.is_empty() {
        out.push_str("<p>No pod takes part. A pod does by its label external-ip.dev/cluster, in a namespace labelled external-ip.dev/enabled=true.</p>\n");
    }
    let shows_all = page.mapping.values().map(|c| c.entries.len()).sum::<usize>() <= ENTRIES;
    if !shows_all {
        writeln!(out, "<p>There are many pods: those that are Routed are counted and not shown.</p>")?;
    }
    for (key, cluster) in page.mapping {
        section(cluster, page.kept.get(key).map(|kept| &**kept), shows_all, out)?;
    }
    writeln!(out, "<footer>external-ip-controller {}</footer>\n</body>\n</html>", Text(page.version))
}

fn summary(page: &Page<'_>, out: &mut String) -> fmt::Result {
    let mut states = BTreeMap::new();
    for entry in page.mapping.values().flat_map(|c| &c.entries) {
        *states.entry(entry.state).or_insert(0_usize) += 1;
    }
    let of = |state| states.get(&state).copied().unwrap_or(0);
    writeln!(
        out,
        "<p class=\"sum\"><b>{}</b> clusters <b class=\"Routed\">{}</b> routed <b class=\"Allocated\">{}</b> allocated <b class=\"Pending\">{}</b> pending</p>",
        page.mapping.len(),
        of(EntryState::Routed),
        of(EntryState::Allocated),
        of(EntryState::Pending),
    )?;
    let oldest = page.feeds.iter().map(|(_, age)| *age).max_by_key(|age| age.unwrap_or(u64::MAX)).flatten();
    out.push_str("<details><summary>");
    match oldest {
        Some(seconds) => write!(out, "The API server was last heard {} ago", Age(seconds))?,
        None => out.push_str("Not everything has been heard from the API server yet"),
    }
    out.push_str("</summary><ul>\n");
    for (feed, age) in &page.feeds {
        match age {
            Some(seconds) => writeln!(out, "<li>{} {}</li>", Text(feed), Age(*seconds))?,
            None => writeln!(out, "<li>{} never</li>", Text(feed))?,
        }
    }
    out.push_str("</ul></details>\n");
    Ok(())
}

fn section(
    cluster: &ClusterMapping,
    kept: Option<&KeptAddresses>,
    shows_all: bool,
    out: &mut String,
) -> fmt::Result {
    let routed = cluster.entries.iter().filter(|e| e.state == EntryState::Routed).count();
    let open = if shows_all || routed < cluster.entries.len() { " open" } else { "" };
    writeln!(
        out,
        "<details{open} class=\"cluster\"><summary><b>{}/{}</b> {routed} of {} routed, class {}</summary>\n<ul>",
        Text(&cluster.namespace),
        Text(&cluster.name),
        cluster.entries.len(),
        Text(&cluster.class)
    )?;
    for entry in cluster.entries.iter().filter(|e| shows_all || e.state != EntryState::Routed) {
        item(cluster, entry, out)?;
    }
    let free = kept.into_iter().flatten().filter(|(name, _)| cluster.entries.iter().all(|e| e.pod != **name));
    for (name, slot) in free {
        let address = External { ips: slot.ips.clone(), host: slot.host.clone() }.list();
        writeln!(
            out,
            "<li><span class=\"tag\">kept</span> slot {} {} <span class=\"dim\">for {}</span></li>",
            slot.slot,
            Text(&address),
            Text(name)
        )?;
    }
    out.push_str("</ul></details>\n");
    Ok(())
}

fn item(cluster: &ClusterMapping, entry: &Entry, out: &mut String) -> fmt::Result {
    let (namespace, pod, state) = (Text(&cluster.namespace), Text(&entry.pod), state(entry.state));
    // names of pods and namespaces are DNS names: they need no escaping in a path
    write!(
        out,
        "<li><span class=\"tag {state}\">{state}</span> <a href=\"/v1/pods/{namespace}/{pod}?format=text\">{pod}</a>"
    )?;
    if let Some(slot) = entry.slot {
        write!(out, " slot {slot}")?;
    }
    for (said, word) in [
        (entry.terminating, "terminating"),
        (!entry.ready, "not ready"),
        (entry.reachable == Some(true), "reachable"),
        (entry.reachable == Some(false), "not reachable"),
    ] {
        if said {
            write!(out, " <span class=\"tag\">{word}</span>")?;
        }
    }
    let outside = entry.external.as_ref().map(External::list);
    write!(out, "<div class=\"map\">{} <span class=\"dim\">is</span> ", Text(&list(&entry.internal.ips)))?;
    match outside.filter(|list| !list.is_empty()) {
        Some(list) => write!(out, "<b>{}</b>", Text(&list))?,
        None => out.push_str("<span class=\"dim\">nowhere yet</span>"),
    }
    for port in &entry.ports {
        write!(out, " <span class=\"dim\">{}/{}", port.internal, port.protocol.as_str())?;
        if port.external != port.internal {
            write!(out, " at {}", port.external)?;
        }
        out.push_str("</span>");
    }
    out.push_str("</div>");
    if let Some(reason) = entry.reason {
        let message = entry.message.as_deref().unwrap_or_default();
        // the remedy stands at its end
        write!(out, "<div class=\"why\"><b>{}</b> {}</div>", Text(reason), Text(message))?;
    }
    let drift = entry.drift.as_ref().map(|drift| &drift.message);
    for message in drift.into_iter().chain(entry.told.as_ref().map(|told| &told.message)) {
        write!(out, "<div class=\"why\">{}</div>", Text(message))?;
    }
    out.push_str("</li>\n");
    Ok(())
}

fn state(state: EntryState) -> &'static str {
    match state {
        EntryState::Pending => "Pending",
        EntryState::Allocated => "Allocated",
        EntryState::Routed => "Routed",
    }
}

fn list(ips: &[IpAddr]) -> String {
    if ips.is_empty() {
        return "no address".to_owned();
    }
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Somebody else's words: as text and in quoted attributes they stay words.
struct Text<'t>(&'t str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Seconds, as people say them.
struct Age(u64);

impl Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ ..120 => write!(f, "{seconds} s"),
            seconds @ 120..7200 => write!(f, "{} min", seconds / 60),
            seconds => write!(f, "{} h", seconds / 3600),
        }
    }
}
