//! The way of a pod from being seen to being reached.

use serde::Serialize;

use super::Explanation;
use crate::mapping::External;
use crate::reason::Code;

/// A stage of the way, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Stage {
    /// The pod belongs to a cluster and asks for something it may have.
    Seen,
    /// It carries its identity label.
    Identity,
    /// It holds a slot.
    Slot,
    /// The slot's Service is what the pod asks for.
    Service,
    /// The Service has its address.
    Address,
    /// The Service's endpoints are exactly this pod.
    Endpoints,
    /// The address leads to the pod.
    Routed,
}

impl Stage {
    const ALL: [Self; 7] =
        [Self::Seen, Self::Identity, Self::Slot, Self::Service, Self::Address, Self::Endpoints, Self::Routed];

    /// The word in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Identity => "identity",
            Self::Slot => "slot",
            Self::Service => "service",
            Self::Address => "address",
            Self::Endpoints => "endpoints",
            Self::Routed => "routed",
        }
    }

    /// Where a pod with this reason stands.
    pub fn of(code: Code) -> Self {
        match code {
            Code::InvalidClusterName
            | Code::AmbiguousCluster
            | Code::NotLabelled
            | Code::NamespaceNotEnabled
            | Code::HostNetwork
            | Code::MirrorPod
            | Code::Finished
            | Code::InvalidPorts
            | Code::UnknownPort
            | Code::NoPorts
            | Code::UnknownClass
            | Code::ClassNotAllowed
            | Code::InvalidSettings
            | Code::UnreadableReview => Self::Seen,
            Code::DuplicateIdentity => Self::Identity,
            Code::ClusterLimit
            | Code::NamespaceLimit
            | Code::ClassLimit
            | Code::InstallationLimit
            | Code::CannotShare
            | Code::NoFreeAddress
            | Code::WaitingForSlot
            | Code::NameTaken
            | Code::WriteRefused => Self::Slot,
            Code::ServiceChanging | Code::ServiceDeleted => Self::Service,
            Code::WaitingForAddress
            | Code::WaitingForName
            | Code::WaitingForNode
            | Code::NoLoadBalancer
            | Code::PortError
            | Code::NodeNameSet
            | Code::AddressOfNode
            | Code::AwaitTimeout
            | Code::MembersMissing
            | Code::AwaitInVain
            | Code::DuplicateExternalAddress => Self::Address,
            Code::WaitingForPodIp
            | Code::WaitingForEndpoints
            | Code::ForeignEndpoint
            | Code::NotReady
            | Code::DuplicateInternalAddress => Self::Endpoints,
            Code::SteppedDown
            | Code::OtherAddress
            | Code::ClassChanged
            | Code::DocumentTooLarge
            | Code::ToldOtherwise => Self::Routed,
        }
    }
}

/// How far a stage has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Progress {
    /// It is behind the pod.
    Done,
    /// The pod stands here.
    Here,
    /// It is still to come.
    Open,
}

/// One stage of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Step {
    /// Which.
    pub stage: Stage,
    /// How far it has come.
    pub progress: Progress,
    /// What has been found, or what it waits for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// All stages of a pod, in order.
pub(super) fn steps(explanation: &Explanation, pod_id: Option<&str>) -> Vec<Step> {
    let stands = explanation.code().map(|code| match Stage::of(code) {
        later if pod_id.is_none() && later > Stage::Identity => Stage::Identity,
        stage => stage,
    });
    let step = |stage: Stage| {
        // a Service that is being changed keeps its address
        let known = stage == Stage::Address && explanation.entry.external.is_some();
        let progress = match stands {
            Some(here) if stage == here => Progress::Here,
            Some(here) if stage > here && !known => Progress::Open,
            _ => Progress::Done,
        };
        let detail = match progress {
            Progress::Done => found(stage, explanation, pod_id),
            Progress::Here => explanation.why(),
            Progress::Open => String::new(),
        };
        Step { stage, progress, detail }
    };
    Stage::ALL.map(step).into()
}

fn found(stage: Stage, explanation: &Explanation, pod_id: Option<&str>) -> String {
    let entry = &explanation.entry;
    match stage {
        Stage::Seen => {
            let of = |what: &Option<String>| what.clone().unwrap_or_default();
            format!("cluster {}, class {}", of(&explanation.cluster), of(&explanation.class))
        }
        Stage::Identity => pod_id.unwrap_or_default().to_owned(),
        Stage::Slot => entry.slot.map(|n| n.to_string()).unwrap_or_default(),
        Stage::Service => explanation.service.clone().unwrap_or_default(),
        Stage::Address => entry.external.as_ref().map(External::list).unwrap_or_default(),
        Stage::Endpoints => super::text::list(&entry.internal.ips),
        Stage::Routed => super::text::ports(entry),
    }
}
