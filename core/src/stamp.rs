//! The webhook's decision: an AdmissionReview in, its answer out. A pod is never refused, whatever it says: a refused
//! CREATE stalls a rollout for a typo. What cannot be exposed is left alone, with an admission warning.

mod json;
mod patch;
mod ports;
mod review;
mod spec;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::demand::{Ask, Demand, Membership, cluster_of, demand, quoted};
use crate::mapping::{self, SlotAddress};
use crate::names::{self, Key};
use crate::objects::ContainerPort;
use crate::reason::{Code, Reason};
use crate::settings::{Exposure, Settings};
use crate::shared;
use crate::told;
use patch::Wanted;
use review::{BareReview, Metadata, NamedObject, PodObject, Request, Review};
use spec::WantedSpec;

/// Value of [`names::STAMP_VERSION_ANNOTATION`].
pub const STAMP_VERSION: &str = "1";

/// Longest warning in bytes: the API server may cut what is longer than 256 characters.
const WARNING_MAX: usize = 256;

/// An answer without its patch.
const ENVELOPE_BYTES: usize = 512;

/// The answer to a review, and what the shell logs and counts about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// AdmissionReview `admission.k8s.io/v1` with the response, JSON.
    pub body: Vec<u8>,
    /// Why a pod that belongs to a cluster was not stamped.
    pub skipped: Option<Reason>,
    /// The pod got the identity of a cluster's member.
    pub stamped: bool,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// Namespace of the pod; empty where the review does not say.
    pub namespace: String,
    /// Name of the pod, or what it will begin with.
    pub pod: String,
}

/// Why a body cannot be answered at all: an answer must repeat the request's UID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an AdmissionReview with a request and its uid: {0}")]
pub struct Unanswerable(String);

/// Finds the address kept for a pod name of a cluster (namespace and name); `None` where none is known for certain.
pub type KeptSlots<'a> = &'a dyn Fn(&Key, &str) -> Option<SlotAddress>;

/// Answers a review. A dry run is answered like any other: deciding has no side effect.
pub fn answer(body: &[u8], settings: &Settings, slots: KeptSlots) -> Result<Answer, Unanswerable> {
    // one check for the whole body is faster than one per string, and 30 times faster than the lossy way, which is
    // for bodies that are broken anyway
    let body = str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed);
    let (decision, uid) = match json::read::<Review<PodObject>>(&body) {
        Ok(Review { request }) if !request.uid().is_empty() => {
            (decide(&request, settings, slots), request.uid().to_owned())
        }
        Ok(_) => return Err(Unanswerable("the uid is empty".to_owned())),
        Err(error) => salvage(&body, &error)?,
    };
    let response = Response {
        uid: &uid,
        allowed: true,
        patch_type: decision.patch.is_some().then_some("JSONPatch"),
        patch: decision.patch.as_deref().and_then(encoded),
        warnings: decision.warnings,
    };
    let review = AnsweredReview { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response };
    let mut body =
        Vec::with_capacity(ENVELOPE_BYTES + review.response.patch.as_ref().map_or(0, |p| p.get().len()));
    // strings always serialize
    serde_json::to_writer(&mut body, &review).map_err(|e| Unanswerable(e.to_string()))?;
    let Decision { skipped, stamped, dry_run, namespace, pod, .. } = decision;
    Ok(Answer { body, skipped, stamped, dry_run, namespace, pod })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnsweredReview<'a> {
    api_version: &'a str,
    kind: &'a str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A patch as base64, already as JSON: no letter of it needs to be escaped, which serde would look for in each.
fn encoded(patch: &[u8]) -> Option<Box<RawValue>> {
    let mut text = String::with_capacity(patch.len() / 3 * 4 + 6);
    text.push('"');
    BASE64_STANDARD.encode_string(patch, &mut text);
    text.push('"');
    RawValue::from_string(text).ok()
}

