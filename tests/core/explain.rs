//! Explanations: the map's own reason, where the pod stands, since when; and the list of all reasons in the docs.

use std::collections::BTreeSet;
use std::fmt::Write;

use external_ip_core::explain::{self, Explanation, Progress, Stage};
use external_ip_core::mapping::EntryState;
use external_ip_core::names::{self, Key};
use external_ip_core::reason::Code;
use external_ip_core::settings::{Exposure, Settings};
use serde_json::{Value, json};

use crate::golden::assert_golden;
use crate::world::{NS, World};

fn world() -> World {
    World::new(Settings::default())
}

fn explained(world: &World, pod: &str) -> Explanation {
    explain::pod(&world.state, &Key::new(NS, pod)).expect("the pod is known")
}

/// The stage a pod stands at; `None` where it has them all behind it.
fn here(explanation: &Explanation) -> Option<Stage> {
    let mut at = explanation.steps.iter().filter(|s| s.progress == Progress::Here);
    let stage = at.next().map(|s| s.stage);
    assert!(at.next().is_none(), "it stands at one place: {explanation:?}");
    stage
}

/// A change of the world around pod `c-0`.
type Change = fn(&mut World);

const STATES: &[(&str, Change, Option<Code>, Option<Stage>)] = &[
    ("everything is there", |_| {}, None, None),
    ("no label", |w| w.edit_pod("c-0", unlabelled), Some(Code::NotLabelled), Some(Stage::Seen)),
    (
        "namespace taken out",
        |w| w.enable_namespace(false),
        Some(Code::NamespaceNotEnabled),
        Some(Stage::Seen),
    ),
    (
        "unknown class",
        |w| w.edit_pod("c-0", |p| p["metadata"]["annotations"][names::CLASS_ANNOTATION] = json!("gold")),
        Some(Code::UnknownClass),
        Some(Stage::Seen),
    ),
    (
        "ended",
        |w| w.edit_pod("c-0", |p| p["status"]["phase"] = json!("Succeeded")),
        Some(Code::Finished),
        Some(Stage::Seen),
    ),
    (
        "identity taken away",
        |w| w.edit_pod("c-0", |p| p["metadata"]["labels"] = json!({names::CLUSTER_LABEL: "c"})),
        Some(Code::WaitingForSlot),
        Some(Stage::Identity),
    ),
    ("Service gone", |w| w.delete_service("c-ext-0"), Some(Code::WaitingForSlot), Some(Stage::Slot)),
    (
        "Service going",
        |w| w.edit_service("c-ext-0", |s| s["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
        Some(Code::ServiceDeleted),
        Some(Stage::Service),
    ),
    (
        "no address",
        |w| w.edit_service("c-ext-0", |s| s["status"] = json!({})),
        Some(Code::WaitingForAddress),
        Some(Stage::Address),
    ),
    (
        "a port refused",
        |w| {
            w.edit_service("c-ext-0", |s| {
                s["status"]["loadBalancer"]["ingress"][0]["ports"] =
                    json!([{"port": 11222, "protocol": "TCP", "error": "InUse"}]);
            });
        },
        Some(Code::PortError),
        Some(Stage::Address),
    ),
    (
        "another port wanted",
        |w| w.edit_pod("c-0", |p| p["metadata"]["annotations"][names::PORTS_ANNOTATION] = json!("8080")),
        Some(Code::ServiceChanging),
        Some(Stage::Service),
    ),
    (
        "no pod address",
        |w| w.edit_pod("c-0", |p| p["status"]["podIPs"] = json!([])),
        Some(Code::WaitingForEndpoints),
        Some(Stage::Endpoints),
    ),
];

fn unlabelled(pod: &mut Value) {
    pod["metadata"]["labels"] = json!({});
}

#[test]
fn every_state_says_where_the_pod_stands_and_why_as_the_map_does() {
    for (what, change, code, stage) in STATES {
        let mut world = world();
        world.pod("c-0").stamped().create();
        world.settle();
        change(&mut world);
        let found = explained(&world, "c-0");
        assert_eq!((found.code(), here(&found)), (*code, *stage), "{what}: {found:#?}");
        assert_eq!(found.remedy, code.map(Code::remedy), "{what}");
        let in_map = world.mapping("c").and_then(|m| m.entries.into_iter().find(|e| e.pod == "c-0"));
        match in_map {
            Some(entry) => assert_eq!(entry, found.entry, "{what}"),
            None => assert_eq!(*code, Some(Code::NotLabelled), "{what}"),
        }
        let text = explain::text(&found);
        let told = found.entry.reason.is_none_or(|r| text.contains(&format!("reason    {r}: ")));
        assert!(told && text.starts_with("data/c-0: "), "{what}: {text}");
    }
}

#[test]
fn a_pod_nobody_has_seen_is_not_explained() {
    assert_eq!(explain::pod(&world().state, &Key::new(NS, "c-0")), None);
}

#[test]
fn a_service_being_changed_keeps_the_address_it_has() {
    let mut world = world();
    world.pod("c-0").stamped().create();
    world.settle();
    world.edit_pod("c-0", |p| p["metadata"]["annotations"][names::PORTS_ANNOTATION] = json!("8080"));
    let found = explained(&world, "c-0");
    let address = found.steps.iter().find(|s| s.stage == Stage::Address).unwrap();
    assert_eq!((address.progress, address.detail.as_str()), (Progress::Done, "203.0.113.2"));
    assert_eq!(found.entry.state, EntryState::Allocated);
}

#[test]
fn since_is_the_latest_time_that_is_recorded_for_what_decides() {
    let at = |time: &str| json!(format!("2026-01-01T00:0{time}:00Z"));
    let mut world = world();
    world.pod("c-0").stamped().create();
    world.settle();
    world.edit_pod("c-0", |p| p["metadata"]["creationTimestamp"] = at("1"));
    world.edit_service("c-ext-0", |s| {
        s["metadata"]["creationTimestamp"] = at("2");
        s["metadata"]["managedFields"] = json!([
            {"manager": "speaker", "operation": "Update", "subresource": "status", "time": at("3")},
            {"manager": "somebody", "operation": "Update", "time": at("9")},
        ]);
    });
    assert_eq!(explained(&world, "c-0").since, "2026-01-01T00:03:00Z", "the status was written");
    world.edit_slice("c-ext-0", |s| {
        s["metadata"]["annotations"][names::SLICE_TRIGGER_ANNOTATION] = at("4");
    });
    assert_eq!(explained(&world, "c-0").since, "2026-01-01T00:04:00Z", "the endpoints followed a pod");
    world.edit_service("c-ext-0", |s| s["status"] = json!({}));
    assert_eq!(
        explained(&world, "c-0").since,
        "2026-01-01T00:02:00Z",
        "without an address since it was made"
    );
    world.edit_pod("c-0", |p| {
        p["status"] = json!({"phase": "Failed",
            "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": at("5")}]});
    });
    assert_eq!(explained(&world, "c-0").since, "2026-01-01T00:05:00Z", "it ended when it was ready no more");
}

