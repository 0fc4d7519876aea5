//! Static addresses: each is one slot's, whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use external_ip_core::mapping::EntryState;
use external_ip_core::names;
use external_ip_core::plan::Planner;
use external_ip_core::settings::{Class, DEFAULT_CLASS, Retention, Settings};
use proptest::prelude::*;
use serde_json::json;

use crate::world::{ASKS, World};

/// Addresses 203.0.113.`first` and following.
pub(crate) fn pool(first: u8, count: u8) -> Vec<IpAddr> {
    (first..first + count).map(|n| IpAddr::from([203, 0, 113, n])).collect()
}

fn class(addresses: Vec<IpAddr>) -> Class {
    let mut class = Class { addresses, ..Class::default() };
    class.service.annotations.insert(ASKS.to_owned(), "{address}".to_owned());
    class
}

fn settings(class: Class) -> Settings {
    Settings { classes: BTreeMap::from([(DEFAULT_CLASS.to_owned(), class)]), ..Settings::default() }
}

fn world(addresses: Vec<IpAddr>) -> World {
    World::new(settings(class(addresses)))
}

fn pods(world: &mut World, names: &[&str]) {
    for name in names {
        world.pod(name).stamped().create();
    }
    world.settle();
}

fn asked(world: &World, service: &str) -> Option<String> {
    world.services[service]["metadata"]["annotations"][names::ASKED_ANNOTATION].as_str().map(str::to_owned)
}

#[test]
fn each_slot_asks_for_an_address_of_its_own_at_one_write() {
    let mut world = world(pool(100, 4));
    pods(&mut world, &["c-0", "c-1", "c-2"]);
    assert_eq!(world.take_writes(), ["create_service"; 3]);
    let routed = ["c-0 Routed 203.0.113.100", "c-1 Routed 203.0.113.101", "c-2 Routed 203.0.113.102"];
    assert_eq!(world.summary("c"), routed);
    assert_eq!(asked(&world, "c-ext-1").as_deref(), Some("203.0.113.101"));
    world.planner = Planner::new(&world.state);
    world.pass(Duration::from_secs(3600));
    assert!(world.take_writes().is_empty(), "converged, also for a new leader");
}

