//! What somebody else has written, deleted or bent: mended where it is ours, reported where it is not.

use std::time::Duration;

use external_ip_core::mapping::EntryState;
use external_ip_core::names;
use serde_json::json;

use crate::plan::{ROUTED, three, world};
use crate::world::{NS, owner};

#[test]
fn a_service_deleted_by_hand_is_made_again() {
    let mut world = world();
    three(&mut world);
    world.delete_service("c-ext-1");
    world.settle();
    assert_eq!(world.entry("c", "c-1").state, EntryState::Routed);
    assert_eq!(world.entry("c", "c-1").slot, Some(1));
}

#[test]
fn a_service_edited_by_hand_is_mended_in_our_fields_only() {
    let mut world = world();
    three(&mut world);
    world.take_writes();
    world.edit_service("c-ext-1", |v| {
        v["spec"]["selector"] = json!({"app": "other", names::POD_ID_LABEL: "c.c-0"});
        v["metadata"]["annotations"]["team"] = json!("keep me");
        v["spec"]["sessionAffinity"] = json!("ClientIP");
    });
    assert_ne!(world.entry("c", "c-1").state, EntryState::Routed, "withdrawn at once");
    world.settle();
    let service = &world.services["c-ext-1"];
    assert_eq!(service["spec"]["selector"], json!({names::POD_ID_LABEL: "c.c-1"}));
    assert_eq!(service["metadata"]["annotations"]["team"], "keep me");
    assert_eq!(service["spec"]["sessionAffinity"], "ClientIP");
    assert_eq!(world.take_writes(), ["update_service"]);
    assert_eq!(world.summary("c"), ROUTED);
}

#[test]
fn a_selector_bent_to_another_member_is_mended_and_no_address_is_lost() {
    let mut world = world();
    three(&mut world);
    world.take_writes();
    world.edit_service("c-ext-0", |v| v["spec"]["selector"] = json!({names::POD_ID_LABEL: "c.c-1"}));
    world.settle();
    assert_eq!(world.take_writes(), ["update_service"]);
    assert_eq!(world.summary("c"), ROUTED);
    // also where its pod is away at that moment
    world.delete_pod("c-0");
    world.edit_service("c-ext-0", |v| v["spec"]["selector"] = json!({names::POD_ID_LABEL: "c.c-1"}));
    world.pass(Duration::from_secs(60));
    world.pod("c-0").stamped().create();
    world.settle();
    assert_eq!(world.summary("c"), ROUTED);
}

#[test]
fn endpoints_written_by_somebody_else_are_not_believed() {
    let mut world = world();
    three(&mut world);
    let uid = world.entry("c", "c-0").uid;
    world.slice(&json!({"metadata": {"namespace": NS, "name": "forged", "resourceVersion": "9000",
        "labels": {names::SLICE_SERVICE_LABEL: "c-ext-0", names::CLUSTER_LABEL: "c"}},
        "endpoints": [{"addresses": ["198.18.9.9"], "targetRef": {"kind": "Pod", "uid": uid}}],
        "ports": [{"port": 11222, "protocol": "TCP"}]}));
    let entry = world.entry("c", "c-0");
    assert_eq!((entry.reason, entry.external), (Some("ForeignEndpoint"), None));
}

#[test]
fn a_foreign_service_under_a_slots_name_is_reported_and_never_touched() {
    let mut world = world();
    let foreign = json!({"metadata": {"name": "c-ext-0", "namespace": NS, "uid": "theirs", "resourceVersion": "5"},
        "spec": {"selector": {"app": "theirs"}}});
    world.foreign.insert("c-ext-0".into(), foreign.clone());
    three(&mut world);
    assert_eq!(world.foreign["c-ext-0"], foreign);
    assert!(world.summary("c").iter().all(|e| e.contains("Routed")), "{:?}", world.summary("c"));
    assert_eq!(world.entry("c", "c-0").slot, Some(3), "the next number instead");
    assert!(world.events.iter().any(|e| e.2 == "NameTaken"));
}

#[test]
fn a_foreign_service_is_taken_over_when_its_owner_hands_it_over() {
    let mut world = world();
    world.foreign.insert(
        "c-ext-0".into(),
        json!({"metadata": {"name": "c-ext-0", "namespace": NS, "uid": "theirs",
        "resourceVersion": "5", "annotations": {names::ADOPT_ANNOTATION: "true"}},
        "spec": {"selector": {"app": "theirs"}},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.77"}]}}}),
    );
    world.pod("c-0").stamped().create();
    world.settle();
    assert_eq!(world.summary("c"), ["c-0 Routed 203.0.113.77"]);
    let service = &world.services["c-ext-0"];
    assert_eq!(service["spec"]["selector"], json!({names::POD_ID_LABEL: "c.c-0"}));
    assert!(service["metadata"]["annotations"][names::ADOPT_ANNOTATION].is_null());
}

#[test]
fn another_installations_services_are_left_alone() {
    let mut world = world();
    three(&mut world);
    let mut theirs = world.services["c-ext-0"].clone();
    theirs["metadata"]["name"] = json!("c-ext-5");
    theirs["metadata"]["uid"] = json!("theirs");
    theirs["metadata"]["labels"][names::SLOT_LABEL] = json!("5");
    theirs["metadata"]["annotations"][names::OWNER_ANNOTATION] = json!("another");
    theirs["spec"]["selector"] = json!({names::POD_ID_LABEL: "c.c-7"});
    theirs["status"] = json!({});
    world.put_service(theirs);
    world.take_writes();
    world.pod("c-7").set("/metadata/ownerReferences", owner("StatefulSet")).stamped().create();
    world.pass(Duration::from_secs(700));
    assert!(world.services.contains_key("c-ext-5"));
    assert_eq!(world.take_writes(), ["create_service"]);
    assert_eq!(world.entry("c", "c-7").slot, Some(7));
}
