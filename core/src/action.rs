//! What the plan wants done. Plain data: the shell's one writer carries actions out and reports an [`Outcome`] each.
//!
//! Every action carries the precondition it was planned from, so that a deposed leader or a late cache cannot do
//! damage: the API server answers 409 and the plan is made again.

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
    /// Tells people. Its name is made from object and reason, so that a second leader does not repeat it.
    RecordEvent(Event),
}

impl Action {
    /// The Service an action changes.
    pub fn service(&self) -> Option<&Key> {
        match self {
            Self::CreateService(desired) | Self::UpdateService { desired, .. } => Some(&desired.key),
            Self::AnnotateService { key, .. } | Self::DeleteService { key, .. } => Some(key),
            Self::LabelPod { .. } | Self::RecordEvent(_) => None,
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
                {"op": "add", "path": format!("/metadata/labels/{}", names::POD_ID_LABEL.replace('/', "~1")), "value": pod_id},
            ]),
            Self::RecordEvent(event) => event.manifest(),
        }
    }
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
    },
    /// The API server says no: quota, policy, rights, validation.
    Refused(String),
    /// No answer in time, or the server cannot answer now.
    Unreachable(String),
    /// This replica does not lead any more; nothing was sent.
    NotLeading,
}
