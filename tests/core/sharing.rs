//! Shared load balancers: ports that stay, further Services, pods that cannot share, copies.

use std::collections::BTreeSet;
use std::time::Duration;

use external_ip_core::mapping::EntryState;
use external_ip_core::names;
use external_ip_core::plan::Planner;
use external_ip_core::settings::{DEFAULT_CLASS, Exposure, Retention, Settings};
use serde_json::json;

use crate::exposure::exposing;
use crate::world::World;

fn sharing(edit: impl FnOnce(&mut Settings)) -> World {
    exposing(&[Exposure::Shared], edit)
}

fn make(world: &mut World, pods: &[&str]) {
    for pod in pods {
        world.pod(pod).admitted().create();
    }
    world.settle();
}

/// `pod state address:port->inside` of every entry.
fn summary(world: &World) -> Vec<String> {
    let entries = world.mapping("c").map(|m| m.entries).unwrap_or_default();
    let one = |e: &external_ip_core::mapping::Entry| {
        let address = e.external.iter().flat_map(|x| &x.ips).map(ToString::to_string).next();
        let ports: Vec<String> =
            e.ports.iter().map(|p| format!("{}>{}/{}", p.external, p.internal, p.protocol)).collect();
        let last = address.unwrap_or_else(|| e.reason.unwrap_or("-").to_owned());
        format!("{} {:?} {last} {}", e.pod, e.state, ports.join(",")).trim_end().to_owned()
    };
    entries.iter().map(one).collect()
}

#[test]
fn pods_share_one_load_balancer_and_each_has_its_ports() {
    let mut world = sharing(|_| {});
    make(&mut world, &["c-0", "c-1", "c-2"]);
    assert_eq!(
        summary(&world),
        [
            "c-0 Routed 203.0.113.2 20000>11222/TCP",
            "c-1 Routed 203.0.113.2 20001>11222/TCP",
            "c-2 Routed 203.0.113.2 20002>11222/TCP"
        ]
    );
    assert_eq!(world.take_writes(), ["create_service"], "one write for all");
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-shared-0"]);
    assert_eq!(world.entry("c", "c-1").ports[0].name, "hotrod");
    assert!(world.events.is_empty(), "{:?}", world.events);
    world.planner = Planner::new(&world.state);
    world.pass(Duration::from_secs(3600));
    assert!(world.take_writes().is_empty(), "a new leader writes nothing");
}

#[test]
fn a_replaced_pod_keeps_its_outside_port_and_costs_nothing() {
    let mut world = sharing(|_| {});
    make(&mut world, &["c-0", "c-1"]);
    let before = summary(&world);
    world.take_writes();
    world.delete_pod("c-0");
    world.settle();
    make(&mut world, &["c-0"]);
    assert_eq!(summary(&world), before);
    assert!(world.take_writes().is_empty());
    let pod = world.pod_value("c-0");
    let stamp = |key: &str| pod["metadata"]["annotations"][format!("stamp.external-ip.dev/{key}")].clone();
    assert_eq!((stamp("address"), stamp("port-11222")), (json!("203.0.113.2"), json!("20000")));
}

#[test]
fn a_pod_made_again_with_other_ports_keeps_the_number_of_those_it_still_has() {
    let mut world = sharing(|_| {});
    make(&mut world, &["c-0", "c-1"]);
    world.delete_pod("c-0");
    world.pod("c-0").annotation(names::PORTS_ANNOTATION, "53/udp,53,11222").admitted().create();
    world.settle();
    let entry = world.entry("c", "c-0");
    let ports: Vec<_> = entry.ports.iter().map(|p| (p.internal, p.external, p.protocol.as_str())).collect();
    assert_eq!(entry.state, EntryState::Routed, "{:?}", entry.reason);
    assert_eq!(
        BTreeSet::from_iter(ports),
        BTreeSet::from([(11222, 20_000, "TCP"), (53, 20_002, "TCP"), (53, 20_002, "UDP")])
    );
}

#[test]
fn a_full_service_is_followed_by_a_further_one() {
    let mut world = sharing(|s| s.classes.get_mut(DEFAULT_CLASS).unwrap().shared.ports_per_service = 2);
    make(&mut world, &["c-0", "c-1", "c-2"]);
    assert_eq!(
        summary(&world),
        [
            "c-0 Routed 203.0.113.2 20000>11222/TCP",
            "c-1 Routed 203.0.113.2 20001>11222/TCP",
            "c-2 Routed 203.0.113.3 20000>11222/TCP"
        ]
    );
    world.pod("c-3").annotation(names::PORTS_ANNOTATION, "1,2,3").admitted().create();
    world.settle();
    assert_eq!(world.entry("c", "c-3").reason, Some("CannotShare"), "three ports never fit");
}

