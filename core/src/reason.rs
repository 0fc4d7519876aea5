//! Why a pod has no entry of state Routed. A closed enum: Events, the map, metrics and explain use the same words.

use std::fmt;
use std::str::FromStr;

/// A reason's stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The cluster label's value is not a cluster name.
    InvalidClusterName,
    /// Several clusters of the configuration select the pod.
    AmbiguousCluster,
    /// The pod belongs to no cluster.
    NotLabelled,
    /// The pod's namespace does not take part.
    NamespaceNotEnabled,
    /// The pod shares its node's address.
    HostNetwork,
    /// A kubelet's static pod.
    MirrorPod,
    /// The pod has ended.
    Finished,
    /// The ports annotation cannot be read.
    InvalidPorts,
    /// A port name no container declares.
    UnknownPort,
    /// Nothing to expose.
    NoPorts,
    /// A class the configuration does not have.
    UnknownClass,
    /// The class is not for this namespace.
    ClassNotAllowed,
    /// Await or inject cannot be read.
    InvalidSettings,
    /// The webhook could not read the review.
    UnreadableReview,
    /// The cluster has all the slots it may have.
    ClusterLimit,
    /// The namespace has all the slots it may have.
    NamespaceLimit,
    /// The class has all the load balancers it may have.
    ClassLimit,
    /// The installation has all the load balancers it may have.
    InstallationLimit,
    /// The pod cannot use a shared load balancer.
    CannotShare,
    /// The pod is exposed another way than its class wants first.
    SteppedDown,
    /// The node the pod is on has no address yet.
    WaitingForNode,
    /// Every static address of the class is another slot's.
    NoFreeAddress,
    /// No slot yet; it is being made.
    WaitingForSlot,
    /// The Service exists and waits for its address.
    WaitingForAddress,
    /// The Service's load balancer has a name, and the name no address.
    WaitingForName,
    /// The Service has waited too long for its address.
    NoLoadBalancer,
    /// The load balancer reports an error for a port.
    PortError,
    /// The load balancer has given another address than the slot asks for.
    OtherAddress,
    /// The slot's Service is not what its class says any more, and cannot be changed in place.
    ClassChanged,
    /// The Service is being changed to what the pod exposes.
    ServiceChanging,
    /// The Service is being deleted.
    ServiceDeleted,
    /// The pod has no address of its own yet.
    WaitingForPodIp,
    /// The slot's endpoints do not show the pod yet.
    WaitingForEndpoints,
    /// The slot's endpoints hold something that is not this pod.
    ForeignEndpoint,
    /// The class routes to ready pods only, and this one is not.
    NotReady,
    /// Two pods carry one identity.
    DuplicateIdentity,
    /// Two pods have one internal address.
    DuplicateInternalAddress,
    /// Two Services have one external address and port.
    DuplicateExternalAddress,
    /// An object that is not ours has the name of one of ours.
    NameTaken,
    /// The API server refused a write.
    WriteRefused,
    /// A document does not fit into its ConfigMap.
    DocumentTooLarge,
    /// A pod with a node of its own from the start cannot be held.
    NodeNameSet,
    /// A pod that is reached at its node's address has to start to have one.
    AddressOfNode,
    /// The pod has waited as long as it may.
    AwaitTimeout,
    /// The pod has its address, and waited for those of others as long as it may.
    MembersMissing,
    /// Pods of the class were held in vain, so the pod is not held.
    AwaitInVain,
    /// What the pod was told is not, or not any more, its address.
    ToldOtherwise,
}

struct Entry {
    code: Code,
    name: &'static str,
    sentence: &'static str,
    remedy: &'static str,
}

macro_rules! reasons {
    ($($code:ident: $sentence:literal, $remedy:literal;)*) => {
        const TABLE: &[Entry] = &[$(Entry {
            code: Code::$code, name: stringify!($code), sentence: $sentence, remedy: $remedy,
        }),*];
    };
}

