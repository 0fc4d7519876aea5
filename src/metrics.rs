//! What the process counts, as OpenMetrics text. One place for all families, so that names and labels stay in step.
//!
//! Labels have few values and never the name of an object: the number of series is fixed by the configuration, not by
//! what runs in the cluster. Names of objects belong into logs, Events and the map.

mod collectors;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use external_ip_core::action::{Action, Outcome};
use external_ip_core::milestones::Milestone;
use external_ip_core::resolve::Answer;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::map::{Current, Liveness};

/// The `Content-Type` of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Buckets of the time an admission answer takes, seconds: the decision takes tens of microseconds, the API server
/// gives up after two seconds.
const ADMISSION_BUCKETS: [f64; 10] = [2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 0.5, 2.0];

/// Buckets of the time a write to the API server takes, seconds.
const WRITE_BUCKETS: [f64; 8] = [2e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.5, 2.0, 5.0];

/// Buckets of the time from a pod's creation to its address, seconds. Creation times are whole seconds; load balancers
/// take from a second to minutes.
const ADDRESS_BUCKETS: [f64; 10] = [1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];

/// All families. Shared by everybody who counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// 1 on the replica that writes.
    pub leader: Gauge,
    actions: Family<ActionLabels, Counter>,
    /// Time of one write.
    pub write_duration: Histogram,
    /// Lists begun from the start, by feed: many mean an API server under pressure or a network that breaks.
    relists: Family<FeedLabel, Counter>,
    allocated: Histogram,
    routed: Histogram,
    reached: Histogram,
    dials: Family<ResultLabel, Counter>,
    names: Family<ResultLabel, Counter>,
    admission: Family<AdmissionLabels, Counter>,
    admission_duration: Histogram,
    requests: Family<RequestLabels, Counter>,
    access: Family<AccessLabels, Counter>,
    connections: Family<ListenerLabel, Gauge>,
    refused: Family<RefusedLabels, Counter>,
    panics: Family<PlaceLabel, Counter>,
    expiry: Family<CertificateLabel, Gauge<f64, AtomicU64>>,
    reload_failures: Family<CertificateLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedLabel {
    feed: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AdmissionLabels {
    result: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    document: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccessLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    listener: &'static str,
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabel {
    place: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    certificate: &'static str,
}

/// A latency histogram with these bucket bounds, seconds.
fn histogram(bounds: &[f64]) -> Histogram {
    Histogram::new(bounds.iter().copied())
}

impl Metrics {
    /// All families registered. Entries and feeds are read from `current` and `liveness` when somebody scrapes.
    pub fn new(current: Arc<Current>, liveness: Arc<Liveness>) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            leader: Gauge::default(),
            actions: Family::default(),
            write_duration: histogram(&WRITE_BUCKETS),
            relists: Family::default(),
            allocated: histogram(&ADDRESS_BUCKETS),
            routed: histogram(&ADDRESS_BUCKETS),
            reached: histogram(&ADDRESS_BUCKETS),
            dials: Family::default(),
            names: Family::default(),
            admission: Family::default(),
            admission_duration: histogram(&ADMISSION_BUCKETS),
            requests: Family::default(),
            access: Family::default(),
            connections: Family::default(),
            refused: Family::default(),
            panics: Family::default(),
            expiry: Family::default(),
            reload_failures: Family::default(),
        };
        let mut registry = Registry::default();
        metrics.register(registry.sub_registry_with_prefix("external_ip"));
        registry.register_collector(Box::new(collectors::Map { current, liveness }));
        registry.register_collector(Box::new(collectors::Process::starting_now()));
        metrics.registry = registry;
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What is running", build);
        registry.register("leader", "1 on the replica that writes", self.leader.clone());
        registry.register("actions", "Planned writes by kind and what became of them", self.actions.clone());
        registry.register_with_unit(
            "write_duration",
            "Time of one write to the API server",
            Unit::Seconds,
            self.write_duration.clone(),
        );
        registry.register_with_unit(
            "pod_allocated",
            "From a pod's creation until its external address was known, as this replica saw it",
            Unit::Seconds,
            self.allocated.clone(),
        );
        registry.register_with_unit(
            "pod_routed",
            "From a pod's creation until its external address led to it, as this replica saw it",
            Unit::Seconds,
            self.routed.clone(),
        );
        registry.register_with_unit(
            "pod_reached",
            "From a pod's creation until its external address answered, in classes that ask for it",
            Unit::Seconds,
            self.reached.clone(),
        );
        registry.register("dials", "External addresses dialled, by result", self.dials.clone());
        registry.register("names", "Names of load balancers asked for, by result", self.names.clone());
        registry.register("relists", "Complete lists asked of the API server, by feed", self.relists.clone());
        registry.register("admission", "Admission reviews by result and reason", self.admission.clone());
        registry.register_with_unit(
            "admission_duration",
            "Time from a complete review to its answer",
            Unit::Seconds,
            self.admission_duration.clone(),
        );
        registry.register(
            "requests",
            "Requests at the mapping listener by document and status",
            self.requests.clone(),
        );
        registry.register(
            "access",
            "Access decisions at the mapping listener by result",
            self.access.clone(),
        );
        registry.register("connections", "Open connections by listener", self.connections.clone());
        registry.register(
            "connections_refused",
            "Connections that did not get as far as a request, or were ended for others, by cause",
            self.refused.clone(),
        );
        registry.register("panics", "Panics that were caught, by place", self.panics.clone());
        registry.register(
            "certificate_not_after_timestamp_seconds",
            "When the certificate ends, seconds since 1970",
            self.expiry.clone(),
        );
        registry.register(
            "certificate_reload_failures",
            "Mounted certificates that changed and could not be used",
            self.reload_failures.clone(),
        );
    }

    /// Everything as OpenMetrics text of [`CONTENT_TYPE`].
    pub fn text(&self) -> String {
        let mut out = String::new();
        // writing into a String does not fail
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    /// One action was carried out, or was not.
    pub fn action(&self, action: &Action, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Done => "done",
            Outcome::Conflict => "conflict",
            Outcome::NameTaken { .. } => "name_taken",
            Outcome::Refused(_) => "refused",
            Outcome::Unreachable(_) => "unreachable",
            Outcome::NotLeading => "not_leading",
        };
        self.write(action.kind(), outcome);
    }

    /// A write that is not an action of the plan (ConfigMaps, Lease, CA): `kind` and `outcome` are fixed words.
    pub fn write(&self, kind: &'static str, outcome: &'static str) {
        self.actions.get_or_create(&ActionLabels { kind, outcome }).inc();
    }

    /// A pod has passed a milestone, this long after its creation.
    pub fn passed(&self, milestone: Milestone, after: Duration) {
        let histogram = match milestone {
            Milestone::Allocated => &self.allocated,
            Milestone::Routed => &self.routed,
            Milestone::Reached => &self.reached,
        };
        histogram.observe(after.as_secs_f64());
    }

    /// An address was dialled.
    pub fn dialled(&self, reachable: bool) {
        let result = if reachable { "reached" } else { "not_reached" };
        self.dials.get_or_create(&ResultLabel { result }).inc();
    }

    /// DNS was asked for a name.
    pub fn asked(&self, answer: &Answer) {
        let result = match answer {
            Answer::Addresses { .. } => "addresses",
            Answer::Nothing { .. } => "nothing",
            Answer::Failed => "failed",
        };
        self.names.get_or_create(&ResultLabel { result }).inc();
    }

    /// A feed asks for a complete list.
    pub fn relist(&self, feed: &str) {
        self.relists.get_or_create(&FeedLabel { feed: feed.to_owned() }).inc();
    }

    /// A review was answered. `reason` is empty or a reason's code.
    pub fn admission(&self, result: &'static str, reason: &'static str, took: Duration) {
        self.admission.get_or_create(&AdmissionLabels { result, reason }).inc();
        self.admission_duration.observe(took.as_secs_f64());
    }

    /// A request for a review had no readable body.
    pub fn admission_unread(&self) {
        self.admission.get_or_create(&AdmissionLabels { result: "unread", reason: "" }).inc();
    }

    /// A request at the mapping listener was answered.
    pub fn request(&self, document: &'static str, code: http::StatusCode) {
        self.requests.get_or_create(&RequestLabels { document, code: code.as_u16() }).inc();
    }

    /// Somebody was let in or not, or could not be judged.
    pub fn access(&self, result: &'static str) {
        self.access.get_or_create(&AccessLabels { result }).inc();
    }

    /// Open connections of a listener.
    pub fn connections(&self, listener: &'static str) -> Gauge {
        self.connections.get_or_create_owned(&ListenerLabel { listener })
    }

    /// A connection ended before a request.
    pub fn refused(&self, listener: &'static str, cause: &'static str) {
        self.refused.get_or_create(&RefusedLabels { listener, cause }).inc();
    }

    /// A panic was caught.
    pub fn panicked(&self, place: &'static str) {
        self.panics.get_or_create(&PlaceLabel { place }).inc();
    }

    /// A certificate is in use from now on and ends at `not_after`, seconds since 1970.
    pub fn certificate(&self, certificate: &'static str, not_after: i64) {
        #[allow(clippy::cast_precision_loss)] // exact for the next million years
        self.expiry.get_or_create(&CertificateLabel { certificate }).set(not_after as f64);
    }

    /// A mounted certificate changed and cannot be used.
    pub fn reload_failed(&self, certificate: &'static str) {
        self.reload_failures.get_or_create(&CertificateLabel { certificate }).inc();
    }
}