#[test]
fn a_freed_slot_keeps_its_ports_and_then_leaves_the_service() {
    let mut world = sharing(|_| {});
    make(&mut world, &["c-0", "c-1"]);
    world.take_writes();
    world.delete_pod("c-0");
    world.pass(Duration::from_secs(599));
    assert!(world.take_writes().is_empty(), "kept for the retention");
    make(&mut world, &["c-5"]);
    assert_eq!(world.entry("c", "c-5").ports[0].external, 20_002, "a kept port is not given out");
    world.take_writes();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.take_writes(), ["update_service"]);
    assert_eq!(world.services["c-ext-shared-0"]["spec"]["ports"].as_array().unwrap().len(), 2);
    for pod in ["c-1", "c-5"] {
        world.delete_pod(pod);
    }
    world.pass(Duration::from_secs(3600));
    assert!(world.services.is_empty());
}

#[test]
fn anonymous_pods_take_the_ports_of_those_that_never_come_back_after_a_rest() {
    let mut world = sharing(|_| {});
    let pod = |world: &mut World, name: &str| {
        world.pod(name).anonymous().without_name().admitted().named(name).create();
        world.settle();
    };
    pod(&mut world, "web-a");
    world.delete_pod("web-a");
    world.settle();
    pod(&mut world, "web-b");
    assert_eq!(world.entry("c", "web-b").ports[0].external, 20_001, "it rests");
    world.pass(Duration::from_secs(31));
    pod(&mut world, "web-c");
    assert_eq!(world.entry("c", "web-c").ports[0].external, 20_000);
    assert_eq!(world.entry("c", "web-c").state, EntryState::Routed);
}

#[test]
fn a_pod_without_shared_names_is_told_to_be_made_again_or_steps_down() {
    let mut world = sharing(|_| {});
    world.pod("c-0").create();
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Pending CannotShare"]);
    assert!(world.events.iter().any(|(_, _, code)| code == "CannotShare"));
    let mut world = exposing(&[Exposure::Shared, Exposure::Dedicated], |_| {});
    world.pod("c-0").create();
    make(&mut world, &["c-1"]);
    assert_eq!(summary(&world)[0], "c-0 Routed 203.0.113.2 11222>11222/TCP");
    assert_eq!(world.entry("c", "c-1").ports[0].external, 20_000);
    assert!(world.events.iter().any(|(_, pod, code)| pod == "c-0" && code == "SteppedDown"));
}

#[test]
fn copied_names_lead_to_nobody_until_one_claimant_is_left() {
    let mut world = sharing(|_| {});
    make(&mut world, &["c-0", "c-1"]);
    let copy = world.pod_value("c-0");
    world
        .pod("thief")
        .set("/spec/containers", copy["spec"]["containers"].clone())
        .label(names::SHARED_LABEL, "c")
        .label(names::POD_ID_LABEL, "c.thief")
        .create();
    assert_eq!(world.entry("c", "c-0").reason, Some("DuplicateIdentity"), "before anything is written");
    world.settle();
    assert_eq!(world.entry("c", "c-0").external, None);
    assert_eq!(summary(&world)[1], "c-1 Routed 203.0.113.2 20001>11222/TCP", "others go on");
    let ports = world.services["c-ext-shared-0"]["spec"]["ports"].to_string();
    assert!(ports.contains("\"nx"), "{ports}");
    world.delete_pod("thief");
    world.settle();
    assert_eq!(summary(&world)[0], "c-0 Routed 203.0.113.2 20000>11222/TCP");
}

#[test]
fn a_strangers_endpoint_under_a_slots_port_withdraws_this_slot_only() {
    let mut world = sharing(|_| {});
    make(&mut world, &["c-0", "c-1"]);
    let port = world.services["c-ext-shared-0"]["spec"]["ports"][0]["name"].clone();
    // its own address, used by another pod before
    let ip = world.pod_value("c-0")["status"]["podIPs"][0]["ip"].clone();
    world.slice(&json!({"metadata": {"namespace": "data", "name": "late", "resourceVersion": "900",
        "labels": {names::SLICE_SERVICE_LABEL: "c-ext-shared-0", names::SLICE_MANAGED_BY_LABEL: names::SLICE_CONTROLLER}},
        "endpoints": [{"addresses": [ip], "targetRef": {"kind": "Pod", "uid": "predecessor"}}],
        "ports": [{"name": port, "port": 11222, "protocol": "TCP"}]}));
    assert_eq!(
        summary(&world),
        ["c-0 Pending WaitingForEndpoints", "c-1 Routed 203.0.113.2 20001>11222/TCP"]
    );
}

