//! Reachability: what is dialled, where the result stands, and whose it is.

use external_ip_core::milestones::{Milestone, Milestones};
use external_ip_core::names::{self, Key};
use external_ip_core::reach::{self, Target};
use external_ip_core::settings::{DEFAULT_CLASS, Exposure, Reachability, Settings};
use serde_json::json;

use crate::exposure::exposing;
use crate::world::{NS, World};

fn world(asks: bool) -> World {
    let mut settings = Settings::default();
    let class = settings.classes.get_mut("default").unwrap();
    class.reachable = asks.then(Reachability::default);
    let mut world = World::new(settings);
    world.pod("c-0").stamped().create();
    world.settle();
    world.take_writes();
    world
}

fn targets(world: &World) -> Vec<Target> {
    let mapping = world.mapping("c").unwrap();
    reach::targets(&world.state, &Key::new(NS, "c"), &mapping)
}

/// The result of dialling the one target there is.
fn dial(world: &mut World, reachable: bool) {
    let target = targets(world).pop().expect("something to dial");
    world.planner.dialled(target, reachable);
    world.settle();
}

#[test]
fn only_classes_that_ask_are_dialled_and_only_where_the_address_leads_to_the_pod() {
    assert_eq!(targets(&world(false)), []);
    let mut world = world(true);
    let found: Vec<_> = targets(&world).into_iter().map(|t| t.address).collect();
    assert_eq!(found, ["203.0.113.2:11222"]);
    world.edit_pod("c-0", |p| p["metadata"]["annotations"][names::PORTS_ANNOTATION] = json!("8080"));
    assert_eq!(targets(&world), [], "Allocated only");
    world.edit_pod("c-0", |p| p["metadata"]["annotations"][names::PORTS_ANNOTATION] = json!("53/udp"));
    world.settle();
    assert_eq!(targets(&world), [], "there is no TCP port to dial");
}

#[test]
fn a_result_stands_on_the_service_and_costs_a_write_only_when_it_changes() {
    let mut world = world(true);
    assert_eq!(world.entry("c", "c-0").reachable, None, "nothing is known");
    for (result, writes) in [(false, 1), (false, 0), (true, 1), (true, 0)] {
        dial(&mut world, result);
        assert_eq!(world.take_writes(), vec!["annotate_service"; writes], "{result}");
        assert_eq!(world.entry("c", "c-0").reachable, Some(result));
    }
    world.planner = external_ip_core::plan::Planner::new(&world.state);
    world.settle();
    assert!(world.take_writes().is_empty(), "a new leader believes it until it has dialled");
}

#[test]
fn a_successor_and_another_address_do_not_inherit_the_result() {
    let mut world = world(true);
    let former = targets(&world).pop().unwrap();
    dial(&mut world, true);
    world.delete_pod("c-0");
    world.settle();
    world.pod("c-0").stamped().create();
    world.settle();
    assert_eq!(world.entry("c", "c-0").reachable, None);
    world.take_writes();
    world.planner.dialled(former, false);
    world.settle();
    assert!(world.take_writes().is_empty(), "a late result about the predecessor is nobody's");
    dial(&mut world, true);
    world.edit_service("c-ext-0", |s| {
        s["status"]["loadBalancer"]["ingress"] = json!([{"ip": "203.0.113.77"}]);
    });
    assert_eq!(world.entry("c", "c-0").reachable, None, "nobody has dialled this address");
}

#[test]
fn a_pod_is_reached_once() {
    let (mut world, mut milestones) = (world(true), Milestones::default());
    let mut take = |world: &World| {
        let mapping = world.mapping("c");
        let new = milestones.take(&Key::new(NS, "c"), mapping.as_ref());
        new.into_iter().map(|(_, milestone)| milestone).collect::<Vec<_>>()
    };
    assert_eq!(take(&world), [Milestone::Allocated, Milestone::Routed]);
    for (result, passed) in
        [(false, vec![]), (true, vec![Milestone::Reached]), (false, vec![]), (true, vec![])]
    {
        dial(&mut world, result);
        assert_eq!(take(&world), passed);
    }
}

#[test]
fn each_slot_of_a_shared_load_balancer_is_dialled_at_its_own_port() {
    let mut world = exposing(&[Exposure::Shared], |settings| {
        settings.classes.get_mut(DEFAULT_CLASS).unwrap().reachable = Some(Reachability::default());
    });
    for pod in ["c-0", "c-1", "c-2"] {
        world.pod(pod).admitted().create();
        world.settle();
    }
    world.take_writes();
    let found = targets(&world);
    let ports: Vec<_> = found.iter().map(|t| t.address.as_str()).collect();
    assert_eq!(ports, ["203.0.113.2:20000", "203.0.113.2:20001", "203.0.113.2:20002"]);
    let shown = |world: &World| ["c-0", "c-1", "c-2"].map(|pod| world.entry("c", pod).reachable);
    for (target, reachable) in found.iter().cloned().zip([true, false]) {
        world.planner.dialled(target, reachable);
    }
    world.settle();
    assert_eq!(shown(&world), [Some(true), Some(false), None]);
    assert_eq!(world.take_writes(), ["annotate_service"], "what is known by then is one write");
    // a new leader has dialled one of them only
    world.planner = external_ip_core::plan::Planner::new(&world.state);
    world.planner.dialled(found[2].clone(), true);
    world.settle();
    assert_eq!(shown(&world), [Some(true), Some(false), Some(true)]);
    world.delete_pod("c-1");
    world.settle();
    assert_eq!(world.take_writes(), ["annotate_service"], "a pod that is gone costs none");
    world.pod("c-1").admitted().create();
    world.settle();
    assert_eq!(shown(&world), [Some(true), None, Some(true)], "the same port, another pod");
}
