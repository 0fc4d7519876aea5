//! Load balancers that are known by name: what is asked, where the answer stands, and what is shown meanwhile.

use std::time::Duration;

use external_ip_core::mapping::{self, EntryState, External};
use external_ip_core::names::{self, Key};
use external_ip_core::plan::Planner;
use external_ip_core::resolve::{self, Answer, Question};
use external_ip_core::settings::Settings;
use serde_json::{Value, json};

use crate::world::{NS, World};

/// Pods `c-0` and so on, whose load balancers have not answered yet.
fn world(pods: u32, resolve_names: bool) -> World {
    let mut settings = Settings::default();
    settings.classes.get_mut("default").unwrap().resolve_names = resolve_names;
    let mut world = World::new(settings);
    world.load_balancer = false;
    for n in 0..pods {
        world.pod(&format!("c-{n}")).stamped().create();
    }
    world.settle();
    world.take_writes();
    world
}

fn give(world: &mut World, slot: u32, ingress: &Value) {
    world
        .edit_service(&format!("c-ext-{slot}"), |s| s["status"]["loadBalancer"]["ingress"] = ingress.clone());
    world.settle();
}

fn questions(world: &World) -> Vec<Question> {
    resolve::questions(&world.state, &Key::new(NS, "c"))
}

fn found(ips: &[&str]) -> Answer {
    Answer::Addresses {
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ttl: Duration::from_secs(60),
    }
}

fn nothing() -> Answer {
    Answer::Nothing { ttl: Duration::from_secs(60) }
}

/// What DNS answers to the question about a name.
fn answer(world: &mut World, host: &str, answer: &Answer) {
    let question = questions(world).into_iter().find(|q| q.host == host).expect("the name is asked for");
    world.planner.resolved(question, answer);
    world.settle();
}

fn annotation(world: &World, slot: u32) -> Option<String> {
    let annotations = &world.services[&format!("c-ext-{slot}")]["metadata"]["annotations"];
    annotations[names::RESOLVED_ANNOTATION].as_str().map(str::to_owned)
}

#[test]
fn a_slot_known_by_name_has_its_address_once_the_name_has_one() {
    let mut world = world(1, true);
    assert_eq!(questions(&world), [], "there is no name yet");
    give(&mut world, 0, &json!([{"hostname": "a.lb.example"}]));
    assert_eq!(world.summary("c"), ["c-0 Pending WaitingForName"]);
    assert_eq!(world.entry("c", "c-0").external, None);
    answer(&mut world, "a.lb.example", &nothing());
    assert_eq!(world.summary("c"), ["c-0 Pending WaitingForName"]);
    answer(&mut world, "a.lb.example", &found(&["203.0.113.9", "203.0.113.8"]));
    let entry = world.entry("c", "c-0");
    let ips = ["203.0.113.8", "203.0.113.9"].map(|ip| ip.parse().unwrap()).into();
    assert_eq!(entry.external, Some(External { ips, host: Some("a.lb.example".into()) }));
    assert_eq!(entry.state, EntryState::Routed);
    assert_eq!(annotation(&world, 0).unwrap(), "a.lb.example=203.0.113.8,203.0.113.9");
}

#[test]
fn only_a_new_answer_costs_a_write_and_a_question_without_an_answer_changes_nothing() {
    let mut world = world(1, true);
    give(&mut world, 0, &json!([{"hostname": "a.lb.example"}]));
    let two = found(&["203.0.113.8", "203.0.113.9"]);
    for (told, writes, shown) in [
        (&two, 1, "Routed 203.0.113.8"),
        (&found(&["203.0.113.9", "203.0.113.8", "203.0.113.9"]), 0, "Routed 203.0.113.8"),
        (&Answer::Failed, 0, "Routed 203.0.113.8"),
        (&found(&["203.0.113.7"]), 1, "Routed 203.0.113.7"),
        (&nothing(), 1, "Pending WaitingForName"),
        (&Answer::Failed, 0, "Pending WaitingForName"),
        (&nothing(), 0, "Pending WaitingForName"),
        (&two, 1, "Routed 203.0.113.8"),
    ] {
        answer(&mut world, "a.lb.example", told);
        assert_eq!(world.take_writes(), vec!["annotate_service"; writes], "{told:?}");
        assert_eq!(world.summary("c"), [format!("c-0 {shown}")], "{told:?}");
    }
    world.planner = Planner::new(&world.state);
    world.settle();
    assert!(world.take_writes().is_empty(), "a new leader believes it until it has asked");
}

