//! Scenarios: what the planner writes and what the map says, against an API server in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use external_ip_core::action::Action;
use external_ip_core::mapping::EntryState;
use external_ip_core::names::{self, Key};
use external_ip_core::objects::PortSpec;
use external_ip_core::settings::{ConfiguredCluster, DEFAULT_CLASS, Settings};
use serde_json::json;

use crate::world::{NS, World};

pub(crate) fn world() -> World {
    World::new(Settings::default())
}

fn limited(edit: impl FnOnce(&mut Settings)) -> World {
    let mut settings = Settings::default();
    edit(&mut settings);
    World::new(settings)
}

pub(crate) fn three(world: &mut World) {
    for i in 0..3 {
        world.pod(&format!("c-{i}")).stamped().create();
    }
    world.settle();
}

pub(crate) const ROUTED: [&str; 3] =
    ["c-0 Routed 203.0.113.2", "c-1 Routed 203.0.113.3", "c-2 Routed 203.0.113.4"];

#[test]
fn a_new_pod_costs_one_service_write_and_ends_routed() {
    let mut world = world();
    three(&mut world);
    assert_eq!(world.take_writes(), ["create_service"; 3]);
    assert_eq!(world.summary("c"), ROUTED);
    assert!(world.events.is_empty(), "{:?}", world.events);
    let entry = world.entry("c", "c-1");
    assert_eq!((entry.slot, entry.ports[0].internal, entry.ports[0].external), (Some(1), 11222, 11222));
    assert_eq!(entry.ports[0].name, "hotrod");
    assert_eq!(entry.internal.names, ["c-1.c.data.svc", "c-1.c.data.svc.cluster.local"]);
    assert_eq!((entry.reason, entry.message), (None, None));
}

#[test]
fn a_replaced_named_pod_keeps_its_address_and_costs_nothing() {
    let mut world = world();
    three(&mut world);
    world.take_writes();
    world.delete_pod("c-1");
    world.settle();
    assert_eq!(world.summary("c").len(), 2);
    world.pod("c-1").stamped().create();
    world.settle();
    assert_eq!(world.summary("c"), ROUTED);
    assert!(world.take_writes().is_empty());
}

#[test]
fn a_converged_world_plans_nothing_even_for_a_new_leader() {
    let mut world = world();
    three(&mut world);
    world.take_writes();
    world.planner = external_ip_core::plan::Planner::new(&world.state);
    world.pass(Duration::from_secs(3600));
    assert!(world.take_writes().is_empty());
}

#[test]
fn an_unstamped_pod_is_labelled_before_a_service_selects_it() {
    let mut world = world();
    world.pod("c-0").create();
    world.settle();
    assert_eq!(world.writes, ["label_pod", "create_service"]);
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.2"]);
}

#[test]
fn an_unstamped_pod_of_a_replica_set_gets_an_anonymous_identity() {
    let mut world = world();
    world.pod("web-x7").anonymous().create();
    world.settle();
    let id = world.services["c-ext-0"]["spec"]["selector"][names::POD_ID_LABEL].as_str().unwrap().to_owned();
    assert!(names::is_anonymous(&id), "{id}");
}

#[test]
fn a_freed_slot_rests_before_another_pod_gets_it() {
    let mut world = world();
    world.pod("web-a").anonymous().stamped().create();
    world.settle();
    world.delete_pod("web-a");
    world.settle();
    world.pod("web-b").anonymous().stamped().create();
    world.settle();
    assert_eq!(world.entry("c", "web-b").slot, Some(1), "slot 0 rests");
    world.delete_pod("web-b");
    world.pass(Duration::from_secs(31));
    world.take_writes();
    world.pod("web-c").anonymous().stamped().create();
    world.settle();
    assert_eq!(world.entry("c", "web-c").slot, Some(0), "the longest free one");
    assert_eq!(world.take_writes(), ["update_service"]);
    assert_eq!(world.entry("c", "web-c").state, EntryState::Routed);
}

#[test]
fn slots_of_a_deleted_workload_go_after_the_retention() {
    let mut world = world();
    three(&mut world);
    for i in 0..3 {
        world.delete_pod(&format!("c-{i}"));
    }
    world.take_writes();
    world.pass(Duration::from_secs(599));
    assert_eq!(world.mapping("c").unwrap().entries.len(), 0, "emptied, not deleted, while slots exist");
    assert_eq!(world.services.len(), 3);
    world.pass(Duration::from_secs(2));
    assert!(world.services.is_empty());
    assert_eq!(world.take_writes(), ["delete_service"; 3]);
    assert!(world.mapping("c").is_none());
}

