//! Services made anew on purpose: the new address first, then the old one goes.

use std::time::Duration;

use external_ip_core::mapping::{Entry, EntryState};
use external_ip_core::names::{self, Key};
use external_ip_core::recreate::{moved, targets};
use external_ip_core::settings::{DEFAULT_CLASS, Exposure, Settings};
use serde_json::json;

use crate::exposure::exposing;
use crate::world::{NS, World};

const SECOND: Duration = Duration::from_secs(1);

fn names(world: &World) -> Vec<&str> {
    world.services.keys().map(String::as_str).collect()
}

fn ask(world: &mut World, service: &str) {
    world.edit_service(service, |s| s["metadata"]["annotations"][names::RECREATE_ANNOTATION] = json!("true"));
}

fn writes(world: &mut World) -> Vec<&'static str> {
    let mut writes = world.take_writes();
    writes.retain(|kind| *kind != "record_event");
    writes
}

fn cluster() -> Key {
    Key::new(NS, "c")
}

/// Two pods, under settings that are changed then.
fn changed(exposure: &[Exposure], edit: impl FnOnce(&mut Settings)) -> World {
    let mut world = exposing(exposure, |_| {});
    for pod in ["c-0", "c-1"] {
        world.pod(pod).admitted().create();
        world.settle();
    }
    let mut settings = Settings::default();
    settings.classes.get_mut(DEFAULT_CLASS).unwrap().exposure = exposure.to_vec();
    edit(&mut settings);
    world.restart(settings);
    world.settle();
    writes(&mut world);
    world
}

fn by_another_balancer(settings: &mut Settings) {
    let class = settings.classes.get_mut(DEFAULT_CLASS).unwrap();
    class.service.load_balancer_class = Some("example.com/new".into());
}

#[test]
fn a_pod_keeps_its_address_until_the_new_one_is_there_and_the_old_service_outlives_the_clients_maps() {
    let mut world = changed(&[Exposure::Dedicated], by_another_balancer);
    assert!(writes(&mut world).is_empty(), "not by itself");
    let found = targets(&world.state, &cluster(), false);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].why, "loadBalancerClass none, class: example.com/new");
    assert_eq!(world.entry("c", "c-0").drift.unwrap().reason, "ClassChanged");
    world.load_balancer = false;
    ask(&mut world, "c-ext-0");
    world.pass(60 * SECOND);
    assert_eq!(names(&world), ["c-ext-0", "c-ext-1", "c-ext-2"]);
    assert_eq!(world.services["c-ext-2"]["spec"]["loadBalancerClass"], "example.com/new");
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.2", "c-1 Routed 203.0.113.3"]);
    assert_eq!(moved(&world.state, &cluster(), &found[0]), None);
    world.load_balancer = true;
    world.settle();
    assert_eq!(world.summary("c"), ["c-1 Routed 203.0.113.3", "c-0 Routed 203.0.113.4"]);
    assert_eq!(world.entry("c", "c-0").drift, None);
    let to = moved(&world.state, &cluster(), &found[0]).unwrap();
    assert_eq!((to.len(), to[0].slot), (1, Some(2)));
    world.pass(29 * SECOND);
    assert_eq!(names(&world).len(), 3, "a client with an older map still arrives");
    world.pass(2 * SECOND);
    assert_eq!(names(&world), ["c-ext-1", "c-ext-2"]);
    assert_eq!(writes(&mut world), ["create_service", "delete_service"]);
    assert_eq!(targets(&world.state, &cluster(), false).len(), 1, "the other one was not asked for");
}