#[test]
fn one_refused_port_is_one_slots_trouble() {
    let mut world = sharing(|_| {});
    make(&mut world, &["c-0", "c-1"]);
    world.edit_service("c-ext-shared-0", |s| {
        s["status"]["loadBalancer"]["ingress"][0]["ports"] =
            json!([{"port": 20_001, "protocol": "TCP", "error": "example.com/NoRoom"}]);
    });
    assert_eq!(summary(&world), ["c-0 Routed 203.0.113.2 20000>11222/TCP", "c-1 Pending PortError"]);
}

#[test]
fn a_class_that_shares_from_now_on_moves_pods_as_they_are_made_again() {
    let mut world = exposing(&[Exposure::Dedicated], |_| {});
    make(&mut world, &["c-0", "c-1"]);
    let mut settings = Settings::default();
    settings.classes.get_mut(DEFAULT_CLASS).unwrap().exposure = vec![Exposure::Shared];
    world.restart(settings);
    world.take_writes();
    world.settle();
    // pods and owner are told that they are not as the class says: nothing else
    assert_eq!(world.take_writes(), ["record_event"; 3]);
    assert!(world.events.iter().all(|(_, _, code)| code == "ClassChanged"), "{:?}", world.events);
    world.delete_pod("c-1");
    let now = world.seconds();
    world.pod("c-1").created(now).admitted().create();
    world.settle();
    assert_eq!(
        summary(&world),
        ["c-0 Routed 203.0.113.2 11222>11222/TCP", "c-1 Routed 203.0.113.4 20000>11222/TCP"]
    );
    // pod and owner are told that the pod was told another address
    assert_eq!(world.take_writes(), ["create_service", "delete_service", "record_event", "record_event"]);
}

#[test]
fn freed_ports_rest_however_short_the_retention() {
    let mut world = sharing(|s| {
        s.classes.get_mut(DEFAULT_CLASS).unwrap().retention = Retention::For(Duration::ZERO);
    });
    make(&mut world, &["c-0", "c-1"]);
    world.delete_pod("c-0");
    world.settle();
    world.new_leader(); // it knows only what the Service says
    make(&mut world, &["c-5"]);
    assert_eq!(world.entry("c", "c-5").ports[0].external, 20_002, "clients may still have the old map");
    world.pass(Duration::from_secs(31));
    make(&mut world, &["c-6"]);
    assert_eq!(world.entry("c", "c-6").ports[0].external, 20_000);
}

#[test]
fn ports_a_pod_gives_up_or_somebody_takes_from_it_rest_before_another_pod_has_them() {
    let mut world = sharing(|s| s.classes.get_mut(DEFAULT_CLASS).unwrap().shared.ports_per_service = 4);
    let ports = |world: &World, pod: &str| -> Vec<u16> {
        world.entry("c", pod).ports.iter().map(|p| p.external).collect()
    };
    world.pod("c-0").annotation(names::PORTS_ANNOTATION, "7000, 9042").admitted().create();
    make(&mut world, &["c-1"]);
    assert_eq!((ports(&world, "c-0"), ports(&world, "c-1")), (vec![20_000, 20_001], vec![20_002]));
    world.delete_pod("c-0");
    world.pod("c-0").annotation(names::PORTS_ANNOTATION, "7000").admitted().create();
    make(&mut world, &["c-2"]);
    assert_eq!(ports(&world, "c-2"), [20_003], "clients still ask 20001 for c-0's port 9042");
    make(&mut world, &["c-3"]);
    let service = world.entry("c", "c-3").external.map(|x| x.ips);
    assert_ne!(service, world.entry("c", "c-2").external.map(|x| x.ips), "there is no other port left");

    world.pass(Duration::from_secs(31));
    let emptied = |service: &mut serde_json::Value| {
        let ports = service["spec"]["ports"].as_array_mut().unwrap();
        ports.retain(|p| p["port"] != 20_002);
    };
    world.edit_service("c-ext-shared-0", emptied);
    make(&mut world, &["c-4", "c-1"]);
    assert_eq!(ports(&world, "c-4"), [20_001], "it has rested");
    assert_eq!(ports(&world, "c-1"), [20_002], "what was taken from it is nobody else's");
}

#[test]
fn a_copied_pod_loses_the_names_of_its_original() {
    let mut world = sharing(|_| {});
    make(&mut world, &["c-0"]);
    let original = world.pod_value("c-0");
    let containers = original["spec"]["containers"].clone();
    world.pod("c-1").set("/spec/containers", containers).label(names::SHARED_LABEL, "c").admitted().create();
    let copy = world.pod_value("c-1");
    let names = |pod: &serde_json::Value| -> BTreeSet<String> {
        let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap().iter();
        ports.map(|p| p["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&copy).intersection(&names(&original)).collect::<Vec<_>>(), ["hotrod"]);
    world.settle();
    assert_eq!(world.entry("c", "c-0").state, EntryState::Routed);
    assert_eq!(world.entry("c", "c-1").ports[0].external, 20_001);
}