#[test]
fn a_workload_made_again_within_the_retention_has_the_same_addresses() {
    let mut world = world();
    three(&mut world);
    for i in 0..3 {
        world.delete_pod(&format!("c-{i}"));
    }
    world.pass(Duration::from_secs(500));
    world.take_writes();
    three(&mut world);
    assert_eq!(world.summary("c"), ROUTED);
    assert!(world.take_writes().is_empty());
}

#[test]
fn a_new_leader_keeps_addresses_longer_never_shorter() {
    let mut world = world();
    three(&mut world);
    world.delete_pod("c-2");
    world.pass(Duration::from_secs(500));
    world.planner = external_ip_core::plan::Planner::new(&world.state);
    world.pass(Duration::from_secs(590));
    assert_eq!(world.services.len(), 3);
    world.pass(Duration::from_secs(11));
    assert_eq!(world.services.len(), 2);
}

#[test]
fn a_rolling_update_with_changed_ports_changes_each_slot_with_its_pod() {
    let mut world = world();
    three(&mut world);
    world.take_writes();
    world.delete_pod("c-2");
    world.pod("c-2").annotation(names::PORTS_ANNOTATION, "11223").stamped().create();
    assert_eq!(world.entry("c", "c-2").reason, Some("WaitingForEndpoints"));
    world.settle();
    assert_eq!(world.take_writes(), ["update_service"]);
    assert_eq!(world.entry("c", "c-2").ports[0].internal, 11223);
    assert_eq!(world.entry("c", "c-1").ports[0].internal, 11222, "the others go on as they are");
    assert_eq!(world.summary("c"), ROUTED);
}

#[test]
fn a_namespace_that_loses_its_label_loses_entries_at_once_and_services_after_the_retention() {
    let mut world = world();
    three(&mut world);
    world.enable_namespace(false);
    assert!(world.summary("c").iter().all(|e| e.ends_with("Pending NamespaceNotEnabled")));
    world.pass(Duration::from_secs(599));
    assert_eq!(world.services.len(), 3);
    world.pass(Duration::from_secs(2));
    assert!(world.services.is_empty());
    assert!(world.events.iter().any(|e| *e == ("Pod".into(), "c-0".into(), "NamespaceNotEnabled".into())));
    world.enable_namespace(true);
    world.settle();
    assert!(world.summary("c").iter().all(|e| e.contains("Routed")));
}

#[test]
fn a_copied_identity_routes_to_nobody_until_one_claimant_is_left() {
    let mut world = world();
    three(&mut world);
    // somebody else's pod, not of any cluster of ours
    let forged = world.pod("evil").label(names::POD_ID_LABEL, "c.c-1");
    let mut forged = forged.set("/metadata/ownerReferences", json!([]));
    forged = forged.set("/metadata/labels", json!({names::POD_ID_LABEL: "c.c-1"}));
    forged.create();
    assert_eq!(world.entry("c", "c-1").reason, Some("DuplicateIdentity"), "withdrawn before any write");
    assert_eq!(world.entry("c", "c-1").external, None);
    world.settle();
    assert_eq!(world.services["c-ext-1"]["spec"]["selector"], json!({names::POD_ID_LABEL: "nobody"}));
    assert!(world.events.iter().any(|e| e.2 == "DuplicateIdentity"));
    world.delete_pod("evil");
    world.settle();
    assert_eq!(world.summary("c"), ROUTED);
}

#[test]
fn a_copied_pod_of_the_cluster_gets_an_identity_of_its_own() {
    let mut world = world();
    three(&mut world);
    world.pod("copy").label(names::POD_ID_LABEL, "c.c-1").create();
    world.settle();
    assert_eq!(world.entry("c", "c-1").external.unwrap().ips[0].to_string(), "203.0.113.3");
    assert_eq!(world.entry("c", "copy").state, EntryState::Routed);
    assert_eq!(world.entry("c", "copy").slot, Some(3));
}

#[test]
fn two_pods_with_one_internal_address_are_both_withdrawn() {
    let mut world = world();
    three(&mut world);
    let ip = world.entry("c", "c-0").internal.ips[0].to_string();
    world.pod("c-3").set("/status/podIPs", json!([{"ip": ip}])).stamped().create();
    assert_eq!(world.entry("c", "c-0").reason, Some("DuplicateInternalAddress"));
    world.settle();
    assert_eq!(world.entry("c", "c-3").reason, Some("DuplicateInternalAddress"));
    world.edit_pod("c-0", |v| v["status"]["phase"] = json!("Failed"));
    world.settle();
    assert_eq!(world.entry("c", "c-0").reason, Some("Finished"));
    assert!(world.entry("c", "c-0").internal.ips.is_empty(), "a pod that has ended has no address");
    assert_eq!(world.entry("c", "c-3").state, EntryState::Routed);
}