#[test]
fn a_new_leader_goes_on_and_nothing_is_made_twice() {
    let mut world = changed(&[Exposure::Dedicated], by_another_balancer);
    world.load_balancer = false;
    ask(&mut world, "c-ext-0");
    world.settle();
    world.new_leader();
    // long after the new one is overdue
    world.pass(600 * SECOND);
    assert_eq!(names(&world), ["c-ext-0", "c-ext-1", "c-ext-2"]);
    assert_eq!(world.summary("c")[0], "c-0 Routed 203.0.113.2");
    assert_eq!(writes(&mut world), ["annotate_service", "create_service"], "it is overdue");
    let told = ("Pod".to_owned(), "c-0".to_owned(), "NoLoadBalancer".to_owned());
    assert!(world.events.contains(&told), "why it stays: {:?}", world.events);
    // taken back
    world.edit_service("c-ext-0", |s| {
        s["metadata"]["annotations"].as_object_mut().unwrap().remove(names::RECREATE_ANNOTATION);
    });
    world.pass(60 * SECOND);
    assert_eq!(names(&world), ["c-ext-0", "c-ext-1"]);
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.2", "c-1 Routed 203.0.113.3"]);
}

#[test]
fn an_entry_stays_at_its_former_address_until_the_new_one_leads_to_its_pod() {
    for exposure in [Exposure::Dedicated, Exposure::Shared, Exposure::NodePort] {
        let mut world = changed(&[exposure], |_| {});
        world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
        for pod in ["c-0", "c-1"] {
            world.edit_pod(pod, |p| p["spec"]["nodeName"] = json!("one"));
        }
        world.settle();
        let before = world.mapping("c").unwrap().entries;
        assert!(before.iter().all(|e| e.state == EntryState::Routed), "{before:#?}");
        let old: Vec<String> = world.services.keys().cloned().collect();
        // new Services have addresses, and nobody behind them yet
        world.hold_slices(true);
        for service in &old {
            ask(&mut world, service);
        }
        world.pass(5 * SECOND);
        assert_eq!(world.services.len(), 2 * old.len());
        assert_eq!(world.mapping("c").unwrap().entries, before, "{exposure}");
        world.hold_slices(false);
        world.settle();
        let after = world.mapping("c").unwrap().entries;
        let moved = |(a, b): (&Entry, &Entry)| (&a.external, &a.ports) != (&b.external, &b.ports);
        assert!(after.iter().zip(&before).all(moved), "{exposure}: {after:#?}");
        assert!(after.iter().all(|e| e.state == EntryState::Routed), "{after:#?}");
        world.pass(31 * SECOND);
        assert!(old.iter().all(|service| !world.services.contains_key(service)), "{:?}", names(&world));
        assert_eq!(world.mapping("c").unwrap().entries, after);
    }
}

#[test]
fn a_new_load_balancer_that_refuses_a_port_or_is_a_name_without_address_costs_nobody_the_former_address() {
    let mut world = changed(&[Exposure::Dedicated], by_another_balancer);
    world.load_balancer = false;
    ask(&mut world, "c-ext-0");
    world.settle();
    let trouble = [
        json!([{"hostname": "new.example"}]),
        json!([{"ip": "203.0.113.40", "ports": [{"port": 11222, "protocol": "TCP", "error": "example.com/No"}]}]),
        json!([{"ip": "203.0.113.3"}]), // c-1's
    ];
    for ingress in trouble {
        world.edit_service("c-ext-2", |s| s["status"]["loadBalancer"]["ingress"] = ingress);
        world.pass(5 * SECOND);
        assert_eq!(world.summary("c")[0], "c-0 Routed 203.0.113.2");
    }
    world.edit_service("c-ext-2", |s| {
        s["status"]["loadBalancer"]["ingress"] = json!([{"ip": "203.0.113.40"}]);
    });
    world.settle();
    assert_eq!(world.summary("c"), ["c-1 Routed 203.0.113.3", "c-0 Routed 203.0.113.40"]);
}

