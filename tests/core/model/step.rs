//! What can happen. Every step means something in every state (numbers are taken modulo what there is), so a history
//! from which steps are left out is a history: that is what makes a failure short.

mod random;

use crate::class::Class;
pub(crate) use random::{Mix, class, step};

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A pod is made; see [`crate::pods::Role`] for who it is.
    Born { who: u8, ports: u8, webhook: Webhook, forged: bool },
    /// A pod goes one step on in its life: gets its address and runs; where it terminates: loses its address, then goes.
    Kubelet { pod: u8 },
    /// A running pod's sandbox is made anew: another address under the same UID.
    NewIp { pod: u8 },
    /// Deleted with grace.
    Delete { pod: u8 },
    /// Deleted without.
    ForceDelete { pod: u8 },
    /// Succeeded or Failed.
    Finish { pod: u8, failed: bool },
    /// Its readiness changes.
    Ready { pod: u8 },
    /// Somebody changes the pod's cluster label.
    Move { pod: u8, to: Home },
    /// Somebody copies the identity label of one pod to another.
    CopyIdentity { from: u8, to: u8 },
    /// Somebody removes the identity label.
    DropIdentity { pod: u8 },
    /// Somebody changes the ports annotation.
    Ports { pod: u8, ports: u8 },
    /// Somebody changes the label by which shared Services select the pod.
    Share { pod: u8, with: Home },
    /// A node comes, goes, or has other addresses.
    Node { node: u8, change: NodeChange },
    /// The configuration is another one; a replica starts with it, the other one when it starts again.
    Configure { replica: u8, class: Class },
    /// Somebody edits a Service of ours.
    EditService { service: u8, edit: ServiceEdit },
    /// Somebody takes the name of a slot's Service, and may hand it over.
    Squat { slot: u8, adopt: bool },
    /// Somebody edits an EndpointSlice.
    EditSlice { slice: u8, edit: SliceEdit },
    /// The load balancer does something to a Service.
    Balance { service: u8, what: Balance },
    /// DNS says something else of the name of a Service's load balancer.
    Name { service: u8, leads: Leads },
    /// A replica that leads asks DNS for a name.
    Ask { replica: u8, which: u8 },
    /// The namespace gets or loses its label.
    Namespace { enabled: bool },
    /// The EndpointSlice controller sees more of what has happened.
    EndpointsSee { pods: bool, events: u8 },
    /// The EndpointSlice controller writes one Service's slices from what it has seen.
    Endpoints { service: u8 },
    /// Some messages of one watch reach a replica together.
    Deliver { replica: u8, feed: u8, messages: u8 },
    /// The last message once more.
    Repeat { replica: u8, feed: u8 },
    /// The connection breaks, what happened meanwhile is not told, then a new list.
    Relist { replica: u8, feed: u8 },
    /// Everything up to now was told, says the API server.
    Bookmark { replica: u8, feed: u8 },
    /// Everything that has happened reaches a replica, kind by kind from `first` on.
    CatchUp { replica: u8, first: u8 },
    /// A replica dies and starts again; what it has sent is on its way.
    Crash { replica: u8 },
    /// A replica begins or ceases to believe that it leads.
    Lead { replica: u8, leads: bool },
    /// One of a replica's planned writes arrives at the API server.
    Write { replica: u8, which: u8, fate: Fate },
    /// The answers to a replica's writes arrive.
    Answers { replica: u8 },
    /// All of the cluster's own controllers do their work, all messages and writes arrive; no time passes.
    Settle,
    /// Seconds pass.
    Pass { seconds: u16 },
}

/// Who answers a pod's admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Webhook {
    /// Nobody: it is not reached in time.
    Absent,
    /// This replica.
    Of(u8),
}

/// Cluster of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// By label.
    C,
    /// By label.
    D,
    /// None.
    Nowhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeChange {
    /// It has addresses inside only.
    Inside,
    /// It has one outside, too.
    Outside { address: u8 },
    /// It has none.
    Bare,
    /// It is removed; its pods are still there.
    Gone,
    /// Those that were removed are there again.
    Back,
}

/// Part of a Service's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortField {
    Name,
    Target,
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceEdit {
    /// The selector names another pod.
    SelectorOf { pod: u8 },
    /// The selector is emptied: nobody writes slices any more.
    NoSelector,
    /// The selector gets a second key.
    ExtraSelector,
    /// The first port leads to another port of the pod.
    TargetPort,
    /// The first port and the last have each other's.
    Swap { field: PortField },
    /// The first port has another node port.
    Renumber,
    /// It says it is reached by nodes where it is by a load balancer, or the other way round.
    Exposure,
    /// The cluster label is another cluster's.
    ClusterLabel,
    /// The managed-by label goes: the Service leaves the watch.
    Unlabel,
    /// And is put back.
    Relabel,
    /// Another installation's.
    Owner,
    /// Kept for another name.
    KeptFor { pod: u8 },
    /// Another one is asked for in its place, or not any more.
    Recreate,
    /// Deleted; a load balancer's finalizer may hold it.
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SliceEdit {
    /// A slice of somebody else's for one of our Services, that leads to a pod.
    Foreign { service: u8, pod: u8 },
    /// An endpoint's address is another pod's, its reference stays.
    AddressOf { pod: u8 },
    /// The port is another.
    Port,
    /// Says it belongs to another Service.
    Service { service: u8 },
    /// Deleted.
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Balance {
    /// Gives addresses, or lets a deleted Service go and its addresses with it.
    Serve,
    /// Takes the address back.
    Withdraw,
    /// Another address.
    Change,
    /// The address of another Service.
    SameAs { service: u8 },
    /// A host name beside the addresses.
    Host,
    /// A host name and no address.
    Named,
    /// An error for a port.
    PortError,
}

/// Where a load balancer's name leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leads {
    /// To its addresses.
    Home,
    /// To those of another Service's load balancer.
    Astray { service: u8 },
    /// Nowhere.
    Nowhere,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Carried out and answered.
    Answered,
    /// Lost on the way.
    Lost,
    /// Carried out; the answer is lost.
    Unanswered,
    /// Refused by a quota or policy.
    Refused,
}