#[test]
fn two_services_with_one_external_address_are_both_withdrawn() {
    let mut world = world();
    three(&mut world);
    world
        .edit_service("c-ext-1", |v| v["status"]["loadBalancer"]["ingress"] = json!([{"ip": "203.0.113.2"}]));
    for pod in ["c-0", "c-1"] {
        assert_eq!(world.entry("c", pod).reason, Some("DuplicateExternalAddress"));
    }
    assert_eq!(world.entry("c", "c-2").state, EntryState::Routed);
}

#[test]
fn the_predecessors_endpoint_withdraws_the_entry_until_the_slice_follows() {
    let mut world = world();
    three(&mut world);
    world.delete_pod("c-1");
    world.pod("c-1").stamped().create();
    let entry = world.entry("c", "c-1");
    assert_eq!((entry.reason, entry.external), (Some("WaitingForEndpoints"), None));
    world.settle();
    assert_eq!(world.summary("c"), ROUTED);
}

#[test]
fn over_the_clusters_limit_a_pod_gets_a_reason_and_the_others_go_on() {
    let mut world = limited(|s| s.limits.slots_per_cluster = 2);
    three(&mut world);
    assert_eq!(world.summary("c")[2], "c-2 Pending ClusterLimit");
    assert_eq!(world.services.len(), 2);
    assert!(world.events.contains(&("Pod".into(), "c-2".into(), "ClusterLimit".into())));
    assert!(world.events.contains(&("StatefulSet".into(), "c".into(), "ClusterLimit".into())));
    world.delete_pod("c-0");
    world.pass(Duration::from_secs(31));
    assert_eq!(
        world.entry("c", "c-2").state,
        EntryState::Routed,
        "takes the longest-free slot once it has rested"
    );
}

#[test]
fn the_installations_limit_is_shared_and_freed_load_balancers_go_to_whoever_waits() {
    let mut world = limited(|s| s.limits.load_balancers = 2);
    three(&mut world);
    world.pod("d-0").label(names::CLUSTER_LABEL, "d").stamped().create();
    world.settle();
    assert_eq!(world.summary("d"), ["d-0 Pending InstallationLimit"]);
    for i in 0..3 {
        world.delete_pod(&format!("c-{i}"));
    }
    world.pass(Duration::from_secs(601));
    assert_eq!(world.entry("d", "d-0").state, EntryState::Routed);
}

#[test]
fn without_a_load_balancer_the_reason_says_so_and_it_is_taken_back_when_one_comes() {
    let mut world = world();
    world.load_balancer = false;
    three(&mut world);
    assert_eq!(world.entry("c", "c-0").reason, Some("WaitingForAddress"));
    world.pass(Duration::from_secs(121));
    assert_eq!(world.entry("c", "c-0").reason, Some("NoLoadBalancer"));
    assert!(world.events.iter().any(|e| e.2 == "NoLoadBalancer"));
    world.load_balancer = true;
    world.settle();
    assert_eq!(world.summary("c"), ROUTED);
    assert!(world.services["c-ext-0"]["metadata"]["annotations"][names::OVERDUE_ANNOTATION].is_null());
}

#[test]
fn an_error_for_a_port_is_not_an_address() {
    let mut world = world();
    three(&mut world);
    world.edit_service("c-ext-0", |v| {
        v["status"]["loadBalancer"]["ingress"] =
            json!([{"ip": "203.0.113.2", "ports": [{"port": 11222, "protocol": "TCP", "error": "InUse"}]}]);
    });
    world.settle();
    let entry = world.entry("c", "c-0");
    assert_eq!((entry.reason, entry.external), (Some("PortError"), None));
    assert!(entry.message.unwrap().contains("11222/TCP: InUse"));
}

#[test]
fn a_refused_write_is_told_and_tried_again_later() {
    let mut world = world();
    world.refuse_creates = Some("exceeded quota: small".into());
    world.pod("c-0").stamped().create();
    world.pass(Duration::from_secs(5));
    assert!(world.events.iter().any(|e| e.2 == "WriteRefused"));
    world.refuse_creates = None;
    world.pass(Duration::from_secs(61));
    assert_eq!(world.entry("c", "c-0").state, EntryState::Routed);
}