/// Seconds since 1970, for what certificates and people compare with.
pub(crate) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Snapshot;
    use crate::testing::{cluster, mapping};

    fn metrics() -> (Arc<Current>, Arc<Liveness>, Metrics) {
        let (current, liveness) = (Arc::new(Current::new()), Arc::new(Liveness::new()));
        let metrics = Metrics::new(Arc::clone(&current), Arc::clone(&liveness));
        (current, liveness, metrics)
    }

    #[test]
    fn entries_and_feeds_are_what_is_published_now() {
        let (current, liveness, metrics) = metrics();
        liveness.feed("pods").listed();
        assert!(!metrics.text().contains("external_ip_entries{"));
        current
            .publish(Snapshot { mapping: mapping([cluster("data", "a", 3)]).into(), ..Snapshot::default() });
        let text = metrics.text();
        assert!(text.contains("external_ip_entries{state=\"Routed\",reason=\"\"} 3\n"), "{text}");
        assert!(text.contains("external_ip_feed_listed{feed=\"pods\"} 1\n"), "{text}");
        assert!(text.contains("external_ip_feed_silent_seconds{feed=\"pods\"} 0"), "{text}");
    }

    #[test]
    fn every_family_is_in_the_text_and_the_text_ends_as_open_metrics_asks() {
        let (_, _, metrics) = metrics();
        metrics.admission("stamped", "", Duration::from_micros(30));
        metrics.connections("mapping").inc();
        metrics.passed(Milestone::Allocated, Duration::from_secs(2));
        metrics.passed(Milestone::Routed, Duration::from_secs(4));
        metrics.certificate("ca", 4_102_444_800);
        let text = metrics.text();
        for line in [
            "external_ip_build_info{version=",
            "external_ip_leader 0",
            "external_ip_admission_total{result=\"stamped\",reason=\"\"} 1",
            "external_ip_admission_duration_seconds_bucket{le=\"0.00005\"} 1",
            "external_ip_pod_allocated_seconds_bucket{le=\"2.0\"} 1",
            "external_ip_pod_routed_seconds_bucket{le=\"3.0\"} 0",
            "external_ip_pod_routed_seconds_sum 4.0",
            "external_ip_connections{listener=\"mapping\"} 1",
            "external_ip_certificate_not_after_timestamp_seconds{certificate=\"ca\"} 4102444800.0",
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