reasons! {
    InvalidClusterName: "the label external-ip.dev/cluster is not a cluster name",
        "use at most 40 lower-case letters, digits and '-', starting with a letter";
    AmbiguousCluster: "more than one cluster of the configuration selects this pod",
        "make the selectors of the configuration's clusters disjoint";
    NotLabelled: "the pod belongs to no cluster",
        "label its workload's pod template external-ip.dev/cluster=NAME, or have its labels selected by clusters: of the configuration";
    NamespaceNotEnabled: "the pod's namespace does not take part",
        "ask the platform engineer for the label external-ip.dev/enabled=true on the namespace";
    HostNetwork: "the pod uses its node's network and has no address of its own",
        "remove hostNetwork, or reach it by its node's address";
    MirrorPod: "static pods of a kubelet cannot be exposed",
        "run the workload as a StatefulSet or Deployment";
    Finished: "the pod has ended",
        "nothing: a pod that has ended has no address";
    InvalidPorts: "the annotation external-ip.dev/ports cannot be read",
        "write ports as 11222, 11222/udp or a container port's name, comma separated";
    UnknownPort: "the annotation external-ip.dev/ports names a port no container declares",
        "declare the port in the container, or write its number";
    NoPorts: "there is no port to expose",
        "declare containerPorts or set the annotation external-ip.dev/ports";
    UnknownClass: "the class does not exist",
        "use a class of the configuration, or leave external-ip.dev/class out for the default";
    ClassNotAllowed: "the class is not for this namespace",
        "use another class, or ask the platform engineer to allow the namespace";
    InvalidSettings: "an external-ip.dev annotation cannot be read",
        "use await: true or false, inject: env and/or volume";
    UnreadableReview: "the pod could not be read when it was made",
        "nothing: the controller labels it later; report it, with the pod, if it happens again";
    ClusterLimit: "the cluster has all the slots it may have",
        "scale down, or ask the platform engineer to raise limits.slotsPerCluster";
    NamespaceLimit: "the namespace has all the slots it may have",
        "free slots of other clusters, or ask the platform engineer to raise limits.slotsPerNamespace";
    ClassLimit: "the class has all the load balancers it may have",
        "free slots of the class, or ask the platform engineer to raise its loadBalancers";
    InstallationLimit: "the installation has all the load balancers it may have",
        "free slots elsewhere, or raise limits.loadBalancers";
    CannotShare: "the pod cannot share a load balancer",
        "make the pod again where it has no names of shared ports; raise shared.portsPerService where it has too many ports";
    SteppedDown: "the pod is not exposed the way its class wants first",
        "nothing, if it shall stay; else, where the wanted way is possible again, external-ip-controller recreate CLUSTER --all";
    WaitingForNode: "the pod's node is not known, or has no address",
        "wait until the pod is scheduled; its node needs an ExternalIP or InternalIP";
    NoFreeAddress: "every address of the class's pool is another slot's",
        "add addresses to the class, or free slots: a kept one's Service may be deleted";
    WaitingForSlot: "the pod's slot is being made",
        "wait; it takes seconds once the controller has a leader";
    WaitingForAddress: "the load balancer has given no address yet",
        "wait; it depends on the load balancer";
    WaitingForName: "the load balancer's name has no address in DNS",
        "wait; new names take minutes; for names that only clients outside can resolve set resolveNames: false in the class";
    NoLoadBalancer: "the load balancer has given no address for 2 minutes",
        "check that a LoadBalancer controller is installed and has addresses left";
    PortError: "the load balancer reports an error for a port",
        "see the Service's status for the port";
    OtherAddress: "the load balancer has given another address than the slot asks for",
        "see the Service's Events; the load balancer must know the class's addresses and read the field that asks for one";
    ClassChanged: "the slot's Service is not what its class says, and would lose its address by becoming it",
        "nothing, if the address shall stay; else external-ip-controller recreate CLUSTER, which brings the new address first";
    ServiceChanging: "the slot's Service is being changed to what the pod exposes",
        "wait; it takes one write";
    ServiceDeleted: "the slot's Service is being deleted",
        "wait; it is made again";
    WaitingForPodIp: "the pod has no address of its own yet",
        "wait until the pod is started";
    WaitingForEndpoints: "the slot's endpoints do not show the pod yet",
        "wait; Kubernetes' EndpointSlice controller writes them";
    ForeignEndpoint: "the slot's endpoints hold something that is not this pod",
        "find who else carries the pod's stamp.external-ip.dev/pod-id label or writes EndpointSlices";
    NotReady: "the class publishes ready pods only",
        "wait until the pod is ready, or set publishNotReadyAddresses in the class";
    DuplicateIdentity: "another pod carries the same identity label",
        "remove copied stamp.external-ip.dev labels; the controller gives each pod its own";
    DuplicateInternalAddress: "another pod has the same internal address",
        "wait until the other pod is gone";
    DuplicateExternalAddress: "another Service has the same external address and port",
        "give each slot an address of its own in the load balancer";
    NameTaken: "an object that is not ours has the name of one of ours",
        "rename or delete it, or hand a Service over with the annotation external-ip.dev/adopt: \"true\"";
    WriteRefused: "the API server refused a write",
        "see the message; a ResourceQuota, a policy or missing rights are the usual causes";
    DocumentTooLarge: "the mapping is too large for a ConfigMap",
        "read it over HTTPS, or use the clusters' own ConfigMaps";
    NodeNameSet: "the pod was given its node when it was made and cannot wait for its address",
        "leave spec.nodeName out: the scheduler sets it once the address is known";
    AddressOfNode: "the pod is reached at its node, which is not chosen while it waits, and starts without waiting",
        "use exposure dedicated or shared for pods that await";
    AwaitTimeout: "no external address was known in time, and the pod starts without it",
        "check the load balancer, or raise await.timeout of the class; then delete the pod";
    MembersMissing: "the cluster does not have the addresses its pods wait for, and they start without",
        "check limits and load balancer, or lower await.members of the class";
    AwaitInVain: "pods of this class have waited in vain for addresses, and this one starts without waiting",
        "have addresses ready with spareSlots or retention; in an hour one pod waits again";
    ToldOtherwise: "what the pod was told of its external address is not what it has",
        "delete the pod: its successor is told the address there is";
}