#[test]
fn pods_that_cannot_be_exposed_get_their_reason_and_cost_no_service() {
    let mut world = world();
    world.pod("host").set("/spec/hostNetwork", json!(true)).create();
    world.pod("mirror").annotation(names::MIRROR_ANNOTATION, "x").create();
    world.pod("ports").annotation(names::PORTS_ANNOTATION, "http//").create();
    world.pod("unknown").annotation(names::PORTS_ANNOTATION, "nope").create();
    world.pod("none").set("/spec/containers", json!([{}])).create();
    world.pod("class").annotation(names::CLASS_ANNOTATION, "gold").create();
    world.pod("done").set("/status/phase", json!("Succeeded")).create();
    world.pod("good").create();
    world.pod("name").label(names::CLUSTER_LABEL, "Not_A_Name").create();
    world.settle();
    let reasons: BTreeMap<String, Option<&str>> =
        world.mapping("c").unwrap().entries.into_iter().map(|e| (e.pod, e.reason)).collect();
    let expected = [
        ("class", Some("UnknownClass")),
        ("done", Some("Finished")),
        ("good", None),
        ("host", Some("HostNetwork")),
        ("mirror", Some("MirrorPod")),
        ("none", Some("NoPorts")),
        ("ports", Some("InvalidPorts")),
        ("unknown", Some("UnknownPort")),
    ];
    assert_eq!(reasons, expected.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
    assert_eq!(world.entry("Not_A_Name", "name").reason, Some("InvalidClusterName"));
    assert_eq!(world.services.len(), 1);
    let told: Vec<&str> = world.events.iter().filter(|e| e.0 == "Pod").map(|e| e.2.as_str()).collect();
    assert_eq!(told.len(), 7, "each once, none for the finished and the good one: {told:?}");
}

#[test]
fn events_are_told_once_and_bounded() {
    let mut world = world();
    for i in 0..200 {
        world.pod(&format!("h-{i}")).set("/spec/hostNetwork", json!(true)).create();
    }
    world.settle();
    assert!(world.events.len() <= 50, "{}", world.events.len());
    world.pass(Duration::from_secs(120));
    assert_eq!(world.events.len(), 201, "all in the end: each pod, and its owner once");
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.events.len(), 201);
}

#[test]
fn pods_of_a_configured_cluster_are_adopted_without_a_label_of_their_own() {
    let mut world = limited(|s| {
        s.clusters.push(ConfiguredCluster {
            name: "infinispan".parse().unwrap(),
            namespace: NS.into(),
            selector: BTreeMap::from([("clusterName".into(), "infinispan".into())]),
            ports: vec![PortSpec::tcp(11222)],
            class: DEFAULT_CLASS.into(),
        });
    });
    world.pod("ispn-0").set("/metadata/labels", json!({"clusterName": "infinispan"})).create();
    world.settle();
    assert_eq!(world.summary("infinispan"), ["ispn-0 Routed 203.0.113.2"]);
    assert_eq!(world.take_writes(), ["create_service", "label_pod"]);
    assert_eq!(world.mapping("infinispan").unwrap().selector["clusterName"], "infinispan");
}

#[test]
fn a_terminating_pod_keeps_its_slot_until_it_is_gone() {
    let mut world = world();
    three(&mut world);
    world.edit_pod("c-1", |v| v["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    world.settle();
    let entry = world.entry("c", "c-1");
    assert!(entry.terminating);
    assert_eq!(entry.state, EntryState::Routed);
}

#[test]
fn surplus_slots_of_one_pod_are_deleted() {
    let mut world = world();
    three(&mut world);
    let mut twin = world.services["c-ext-0"].clone();
    twin["metadata"]["name"] = json!("c-ext-9");
    twin["metadata"]["uid"] = json!("twin");
    twin["metadata"]["labels"][names::SLOT_LABEL] = json!("9");
    twin["status"] = json!({});
    world.put_service(twin);
    world.settle();
    assert!(!world.services.contains_key("c-ext-9"));
    assert_eq!(world.summary("c"), ROUTED);
}

#[test]
fn a_creation_nobody_sees_or_answers_is_planned_again_though_its_cluster_was_looked_at_meanwhile() {
    let mut world = world();
    world.pod("c-0").admitted().create();
    let look = |world: &mut World| {
        world.planner.touch([Key::new(NS, "c")]);
        let now = world.now();
        world.planner.plan(&world.state, now)
    };
    let is_creation = |actions: &[Action]| matches!(actions, [Action::CreateService(_)]);
    assert!(is_creation(&look(&mut world)));
    assert!(look(&mut world).is_empty(), "it is under way");
    world.clock = world.planner.next_wake().expect("it is looked at again");
    let now = world.now();
    assert!(is_creation(&world.planner.plan(&world.state, now)));
}