#[test]
fn a_pool_of_both_families_gives_one_of_each() {
    let mut both = pool(100, 2);
    both.extend(["2001:db8::1", "2001:db8::2"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    let mut world = world(both);
    pods(&mut world, &["c-0", "c-1", "c-2"]);
    assert_eq!(asked(&world, "c-ext-1").as_deref(), Some("203.0.113.101,2001:db8::2"));
    assert_eq!(world.entry("c", "c-2").reason, Some("NoFreeAddress"));
}

#[test]
fn more_pods_than_addresses_is_told_and_disturbs_nobody() {
    let mut world = world(pool(100, 2));
    pods(&mut world, &["c-0", "c-1"]);
    world.take_writes();
    pods(&mut world, &["c-2"]);
    let summary = ["c-0 Routed 203.0.113.100", "c-1 Routed 203.0.113.101", "c-2 Pending NoFreeAddress"];
    assert_eq!(world.summary("c"), summary);
    assert_eq!(world.take_writes(), ["record_event"; 2], "on the pod and on its owner");
    assert!(world.events.iter().all(|(.., reason)| reason == "NoFreeAddress"), "{:?}", world.events);
    assert!(world.said.contains("another slot's (2 addresses)"), "{}", world.said);
    assert_eq!(world.entry("c", "c-2").message.as_ref(), Some(&world.said), "map and Event say the same");
    // another cluster's pod waits for the same pool, and is served when an address is free and has rested
    world.pod("d-0").label(names::CLUSTER_LABEL, "d").stamped().create();
    world.settle();
    assert_eq!(world.summary("d"), ["d-0 Pending NoFreeAddress"]);
    world.delete_pod("c-2");
    world.delete_pod("c-1");
    world.pass(Duration::from_secs(601));
    assert_eq!(world.summary("d"), ["d-0 Pending WaitingForSlot"], "released, and rests");
    world.pass(Duration::from_secs(30));
    assert_eq!(world.summary("d"), ["d-0 Routed 203.0.113.101"]);
}

#[test]
fn at_the_end_of_the_pool_the_longest_kept_slot_of_the_cluster_is_taken() {
    let mut world = world(pool(100, 2));
    pods(&mut world, &["c-0", "c-1"]);
    world.delete_pod("c-0");
    pods(&mut world, &["c-2"]);
    assert_eq!(world.summary("c")[1], "c-2 Pending NoFreeAddress");
    world.pass(Duration::from_secs(31));
    assert!(world.summary("c").contains(&"c-2 Routed 203.0.113.100".to_owned()), "{:?}", world.summary("c"));
}

#[test]
fn a_service_deleted_by_hand_asks_for_its_last_address_again() {
    for class in [class(pool(100, 3)), class(Vec::new())] {
        let mut world = World::new(settings(class));
        pods(&mut world, &["c-0", "c-1"]);
        let before = world.summary("c");
        // the load balancer would rather give others
        world.delete_service("c-ext-1");
        world.settle();
        assert_eq!(world.summary("c"), before);
    }
}

#[test]
fn an_address_freed_by_hand_rests_for_others() {
    let mut world = world(pool(100, 2));
    world.pod("d-0").label(names::CLUSTER_LABEL, "d").stamped().create();
    pods(&mut world, &["c-0"]);
    world.delete_pod("d-0");
    world.delete_service("d-ext-0");
    pods(&mut world, &["c-1"]);
    assert_eq!(world.entry("c", "c-1").state, EntryState::Pending);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.entry("c", "c-1").state, EntryState::Routed);
}

#[test]
fn a_dynamic_address_that_is_gone_is_asked_for_in_vain_only_until_the_deadline() {
    let mut world = world(Vec::new());
    pods(&mut world, &["c-0"]);
    world.load_balancer = false;
    world.delete_service("c-ext-0");
    world.settle();
    assert_eq!(asked(&world, "c-ext-0").as_deref(), Some("203.0.113.2"));
    world.pass(Duration::from_secs(121));
    assert_eq!(asked(&world, "c-ext-0"), None);
    assert_eq!(world.services["c-ext-0"]["metadata"]["annotations"][ASKS], json!(null));
    world.load_balancer = true;
    world.settle();
    assert_eq!(world.entry("c", "c-0").state, EntryState::Routed);
}

#[test]
fn forever_keeps_an_address_until_somebody_deletes_it() {
    let mut forever = class(pool(100, 1));
    forever.retention = Retention::Forever;
    let mut world = World::new(settings(forever));
    pods(&mut world, &["c-0"]);
    world.delete_pod("c-0");
    world.pass(Duration::from_secs(10_000_000));
    pods(&mut world, &["c-0"]);
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.100"]);
    world.delete_pod("c-0");
    world.settle();
    world.delete_service("c-ext-0");
    world.pass(Duration::from_secs(31));
    assert!(world.services.is_empty());
}

#[test]
fn of_two_slots_that_ask_for_one_address_one_gives_way() {
    let mut world = world(pool(100, 3));
    world.load_balancer = false;
    pods(&mut world, &["c-0", "c-1"]);
    // what two leaders might have done
    let twice = |v: &mut serde_json::Value| {
        v["metadata"]["annotations"][names::ASKED_ANNOTATION] = json!("203.0.113.100");
        v["metadata"]["annotations"][ASKS] = json!("203.0.113.100");
    };
    world.edit_service("c-ext-1", twice);
    world.load_balancer = true;
    world.settle();
    let asked = [asked(&world, "c-ext-0"), asked(&world, "c-ext-1")];
    assert_ne!(asked[0], asked[1]);
    assert_eq!(asked[0].as_deref(), Some("203.0.113.100"), "the older one keeps it");
    assert!(world.summary("c").iter().all(|s| s.contains("Routed")), "{:?}", world.summary("c"));
}

#[test]
fn another_address_than_asked_is_shown_and_told() {
    let mut world = world(pool(100, 3));
    pods(&mut world, &["c-0"]);
    world
        .edit_service("c-ext-0", |v| v["status"]["loadBalancer"]["ingress"] = json!([{"ip": "203.0.113.9"}]));
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.9"], "what is true is published");
    assert_eq!(world.entry("c", "c-0").drift.unwrap().reason, "OtherAddress");
    world.edit_service("c-ext-0", |v| {
        v["status"]["loadBalancer"]["ingress"] = json!([{"ip": "203.0.113.102"}]);
    });
    world.settle();
    let drift = world.entry("c", "c-0").drift.unwrap();
    assert_eq!(drift.reason, "OtherAddress");
    assert!(drift.message.contains("asked for 203.0.113.100, given 203.0.113.102"), "{}", drift.message);
    assert!(world.events.iter().any(|(kind, _, reason)| kind == "Pod" && reason == "OtherAddress"));
    pods(&mut world, &["c-1", "c-2"]);
    assert_eq!(
        world.entry("c", "c-2").reason,
        Some("NoFreeAddress"),
        "an address given is nobody else's either"
    );
}

#[test]
fn a_service_that_is_handed_over_keeps_its_address() {
    for (address, drift) in [("203.0.113.102", None), ("198.51.100.7", Some("ClassChanged"))] {
        let mut world = world(pool(100, 3));
        world.foreign.insert(
            "c-ext-0".to_owned(),
            json!({
                "metadata": {"namespace": "data", "name": "c-ext-0", "uid": "theirs", "resourceVersion": "1",
                    "annotations": {names::ADOPT_ANNOTATION: "true"}},
                "spec": {"type": "LoadBalancer", "selector": {"app": "old"}},
                "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
            }),
        );
        pods(&mut world, &["c-0"]);
        assert_eq!(world.summary("c"), [format!("c-0 Routed {address}")]);
        assert_eq!(world.entry("c", "c-0").drift.map(|d| d.reason), drift);
        assert_eq!(asked(&world, "c-ext-0").as_deref(), drift.is_none().then_some(address));
    }
}

#[test]
fn a_class_that_gets_a_pool_takes_no_address_away() {
    let mut world = world(Vec::new());
    pods(&mut world, &["c-0"]);
    let before = world.summary("c");
    world.restart(settings(class(pool(100, 3))));
    world.settle();
    assert_eq!(world.summary("c"), before);
    assert_eq!(world.entry("c", "c-0").drift.unwrap().reason, "ClassChanged");
    pods(&mut world, &["c-1"]);
    assert_eq!(world.summary("c")[1], "c-1 Routed 203.0.113.100");
}

#[test]
fn no_slot_is_made_ahead_without_a_free_address_and_pods_come_first() {
    let mut ahead = class(pool(100, 3));
    ahead.spare_slots = 2;
    let mut world = World::new(settings(ahead));
    pods(&mut world, &["c-0"]);
    assert_eq!(asked(&world, "c-ext-2").as_deref(), Some("203.0.113.102"), "one ahead asks as well");
    world.take_writes();
    pods(&mut world, &["c-1"]);
    assert_eq!(world.summary("c")[1], "c-1 Routed 203.0.113.101");
    assert!(world.take_writes().is_empty(), "it was made ahead, and there is no address for another one");
    pods(&mut world, &["c-7"]);
    assert_eq!(world.summary("c")[2], "c-7 Pending NoFreeAddress");
    world.pass(Duration::from_secs(31));
    assert_eq!(
        world.summary("c")[2],
        "c-7 Routed 203.0.113.102",
        "the one ahead is taken once it has rested"
    );
    world.delete_pod("c-7");
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.services.len(), 3, "{:?}", world.services.keys());
}

