//! The writer and `cleanup` on a real API server.

use std::collections::BTreeMap;

use external_ip_controller::act::writer::Writer;
use external_ip_controller::cleanup;
use external_ip_controller::cli;
use external_ip_core::action::{Action, Event, Outcome};
use external_ip_core::names::Key;
use external_ip_core::objects::{Protocol, Service, ServicePort};
use external_ip_core::reason::Code;
use external_ip_core::service::{GivenUp, SlotService};
use external_ip_core::settings::{Exposure, ServiceTemplate};
use serde_json::{Value, json};

use crate::bare::{Bare, Replica, metrics};
use crate::support::eventually;
use crate::support::install::{ACCOUNT, HOME};

fn slot(namespace: &str, owner: &str, port: u16) -> SlotService {
    SlotService {
        key: Key::new(namespace, "c-ext-0"),
        cluster: "c".into(),
        exposure: Exposure::Dedicated,
        slot: 0,
        owner: owner.into(),
        class: "default".into(),
        pod: "c-0".into(),
        pod_id: Some("c.c-0".into()),
        ports: vec![ServicePort {
            name: "p".into(),
            protocol: Protocol::Tcp,
            port,
            target: port,
            target_name: String::new(),
        }],
        template: ServiceTemplate::default(),
        asked: vec![],
        given_up: GivenUp::default(),
    }
}

fn service_path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/services/c-ext-0")
}

async fn read(bare: &Bare, namespace: &str) -> Service {
    serde_json::from_value(bare.admin.get(&service_path(namespace)).await.ok()).unwrap()
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "c"}},
        "spec": {"containers": [{"name": "main", "image": "none"}]}})
}

