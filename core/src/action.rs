//! What the plan wants done. Plain data: the shell's one writer carries actions out and reports an [`Outcome`] each.
//!
//! Every action carries the precondition it was planned from, so that a deposed leader or a late cache cannot do
//! damage: the API server answers 409 and the plan is made again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::names::{self, Key};
use crate::reason::Reason;
use crate::service::SlotService;

/// One write to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// POST: fails where the name exists, whoever has it.
    CreateService(SlotService),
    /// Merge patch with UID and resource version.
    UpdateService {
        /// UID it was planned from.
        uid: String,
        /// Resource version it was planned from.
        version: u64,
        /// What the Service shall be.
        desired: SlotService,
        /// Foreign selector keys to take away: a merge patch keeps what it does not name.
        drop_selector: Vec<String>,
    },
    /// Merge patch of a single annotation with UID and resource version.
    AnnotateService {
        /// Which.
        key: Key,
        /// UID it was planned from.
        uid: String,
        /// Resource version it was planned from.
        version: u64,
        /// Annotation key.
        annotation: &'static str,
        /// Its value; `None` removes it.
        value: Option<String>,
    },
    /// DELETE with UID and resource version.
    DeleteService {
        /// Which.
        key: Key,
        /// UID it was planned from.
        uid: String,
        /// Resource version it was planned from.
        version: u64,
    },
    /// JSON patch that tests the UID and sets the identity label.
    LabelPod {
        /// Which.
        key: Key,
        /// UID it was planned from.
        uid: String,
        /// The identity.
        pod_id: String,
    },
    /// JSON patch that tests the UID, tells a pod its address and lifts our scheduling gate, nobody else's.
    LiftGate {
        /// Which.
        key: Key,
        /// UID it was planned from.
        uid: String,
        /// Place of our gate as it was seen; tested by name.
        gate: usize,
        /// Annotations with their values; `None` takes one away.
        annotations: BTreeMap<String, Option<String>>,
        /// The resource version it was planned from, where the pod had no annotations to add to: tested as well.
        bare: Option<u64>,
    },
    /// JSON patch of a pod's status that tests the UID and sets our condition to True.
    MarkRouted {
        /// Which.
        key: Key,
        /// UID it was planned from.
        uid: String,
        /// Place of our condition as it was seen, tested by type; `None`: it is added.
        place: Option<usize>,
        /// The condition's reason: `Routed`, or why the pod shall not wait for that any more.
        reason: &'static str,
        /// For people.
        message: String,
        /// When it was planned, seconds since 1970.
        at: i64,
    },
    /// Tells people. Its name is made from object and reason, so that a second leader does not repeat it.
    RecordEvent(Event),
}

impl Action {
    /// The Service an action changes.
    pub fn service(&self) -> Option<&Key> {
        match self {
            Self::CreateService(desired) | Self::UpdateService { desired, .. } => Some(&desired.key),
            Self::AnnotateService { key, .. } | Self::DeleteService { key, .. } => Some(key),
            Self::LabelPod { .. }
            | Self::LiftGate { .. }
            | Self::MarkRouted { .. }
            | Self::RecordEvent(_) => None,
        }
    }

    /// UID of the pod an action changes.
    pub fn pod(&self) -> Option<&String> {
        match self {
            Self::LabelPod { uid, .. } | Self::LiftGate { uid, .. } | Self::MarkRouted { uid, .. } => {
                Some(uid)
            }
            _ => None,
        }
    }

    /// Short name for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateService(_) => "create_service",
            Self::UpdateService { .. } => "update_service",
            Self::AnnotateService { .. } => "annotate_service",
            Self::DeleteService { .. } => "delete_service",
            Self::LabelPod { .. } => "label_pod",
            Self::LiftGate { .. } => "lift_gate",
            Self::MarkRouted { .. } => "mark_routed",
            Self::RecordEvent(_) => "record_event",
        }
    }

    /// The request body: an object for POST, a merge patch or JSON patch for the others, delete options for DELETE.
    pub fn body(&self) -> Value {
        match self {
            Self::CreateService(desired) => desired.manifest(),
            Self::UpdateService { uid, version, desired, drop_selector } => {
                desired.patch(uid, *version, drop_selector)
            }
            Self::AnnotateService { uid, version, annotation, value, .. } => json!({
                "metadata": {"uid": uid, "resourceVersion": version.to_string(), "annotations": {*annotation: value}},
            }),
            Self::DeleteService { uid, version, .. } => json!({
                "preconditions": {"uid": uid, "resourceVersion": version.to_string()},
            }),
            Self::LabelPod { uid, pod_id, .. } => json!([
                {"op": "test", "path": "/metadata/uid", "value": uid},
                {"op": "add", "path": format!("/metadata/labels/{}", pointer(names::POD_ID_LABEL)), "value": pod_id},
            ]),
            Self::LiftGate { uid, gate, annotations, bare, .. } => lift(uid, *gate, annotations, *bare),
            Self::MarkRouted { uid, place, reason, message, at, .. } => {
                mark(uid, *place, reason, message, *at)
            }
            Self::RecordEvent(event) => event.manifest(),
        }
    }
}