#[test]
fn an_explanation_reads_well_as_text_and_as_json() {
    let mut world = world();
    world.pod("c-0").stamped().create();
    world.settle();
    world.load_balancer = false;
    world.pod("c-1").stamped().create();
    world.settle();
    let both = ["c-0", "c-1"].map(|pod| explained(&world, pod));
    assert_golden("explain/text", &both.each_ref().map(explain::text).join("\n"));
    let mut json = serde_json::to_string_pretty(&both).unwrap();
    json.push('\n');
    assert_golden("explain/json", &json);
}

#[test]
fn an_explanation_tells_how_an_address_departs_from_the_class_and_whether_it_answers() {
    let mut world = world();
    world.pod("c-0").stamped().create();
    world.settle();
    let mut settings = Settings::default();
    settings.classes.get_mut("default").unwrap().exposure = vec![Exposure::NodePort];
    world.restart(settings);
    let mut found = explained(&world, "c-0");
    let text = explain::text(&found);
    assert!(text.contains("  drift     ClassChanged: ") && text.contains("class: nodePort"), "{text}");
    assert!(!text.contains("  reachable "), "{text}");
    found.entry.reachable = Some(false);
    assert!(explain::text(&found).contains("  reachable no"), "{text}");
}

#[test]
fn the_documentation_lists_every_reason() {
    let mut text = String::from(
        "# Reasons\n\n\
        Why a pod has no entry of state `Routed`, in the map, in Events, in metrics and in `external-ip-controller explain`.\n\
        *Stands at* is the stage of the pod's way: seen, identity, slot, service, address, endpoints, routed. What needs\n\
        somebody's attention becomes an Event on the pod and its owner; the others pass by themselves.\n\n\
        | reason | stands at | what is the case | what to do | Event |\n| --- | --- | --- | --- | --- |\n",
    );
    for code in Code::all() {
        let event = if code.needs_attention() { "yes" } else { "" };
        let stage = Stage::of(code).as_str();
        let (sentence, remedy) = (code.sentence(), code.remedy());
        writeln!(text, "| `{code}` | {stage} | {sentence} | {remedy} | {event} |").unwrap();
    }
    assert_golden("../../../docs/reasons.md", &text);
    let remedies: BTreeSet<_> = Code::all().map(Code::remedy).collect();
    assert!(remedies.iter().all(|r| !r.contains('|')), "a table's cell");
}