/// Clusters `c`, which wants a slot ahead, and `d`, which does not, in this order; their first pods are seen at once.
fn one_ahead_and_one_not(edit: impl FnOnce(&mut Settings)) -> World {
    let mut settings = Settings::default();
    let mut ahead = settings.classes[DEFAULT_CLASS].clone();
    ahead.spare_slots = 1;
    settings.classes.insert("ahead".to_owned(), ahead);
    edit(&mut settings);
    let mut world = World::new(settings);
    world.pod("c-0").annotation(names::CLASS_ANNOTATION, "ahead").stamped().create();
    world.pod("d-0").label(names::CLUSTER_LABEL, "d").stamped().create();
    world.settle();
    world
}

#[test]
fn the_last_address_goes_to_another_clusters_pod_before_a_slot_is_made_ahead() {
    let world = one_ahead_and_one_not(|settings| {
        for class in settings.classes.values_mut() {
            class.addresses = pool(100, 2);
            class.service.annotations.insert(ASKS.to_owned(), "{address}".to_owned());
        }
    });
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-0", "d-ext-0"]);
    assert_eq!(world.summary("d"), ["d-0 Routed 203.0.113.101"]);
    assert!(world.events.is_empty(), "{:?}", world.events);
}

#[test]
fn the_last_place_of_a_limit_goes_to_another_clusters_pod_before_a_slot_is_made_ahead() {
    let mut world = one_ahead_and_one_not(|settings| settings.limits.load_balancers = 2);
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-0", "d-ext-0"]);
    assert!(world.events.is_empty(), "{:?}", world.events);
    world.delete_pod("d-0");
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-0", "c-ext-1"], "then there is room");
}