#[test]
fn another_name_does_not_inherit_the_addresses_of_the_first() {
    let mut world = world(1, true);
    give(&mut world, 0, &json!([{"hostname": "a.lb.example"}]));
    let former = questions(&world).pop().unwrap();
    answer(&mut world, "a.lb.example", &found(&["203.0.113.8"]));
    let renamed =
        |s: &mut Value| s["status"]["loadBalancer"]["ingress"] = json!([{"hostname": "b.lb.example"}]);
    world.edit_service("c-ext-0", renamed);
    assert_eq!(
        world.summary("c"),
        ["c-0 Pending WaitingForName"],
        "while the former answer is written there"
    );
    world.settle();
    assert_eq!(annotation(&world, 0), None, "nothing is known of the new name");
    world.planner.resolved(former, &found(&["203.0.113.8"]));
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Pending WaitingForName"], "a late answer about the former name");
    answer(&mut world, "b.lb.example", &found(&["203.0.113.7"]));
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.7"]);
    give(&mut world, 0, &json!([]));
    assert_eq!(world.summary("c"), ["c-0 Pending WaitingForAddress"]);
    assert_eq!((questions(&world), annotation(&world, 0)), (vec![], None));
}

#[test]
fn two_slots_whose_names_lead_to_one_address_are_both_withdrawn_until_they_part() {
    let mut world = world(2, true);
    give(&mut world, 0, &json!([{"hostname": "a.lb.example"}]));
    give(&mut world, 1, &json!([{"hostname": "b.lb.example"}]));
    answer(&mut world, "a.lb.example", &found(&["203.0.113.8", "203.0.113.9"]));
    answer(&mut world, "b.lb.example", &found(&["203.0.113.9"]));
    let both = ["c-0 Pending DuplicateExternalAddress", "c-1 Pending DuplicateExternalAddress"];
    assert_eq!(world.summary("c"), both);
    answer(&mut world, "a.lb.example", &found(&["203.0.113.8"]));
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.8", "c-1 Routed 203.0.113.9"]);
    give(&mut world, 0, &json!([{"ip": "203.0.113.9"}]));
    assert_eq!(world.summary("c"), both, "as with an address that a load balancer gives itself");
}

#[test]
fn all_points_count_and_only_names_without_an_address_are_asked_for() {
    let mut world = world(1, true);
    let points = json!([
        {"hostname": "a.lb.example"},
        {"ip": "203.0.113.5"},
        {"ip": "203.0.113.4", "hostname": "b.lb.example"},
        {"ip": "203.0.113.5"},
        {"hostname": "c.lb.example"},
    ]);
    give(&mut world, 0, &points);
    let asked: Vec<String> = questions(&world).into_iter().map(|q| q.host).collect();
    assert_eq!(asked, ["a.lb.example", "c.lb.example"]);
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.4"], "given addresses wait for no name");
    answer(&mut world, "c.lb.example", &found(&["203.0.113.3"]));
    answer(&mut world, "a.lb.example", &nothing());
    let entry = world.entry("c", "c-0").external.unwrap();
    let ips: Vec<String> = entry.ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["203.0.113.3", "203.0.113.4", "203.0.113.5"]);
    assert_eq!(entry.host.unwrap(), "a.lb.example");
    assert_eq!(annotation(&world, 0).unwrap(), "a.lb.example= c.lb.example=203.0.113.3");
}

#[test]
fn a_name_that_leads_to_the_other_family_only_is_withheld() {
    let mut world = world(1, true);
    give(&mut world, 0, &json!([{"hostname": "a.lb.example"}]));
    answer(&mut world, "a.lb.example", &found(&["2001:db8::8"]));
    assert_eq!(world.summary("c"), ["c-0 Pending WaitingForEndpoints"]);
    answer(&mut world, "a.lb.example", &found(&["2001:db8::8", "203.0.113.8"]));
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.8"]);
    assert_eq!(world.entry("c", "c-0").external.unwrap().ips.len(), 1);
}

