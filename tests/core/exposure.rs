//! Node ports, shared load balancers, and steps down from one exposure to the next.

use std::time::Duration;

use external_ip_core::mapping::EntryState;
use external_ip_core::settings::{DEFAULT_CLASS, Exposure, Retention, Settings};
use serde_json::json;

use crate::world::World;

pub(crate) fn exposing(exposure: &[Exposure], edit: impl FnOnce(&mut Settings)) -> World {
    let mut settings = Settings::default();
    settings.classes.get_mut(DEFAULT_CLASS).unwrap().exposure = exposure.to_vec();
    edit(&mut settings);
    World::new(settings)
}

fn node_port(edit: impl FnOnce(&mut Settings)) -> World {
    let mut world = exposing(&[Exposure::NodePort], edit);
    world.put_node("one", &[("InternalIP", "198.18.9.1"), ("ExternalIP", "203.0.113.101")]);
    world.put_node("two", &[("InternalIP", "198.18.9.2")]);
    world
}

#[test]
fn a_node_port_slot_is_reached_at_the_pods_own_node_and_follows_the_pod() {
    let mut world = node_port(|_| {});
    world.pod("c-0").stamped().set("/spec/nodeName", json!("one")).create();
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.101"]);
    let port = &world.entry("c", "c-0").ports[0];
    assert_eq!((port.internal, port.external), (11222, 30_000));
    assert_eq!(world.services["c-ext-0"]["spec"]["type"], "NodePort");
    assert_eq!(world.take_writes(), ["create_service"]);
    world.delete_pod("c-0");
    world.settle();
    world.pod("c-0").stamped().set("/spec/nodeName", json!("two")).create();
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Routed 198.18.9.2"]);
    assert_eq!(world.entry("c", "c-0").ports[0].external, 30_000);
    assert!(world.take_writes().is_empty(), "the replaced pod costs no write");
}

#[test]
fn a_node_port_pod_without_a_node_or_on_one_without_an_address_is_told_so() {
    let mut world = node_port(|_| {});
    world.pod("c-0").stamped().create();
    world.pod("c-1").stamped().set("/spec/nodeName", json!("three")).create();
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Pending WaitingForNode", "c-1 Pending WaitingForNode"]);
    world.put_node("three", &[("ExternalIP", "203.0.113.103")]);
    world.settle();
    assert_eq!(world.summary("c")[1], "c-1 Routed 203.0.113.103");
    world.put_node("three", &[("ExternalIP", "203.0.113.104")]);
    assert_eq!(world.summary("c")[1], "c-1 Routed 203.0.113.104");
    assert!(world.state.take_dirty().iter().any(|c| &*c.name == "c"), "a node's new address is published");
}

#[test]
fn a_changed_type_is_put_back_to_node_port() {
    let mut world = node_port(|_| {});
    world.pod("c-0").stamped().set("/spec/nodeName", json!("one")).create();
    world.settle();
    world.edit_service("c-ext-0", |s| s["spec"]["type"] = json!("ClusterIP"));
    assert_eq!(world.entry("c", "c-0").state, EntryState::Pending);
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.101"]);
}

#[test]
fn at_a_limit_the_next_exposure_is_used_and_told() {
    for limit in ["cluster", "namespace", "class", "installation"] {
        let mut world = exposing(&[Exposure::Dedicated, Exposure::NodePort], |s| match limit {
            "cluster" => s.limits.slots_per_cluster = 2,
            "namespace" => s.limits.slots_per_namespace = 2,
            "class" => s.classes.get_mut(DEFAULT_CLASS).unwrap().load_balancers = Some(2),
            _ => s.limits.load_balancers = 2,
        });
        world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
        for i in 0..3 {
            world.pod(&format!("c-{i}")).stamped().set("/spec/nodeName", json!("one")).create();
        }
        world.settle();
        let summary = world.summary("c");
        assert_eq!(summary[2], "c-2 Routed 203.0.113.101", "{limit}: {summary:?}");
        assert!(world.events.iter().any(|(_, pod, code)| pod == "c-2" && code == "SteppedDown"), "{limit}");
        assert!(world.events.iter().all(|(kind, pod, _)| kind != "Pod" || pod == "c-2"));
        world.planner = external_ip_core::plan::Planner::new(&world.state);
        world.take_writes();
        world.pass(Duration::from_secs(3600));
        assert!(world.take_writes().iter().all(|w| *w == "record_event"), "a new leader leaves it so");
    }
}

