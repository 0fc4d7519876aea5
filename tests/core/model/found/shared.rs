//! Slots of shared load balancers.

use super::{CLASS, SETTING, WRITE, born, goes_well};
use crate::class::{Class, Order, Setting};
use crate::step::Webhook::Of;
use crate::step::{PortField, ServiceEdit, Step};

const SHARED: Class = Class { order: Order::Shared, not_ready_too: false, room: 2, ..CLASS };

/// One leader makes a shared Service that the other does not see; the other makes another one with the same slot.
#[test]
fn two_leaders_do_not_take_turns_with_a_shared_slot_that_one_of_them_is_making() {
    let class = Class { order: Order::SharedNodePort, ..SHARED };
    goes_well(
        Setting { limits: (2, 128, 1000), class, ..SETTING },
        &[
            Step::Lead { replica: 1, leads: true },
            Step::Born { who: 1, ports: 0, webhook: Of(1), forged: false },
            Step::Deliver { replica: 1, feed: 5, messages: 5 },
            Step::Born { who: 4, ports: 0, webhook: Of(1), forged: false },
            WRITE,
            Step::EditService { service: 1, edit: ServiceEdit::Unlabel },
            Step::Settle,
        ],
    );
}

#[test]
fn two_slots_whose_ports_somebody_has_given_one_number_get_two_again() {
    let bent = |edit| Step::EditService { service: 0, edit };
    goes_well(
        Setting { class: SHARED, ..SETTING },
        &[
            born(6),
            Step::Born { who: 3, ports: 2, webhook: Of(0), forged: false },
            Step::Settle,
            bent(ServiceEdit::Swap { field: PortField::Number }),
            bent(ServiceEdit::TargetPort),
        ],
    );
}

/// What a Service still has of a load balancer when its type is another one is nobody's address.
#[test]
fn a_service_that_somebody_has_turned_into_another_type_shows_no_address_that_is_left_over() {
    let bent = |service| Step::EditService { service, edit: ServiceEdit::Exposure };
    goes_well(
        Setting { class: Class { order: Order::DedicatedShared, ..SHARED }, ..SETTING },
        &[
            born(0),
            Step::Squat { slot: 0, adopt: false },
            born(2),
            born(3),
            Step::Settle,
            bent(6),
            Step::Deliver { replica: 0, feed: 0, messages: 1 },
            WRITE,
            WRITE,
            bent(7),
            Step::Deliver { replica: 0, feed: 0, messages: 3 },
        ],
    );
}

/// The number that a free slot has is another pod's until somebody swaps them.
#[test]
fn a_free_slot_is_given_to_another_pod_without_numbers_that_were_somebody_elses_a_moment_ago() {
    let class = Class { order: Order::DedicatedShared, ..SHARED };
    goes_well(
        Setting { limits: (2, 128, 1000), class, ..SETTING },
        &[
            born(5),
            born(0),
            born(2),
            Step::Delete { pod: 0 },
            Step::Settle,
            Step::Kubelet { pod: 0 },
            Step::Configure { replica: 0, class: SHARED },
            Step::Kubelet { pod: 0 },
            born(3),
            Step::ForceDelete { pod: 0 },
            Step::Delete { pod: 0 },
            born(0),
            Step::CatchUp { replica: 0, first: 0 },
            Step::Lead { replica: 0, leads: true },
            Step::ForceDelete { pod: 2 },
            born(7),
            Step::Settle,
            Step::Pass { seconds: 1 },
            born(6),
            Step::Settle,
            born(8),
            Step::EditService { service: 4, edit: ServiceEdit::Swap { field: PortField::Number } },
        ],
    );
}

/// A free slot whose ports somebody gives the name of another one rests from then on.
#[test]
fn a_free_slot_that_gets_another_ones_ports_by_hand_rests_anew() {
    goes_well(
        Setting { limits: (2, 128, 1000), class: SHARED, ..SETTING },
        &[
            born(4),
            born(1),
            born(0),
            Step::ForceDelete { pod: 1 },
            Step::Deliver { replica: 0, feed: 0, messages: 2 },
            Step::Settle,
            Step::Pass { seconds: 1 },
            Step::ForceDelete { pod: 1 },
            Step::Settle,
            Step::EditService { service: 6, edit: ServiceEdit::Swap { field: PortField::Name } },
        ],
    );
}

#[test]
fn a_free_slot_that_gets_another_ones_numbers_by_hand_rests_anew() {
    goes_well(
        Setting { limits: (64, 128, 3), class: SHARED, ..SETTING },
        &[
            born(6),
            Step::Kubelet { pod: 0 },
            Step::Born { who: 3, ports: 2, webhook: Of(0), forged: false },
            Step::Deliver { replica: 0, feed: 0, messages: 1 },
            Step::Squat { slot: 1, adopt: false },
            Step::Finish { pod: 5, failed: false },
            born(0),
            Step::Squat { slot: 2, adopt: false },
            Step::Squat { slot: 0, adopt: false },
            Step::Settle,
            born(2),
            Step::Deliver { replica: 0, feed: 0, messages: 1 },
            WRITE,
            Step::Pass { seconds: 1 },
            Step::EditService { service: 5, edit: ServiceEdit::Swap { field: PortField::Number } },
            born(8),
        ],
    );
}
