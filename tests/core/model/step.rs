//! What can happen. Every step means something in every state (numbers are taken modulo what there is), so a history
//! from which steps are left out is a history: that is what makes a failure short.

use proptest::prelude::*;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A pod is made; see [`crate::pods::Role`] for who it is.
    Born { who: u8, webhook: Webhook, forged: bool },
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
pub(crate) enum ServiceEdit {
    /// The selector names another pod.
    SelectorOf { pod: u8 },
    /// The selector is emptied: nobody writes slices any more.
    NoSelector,
    /// The selector gets a second key.
    ExtraSelector,
    /// The first port leads to another port of the pod.
    TargetPort,
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

fn home() -> impl Strategy<Value = Home> {
    prop_oneof![Just(Home::C), Just(Home::D), Just(Home::Nowhere)]
}

fn webhook() -> impl Strategy<Value = Webhook> {
    prop_oneof![3 => (0u8..2).prop_map(Webhook::Of), 1 => Just(Webhook::Absent)]
}

fn service_edit() -> impl Strategy<Value = ServiceEdit> {
    use ServiceEdit::*;
    let pod = || 0u8..8;
    prop_oneof![
        2 => pod().prop_map(|pod| SelectorOf { pod }),
        1 => Just(NoSelector),
        1 => Just(ExtraSelector),
        2 => Just(TargetPort),
        1 => Just(ClusterLabel),
        2 => Just(Unlabel),
        5 => Just(Relabel),
        1 => Just(Owner),
        1 => pod().prop_map(|pod| KeptFor { pod }),
        2 => Just(Recreate),
        2 => Just(Delete),
    ]
}

fn slice_edit() -> impl Strategy<Value = SliceEdit> {
    use SliceEdit::*;
    let any = || 0u8..8;
    prop_oneof![
        (any(), any()).prop_map(|(service, pod)| Foreign { service, pod }),
        any().prop_map(|pod| AddressOf { pod }),
        Just(Port),
        any().prop_map(|service| Service { service }),
        Just(Delete),
    ]
}

fn balance() -> impl Strategy<Value = Balance> {
    use Balance::*;
    prop_oneof![
        8 => Just(Serve),
        2 => Just(Withdraw),
        2 => Just(Change),
        2 => (0u8..8).prop_map(|service| SameAs { service }),
        1 => Just(Host),
        4 => Just(Named),
        1 => Just(PortError),
    ]
}

fn leads() -> impl Strategy<Value = Leads> {
    prop_oneof![
        6 => Just(Leads::Home),
        1 => (0u8..8).prop_map(|service| Leads::Astray { service }),
        1 => Just(Leads::Nowhere),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![12 => Just(Fate::Answered), 1 => Just(Fate::Lost), 1 => Just(Fate::Unanswered), 1 => Just(Fate::Refused)]
}

fn of_pods() -> impl Strategy<Value = Step> {
    let pod = || 0u8..8;
    prop_oneof![
        8 => (0u8..10, webhook(), prop::bool::weighted(0.1))
            .prop_map(|(who, webhook, forged)| Step::Born { who, webhook, forged }),
        8 => pod().prop_map(|pod| Step::Kubelet { pod }),
        2 => pod().prop_map(|pod| Step::NewIp { pod }),
        2 => pod().prop_map(|pod| Step::Delete { pod }),
        2 => pod().prop_map(|pod| Step::ForceDelete { pod }),
        1 => (pod(), any::<bool>()).prop_map(|(pod, failed)| Step::Finish { pod, failed }),
        1 => pod().prop_map(|pod| Step::Ready { pod }),
        1 => (pod(), home()).prop_map(|(pod, to)| Step::Move { pod, to }),
        1 => (pod(), pod()).prop_map(|(from, to)| Step::CopyIdentity { from, to }),
        1 => pod().prop_map(|pod| Step::DropIdentity { pod }),
        1 => (pod(), 0u8..3).prop_map(|(pod, ports)| Step::Ports { pod, ports }),
    ]
}

fn of_others() -> impl Strategy<Value = Step> {
    let one = || 0u8..8;
    prop_oneof![
        4 => (one(), service_edit()).prop_map(|(service, edit)| Step::EditService { service, edit }),
        1 => (0u8..4, any::<bool>()).prop_map(|(slot, adopt)| Step::Squat { slot, adopt }),
        4 => (one(), slice_edit()).prop_map(|(slice, edit)| Step::EditSlice { slice, edit }),
        1 => any::<bool>().prop_map(|enabled| Step::Namespace { enabled }),
    ]
}

fn of_controllers() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u8..8, balance()).prop_map(|(service, what)| Step::Balance { service, what }),
        1 => (0u8..8, leads()).prop_map(|(service, leads)| Step::Name { service, leads }),
        3 => (any::<bool>(), 1u8..12).prop_map(|(pods, events)| Step::EndpointsSee { pods, events }),
        4 => (0u8..8).prop_map(|service| Step::Endpoints { service }),
    ]
}

fn of_replicas() -> impl Strategy<Value = Step> {
    let replica = || 0u8..2;
    let feed = || 0u8..crate::replica::FEEDS;
    prop_oneof![
        28 => (replica(), feed(), 1u8..6).prop_map(|(replica, feed, messages)| Step::Deliver { replica, feed, messages }),
        2 => (replica(), feed()).prop_map(|(replica, feed)| Step::Repeat { replica, feed }),
        2 => (replica(), feed()).prop_map(|(replica, feed)| Step::Relist { replica, feed }),
        2 => (replica(), feed()).prop_map(|(replica, feed)| Step::Bookmark { replica, feed }),
        4 => (replica(), feed()).prop_map(|(replica, first)| Step::CatchUp { replica, first }),
        1 => replica().prop_map(|replica| Step::Crash { replica }),
        2 => (replica(), prop::bool::weighted(0.6)).prop_map(|(replica, leads)| Step::Lead { replica, leads }),
        20 => (replica(), any::<u8>(), fate()).prop_map(|(replica, which, fate)| Step::Write { replica, which, fate }),
        8 => (replica(), any::<u8>()).prop_map(|(replica, which)| Step::Ask { replica, which }),
        8 => replica().prop_map(|replica| Step::Answers { replica }),
    ]
}

/// How much of what happens in a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) pods: u32,
    pub(crate) others: u32,
    pub(crate) controllers: u32,
    pub(crate) replicas: u32,
    pub(crate) settle: u32,
    pub(crate) pass: u32,
}

/// A step of a history.
pub(crate) fn step(mix: Mix) -> impl Strategy<Value = Step> {
    prop_oneof![
        mix.pods => of_pods(),
        mix.others => of_others(),
        mix.controllers => of_controllers(),
        mix.replicas => of_replicas(),
        mix.settle => Just(Step::Settle),
        mix.pass => prop_oneof![3 => 1u16..45, 2 => 45u16..300, 2 => 300u16..800].prop_map(|seconds| Step::Pass { seconds }),
    ]
}