/// The account's writes in a namespace: verb, resource and code, with their number.
fn counted(bare: &Bare, from: u64, namespace: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let (events, _) = bare.cluster.audit_events_since(from).unwrap();
    for event in events.iter().filter(|e| e.user == ACCOUNT && e.namespace == namespace) {
        *counts.entry(format!("{} {} {}", event.verb, event.resource, event.code)).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn services_are_written_with_preconditions_only() {
    let bare = Bare::new().await;
    bare.namespace("writes").await;
    let client = bare.client().await;
    let replica = Replica::start(&client, "writer");
    replica.leads().await;
    let writer = Writer::new(client, replica.leadership.clone(), "mine", metrics());
    let from = bare.cluster.audit_position().unwrap();

    let create = Action::CreateService(slot("writes", "mine", 1000));
    assert_eq!(writer.perform(&create).await, Outcome::Done);
    let made = read(&bare, "writes").await;
    assert!(slot("writes", "mine", 1000).is_met_by(&made), "{made:?}");
    let again = writer.perform(&create).await;
    assert!(matches!(&again, Outcome::NameTaken { ours: true, uid, .. } if *uid == made.uid), "{again:?}");

    let update = |port: u16, service: &Service| Action::UpdateService {
        uid: service.uid.clone(),
        version: service.version,
        desired: slot("writes", "mine", port),
        drop_selector: vec![],
    };
    bare.admin.patch(&service_path("writes"), &json!({"metadata": {"annotations": {"a": "b"}}})).await.ok();
    assert_eq!(writer.perform(&update(2000, &made)).await, Outcome::Conflict, "planned from an old version");
    let newer = read(&bare, "writes").await;
    assert_eq!(writer.perform(&update(2000, &newer)).await, Outcome::Done);
    let changed = read(&bare, "writes").await;
    assert!(slot("writes", "mine", 2000).is_met_by(&changed), "{changed:?}");
    assert_eq!(changed.annotations.get("a"), Some("b"), "what is not ours stays");

    let refused = writer.perform(&update(0, &changed)).await;
    assert!(matches!(&refused, Outcome::Refused(why) if why.contains("spec.ports[0].port")), "{refused:?}");
    let delete = |service: &Service| Action::DeleteService {
        key: service.key.clone(),
        uid: service.uid.clone(),
        version: service.version,
    };
    assert_eq!(writer.perform(&delete(&made)).await, Outcome::Conflict);
    let last = read(&bare, "writes").await;
    let stranger = Service { uid: "00000000-0000-0000-0000-000000000000".into(), ..last.clone() };
    assert_eq!(writer.perform(&delete(&stranger)).await, Outcome::Conflict, "its successor of the same name");
    assert_eq!(writer.perform(&delete(&last)).await, Outcome::Done);
    eventually("it is gone", async || match bare.admin.get(&service_path("writes")).await.status.as_u16() {
        404 => Ok(()),
        code => Err(code.to_string()),
    })
    .await;
    assert_eq!(writer.perform(&delete(&last)).await, Outcome::Conflict);
    assert_eq!(writer.perform(&update(1, &last)).await, Outcome::Conflict);

    let expected = BTreeMap::from([
        ("create services 201", 1),
        ("create services 409", 1),
        ("get services 200", 1),
        ("patch services 409", 1),
        ("patch services 200", 1),
        ("patch services 422", 1),
        ("patch services 404", 1),
        ("delete services 409", 2),
        ("delete services 200", 1),
        ("delete services 404", 1),
    ]);
    eventually("the audit log shows these calls and no others", async || {
        let found = counted(&bare, from, "writes");
        let same = found.iter().map(|(k, v)| (k.as_str(), *v)).eq(expected.clone());
        if same { Ok(()) } else { Err(format!("{found:#?}")) }
    })
    .await;
    replica.stop().await;
}

#[tokio::test]
async fn a_foreign_service_under_the_name_is_told_apart() {
    let bare = Bare::new().await;
    bare.namespace("foreign").await;
    let client = bare.client().await;
    let replica = Replica::start(&client, "writer");
    replica.leads().await;
    let writer = Writer::new(client, replica.leadership.clone(), "mine", metrics());
    let theirs = json!({"metadata": {"name": "c-ext-0", "annotations": {"external-ip.dev/owner": "mine"}},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 1}]}});
    bare.admin.post("/api/v1/namespaces/foreign/services", &theirs).await.ok();
    let before = read(&bare, "foreign").await;
    let create = Action::CreateService(slot("foreign", "mine", 1000));
    let expected = |adoptable: bool, service: &Service| Outcome::NameTaken {
        uid: service.uid.clone(),
        version: service.version,
        ours: false,
        adoptable,
        selector: vec!["app".into()],
        addresses: vec![],
    };
    assert_eq!(writer.perform(&create).await, expected(false, &before));
    assert_eq!(read(&bare, "foreign").await, before, "untouched");
    let consent = json!({"metadata": {"annotations": {"external-ip.dev/adopt": "true"}}});
    bare.admin.patch(&service_path("foreign"), &consent).await.ok();
    let handed = read(&bare, "foreign").await;
    assert_eq!(writer.perform(&create).await, expected(true, &handed));
    // the plan's answer to that
    let adopt = Action::UpdateService {
        uid: handed.uid.clone(),
        version: handed.version,
        desired: slot("foreign", "mine", 1000),
        drop_selector: vec!["app".into()],
    };
    assert_eq!(writer.perform(&adopt).await, Outcome::Done);
    let adopted = read(&bare, "foreign").await;
    assert!(slot("foreign", "mine", 1000).is_met_by(&adopted), "{adopted:?}");
    replica.stop().await;
}

#[tokio::test]
async fn pods_are_labelled_by_uid_and_events_are_told_once() {
    let bare = Bare::new().await;
    bare.namespace("labels").await;
    let client = bare.client().await;
    let replica = Replica::start(&client, "writer");
    replica.leads().await;
    let writer = Writer::new(client, replica.leadership.clone(), "mine", metrics());
    eventually("the default account", async || {
        match bare.admin.get("/api/v1/namespaces/labels/serviceaccounts/default").await {
            a if a.status.is_success() => Ok(()),
            a => Err(a.body.to_string()),
        }
    })
    .await;
    let made = bare.admin.post("/api/v1/namespaces/labels/pods", &pod("c-0")).await.ok();
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let label = |uid: &str, id: &str| Action::LabelPod {
        key: Key::new("labels", "c-0"),
        uid: uid.into(),
        pod_id: id.into(),
    };
    let stranger = "00000000-0000-0000-0000-000000000000";
    assert_eq!(writer.perform(&label(stranger, "c.c-0")).await, Outcome::Conflict);
    let refused = writer.perform(&label(uid, "not a label")).await;
    assert!(matches!(&refused, Outcome::Refused(why) if why.contains("metadata.labels")), "{refused:?}");
    for _ in 0..2 {
        assert_eq!(writer.perform(&label(uid, "c.c-0")).await, Outcome::Done);
    }
    let labelled = bare.admin.get("/api/v1/namespaces/labels/pods/c-0").await.ok();
    assert_eq!(labelled["metadata"]["labels"], json!({"app": "c", "stamp.external-ip.dev/pod-id": "c.c-0"}));

    let event = Action::RecordEvent(Event {
        namespace: "labels".into(),
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: "c-0".into(),
        uid: uid.into(),
        reason: Code::NoPorts.into(),
        at: 1_800_000_000_000_000,
    });
    for _ in 0..2 {
        assert_eq!(writer.perform(&event).await, Outcome::Done);
    }
    let events = bare.admin.get("/apis/events.k8s.io/v1/namespaces/labels/events").await.ok();
    let told = events["items"].as_array().unwrap().iter().filter(|e| e["reason"] == "NoPorts").count();
    assert_eq!(told, 1, "{events}");
    replica.stop().await;
}

