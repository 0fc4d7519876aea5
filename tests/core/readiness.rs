//! Pods that are ready only once their address leads to them.

use std::time::Duration;

use external_ip_core::names;
use external_ip_core::settings::{DEFAULT_CLASS, Exposure, Settings};
use serde_json::{Value, json};

use crate::exposure::exposing;
use crate::world::World;

fn gated(exposure: Exposure) -> World {
    exposing(&[exposure], |settings: &mut Settings| {
        settings.classes.get_mut(DEFAULT_CLASS).unwrap().readiness_gate = true;
    })
}

/// Our condition of a pod; null where it has none.
fn condition(world: &World, pod: &str) -> Value {
    let conditions = world.pods[pod]["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut ours = conditions.into_iter().filter(|c| c["type"] == names::ROUTED_CONDITION);
    let found = ours.next().unwrap_or_default();
    assert!(ours.next().is_none(), "once");
    found
}

#[test]
fn a_pods_condition_is_true_when_its_address_leads_to_it_and_not_before() {
    let mut world = gated(Exposure::Dedicated);
    world.load_balancer = false;
    world.pod("c-0").admitted().create();
    world.pass(Duration::from_secs(60));
    assert_eq!(
        world.pods["c-0"]["spec"]["readinessGates"],
        json!([{"conditionType": names::ROUTED_CONDITION}])
    );
    assert_eq!(condition(&world, "c-0"), Value::Null, "the Service has no address");
    world.hold_slices(true);
    world.load_balancer = true;
    world.settle();
    assert_eq!(condition(&world, "c-0")["status"], "True", "the endpoints were there");
    world.pod("c-1").admitted().create();
    world.settle();
    assert_eq!(world.summary("c")[1], "c-1 Allocated 203.0.113.3");
    assert_eq!(condition(&world, "c-1"), Value::Null);
    world.hold_slices(false);
    world.settle();
    let met = condition(&world, "c-1");
    assert_eq!((&met["status"], &met["reason"]), (&json!("True"), &json!("Routed")));
    assert_eq!(met["message"], "reached at 203.0.113.3");
    let mut writes = world.take_writes();
    writes.retain(|kind| *kind != "create_service");
    assert_eq!(writes, ["mark_routed", "mark_routed"], "one write a pod");
    world.new_leader();
    world.pass(Duration::from_secs(600));
    assert!(world.take_writes().is_empty(), "a new leader writes nothing");
}

#[test]
fn what_was_true_stays_so_when_the_load_balancer_takes_the_address_away() {
    let mut world = gated(Exposure::Dedicated);
    world.pod("c-0").admitted().create();
    world.settle();
    let met = condition(&world, "c-0");
    world.take_writes();
    world.load_balancer = false;
    world.edit_service("c-ext-0", |s| s["status"]["loadBalancer"] = json!({}));
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Pending WaitingForAddress"]);
    assert_eq!(condition(&world, "c-0"), met);
    // a successor begins anew
    world.delete_pod("c-0");
    world.pod("c-0").admitted().create();
    world.settle();
    assert_eq!(condition(&world, "c-0"), Value::Null);
}

#[test]
fn a_condition_that_somebody_set_to_false_is_put_right_where_it_stands() {
    let mut world = gated(Exposure::Shared);
    let conditions = json!([
        {"type": names::ROUTED_CONDITION, "status": "False"}, {"type": "Ready", "status": "False"},
    ]);
    world.pod("c-0").admitted().set("/status/conditions", conditions).create();
    world.settle();
    assert_eq!(condition(&world, "c-0")["status"], "True");
    assert_eq!(world.pods["c-0"]["status"]["conditions"][1]["type"], "Ready");
}

#[test]
fn a_pod_that_will_have_no_address_is_not_kept_from_being_ready() {
    let mut world = gated(Exposure::Dedicated);
    world.load_balancer = false;
    world.pod("c-0").admitted().create();
    world.pod("c-1").admitted().set("/status/conditions", json!([])).create();
    world.settle();
    world.enable_namespace(false);
    world.settle();
    let met = condition(&world, "c-0");
    assert_eq!((&met["status"], &met["reason"]), (&json!("True"), &json!("NamespaceNotEnabled")));
    assert_eq!(condition(&world, "c-1"), Value::Null, "nobody has begun to start it");
    world.edit_pod("c-1", |p| p["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]));
    world.settle();
    assert_eq!(condition(&world, "c-1")["reason"], "NamespaceNotEnabled");
}

#[test]
fn only_pods_of_a_class_that_asks_have_the_gate() {
    let mut world = exposing(&[Exposure::Dedicated], |_| {});
    let gates = json!([
        {"conditionType": names::ROUTED_CONDITION}, {"conditionType": "example.com/warm"},
        {"conditionType": names::ROUTED_CONDITION},
    ]);
    world.pod("c-0").set("/spec/readinessGates", gates.clone()).admitted().create();
    let left = json!([{"conditionType": "example.com/warm"}]);
    assert_eq!(world.pods["c-0"]["spec"]["readinessGates"], left, "copied");
    world.settle();
    assert_eq!(condition(&world, "c-0"), Value::Null);
    let mut world = gated(Exposure::Dedicated);
    world.pod("c-0").set("/spec/readinessGates", gates).label(names::CLUSTER_LABEL, "No").admitted().create();
    assert_eq!(world.pods["c-0"]["spec"]["readinessGates"], left, "it is not exposed");
    world.pod("c-1").set("/spec/readinessGates", left.clone()).admitted().create();
    let both = json!([{"conditionType": "example.com/warm"}, {"conditionType": names::ROUTED_CONDITION}]);
    assert_eq!(world.pods["c-1"]["spec"]["readinessGates"], both);
}
