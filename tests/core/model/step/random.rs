//! Steps at random.

use proptest::prelude::*;

use super::{Balance, Fate, Home, Leads, NodeChange, PortField, ServiceEdit, SliceEdit, Step, Webhook};
use crate::class::{Class, Order};

fn home() -> impl Strategy<Value = Home> {
    prop_oneof![Just(Home::C), Just(Home::D), Just(Home::Nowhere)]
}

fn webhook() -> impl Strategy<Value = Webhook> {
    prop_oneof![3 => (0u8..2).prop_map(Webhook::Of), 1 => Just(Webhook::Absent)]
}

fn port_edit() -> impl Strategy<Value = ServiceEdit> {
    let field = prop_oneof![Just(PortField::Name), Just(PortField::Target), Just(PortField::Number)];
    prop_oneof![
        3 => field.prop_map(|field| ServiceEdit::Swap { field }),
        1 => Just(ServiceEdit::Renumber),
        1 => Just(ServiceEdit::Exposure),
    ]
}

fn node_change() -> impl Strategy<Value = NodeChange> {
    prop_oneof![
        2 => Just(NodeChange::Inside),
        4 => (0u8..4).prop_map(|address| NodeChange::Outside { address }),
        1 => Just(NodeChange::Bare),
        2 => Just(NodeChange::Gone),
        2 => Just(NodeChange::Back),
    ]
}

/// A class with one of these orders.
pub(crate) fn class(orders: &'static [Order]) -> impl Strategy<Value = Class> {
    let pool = prop_oneof![3 => Just(0), 1 => 1u8..8];
    let budget = prop_oneof![9 => Just(0u8), 1 => 1u8..3];
    (prop::sample::select(orders), prop::bool::weighted(0.8), pool, 2u8..5, budget).prop_map(
        |(order, not_ready_too, pool, room, budget)| Class { order, not_ready_too, pool, room, budget },
    )
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
        8 => (0u8..10, prop_oneof![3 => Just(0u8), 1 => 1u8..3], webhook(), prop::bool::weighted(0.1))
            .prop_map(|(who, ports, webhook, forged)| Step::Born { who, ports, webhook, forged }),
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
        1 => (0u8..6, any::<bool>()).prop_map(|(slot, adopt)| Step::Squat { slot, adopt }),
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

/// What happens where pods share, are reached by nodes, and the configuration changes.
fn of_classes(orders: &'static [Order]) -> impl Strategy<Value = Step> {
    let one = || 0u8..8;
    prop_oneof![
        3 => (one(), node_change()).prop_map(|(node, change)| Step::Node { node, change }),
        2 => (one(), home()).prop_map(|(pod, with)| Step::Share { pod, with }),
        4 => (one(), port_edit()).prop_map(|(service, edit)| Step::EditService { service, edit }),
        1 => (0u8..2, class(orders)).prop_map(|(replica, class)| Step::Configure { replica, class }),
    ]
}

/// How much of what happens in a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    /// What classes want.
    pub(crate) orders: &'static [Order],
    pub(crate) classes: u32,
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
        mix.classes => of_classes(mix.orders),
        mix.pods => of_pods(),
        mix.others => of_others(),
        mix.controllers => of_controllers(),
        mix.replicas => of_replicas(),
        mix.settle => Just(Step::Settle),
        mix.pass => prop_oneof![3 => 1u16..45, 2 => 45u16..300, 2 => 300u16..800].prop_map(|seconds| Step::Pass { seconds }),
    ]
}
