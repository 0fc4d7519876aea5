//! Histories that once went wrong, found by the model, each as short as it became.

mod shared;

use crate::class::{Class, Order, Setting};
use crate::step::Webhook::{Absent, Of};
use crate::step::{Balance, Fate, Home, Leads, ServiceEdit, SliceEdit, Step};
use crate::world::World;

const CLASS: Class = Class { order: Order::Dedicated, not_ready_too: true, pool: 0, room: 3, budget: 0 };
const SETTING: Setting = Setting { dual: false, limits: (64, 128, 1000), class: CLASS };

/// Lives a history and tells it: what was done, and every change at the API server with its version.
fn goes_well(setting: Setting, steps: &[Step]) {
    let mut stats = crate::stats::Stats::default();
    let mut world = World::new(&setting, &mut stats);
    let result = (|| {
        world.take(Step::Settle)?;
        for step in steps {
            let before = world.server.log.len();
            println!("{step:?}");
            let result = world.take(*step);
            for event in &world.server.log[before..] {
                println!(
                    "    {} {:?} {}",
                    event.version,
                    event.kind,
                    event.after.as_deref().or(event.before.as_deref()).unwrap()
                );
            }
            result?;
        }
        world.quiet()
    })();
    result.unwrap();
}

fn born(who: u8) -> Step {
    Step::Born { who, ports: 0, webhook: Of(0), forged: false }
}

fn adopted(who: u8) -> Step {
    Step::Born { who, ports: 0, webhook: Absent, forged: false }
}

fn deliver(feed: u8, messages: u8) -> Step {
    Step::Deliver { replica: 0, feed, messages }
}

const NAMESPACES: u8 = 0;
const SERVICES: u8 = 1;
const PODS: u8 = 3;
const WRITE: Step = Step::Write { replica: 0, which: 0, fate: Fate::Answered };

/// A pod gets a new address, somebody else the old one, and the slice still has the old one. The Service's ports differ
/// from the pod's at that moment: a reason to wait, which was given before the reason to withdraw.
#[test]
fn an_allocated_entry_is_withdrawn_too_while_the_slice_has_an_address_that_is_not_the_pods() {
    let steps =
        [born(2), Step::Settle, Step::Ports { pod: 0, ports: 1 }, Step::NewIp { pod: 0 }, deliver(PODS, 2)];
    goes_well(SETTING, &steps);
}

#[test]
fn a_slice_that_says_it_is_another_clusters_withdraws_that_clusters_entry() {
    let edit = SliceEdit::Service { service: 1 };
    goes_well(SETTING, &[born(2), born(1), Step::Settle, Step::EditSlice { slice: 0, edit }, deliver(2, 1)]);
}

#[test]
fn a_slice_that_is_another_services_now_withholds_nobody_for_ever() {
    goes_well(
        Setting { class: Class { not_ready_too: false, ..CLASS }, ..SETTING },
        &[
            born(6),
            born(2),
            born(0),
            Step::Settle,
            Step::EditService { service: 4, edit: ServiceEdit::NoSelector },
            Step::EditService { service: 7, edit: ServiceEdit::Unlabel },
            Step::EditSlice { slice: 1, edit: SliceEdit::Service { service: 2 } },
        ],
    );
}

/// The replica sees the endpoint before it sees the pod behind it, or the pod's end before the endpoint goes.
#[test]
fn the_reason_for_a_strange_endpoint_follows_what_becomes_known_of_its_pod() {
    let edit = SliceEdit::Foreign { service: 0, pod: 1 };
    let steps = [born(0), born(2), Step::Settle, Step::EditSlice { slice: 0, edit }, deliver(2, 1)];
    goes_well(SETTING, &[&steps[..], &[Step::ForceDelete { pod: 1 }, deliver(PODS, 1)]].concat());
}

/// The label is set and taken away again before the watch shows it: nothing ever shows that the write was done.
#[test]
fn a_write_nobody_sees_is_given_up_and_planned_again_though_its_cluster_was_looked_at_meanwhile() {
    let steps = [adopted(2), deliver(PODS, 1), deliver(5, 1), WRITE, born(4), Step::DropIdentity { pod: 1 }];
    goes_well(SETTING, &steps);
}

/// A Service is made and leaves the watch unseen: it counts as being made, and its place is taken for 40 seconds.
#[test]
fn who_waits_at_a_limit_is_served_when_a_creation_is_given_up() {
    let steps = [
        born(2),
        born(4),
        Step::DropIdentity { pod: 2 },
        deliver(NAMESPACES, 1),
        WRITE,
        Step::EditService { service: 0, edit: ServiceEdit::Unlabel },
        born(0),
        Step::ForceDelete { pod: 2 },
        born(5),
    ];
    goes_well(Setting { limits: (64, 3, 1000), ..SETTING }, &steps);
}

