//! Pods that wait for their address before they start, and addresses made ahead of pods.

use std::time::Duration;

use external_ip_core::names;
use external_ip_core::settings::{Class, DEFAULT_CLASS, Exposure, Retention, Settings};
use serde_json::{Value, json};

use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn world(edit: impl FnOnce(&mut Class)) -> World {
    limited(64, edit)
}

fn limited(slots: u32, edit: impl FnOnce(&mut Class)) -> World {
    let mut settings = Settings::default();
    settings.limits.slots_per_cluster = slots;
    edit(settings.classes.get_mut(DEFAULT_CLASS).unwrap());
    World::new(settings)
}

fn waiting() -> World {
    world(|class| class.await_address.enabled = true)
}

/// Names of the gates that hold a pod.
fn gates(world: &World, pod: &str) -> Vec<String> {
    let gates = world.pods[pod]["spec"]["schedulingGates"].as_array().cloned().unwrap_or_default();
    gates.iter().map(|gate| gate["name"].as_str().unwrap().to_owned()).collect()
}

fn held(world: &World, pod: &str) -> bool {
    gates(world, pod).contains(&names::ADDRESS_GATE.to_owned())
}

fn told(world: &World, pod: &str) -> Value {
    let annotations = world.pods[pod]["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    annotations
        .into_iter()
        .filter_map(|(k, v)| Some((k.strip_prefix(names::RESERVED_PREFIX)?.to_owned(), v)))
        .collect()
}

fn service_names(world: &World) -> Vec<&str> {
    world.services.keys().map(String::as_str).collect()
}

fn told_events(world: &World, reason: &str) -> Vec<String> {
    let of = world.events.iter().filter(|(.., r)| r == reason);
    of.map(|(kind, name, _)| format!("{kind} {name}")).collect()
}

#[test]
fn a_held_pod_is_told_its_address_and_let_go_in_one_write_and_other_gates_stay() {
    let mut world = waiting();
    world.pod("c-0").stamped().gated().create();
    world.settle();
    assert_eq!(gates(&world, "c-0"), ["example.com/quota"]);
    let address = json!({"slot": "0", "address": "203.0.113.2", "port-11222": "11222"});
    assert_eq!(told(&world, "c-0"), address);
    assert_eq!(world.take_writes(), ["create_service", "lift_gate"]);
    world.pass(Duration::from_secs(300));
    assert!(world.take_writes().is_empty() && world.events.is_empty(), "{:?}", world.events);
}

#[test]
fn a_pod_without_any_annotation_is_told_as_well() {
    let mut world = waiting();
    world.pod("c-0").stamped().gated().without("/metadata", "annotations").create();
    world.settle();
    assert_eq!(told(&world, "c-0")["address"], "203.0.113.2");
    assert!(!held(&world, "c-0"));
}

#[test]
fn a_pod_is_held_until_its_ports_are_what_the_slot_has() {
    let mut world = waiting();
    world.pod("c-0").stamped().create();
    world.settle();
    world.delete_pod("c-0");
    world.pod("c-0").stamped().gated().annotation(names::PORTS_ANNOTATION, "9042").create();
    world.take_writes();
    world.settle();
    assert_eq!(told(&world, "c-0"), json!({"slot": "0", "address": "203.0.113.2", "port-9042": "9042"}));
    assert_eq!(world.take_writes(), ["lift_gate", "update_service"]);
}

#[test]
fn the_deadline_counts_from_the_pods_creation_whoever_leads() {
    let mut world = waiting();
    world.load_balancer = false;
    world.pod("c-0").stamped().gated().annotation(names::STAMP_ADDRESS_ANNOTATION, "203.0.113.99").create();
    world.pass(119 * SECOND);
    assert!(held(&world, "c-0"));
    world.new_leader();
    world.pass(SECOND);
    assert_eq!(gates(&world, "c-0"), ["example.com/quota"]);
    assert_eq!(told(&world, "c-0"), json!({}), "what it was told and is not true goes");
    assert_eq!(told_events(&world, "AwaitTimeout"), ["Pod c-0", "StatefulSet c"]);
}

#[test]
fn later_pods_of_the_class_are_not_held_in_vain_and_an_hour_later_one_tries_again() {
    let mut world = waiting();
    world.load_balancer = false;
    world.pod("c-0").stamped().gated().create();
    world.pass(120 * SECOND);
    assert!(!held(&world, "c-0"));
    world.pod("c-1").stamped().gated().create();
    world.settle();
    assert!(!held(&world, "c-1"));
    assert_eq!(told_events(&world, "AwaitInVain"), ["Pod c-1", "StatefulSet c"]);
    world.pass(3600 * SECOND);
    world.pod("c-2").stamped().gated().create();
    world.pass(100 * SECOND);
    assert!(held(&world, "c-2"), "it waits for its time again");
}

#[test]
fn a_load_balancer_that_had_no_time_is_not_remembered() {
    let mut world = waiting();
    world.load_balancer = false;
    world.refuse_creates = Some("exceeded quota".into());
    world.pod("c-0").stamped().gated().create();
    world.pass(90 * SECOND);
    world.refuse_creates = None;
    world.pass(60 * SECOND);
    assert!(!held(&world, "c-0") && !world.services.is_empty());
    world.pod("c-1").stamped().gated().create();
    world.settle();
    assert!(held(&world, "c-1"));
}

#[test]
fn who_has_nothing_to_wait_for_is_let_go_at_once() {
    let mut world = waiting();
    world.load_balancer = false;
    world.pod("c-0").stamped().gated().annotation(names::AWAIT_ANNOTATION, "false").create();
    world.pod("c-1").stamped().gated().annotation(names::CLASS_ANNOTATION, "nonsense").create();
    world.pod("c-2").stamped().gated().create();
    world.pod("c-3").stamped().gated().create();
    world.settle();
    let state = |world: &World| [0, 1, 2, 3].map(|n| held(world, &format!("c-{n}")));
    assert_eq!(state(&world), [false, false, true, true]);
    world.edit_pod("c-2", |pod| {
        drop(pod["metadata"]["labels"].as_object_mut().unwrap().remove(names::CLUSTER_LABEL));
    });
    world.settle();
    assert_eq!(state(&world), [false, false, false, true], "it belongs to no cluster any more");
    world.enable_namespace(false);
    world.settle();
    assert_eq!(state(&world), [false; 4]);
}

#[test]
fn a_contested_address_is_told_to_nobody() {
    let mut world = waiting();
    world.pod("c-0").stamped().create();
    world.settle();
    world.pod("c-1").label(names::POD_ID_LABEL, "c.c-0").create();
    world.delete_pod("c-0");
    world.pod("c-0").stamped().gated().create();
    world.plan_once();
    assert!(told(&world, "c-0").get("address").is_none(), "another pod claims its identity");
    world.settle();
    assert_eq!(told(&world, "c-0")["address"], "203.0.113.2", "the copy has been given its own");
}

#[test]
fn all_or_nothing_counts_slots_so_a_set_that_starts_in_order_starts() {
    let mut world = world(|class| {
        class.await_address.enabled = true;
        class.await_address.members = 3;
    });
    world.load_balancer = false;
    world.pod("c-0").stamped().gated().create();
    world.settle();
    assert_eq!(service_names(&world), ["c-ext-0", "c-ext-1", "c-ext-2"]);
    for slot in 0..2 {
        world.edit_service(&format!("c-ext-{slot}"), |s| {
            s["status"]["loadBalancer"]["ingress"] = json!([{"ip": format!("203.0.113.{slot}")}]);
        });
    }
    world.settle();
    assert!(held(&world, "c-0"), "two of three have an address");
    world.load_balancer = true;
    world.settle();
    assert!(!held(&world, "c-0"));
    assert!(world.kept("c").contains_key("c-1"), "the next one's address is known when it is made");
}

#[test]
fn a_pod_that_waits_for_others_in_vain_is_told_its_own_address() {
    let mut world = limited(1, |class| {
        class.await_address.enabled = true;
        class.await_address.members = 2;
    });
    world.pod("c-0").stamped().gated().create();
    world.pass(119 * SECOND);
    assert!(held(&world, "c-0"));
    world.pass(SECOND);
    assert_eq!(told(&world, "c-0")["address"], "203.0.113.2");
    assert_eq!(told_events(&world, "MembersMissing"), ["Pod c-0", "StatefulSet c"]);
}

#[test]
fn spare_slots_of_a_set_are_made_under_its_next_names_and_cost_the_next_pod_nothing() {
    let mut world = world(|class| class.spare_slots = 2);
    world.pod("c-0").stamped().create();
    world.settle();
    assert_eq!(service_names(&world), ["c-ext-0", "c-ext-1", "c-ext-2"]);
    assert_eq!(world.kept("c").keys().collect::<Vec<_>>(), ["c-0", "c-1", "c-2"]);
    world.take_writes();
    world.pass(3600 * SECOND);
    assert!(world.take_writes().is_empty(), "no retention ends while they are wanted");
    world.pod("c-1").stamped().create();
    world.settle();
    assert_eq!(world.take_writes(), ["create_service"], "the one for c-3");
    assert_eq!(world.entry("c", "c-1").slot, Some(1));
    world.delete_pod("c-1");
    world.pass(60 * SECOND);
    assert_eq!(service_names(&world).len(), 4, "what is not wanted any more is kept for its retention first");
    world.pass(600 * SECOND);
    assert_eq!(service_names(&world), ["c-ext-0", "c-ext-1", "c-ext-2"]);
}

#[test]
fn spare_slots_of_pods_without_names_go_to_the_next_pod() {
    let mut world = world(|class| class.spare_slots = 1);
    world.pod("c-a").anonymous().stamped().create();
    world.settle();
    assert_eq!(service_names(&world), ["c-ext-0", "c-ext-1"]);
    world.take_writes();
    world.pod("c-b").anonymous().stamped().create();
    world.settle();
    assert_eq!(world.summary("c"), ["c-a Routed 203.0.113.2", "c-b Routed 203.0.113.3"]);
    assert_eq!(world.take_writes(), ["create_service", "update_service"], "its own, and another one ahead");
    assert!(world.mapping("c").unwrap().entries.len() == 2, "spare slots are no entries");
}

#[test]
fn spare_slots_never_take_a_pods_place_at_a_limit() {
    let mut world = limited(2, |class| class.spare_slots = 3);
    world.pod("c-0").stamped().create();
    world.settle();
    assert_eq!(service_names(&world), ["c-ext-0", "c-ext-1"]);
    world.pod("c-7").stamped().create();
    world.pass(31 * SECOND);
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.2", "c-7 Routed 203.0.113.3"]);
}

#[test]
fn with_the_last_pod_spare_slots_go_when_their_retention_is_over() {
    let mut world = world(|class| {
        class.spare_slots = 2;
        class.retention = Retention::For(60 * SECOND);
    });
    world.pod("c-0").stamped().create();
    world.pass(3600 * SECOND);
    world.delete_pod("c-0");
    world.pass(59 * SECOND);
    assert_eq!(service_names(&world).len(), 3);
    world.pass(2 * SECOND);
    assert!(service_names(&world).is_empty());
}

#[test]
fn an_entry_says_that_its_pod_was_told_another_address() {
    let mut world = waiting();
    world.pod("c-0").stamped().gated().create();
    world.settle();
    world.edit_pod("c-0", |pod| pod["status"]["podIPs"] = json!([{"ip": "198.18.9.9"}]));
    world.settle();
    assert_eq!(world.entry("c", "c-0").told, None);
    world.edit_service("c-ext-0", |s| {
        s["status"]["loadBalancer"]["ingress"] = json!([{"ip": "203.0.113.77"}]);
    });
    world.settle();
    let entry = world.entry("c", "c-0");
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.77"], "the entry is right, and stays");
    let told = entry.told.unwrap();
    assert_eq!((told.ips, told.host), (vec!["203.0.113.2".to_owned()], None));
    assert!(told.message.contains("told 203.0.113.2, has 203.0.113.77"), "{}", told.message);
    assert_eq!(told_events(&world, "ToldOtherwise"), ["Pod c-0", "StatefulSet c"]);
}

#[test]
fn an_entry_says_that_its_pod_started_without_what_it_waited_for() {
    let mut world = waiting();
    world.load_balancer = false;
    world.pod("c-0").stamped().gated().create();
    world.pass(121 * SECOND);
    world.load_balancer = true;
    world.settle();
    let told = world.entry("c", "c-0").told.unwrap();
    assert!(told.message.contains("told none, has 203.0.113.2"), "{}", told.message);
    world.pod("c-1").stamped().annotation(names::AWAIT_ANNOTATION, "false").create();
    world.settle();
    assert_eq!(world.entry("c", "c-1").told, None, "who does not wait misses nothing");
}

#[test]
fn a_pod_that_is_reached_at_its_node_does_not_wait_for_it() {
    let mut world = world(|class| {
        class.await_address.enabled = true;
        class.exposure = vec![Exposure::NodePort];
    });
    world.pod("c-0").stamped().gated().create();
    world.settle();
    assert!(!held(&world, "c-0"));
    assert_eq!(told_events(&world, "AddressOfNode"), ["Pod c-0", "StatefulSet c"]);
}

#[test]
fn a_pod_that_shares_knows_the_shared_address_and_its_own_outside_port_before_it_starts() {
    let mut world = world(|class| {
        class.await_address.enabled = true;
        class.exposure = vec![Exposure::Shared];
    });
    for pod in ["c-0", "c-1"] {
        let now = world.seconds();
        world.pod(pod).created(now).admitted().create();
        assert!(held(&world, pod));
        world.settle();
        assert!(!held(&world, pod));
    }
    let port = |world: &World, pod: &str| {
        (told(world, pod)["address"].clone(), told(world, pod)["port-11222"].clone())
    };
    assert_eq!(port(&world, "c-0"), (json!("203.0.113.2"), json!("20000")));
    assert_eq!(port(&world, "c-1"), (json!("203.0.113.2"), json!("20001")));
    world.delete_pod("c-1");
    world.settle();
    let now = world.seconds();
    world.pod("c-1").created(now).admitted().create();
    assert!(!held(&world, "c-1"), "its ports are kept for it");
    assert_eq!(port(&world, "c-1"), (json!("203.0.113.2"), json!("20001")));
    world.pass(300 * SECOND);
    assert_eq!(world.entry("c", "c-1").told, None, "and what it was told is true");
}

#[test]
fn a_pod_that_waited_in_vain_starts_and_is_reached_at_its_node() {
    let mut world = world(|class| {
        class.await_address.enabled = true;
        class.exposure = vec![Exposure::Dedicated, Exposure::NodePort];
    });
    world.load_balancer = false;
    world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
    world.pod("c-0").stamped().gated().create();
    world.pass(119 * SECOND);
    assert!(held(&world, "c-0"));
    world.pass(3 * SECOND);
    assert!(!held(&world, "c-0"));
    world.edit_pod("c-0", |pod| {
        pod["spec"]["nodeName"] = json!("one");
        pod["status"]["podIPs"] = json!([{"ip": "198.18.9.9"}]);
    });
    world.pass(60 * SECOND);
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.101"]);
    for why in ["AwaitTimeout", "SteppedDown"] {
        assert_eq!(told_events(&world, why), ["Pod c-0", "StatefulSet c"], "{why}");
    }
}

#[test]
fn a_load_balancer_that_takes_half_a_minute_holds_the_pod_for_that_long_and_nobody_is_alarmed() {
    let mut world = waiting();
    world.load_balancer = false;
    world.pod("c-0").stamped().gated().create();
    world.pass(30 * SECOND);
    assert!(held(&world, "c-0"));
    world.load_balancer = true;
    world.settle();
    assert_eq!((held(&world, "c-0"), told(&world, "c-0")["address"].clone()), (false, json!("203.0.113.2")));
    assert!(world.events.is_empty(), "{:?}", world.events);
}