#[test]
fn who_makes_slots_ahead_gets_a_free_address_once_nobody_waits_for_it() {
    let mut ahead = class(pool(100, 2));
    ahead.spare_slots = 1;
    let mut settings = settings(class(pool(100, 2)));
    settings.classes.insert("ahead".to_owned(), ahead);
    let mut world = World::new(settings);
    world.pod("d-0").label(names::CLUSTER_LABEL, "d").stamped().create();
    world.settle();
    world.pod("c-0").annotation(names::CLASS_ANNOTATION, "ahead").stamped().create();
    world.settle();
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-0", "d-ext-0"]);
    assert!(world.events.is_empty(), "nobody is told what nobody waits for: {:?}", world.events);
    world.delete_pod("d-0");
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-0", "c-ext-1"]);
}

/// `d-1` waits, then `c-0` comes, whose class makes one ahead.
fn one_ahead_while_another_waits(edit: impl FnOnce(&mut Class, &mut Class)) -> World {
    let (mut default, mut ahead) = (Class::default(), Class { spare_slots: 1, ..Class::default() });
    edit(&mut default, &mut ahead);
    let mut settings = settings(default);
    settings.classes.insert("ahead".to_owned(), ahead);
    let mut world = World::new(settings);
    for name in ["d-0", "d-1"] {
        world.pod(name).label(names::CLUSTER_LABEL, "d").stamped().create();
    }
    world.settle();
    assert_eq!(world.entry("d", "d-1").state, EntryState::Pending);
    world.pod("c-0").annotation(names::CLASS_ANNOTATION, "ahead").stamped().create();
    world.settle();
    world
}

#[test]
fn who_waits_for_what_a_slot_ahead_does_not_take_holds_nobody_up() {
    let by_class = one_ahead_while_another_waits(|default, _| default.load_balancers = Some(1));
    let by_pool = one_ahead_while_another_waits(|default, ahead| {
        *default = class(pool(100, 1));
        *ahead = Class { spare_slots: 1, ..class(pool(110, 2)) };
    });
    for world in [by_class, by_pool] {
        assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-0", "c-ext-1", "d-ext-0"]);
    }
}

#[test]
fn a_slot_is_made_ahead_once_the_pod_that_waited_for_what_it_takes_is_gone() {
    let mut world = one_ahead_while_another_waits(|default, ahead| {
        let both = [pool(109, 3), vec!["2001:db8::1".parse().unwrap()]].concat(); // one pair
        *default = class(both);
        *ahead = Class { spare_slots: 1, ..class(pool(110, 2)) };
    });
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-0", "d-ext-0"], "111 may be d-1's");
    world.delete_pod("d-1");
    world.settle();
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["c-ext-0", "c-ext-1", "d-ext-0"]);
}

#[test]
fn a_pod_that_awaits_an_address_that_is_not_free_starts_without_it_and_is_told_why() {
    let mut waits = class(pool(100, 1));
    waits.await_address.enabled = true;
    let mut world = World::new(settings(waits));
    for name in ["c-0", "c-1"] {
        world.pod(name).stamped().gated().create();
    }
    world.settle();
    let gate = |world: &World, pod: &str| world.pods[pod]["spec"]["schedulingGates"].to_string();
    assert!(!gate(&world, "c-0").contains(names::ADDRESS_GATE), "it has its address");
    assert!(gate(&world, "c-1").contains(names::ADDRESS_GATE), "it waits for one");
    assert_eq!(world.entry("c", "c-1").reason, Some("NoFreeAddress"));
    world.pass(Duration::from_secs(120));
    assert!(!gate(&world, "c-1").contains(names::ADDRESS_GATE));
    let told = |reason: &str| world.events.iter().any(|(_, pod, r)| pod == "c-1" && r == reason);
    assert!(told("AwaitTimeout") && told("NoFreeAddress"), "{:?}", world.events);
}