#[tokio::test]
async fn cleanup_waits_for_the_controller_and_leaves_nothing_of_ours_and_all_of_others() {
    let bare = Bare::new().await;
    for name in ["clean-a", "clean-b"] {
        bare.namespace(name).await;
        for (owner, object) in [("tidy", "ours"), ("another", "theirs")] {
            let metadata = json!({"name": object, "labels": {"app.kubernetes.io/managed-by": "external-ip-controller"},
                "annotations": {"external-ip.dev/owner": owner}});
            let map = json!({"metadata": metadata, "data": {"k": "v"}});
            bare.admin.post(&format!("/api/v1/namespaces/{name}/configmaps"), &map).await.ok();
            let service =
                json!({"metadata": metadata, "spec": {"type": "LoadBalancer", "ports": [{"port": 1}]}});
            bare.admin.post(&format!("/api/v1/namespaces/{name}/services"), &service).await.ok();
        }
        let unlabelled =
            json!({"metadata": {"name": "bystander", "annotations": {"external-ip.dev/owner": "tidy"}}});
        bare.admin.post(&format!("/api/v1/namespaces/{name}/configmaps"), &unlabelled).await.ok();
    }
    let gated = json!({
        "metadata": {"name": "c-0", "labels": {"stamp.external-ip.dev/pod-id": "c.c-0"}},
        "spec": {"containers": [{"name": "main", "image": "none"}],
            "schedulingGates": [{"name": "example.com/other"}, {"name": "external-ip.dev/address"}]},
    });
    eventually("the gated pod is made", async || {
        let answer = bare.admin.post("/api/v1/namespaces/clean-a/pods", &gated).await;
        if answer.status.is_success() { Ok(()) } else { Err(answer.body.to_string()) }
    })
    .await;
    let client = bare.client().await;
    let mut args = cli::Cleanup {
        namespace: None,
        dry_run: true,
        installation: "tidy".into(),
        controller_namespace: HOME.into(),
        force: false,
    };
    let ours = async || {
        let mut left = Vec::new();
        for namespace in ["clean-a", "clean-b"] {
            for kind in ["services", "configmaps"] {
                let names = bare.admin.names(&format!("/api/v1/namespaces/{namespace}/{kind}")).await;
                assert!(names.contains(&"theirs".to_owned()));
                left.extend(names.iter().filter(|n| *n == "ours").map(|_| format!("{namespace} {kind}")));
            }
        }
        left
    };
    let replica = Replica::start(&client, "alive");
    replica.leads().await;
    cleanup::run(&client, &args).await.unwrap();
    assert_eq!(ours().await.len(), 4, "a dry run changes nothing");
    args.dry_run = false;
    let refused = cleanup::run(&client, &args).await.unwrap_err().to_string();
    assert!(refused.contains("alive_") && refused.contains("--replicas=0"), "{refused}");
    assert_eq!(ours().await.len(), 4);

    // one namespace that has left may be tidied while the controller lives
    args.namespace = Some("clean-b".into());
    cleanup::run(&client, &args).await.unwrap_err();
    let leave = json!({"metadata": {"labels": {"external-ip.dev/enabled": null}}});
    bare.admin.patch("/api/v1/namespaces/clean-b", &leave).await.ok();
    cleanup::run(&client, &args).await.unwrap();
    assert_eq!(ours().await, ["clean-a services", "clean-a configmaps"]);

    replica.stop().await;
    args.namespace = None;
    cleanup::run(&client, &args).await.unwrap();
    assert!(ours().await.is_empty());
    let pod = bare.admin.get("/api/v1/namespaces/clean-a/pods/c-0").await.ok();
    assert_eq!(pod["spec"]["schedulingGates"], json!([{"name": "example.com/other"}]));
    let maps = bare.admin.names("/api/v1/namespaces/clean-a/configmaps").await;
    assert!(maps.contains(&"bystander".to_owned()), "{maps:?}");
}