#[test]
fn a_load_balancer_the_api_server_refuses_is_a_limit() {
    let mut world = exposing(&[Exposure::Dedicated, Exposure::NodePort], |_| {});
    world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
    world.refuse_balancers = Some("exceeded quota: balancers".into());
    world.pod("c-0").stamped().set("/spec/nodeName", json!("one")).create();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.101"]);
    assert_eq!(world.services["c-ext-0"]["spec"]["type"], "NodePort", "the ordinal is kept");
    // the next pod asks again: the quota may have room by then
    world.refuse_balancers = None;
    world.pod("c-1").stamped().create();
    world.settle();
    assert_eq!(world.services["c-ext-1"]["spec"]["type"], "LoadBalancer");
}

#[test]
fn a_refused_slot_is_tried_again_where_nothing_else_is_left() {
    let mut world = exposing(&[Exposure::Dedicated, Exposure::NodePort], |_| {});
    world.refuse_creates = Some("exceeded quota: services".into());
    world.pod("c-0").stamped().create();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.summary("c"), ["c-0 Pending WaitingForSlot"]);
    world.refuse_creates = None;
    world.pass(Duration::from_secs(120));
    assert_eq!(world.services.len(), 1);
}

#[test]
fn an_address_that_does_not_come_in_time_is_replaced_by_the_next_exposure() {
    let mut world = exposing(&[Exposure::Dedicated, Exposure::NodePort], |_| {});
    world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
    world.load_balancer = false;
    world.pod("c-0").stamped().set("/spec/nodeName", json!("one")).create();
    world.pass(Duration::from_secs(119));
    assert_eq!(world.summary("c"), ["c-0 Pending WaitingForAddress"]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.101"]);
    assert_eq!(world.services.len(), 1, "the slot without an address is gone");
    assert!(world.events.iter().any(|(_, _, code)| code == "SteppedDown"));
    world.take_writes();
    world.pass(Duration::from_secs(3600));
    assert!(world.take_writes().is_empty());
}

#[test]
fn where_no_load_balancer_gives_an_address_each_exposure_has_its_time_and_the_last_one_stays() {
    let mut world = exposing(&[Exposure::Dedicated, Exposure::Shared, Exposure::NodePort], |_| {});
    world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
    world.load_balancer = false;
    world.pod("c-0").admitted().set("/spec/nodeName", json!("one")).create();
    world.pass(Duration::from_secs(125));
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-shared-0"]);
    world.pass(Duration::from_secs(125));
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.101"]);
    world.pass(Duration::from_secs(40));
    assert_eq!(world.services.len(), 1, "{:?}", world.services.keys());
    world.take_writes();
    world.pass(Duration::from_secs(3600));
    assert!(world.take_writes().is_empty());
}

#[test]
fn a_load_balancer_that_never_gives_an_address_is_not_asked_again_and_again() {
    let mut world = exposing(&[Exposure::Dedicated, Exposure::Shared], |_| {});
    world.load_balancer = false;
    world.pod("c-0").admitted().create();
    world.pass(Duration::from_secs(300));
    assert_eq!(world.summary("c"), ["c-0 Pending NoLoadBalancer"]);
    world.take_writes();
    world.pass(Duration::from_secs(3600));
    assert!(world.take_writes().is_empty());
    world.load_balancer = true;
    world.settle();
    assert!(world.summary("c")[0].starts_with("c-0 Routed"), "{:?}", world.summary("c"));
    assert_eq!(world.services.len(), 1);
}

#[test]
fn a_changed_exposure_takes_effect_as_pods_are_made_again() {
    let mut world = exposing(&[Exposure::Dedicated], |_| {});
    world.pod("c-0").stamped().set("/spec/nodeName", json!("one")).create();
    world.pod("c-1").stamped().set("/spec/nodeName", json!("one")).create();
    world.settle();
    let mut settings = Settings::default();
    settings.classes.get_mut(DEFAULT_CLASS).unwrap().exposure = vec![Exposure::NodePort];
    world.restart(settings);
    world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
    world.take_writes();
    world.settle();
    assert_eq!(world.take_writes(), ["record_event"; 3], "pods that are there keep their addresses");
    let told = |object: (&str, &str)| (object.0.to_owned(), object.1.to_owned(), "ClassChanged".to_owned());
    assert_eq!(world.events, [("Pod", "c-0"), ("StatefulSet", "c"), ("Pod", "c-1")].map(told));
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.2", "c-1 Routed 203.0.113.3"]);
    world.delete_pod("c-1");
    let now = world.seconds();
    world.pod("c-1").stamped().set("/spec/nodeName", json!("one")).created(now).create();
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.2", "c-1 Routed 203.0.113.101"]);
    assert_eq!(world.take_writes(), ["create_service", "delete_service"]);
}

#[test]
fn a_pod_stays_at_its_former_address_while_a_load_balancer_is_slower_than_the_retention() {
    let mut world = node_port(|_| {});
    world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
    world.pod("c-0").stamped().set("/spec/nodeName", json!("one")).create();
    world.settle();
    let mut settings = Settings::default();
    let class = settings.classes.get_mut(DEFAULT_CLASS).unwrap();
    class.retention = Retention::For(Duration::from_secs(1));
    world.restart(settings);
    world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
    world.load_balancer = false;
    world.delete_pod("c-0");
    let now = world.seconds();
    world.pod("c-0").stamped().set("/spec/nodeName", json!("one")).created(now).create();
    world.take_writes();
    world.pass(Duration::from_secs(600));
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.101"]);
    let told = |object: (&str, &str)| (object.0.to_owned(), object.1.to_owned(), "NoLoadBalancer".to_owned());
    assert_eq!(world.events, [("Pod", "c-0"), ("StatefulSet", "c")].map(told), "why it is still there");
    let writes = ["annotate_service", "create_service", "record_event", "record_event"];
    assert_eq!(world.take_writes(), writes, "one Service is made, and it is overdue once");
    world.load_balancer = true;
    world.pass(Duration::from_secs(60));
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.2"]);
    assert_eq!(world.services.len(), 1, "{:?}", world.services.keys());
}

/// Pods made by `[dedicated]`, made again after the class has changed to others; no load balancer gives an address.
fn made_again_by(exposure: &[Exposure], pods: &[&str]) -> World {
    let mut world = exposing(&[Exposure::Dedicated], |_| {});
    for pod in pods {
        world.pod(pod).admitted().create();
        world.settle();
    }
    let mut settings = Settings::default();
    settings.classes.get_mut(DEFAULT_CLASS).unwrap().exposure = exposure.to_vec();
    world.restart(settings);
    world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
    world.load_balancer = false;
    let now = world.seconds();
    for pod in pods {
        world.delete_pod(pod);
        world.pod(pod).admitted().set("/spec/nodeName", json!("one")).created(now).create();
    }
    world
}

#[test]
fn a_pod_that_leaves_a_former_exposure_steps_down_when_the_wanted_one_gives_no_address_in_time() {
    let mut world = made_again_by(&[Exposure::Shared, Exposure::NodePort], &["c-0", "c-1"]);
    let before = ["c-0 Routed 203.0.113.2", "c-1 Routed 203.0.113.3"];
    world.pass(Duration::from_secs(119));
    assert_eq!(world.summary("c"), before);
    world.hold_slices(true);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.summary("c"), before, "until the next one leads to them");
    world.hold_slices(false);
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.101", "c-1 Routed 203.0.113.101"]);
    for pod in ["c-0", "c-1"] {
        let told = ("Pod".to_owned(), pod.to_owned(), "SteppedDown".to_owned());
        assert!(world.events.contains(&told), "{:?}", world.events);
    }
    world.pass(Duration::from_secs(31));
    assert!(world.services.values().all(|s| s["spec"]["type"] == "NodePort"), "{:?}", world.services.keys());
    world.take_writes();
    world.new_leader();
    world.pass(Duration::from_secs(3600));
    assert!(world.take_writes().iter().all(|w| *w == "record_event"), "and stay there");
}