#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Delete(u8),
    DeleteService(u8),
    /// Somebody, or another leader, writes a claim.
    Claim(u8, u8),
    Give(u8, u8),
    NewLeader,
    Balancer(bool),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8_u8).prop_map(Step::Create),
        3 => (0..8_u8).prop_map(Step::Delete),
        2 => any::<u8>().prop_map(Step::DeleteService),
        2 => (any::<u8>(), 0..6_u8).prop_map(|(s, a)| Step::Claim(s, a)),
        1 => (any::<u8>(), 0..6_u8).prop_map(|(s, a)| Step::Give(s, a)),
        1 => Just(Step::NewLeader),
        1 => any::<bool>().prop_map(Step::Balancer),
        2 => (0..900_u16).prop_map(Step::Pass),
    ]
}

fn take(world: &mut World, step: &Step) {
    let nth = |world: &World, n: u8| {
        let names: Vec<String> = world.services.keys().cloned().collect();
        names.get(usize::from(n) % names.len().max(1)).cloned()
    };
    let cluster = |n: u8| if n.is_multiple_of(2) { "c" } else { "d" };
    match step {
        Step::Create(n) => {
            let name = format!("{}-{}", cluster(*n), n / 2);
            world.delete_pod(&name);
            world.pod(&name).label(names::CLUSTER_LABEL, cluster(*n)).stamped().create();
        }
        Step::Delete(n) => world.delete_pod(&format!("{}-{}", cluster(*n), n / 2)),
        Step::DeleteService(n) => {
            if let Some(name) = nth(world, *n) {
                world.delete_service(&name);
            }
        }
        Step::Claim(n, address) => {
            if let Some(name) = nth(world, *n) {
                let claim = json!(format!("203.0.113.{}", 100 + address));
                world.edit_service(&name, |v| v["metadata"]["annotations"][names::ASKED_ANNOTATION] = claim);
            }
        }
        Step::Give(n, address) => {
            if let Some(name) = nth(world, *n) {
                let given = json!([{"ip": format!("203.0.113.{}", 100 + address)}]);
                world.edit_service(&name, |v| v["status"]["loadBalancer"]["ingress"] = given);
            }
        }
        Step::NewLeader => world.planner = Planner::new(&world.state),
        Step::Balancer(on) => world.load_balancer = *on,
        Step::Pass(seconds) => world.pass(Duration::from_secs((*seconds).into())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn no_two_slots_ask_for_one_address_whatever_happens(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = world(pool(100, 4));
        for step in &steps {
            take(&mut world, step);
            world.settle();
            let mut seen = BTreeSet::new();
            for (name, service) in &world.services {
                let claim = service["metadata"]["annotations"][names::ASKED_ANNOTATION].as_str();
                // a slot without its pod is not written to: it stays with what it has until it goes
                let bound = service["spec"]["selector"][names::POD_ID_LABEL].as_str().unwrap_or_default();
                let held = world.has_pod(bound.split_once('.').unwrap_or_default().1);
                for ip in claim.into_iter().flat_map(|c| c.split(',')).filter(|_| held) {
                    prop_assert!(seen.insert(ip.to_owned()), "{ip} twice, at {name}, after {step:?} of {steps:?}");
                }
            }
        }
        // when all is quiet, whoever waits does so because the pool is used up
        world.load_balancer = true;
        world.pass(Duration::from_secs(2000));
        for cluster in ["c", "d"] {
            for line in world.summary(cluster) {
                let waits = line.ends_with("Pending NoFreeAddress") || line.contains("DuplicateExternal");
                prop_assert!(line.contains(" Routed ") || waits, "{line} after {steps:?}");
            }
        }
    }
}