/// While one watch is silent nothing is planned, but what the others tell is shown.
#[test]
fn an_address_shown_while_nothing_was_planned_rests_before_another_pod_gets_it() {
    let steps = [
        born(3),
        deliver(NAMESPACES, 5),
        Step::Namespace { enabled: false },
        born(6),
        deliver(SERVICES, 1),
        born(4),
        born(0),
        born(8),
        Step::Settle,
        born(1),
        Step::Move { pod: 4, to: Home::C },
        Step::Pass { seconds: 31 },
    ];
    goes_well(
        Setting { limits: (2, 128, 1000), class: Class { not_ready_too: false, ..CLASS }, ..SETTING },
        &steps,
    );
}

/// A pod that was adopted has an identity made from its UID. Copied to an older pod it was taken for the older one's, and
/// the other was labelled with the same again.
#[test]
fn an_identity_copied_to_an_older_pod_stays_its_owners() {
    let steps = [born(3), adopted(8), Step::Settle, Step::CopyIdentity { from: 1, to: 0 }];
    goes_well(SETTING, &steps);
}

#[test]
fn two_leaders_do_not_take_turns_in_writing_what_each_was_told_of_a_name() {
    goes_well(
        Setting { class: Class { not_ready_too: false, ..CLASS }, ..SETTING },
        &[
            born(0),
            Step::Settle,
            Step::Balance { service: 0, what: Balance::Host },
            Step::Deliver { replica: 1, feed: 0, messages: 1 },
            Step::Lead { replica: 1, leads: true },
            Step::Ask { replica: 0, which: 0 },
            Step::Deliver { replica: 0, feed: 0, messages: 1 },
            Step::Name { service: 0, leads: Leads::Home },
            Step::Ask { replica: 0, which: 0 },
            Step::Settle,
        ],
    );
}

#[test]
fn a_pod_that_changes_its_cluster_during_a_write_to_it_is_labelled_in_the_end() {
    goes_well(
        Setting { class: Class { not_ready_too: false, ..CLASS }, ..SETTING },
        &[
            born(3),
            Step::DropIdentity { pod: 0 },
            born(1),
            born(2),
            Step::Deliver { replica: 0, feed: 5, messages: 1 },
            WRITE,
            born(0),
            born(4),
            Step::ForceDelete { pod: 5 },
            Step::CopyIdentity { from: 4, to: 3 },
            Step::Move { pod: 3, to: Home::D },
        ],
    );
}

#[test]
fn a_service_that_is_adopted_does_not_ask_for_what_another_asked_for_and_has() {
    goes_well(
        Setting { class: Class { not_ready_too: false, pool: 5, ..CLASS }, ..SETTING },
        &[
            born(0),
            Step::Squat { slot: 2, adopt: true },
            born(1),
            born(2),
            Step::Delete { pod: 4 },
            Step::Deliver { replica: 0, feed: 0, messages: 1 },
            Step::Write { replica: 0, which: 0, fate: Fate::Lost },
            Step::Settle,
            born(9),
            Step::Balance { service: 0, what: Balance::SameAs { service: 1 } },
            Step::Settle,
        ],
    );
}

/// A Service that is handed over changes before it is ours, and by then its pod is gone.
#[test]
fn who_waits_at_a_limit_is_served_when_a_service_does_not_become_ours() {
    goes_well(
        Setting { limits: (64, 3, 1000), class: Class { not_ready_too: false, ..CLASS }, ..SETTING },
        &[
            Step::Squat { slot: 2, adopt: true },
            born(2),
            born(9),
            Step::Settle,
            born(0),
            born(4),
            born(9),
            Step::Kubelet { pod: 2 },
            Step::Kubelet { pod: 2 },
            Step::Finish { pod: 0, failed: false },
            Step::Deliver { replica: 0, feed: 0, messages: 2 },
            born(3),
            Step::Move { pod: 7, to: Home::Nowhere },
            WRITE,
            Step::Balance { service: 0, what: Balance::SameAs { service: 0 } },
            Step::Answers { replica: 0 },
            Step::Move { pod: 3, to: Home::Nowhere },
        ],
    );
}

#[test]
fn a_static_address_that_a_lost_service_has_is_given_again_once_that_is_gone() {
    goes_well(
        Setting { class: Class { not_ready_too: false, pool: 3, ..CLASS }, ..SETTING },
        &[
            born(0),
            born(1),
            born(2),
            Step::Settle,
            Step::Balance { service: 3, what: Balance::SameAs { service: 1 } },
            Step::Balance { service: 1, what: Balance::SameAs { service: 2 } },
            Step::Deliver { replica: 0, feed: 0, messages: 2 },
            WRITE,
            Step::EditService { service: 7, edit: ServiceEdit::Unlabel },
        ],
    );
}