#[test]
fn the_slots_of_a_shared_load_balancer_move_to_another_one() {
    let mut world = changed(&[Exposure::Shared], by_another_balancer);
    let found = targets(&world.state, &cluster(), false);
    assert_eq!((found.len(), found[0].pods.len()), (1, 2));
    ask(&mut world, "c-ext-shared-0");
    world.settle();
    assert_eq!(names(&world), ["c-ext-shared-0", "c-ext-shared-1"]);
    assert_eq!(world.services["c-ext-shared-1"]["spec"]["loadBalancerClass"], "example.com/new");
    let all = world.summary("c");
    assert!(all.iter().all(|line| line.contains(" Routed 203.0.113.3")), "{all:?}");
    assert_eq!(moved(&world.state, &cluster(), &found[0]).map(|to| to.len()), Some(2));
    world.pass(31 * SECOND);
    assert_eq!(names(&world), ["c-ext-shared-1"]);
    assert_eq!(world.summary("c"), all);
}

#[test]
fn where_there_is_no_room_for_one_more_the_address_stays_and_the_pod_says_why() {
    let mut world = changed(&[Exposure::Dedicated, Exposure::NodePort], |settings| {
        by_another_balancer(settings);
        settings.limits.slots_per_cluster = 2;
    });
    ask(&mut world, "c-ext-0");
    world.pass(60 * SECOND);
    assert_eq!(names(&world), ["c-ext-0", "c-ext-1"], "no step down");
    assert_eq!(world.summary("c")[0], "c-0 Routed 203.0.113.2");
    let told = ("Pod".to_owned(), "c-0".to_owned(), "ClusterLimit".to_owned());
    assert!(world.events.contains(&told), "{:?}", world.events);
    // room again
    world.delete_pod("c-1");
    world.pass(900 * SECOND);
    assert_eq!(world.services["c-ext-1"]["spec"]["loadBalancerClass"], "example.com/new");
    assert_eq!(names(&world), ["c-ext-1"]);
}

#[test]
fn a_free_slot_that_is_asked_for_goes_and_the_next_pod_gets_one_made_as_the_class_says() {
    let mut world = changed(&[Exposure::Dedicated], by_another_balancer);
    world.delete_pod("c-1");
    world.settle();
    ask(&mut world, "c-ext-1");
    let found = targets(&world.state, &cluster(), false);
    assert!(found[1].pods.is_empty() && found[1].asked);
    world.settle();
    world.pod("c-1").admitted().create();
    world.settle();
    let entry = world.entry("c", "c-1");
    assert_ne!(entry.slot, Some(1));
    assert_eq!(entry.drift, None);
    world.pass(31 * SECOND);
    assert_eq!(names(&world), ["c-ext-0", "c-ext-2"]);
    assert_eq!(moved(&world.state, &cluster(), &found[1]), Some(vec![]));
}

#[test]
fn an_exposure_the_class_does_not_know_any_more_is_left_at_once_when_asked() {
    let mut world = changed(&[Exposure::NodePort], |settings| {
        settings.classes.get_mut(DEFAULT_CLASS).unwrap().exposure = vec![Exposure::Dedicated];
    });
    assert_eq!(targets(&world.state, &cluster(), false)[0].why, "exposure nodePort, class: dedicated");
    ask(&mut world, "c-ext-0");
    world.settle();
    assert_eq!(world.entry("c", "c-0").external.unwrap().ips[0].to_string(), "203.0.113.2");
}

#[test]
fn an_exposure_the_class_does_not_know_any_more_is_left_for_the_next_one_that_has_an_address() {
    let mut world = changed(&[Exposure::Shared], |settings| {
        let exposure = vec![Exposure::Dedicated, Exposure::NodePort];
        settings.classes.get_mut(DEFAULT_CLASS).unwrap().exposure = exposure;
    });
    world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
    for pod in ["c-0", "c-1"] {
        world.edit_pod(pod, |p| p["spec"]["nodeName"] = json!("one"));
    }
    world.load_balancer = false;
    ask(&mut world, "c-ext-shared-0");
    world.pass(119 * SECOND);
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.2", "c-1 Routed 203.0.113.2"]);
    world.pass(2 * SECOND);
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.101", "c-1 Routed 203.0.113.101"]);
    world.pass(31 * SECOND);
    assert!(world.services.values().all(|s| s["spec"]["type"] == "NodePort"), "{:?}", names(&world));
}