impl Code {
    /// All codes, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|e| e.code)
    }

    fn entry(self) -> &'static Entry {
        // the table lists every variant once, in declaration order: checked by a test
        &TABLE[self as usize]
    }

    /// The name in documents, Events and metrics.
    pub fn as_str(self) -> &'static str {
        self.entry().name
    }

    /// What is the case, as a sentence without a full stop.
    pub fn sentence(self) -> &'static str {
        self.entry().sentence
    }

    /// What the reader can do about it.
    pub fn remedy(self) -> &'static str {
        self.entry().remedy
    }

    /// Whether somebody has to do something: such reasons become Events; the others pass by themselves.
    pub fn needs_attention(self) -> bool {
        !matches!(
            self,
            Self::NotLabelled
                | Self::Finished
                | Self::WaitingForSlot
                | Self::WaitingForAddress
                | Self::WaitingForName
                | Self::ServiceChanging
                | Self::ServiceDeleted
                | Self::WaitingForNode
                | Self::WaitingForPodIp
                | Self::WaitingForEndpoints
                | Self::NotReady
                | Self::DuplicateInternalAddress
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Code {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::all().find(|c| c.as_str() == text).ok_or_else(|| format!("'{text}' is not a reason"))
    }
}

/// A reason with the particulars of one case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    /// Which rule.
    pub code: Code,
    /// Object and value it is about; may be empty.
    pub detail: String,
}

impl Reason {
    /// `code` with particulars.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// What is the case and what to do, as one line.
    pub fn message(&self) -> String {
        let (sentence, remedy) = (self.code.sentence(), self.code.remedy());
        if self.detail.is_empty() {
            format!("{sentence}: {remedy}")
        } else {
            format!("{sentence} ({}): {remedy}", self.detail)
        }
    }
}

impl From<Code> for Reason {
    fn from(code: Code) -> Self {
        Self { code, detail: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways_and_the_table_is_in_order() {
        for (i, code) in Code::all().enumerate() {
            assert_eq!(code as usize, i);
            assert_eq!(code.as_str(), format!("{code:?}"));
            assert_eq!(code.as_str().parse::<Code>().unwrap(), code);
            assert!(!code.sentence().is_empty() && !code.remedy().is_empty());
        }
        assert_eq!(Code::all().count(), Code::ToldOtherwise as usize + 1);
        assert!("Nonsense".parse::<Code>().is_err());
    }
}