#[derive(Debug, Default)]
struct Decision {
    patch: Option<Vec<u8>>,
    warnings: Vec<String>,
    skipped: Option<Reason>,
    stamped: bool,
    dry_run: bool,
    namespace: String,
    pod: String,
}

impl Decision {
    fn about<O>(request: &Request<'_, O>, metadata: Option<&Metadata<'_>>) -> Self {
        let namespace = match request.namespace() {
            "" => metadata.map_or("", Metadata::namespace),
            given => given,
        };
        Self {
            dry_run: request.dry_run(),
            namespace: namespace.to_owned(),
            pod: metadata.map_or("", Metadata::display_name).to_owned(),
            ..Self::default()
        }
    }

    fn skip(&mut self, reason: Reason) {
        self.warnings.push(warning(&format!("not exposed: {}", reason.message())));
        self.skipped = Some(reason);
    }
}

/// The decision about a review that could be read.
fn decide(request: &Request<'_, PodObject<'_>>, settings: &Settings, slots: KeptSlots) -> Decision {
    let metadata = request.object.as_ref().and_then(|o| o.metadata.as_ref());
    let mut decision = Decision::about(request, metadata);
    if !request.creates_pod() {
        return decision;
    }
    let (Some(pod), Some(metadata)) = (&request.object, metadata) else {
        decision.skip(Reason::new(Code::UnreadableReview, "no object"));
        return decision;
    };
    let wanted = match member_of(pod, metadata, &decision.namespace, settings) {
        Ok(None) => Wanted::default(),
        Ok(Some(member)) => {
            decision.stamped = true;
            let mut wanted = stamp(&member, metadata.name(), request.uid(), slots);
            decision.warnings.extend(hold(&mut wanted, pod, &member.demand));
            wanted
        }
        Err(reason) => {
            decision.skip(reason);
            Wanted::default()
        }
    };
    decision.patch = patch::patch(metadata, Some(pod), &wanted);
    decision
}

/// The decision about a review that could not be read as a whole, and its UID.
fn salvage(body: &str, error: &json::Error) -> Result<(Decision, String), Unanswerable> {
    let (mut decision, uid, is_pod);
    if let Ok(Review { request }) = json::read::<Review<NamedObject>>(body) {
        let metadata = request.object.as_ref().and_then(|o| o.metadata.as_ref());
        is_pod = request.creates_pod();
        uid = request.uid().to_owned();
        decision = Decision::about(&request, metadata);
        decision.patch = metadata.filter(|_| is_pod).and_then(|m| patch::patch(m, None, &Wanted::default()));
    } else {
        let BareReview { request } = json::read(body).map_err(|e| Unanswerable(e.to_string()))?;
        is_pod = true;
        uid = request.uid.as_str().to_owned();
        decision = Decision::default();
    }
    if uid.is_empty() {
        return Err(Unanswerable("the uid is empty".to_owned()));
    }
    if is_pod {
        decision.skip(Reason::new(Code::UnreadableReview, quoted(&error.to_string())));
    }
    Ok((decision, uid))
}

/// A pod that takes part.
struct Member<'s> {
    cluster: Key,
    demand: Demand<'s>,
}

fn member_of<'s>(
    pod: &PodObject<'_>,
    metadata: &Metadata<'_>,
    namespace: &str,
    settings: &'s Settings,
) -> Result<Option<Member<'s>>, Reason> {
    let (name, configured) = match cluster_of(|key| metadata.label(key), namespace, settings) {
        Membership::None => return Ok(None),
        Membership::Cluster { name, configured } => (name, configured),
        Membership::Ambiguous { names } => {
            return Err(Reason::new(Code::AmbiguousCluster, names.join(", ")));
        }
    };
    let ask = Ask {
        namespace,
        cluster: &name,
        ports_annotation: metadata.annotation(names::PORTS_ANNOTATION),
        class_annotation: metadata.annotation(names::CLASS_ANNOTATION),
        await_annotation: metadata.annotation(names::AWAIT_ANNOTATION),
        inject_annotation: metadata.annotation(names::INJECT_ANNOTATION),
        container_ports: &declared_ports(pod, metadata),
        host_network: pod.host_network(),
        mirror: metadata.annotation(names::MIRROR_ANNOTATION).is_some(),
        configured,
    };
    let demand = demand(&ask, settings)?;
    Ok(Some(Member { cluster: Key::new(namespace, name), demand }))
}