/// A Service is to give way, is lost, and comes back when there is another one that asks for its address.
#[test]
fn the_service_a_pod_moves_to_asks_for_no_address_of_the_one_it_leaves() {
    goes_well(
        Setting { class: Class { not_ready_too: false, pool: 3, ..CLASS }, ..SETTING },
        &[
            born(0),
            Step::Settle,
            Step::EditService { service: 2, edit: ServiceEdit::Recreate },
            Step::EditService { service: 2, edit: ServiceEdit::Unlabel },
            Step::Settle,
            Step::EditService { service: 0, edit: ServiceEdit::Relabel },
        ],
    );
}

/// A Service asks for one address and has another: when it goes, two become free at once.
#[test]
fn who_waits_for_a_static_address_hears_of_two_that_become_free_at_once() {
    goes_well(
        Setting {
            limits: (2, 128, 1000),
            class: Class { not_ready_too: false, pool: 3, ..CLASS },
            ..SETTING
        },
        &[
            born(3),
            born(4),
            born(0),
            Step::Settle,
            Step::EditService { service: 2, edit: ServiceEdit::Delete },
            Step::Balance { service: 2, what: Balance::SameAs { service: 2 } },
            Step::Balance { service: 0, what: Balance::Serve },
            deliver(NAMESPACES, 2),
            Step::Squat { slot: 1, adopt: false },
            Step::EditService { service: 3, edit: ServiceEdit::Unlabel },
            deliver(NAMESPACES, 1),
            Step::CatchUp { replica: 0, first: 0 },
        ],
    );
}

/// Somebody has a slot's Service select another pod, whose own slot is being made: that pod is shown at its address until then.
#[test]
fn an_address_shown_for_a_bent_selector_rests_as_long_as_any_other() {
    goes_well(
        Setting {
            limits: (64, 128, 1000),
            class: Class { not_ready_too: false, pool: 3, ..CLASS },
            ..SETTING
        },
        &[
            born(8),
            born(0),
            born(1),
            Step::DropIdentity { pod: 3 },
            born(3),
            Step::ForceDelete { pod: 1 },
            adopted(1),
            Step::Deliver { replica: 1, feed: 1, messages: 5 },
            Step::Lead { replica: 1, leads: true },
            Step::Deliver { replica: 1, feed: 1, messages: 2 },
            Step::ForceDelete { pod: 4 },
            Step::ForceDelete { pod: 0 },
            Step::ForceDelete { pod: 2 },
            Step::Settle,
            born(0),
            Step::CopyIdentity { from: 1, to: 2 },
            born(8),
            Step::CatchUp { replica: 0, first: 0 },
            Step::ForceDelete { pod: 3 },
            Step::EditService { service: 1, edit: ServiceEdit::SelectorOf { pod: 1 } },
            Step::Pass { seconds: 1 },
            born(6),
        ],
    );
}

/// Somebody gives a Service to another cluster, and what its load balancer's name leads to with it, while it is being
/// written for the former one.
#[test]
fn a_write_is_over_for_the_cluster_its_service_has_gone_to_as_well() {
    goes_well(
        Setting { class: Class { not_ready_too: false, ..CLASS }, ..SETTING },
        &[
            born(0),
            born(2),
            Step::Delete { pod: 0 },
            born(5),
            Step::Settle,
            Step::Squat { slot: 2, adopt: false },
            born(3),
            Step::Balance { service: 3, what: Balance::Host },
            born(6),
            Step::Settle,
            Step::Ask { replica: 0, which: 0 },
            WRITE,
            Step::EditService { service: 0, edit: ServiceEdit::Delete },
            Step::Balance { service: 0, what: Balance::Serve },
            Step::EditService { service: 4, edit: ServiceEdit::ClusterLabel },
            Step::EditService { service: 0, edit: ServiceEdit::Unlabel },
            Step::Deliver { replica: 0, feed: 0, messages: 3 },
            Step::EditService { service: 0, edit: ServiceEdit::Relabel },
        ],
    );
}

/// Two clusters need a shared load balancer each, and the class may have one: the map said that the other's is being made.
#[test]
fn who_needs_a_further_shared_load_balancer_at_the_limit_is_told_so() {
    let class = Class { order: Order::Shared, budget: 1, ..CLASS };
    goes_well(Setting { class, ..SETTING }, &[born(3), born(0)]);
}

/// Somebody says of a slot with a load balancer that it is reached by nodes: a new pod was told a port 0.
#[test]
fn a_pod_is_told_no_address_of_a_slot_that_is_reached_by_nodes() {
    goes_well(
        SETTING,
        &[
            born(0),
            Step::Settle,
            Step::EditService { service: 0, edit: ServiceEdit::Exposure },
            Step::ForceDelete { pod: 0 },
            deliver(SERVICES, 1),
            born(0),
        ],
    );
}
