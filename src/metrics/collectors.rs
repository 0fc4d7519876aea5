use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use external_ip_core::mapping::EntryState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::wall_clock;
use crate::map::{Current, Liveness};

/// Reads the published map and the feeds at a scrape: nothing to keep in step, nothing to forget.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) current: Arc<Current>,
    pub(super) liveness: Arc<Liveness>,
}

impl Collector for Map {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.feeds(&mut encoder)?;
        if let Some(published) = self.current.load() {
            let mut entries: BTreeMap<(EntryState, &'static str), u64> = BTreeMap::new();
            for entry in published.mapping.values().flat_map(|c| &c.entries) {
                *entries.entry((entry.state, entry.reason.unwrap_or(""))).or_default() += 1;
            }
            let family = entries.into_iter().map(|((state, reason), n)| {
                ([("state", state_name(state)), ("reason", reason)], ConstGauge::new(n))
            });
            encode_family(&mut encoder, "external_ip_entries", "Entries by state and reason", None, family)?;
            let help = "Clusters in the map";
            encode_one(&mut encoder, "external_ip_clusters", help, published.mapping.len() as u64)?;
            let help = "Entries that the document at / cannot express";
            let left_out = published.documents().origin_left_out() as u64;
            encode_one(&mut encoder, "external_ip_origin_left_out", help, left_out)?;
            let help = "Changes of the map since the process started";
            encode_one(&mut encoder, "external_ip_map_generation", help, published.generation)?;
        }
        Ok(())
    }
}

impl Map {
    fn feeds(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let feeds = self.liveness.feeds();
        let listed = feeds.iter().map(|f| ([("feed", &*f.name)], ConstGauge::new(u64::from(f.listed))));
        let help = "1 once the feed's first list is complete";
        encode_family(encoder, "external_ip_feed_listed", help, None, listed)?;
        let silent = feeds
            .iter()
            .filter_map(|f| Some(([("feed", &*f.name)], ConstGauge::new(f.silent_for?.as_secs_f64()))));
        let help = "Since the feed last heard from the API server";
        encode_family(encoder, "external_ip_feed_silent", help, Some(&Unit::Seconds), silent)
    }
}

fn state_name(state: EntryState) -> &'static str {
    match state {
        EntryState::Pending => "Pending",
        EntryState::Allocated => "Allocated",
        EntryState::Routed => "Routed",
    }
}

fn encode_family<'a, const N: usize, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    family: impl Iterator<Item = ([(&'static str, &'a str); N], M)>,
) -> fmt::Result {
    let mut family = family.peekable();
    let Some((_, first)) = family.peek() else { return Ok(()) };
    let mut metric = encoder.encode_descriptor(name, help, unit, first.metric_type())?;
    family.try_for_each(|(labels, value)| value.encode(metric.encode_family(&labels)?))
}

fn encode_one(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    let value = ConstGauge::new(value);
    value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
}

/// The usual `process_` families of Prometheus' own clients, from `/proc/self`; absent where there is none.
#[derive(Debug)]
pub(super) struct Process {
    started: f64,
}

/// `USER_HZ`: part of Linux' ABI, the same on all architectures we build for.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    pub(super) fn starting_now() -> Self {
        Self { started: wall_clock().as_secs_f64() }
    }
}

/// User and system time, seconds. `proc_pid_stat(5)`: fields 14 and 15; the name in field 2 may hold blanks.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// Resident memory, bytes. From `status` and not `statm`, which counts pages of unknown size.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn open_descriptors() -> Option<u64> {
    // one of them is the directory being read
    Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if let Some(seconds) = cpu_seconds() {
            let value = ConstCounter::new(seconds);
            let help = "User and system CPU time";
            let unit = Some(&Unit::Seconds);
            value.encode(encoder.encode_descriptor("process_cpu", help, unit, value.metric_type())?)?;
        }
        if let Some(bytes) = resident_bytes() {
            let value = ConstGauge::new(bytes);
            let unit = Some(&Unit::Bytes);
            let name = "process_resident_memory";
            value.encode(encoder.encode_descriptor(name, "Resident memory", unit, value.metric_type())?)?;
        }
        if let Some(count) = open_descriptors() {
            encode_one(&mut encoder, "process_open_fds", "Open file descriptors", count)?;
        }
        let value = ConstGauge::new(self.started);
        let (name, help) = ("process_start_time", "When the process started, since 1970");
        value.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), value.metric_type())?)
    }
}