/// Ports the pod's author declares: without the shared names that a copied pod brings along.
fn declared_ports(pod: &PodObject<'_>, metadata: &Metadata<'_>) -> Vec<ContainerPort> {
    let mut ports = pod.container_ports();
    if metadata.label(names::SHARED_LABEL).is_some() {
        ports.retain(|p| shared::token_of(&p.name).is_none());
    }
    ports
}

/// Names of shared ports, wherever the class may ever share: container ports cannot be added later.
fn shared_ports(member: &Member<'_>, pod_id: &str) -> Vec<ports::Named> {
    if !member.demand.class.exposure.contains(&Exposure::Shared) {
        return Vec::new();
    }
    let exposed: Vec<_> = member.demand.ports.iter().map(|p| (p.target, p.protocol)).collect();
    let names = shared::port_names(pod_id, &exposed);
    names.into_iter().zip(exposed).map(|(name, (number, protocol))| (name, number, protocol)).collect()
}

/// What a member shall be. `uid` is the request's: the answer to a repeated review is the same.
fn stamp(member: &Member<'_>, pod: Option<&str>, uid: &str, slots: KeptSlots) -> Wanted {
    let (cluster, demand) = (&*member.cluster.name, &member.demand);
    let pod_id = match pod {
        Some(pod) => names::pod_id_of_name(cluster, pod),
        None => names::pod_id_of_seed(cluster, uid),
    };
    let shared = shared_ports(member, &pod_id);
    let mut labels = BTreeMap::new();
    let mut token = None;
    if !shared.is_empty() {
        token = Some(mapping::kept_by_token(&names::share_token(&pod_id)));
        labels.insert(names::SHARED_LABEL.into(), cluster.to_owned());
    }
    labels.insert(names::POD_ID_LABEL.into(), pod_id);
    let kept = |place: &str| slots(&member.cluster, place);
    let kept = pod.and_then(|pod| kept(pod).or_else(|| kept(&token?)));
    let told = kept.as_ref().map(|kept| told::annotations(kept, &demand.ports)).unwrap_or_default();
    let version = (names::STAMP_VERSION_ANNOTATION.into(), STAMP_VERSION.to_owned());
    // where a pod waits for others as well, the controller counts them
    let alone = demand.class.await_address.members <= 1;
    let warm = alone && kept.is_some_and(|kept| told::is_whole(&kept, &demand.ports));
    Wanted {
        labels,
        ports: shared,
        annotations: told.into_iter().map(|(key, value)| (key.into(), value)).chain([version]).collect(),
        spec: WantedSpec {
            gate: demand.waits && !warm,
            readiness: demand.class.readiness_gate,
            inject: demand.inject,
            ports: demand.ports.iter().map(|p| (p.target, p.protocol)).collect(),
        },
    }
}

/// Holds the pod only where that is possible and of use; else the warning.
fn hold(wanted: &mut Wanted, pod: &PodObject<'_>, demand: &Demand<'_>) -> Option<String> {
    let code = match demand.class.exposure.first() {
        _ if !wanted.spec.gate => return None,
        _ if pod.has_node() => Code::NodeNameSet,
        Some(Exposure::NodePort) => Code::AddressOfNode,
        _ => return None,
    };
    wanted.spec.gate = false;
    Some(warning(&Reason::from(code).message()))
}

/// A line for the person at `kubectl`: without control characters, short enough not to be cut by the API server.
fn warning(text: &str) -> String {
    let mut line = format!("external-ip.dev: {text}").replace(char::is_control, " ");
    if line.len() > WARNING_MAX {
        let mut end = WARNING_MAX - '…'.len_utf8();
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('…');
    }
    line
}