#[test]
fn a_pod_that_leaves_a_former_exposure_keeps_its_address_where_the_class_has_no_further_one() {
    let mut world = made_again_by(&[Exposure::Shared], &["c-0"]);
    world.pass(Duration::from_secs(600));
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.2"]);
    world.load_balancer = true;
    world.pass(Duration::from_secs(31));
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.3"]);
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-shared-0"]);
}

#[test]
fn a_pod_that_has_no_address_yet_when_its_class_changes_waits_for_the_new_one_only() {
    let mut world = exposing(&[Exposure::Dedicated], |_| {});
    world.load_balancer = false;
    world.pod("c-0").admitted().create();
    world.settle();
    let mut settings = Settings::default();
    settings.classes.get_mut(DEFAULT_CLASS).unwrap().exposure = vec![Exposure::Shared];
    world.restart(settings);
    world.delete_pod("c-0");
    let now = world.seconds();
    world.pod("c-0").admitted().created(now).create();
    world.pass(Duration::from_secs(31));
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-shared-0"]);
    world.load_balancer = true;
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.2"]);
}

#[test]
fn a_pod_without_an_address_leaves_an_exposure_its_class_does_not_want_any_more_though_it_is_not_made_again()
{
    let mut world = exposing(&[Exposure::Dedicated], |_| {});
    world.load_balancer = false;
    world.pod("c-0").admitted().set("/spec/nodeName", json!("one")).create();
    world.pass(Duration::from_secs(121));
    assert_eq!(world.entry("c", "c-0").reason, Some("NoLoadBalancer"));
    let mut settings = Settings::default();
    settings.classes.get_mut(DEFAULT_CLASS).unwrap().exposure = vec![Exposure::NodePort];
    world.restart(settings);
    world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.101"]);
}