fn lift(uid: &str, gate: usize, annotations: &BTreeMap<String, Option<String>>, bare: Option<u64>) -> Value {
    let gate = format!("/spec/schedulingGates/{gate}");
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": uid}),
        json!({"op": "test", "path": format!("{gate}/name"), "value": names::ADDRESS_GATE}),
    ];
    if let Some(version) = bare {
        // a map that somebody has made meanwhile would be replaced
        let version = version.to_string();
        operations.push(json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}));
        operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    for (key, value) in annotations {
        let path = format!("/metadata/annotations/{}", pointer(key));
        operations.push(match value {
            Some(value) => json!({"op": "add", "path": path, "value": value}),
            None => json!({"op": "remove", "path": path}),
        });
    }
    operations.push(json!({"op": "remove", "path": gate}));
    Value::Array(operations)
}

fn mark(uid: &str, place: Option<usize>, reason: &str, message: &str, at: i64) -> Value {
    let at = jiff::Timestamp::from_second(at).unwrap_or_default();
    let condition = json!({
        "type": names::ROUTED_CONDITION, "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": at.to_string(),
    });
    let mut operations = vec![json!({"op": "test", "path": "/metadata/uid", "value": uid})];
    match place.map(|place| format!("/status/conditions/{place}")) {
        Some(path) => operations.extend([
            json!({"op": "test", "path": format!("{path}/type"), "value": names::ROUTED_CONDITION}),
            json!({"op": "replace", "path": path, "value": condition}),
        ]),
        None => operations.push(json!({"op": "add", "path": "/status/conditions/-", "value": condition})),
    }
    Value::Array(operations)
}

/// A key as a token of a JSON pointer (RFC 6901); ours hold no `~`.
fn pointer(key: &str) -> String {
    key.replace('/', "~1")
}

/// A warning about an object, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Namespace of the event and of its object.
    pub namespace: String,
    /// API version of the object.
    pub api_version: String,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// UID of the object.
    pub uid: String,
    /// Why.
    pub reason: Reason,
    /// When it was planned, microseconds since 1970 (`eventTime` is required by the API).
    pub at: i64,
}

impl Event {
    /// The event's own name: equal for equal object, reason and particulars.
    pub fn object_name(&self) -> String {
        let seed = format!("{} {} {}", self.uid, self.reason.code, self.reason.detail);
        // an event's name is a DNS-1123 subdomain of at most 253 characters
        format!("{}.{}", &self.name[..self.name.len().min(200)], names::short_hash(seed.as_bytes(), 16))
    }

    fn manifest(&self) -> Value {
        let at = jiff::Timestamp::from_microsecond(self.at).unwrap_or_default();
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"namespace": self.namespace, "name": self.object_name()},
            "eventTime": format!("{at:.6}"),
            "type": "Warning", "action": "Expose",
            "reason": self.reason.code.as_str(), "note": truncated(&self.reason.message(), 1024),
            "reportingController": format!("external-ip.dev/{}", names::CONTROLLER_NAME),
            "reportingInstance": names::CONTROLLER_NAME,
            "regarding": {
                "apiVersion": self.api_version, "kind": self.kind, "namespace": self.namespace,
                "name": self.name, "uid": self.uid,
            },
        })
    }
}

/// The API takes notes of at most 1 024 bytes.
fn truncated(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What became of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Written, or already so.
    Done,
    /// The object has changed since, or is gone: plan again when the watch shows it.
    Conflict,
    /// The name of a Service to be created is taken.
    NameTaken {
        /// UID of the object that has it.
        uid: String,
        /// Its resource version.
        version: u64,
        /// It is ours: only the watch is late.
        ours: bool,
        /// Its owner hands it over with [`names::ADOPT_ANNOTATION`].
        adoptable: bool,
        /// Keys of its selector.
        selector: Vec<String>,
        /// Addresses its load balancer has given it.
        addresses: Vec<IpAddr>,
    },
    /// The API server says no: quota, policy, rights, validation.
    Refused(String),
    /// No answer in time, or the server cannot answer now.
    Unreachable(String),
    /// This replica does not lead any more; nothing was sent.
    NotLeading,
}