#[test]
fn where_the_class_says_so_no_name_is_asked_for_and_the_name_is_published_alone() {
    let mut world = world(1, true);
    give(&mut world, 0, &json!([{"hostname": "a.lb.example"}]));
    answer(&mut world, "a.lb.example", &found(&["203.0.113.8"]));
    let mut settings = Settings::default();
    settings.classes.get_mut("default").unwrap().resolve_names = false;
    world.restart(settings);
    world.settle();
    assert_eq!((questions(&world), annotation(&world, 0)), (vec![], None));
    let entry = world.entry("c", "c-0");
    let named = External { ips: vec![], host: Some("a.lb.example".into()) };
    assert_eq!((entry.state, entry.external), (EntryState::Routed, Some(named)));
}

#[test]
fn what_dns_would_not_take_for_a_name_is_not_asked_for() {
    let long = format!("{}.example", "a".repeat(64));
    for host in ["", ".", "a..b", "a b", "a=203.0.113.1", "a,b", long.as_str()] {
        let mut world = world(1, true);
        give(&mut world, 0, &json!([{"hostname": host}]));
        assert_eq!(questions(&world), [], "{host}");
        assert_eq!(world.entry("c", "c-0").state, EntryState::Pending, "{host}");
    }
}

#[test]
fn a_kept_slots_name_is_followed_so_that_its_next_pod_is_told_the_addresses() {
    let mut world = world(1, true);
    give(&mut world, 0, &json!([{"hostname": "a.lb.example"}]));
    let kept = |world: &World| {
        mapping::kept_addresses(&world.state, &Key::new(NS, "c")).remove("c-0").map(|slot| slot.ips)
    };
    assert_eq!(kept(&world), None, "there is nothing to tell yet");
    world.delete_pod("c-0");
    world.settle();
    for ip in ["203.0.113.8", "203.0.113.7"] {
        answer(&mut world, "a.lb.example", &found(&[ip]));
        assert_eq!(kept(&world), Some(vec![ip.parse().unwrap()]));
    }
}

#[test]
fn a_pod_whose_load_balancer_refuses_a_port_is_not_allocated_and_says_which() {
    let mut world = world(1, true);
    let error = json!([{"port": 11222, "protocol": "TCP", "error": "example.com/NoRoom"}]);
    give(&mut world, 0, &json!([{"ip": "203.0.113.5"}, {"ip": "203.0.113.6", "ports": error}]));
    let entry = world.entry("c", "c-0");
    assert_eq!((entry.state, entry.reason, entry.external), (EntryState::Pending, Some("PortError"), None));
    assert!(entry.message.unwrap().contains("11222/TCP: example.com/NoRoom"));
    give(&mut world, 0, &json!([{"ip": "203.0.113.5"}, {"ip": "203.0.113.6"}]));
    assert_eq!(world.entry("c", "c-0").state, EntryState::Routed);
}

#[test]
fn a_member_is_known_by_its_dns_names_unless_another_pod_has_them_too() {
    let mut world = world(1, true);
    let own = ["c-0.c.data.svc", "c-0.c.data.svc.cluster.local"];
    assert_eq!(world.entry("c", "c-0").internal.names, own);
    let other = world.pod("d-0").label(names::CLUSTER_LABEL, "d").stamped();
    other.set("/spec/hostname", json!("c-0")).create();
    assert!(world.entry("c", "c-0").internal.names.is_empty(), "the name leads to either");
    assert!(world.entry("d", "d-0").internal.names.is_empty());
    assert!(world.state.take_dirty().iter().any(|cluster| &*cluster.name == "c"), "and that is published");
    world.delete_pod("d-0");
    assert_eq!(world.entry("c", "c-0").internal.names, own);
    let settings = Settings { cluster_domain: "k8s.example".into(), ..Settings::default() };
    world.restart(settings);
    assert_eq!(world.entry("c", "c-0").internal.names[1], "c-0.c.data.svc.k8s.example");
}
