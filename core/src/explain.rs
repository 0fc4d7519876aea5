//! Why a pod stands where it stands, and what has to happen next. One function for the HTTPS listener and the command
//! line, from the same state as the map: both say what the map says.

mod step;
mod text;

use serde::Serialize;

use crate::claim::{self, Slots};
use crate::formats::document;
use crate::mapping::{self, Entry, EntryState, Internal};
use crate::names::Key;
use crate::objects::{Pod, Service};
use crate::reason::{Code, Reason};
use crate::state::State;

pub use step::{Progress, Stage, Step};
pub use text::text;

/// All there is to say about one pod. The fields of its entry in the map come last, under their own names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Explanation {
    /// Namespace.
    pub namespace: String,
    /// The cluster it belongs to.
    pub cluster: Option<String>,
    /// Its class, where it asks for one it may have.
    pub class: Option<String>,
    /// The latest time that Kubernetes has recorded for what decides the state (RFC 3339): creation of pod and Service,
    /// the last write of the Service's status, the change of pods that made the endpoints, the pod's readiness.
    /// Labels and selectors have no time of their own.
    pub since: String,
    /// What to do about the reason, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
    /// The Service of its slot.
    pub service: Option<String>,
    /// What has to happen, in order, and where it stands.
    pub steps: Vec<Step>,
    /// As in the map.
    #[serde(flatten)]
    pub entry: Entry,
}

impl Explanation {
    /// The reason's code, where there is one.
    pub fn code(&self) -> Option<Code> {
        self.entry.reason.and_then(|name| name.parse().ok())
    }
}

/// As JSON.
pub fn json(explanation: &Explanation) -> String {
    document::to_json(explanation)
}

/// As YAML.
pub fn yaml(explanation: &Explanation) -> String {
    document::to_yaml(explanation)
}

/// Explains a pod; `None` where no pod of this name has been seen.
pub fn pod(state: &State, key: &Key) -> Option<Explanation> {
    let pod = state.pod(key)?;
    Some(match state.cluster_of(pod) {
        Some(cluster) => member(state, &cluster, pod),
        None => stranger(pod),
    })
}

fn member(state: &State, cluster: &Key, pod: &Pod) -> Explanation {
    let claim = claim::claim(state, cluster, pod);
    let slots = Slots::of(state, cluster);
    let entry = mapping::entry(state, cluster, &claim, &slots);
    let service = slots.iter().find(|(number, _)| Some(*number) == entry.slot).map(|(_, service)| service);
    let class = claim.demand.as_ref().ok().map(|d| d.class_name.to_owned());
    let mut explanation = Explanation {
        namespace: cluster.namespace.to_string(),
        cluster: Some(cluster.name.to_string()),
        class,
        since: time(since(state, pod, service, &entry)),
        remedy: None,
        service: service.map(|s| s.key.name.to_string()),
        steps: Vec::new(),
        entry,
    };
    explanation.remedy = explanation.code().map(Code::remedy);
    explanation.steps = step::steps(&explanation, claim.pod_id);
    explanation
}

/// A pod of no cluster.
fn stranger(pod: &Pod) -> Explanation {
    let reason = Reason::from(Code::NotLabelled);
    let mut explanation = Explanation {
        namespace: pod.key.namespace.to_string(),
        cluster: None,
        class: None,
        since: time(pod.created),
        remedy: Some(reason.code.remedy()),
        service: None,
        steps: Vec::new(),
        entry: Entry {
            pod: pod.key.name.to_string(),
            uid: pod.uid.clone(),
            slot: None,
            state: EntryState::Pending,
            reason: Some(reason.code.as_str()),
            message: Some(reason.message()),
            drift: None,
            terminating: pod.terminating,
            ready: pod.ready && !pod.finished,
            reachable: None,
            internal: Internal::default(),
            external: None,
            ports: Vec::new(),
            told: None,
        },
    };
    explanation.steps = step::steps(&explanation, None);
    explanation
}

/// Seconds since 1970; see [`Explanation::since`].
fn since(state: &State, pod: &Pod, service: Option<&Service>, entry: &Entry) -> i64 {
    let mut times = vec![pod.created];
    if pod.finished || entry.reason == Some(Code::NotReady.as_str()) {
        times.push(pod.ready_changed);
    }
    if let Some(service) = service {
        times.push(service.created);
        if entry.external.is_some() {
            times.push(service.status_written);
        }
        if entry.state == EntryState::Routed {
            times.extend(state.slices_of(&service.key).map(|slice| slice.triggered));
        }
    }
    times.into_iter().max().unwrap_or(0)
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}
