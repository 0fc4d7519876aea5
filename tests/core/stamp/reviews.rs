use external_ip_core::names;
use external_ip_core::reason::Code;
use external_ip_core::stamp::answer;
use serde_json::{Value, json};

use super::{UID, answered, operations, patched, review, settings, slots};

fn member(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"external-ip.dev/cluster": "infinispan"}},
        "spec": {"containers": [{"ports": [{"containerPort": 11222}]}]},
    })
}

#[test]
fn other_requests_are_allowed_as_they_are() {
    type Change = fn(&mut Value);
    let changes: [Change; 5] = [
        |r| r["resource"]["resource"] = json!("services"),
        |r| r["resource"]["group"] = json!("metrics.k8s.io"),
        |r| r["subResource"] = json!("eviction"),
        |r| r["operation"] = json!("UPDATE"),
        |r| r["resource"] = Value::Null,
    ];
    for change in changes {
        let mut review = review(&member("infinispan-0"));
        change(&mut review["request"]);
        let (answer, response) = answered(&review);
        assert_eq!(response, json!({"uid": UID, "allowed": true}));
        assert!(!answer.stamped && answer.skipped.is_none());
    }
}

#[test]
fn a_dry_run_is_answered_the_same_and_marked() {
    let mut review = review(&member("infinispan-0"));
    let (_, wet) = answered(&review);
    review["request"]["dryRun"] = json!(true);
    let (answer, dry) = answered(&review);
    assert!(answer.dry_run && answer.stamped);
    assert_eq!(wet, dry);
}

#[test]
fn the_request_says_the_namespace_where_the_object_does_not() {
    let mut review = review(&member("infinispan-0"));
    assert_eq!(answered(&review).0.namespace, "data");
    review["request"]["object"]["metadata"]["namespace"] = json!("elsewhere");
    assert_eq!(answered(&review).0.namespace, "data");
    review["request"]["namespace"] = json!("");
    assert_eq!(answered(&review).0.namespace, "elsewhere");
}

#[test]
fn a_pod_without_a_name_gets_the_same_identity_when_the_review_is_repeated() {
    let mut pod = member("");
    pod["metadata"]["generateName"] = json!("infinispan-");
    let id = |review: &Value| {
        let (answer, response) = answered(review);
        assert_eq!(answer.pod, "infinispan-");
        let id = patched(&pod, &response)["metadata"]["labels"][names::POD_ID_LABEL].clone();
        assert!(names::is_anonymous(id.as_str().unwrap()));
        id
    };
    let mut review = review(&pod);
    let first = id(&review);
    assert_eq!(first, id(&review));
    review["request"]["uid"] = json!("another");
    assert_ne!(first, id(&review));
}

#[test]
fn an_object_that_cannot_be_read_is_allowed_with_a_warning() {
    let forged = json!({"name": "p", "labels": {"stamp.external-ip.dev/pod-id": "x"}});
    let broken = [
        (Value::Null, 0),
        (json!({}), 0),
        (json!([]), 0),
        (json!("pod"), 0),
        (json!({"metadata": {"labels": {"external-ip.dev/cluster": 5}}}), 0),
        (json!({"metadata": {"labels": []}}), 0),
        (json!({"metadata": forged, "spec": 5}), 1),
        (json!({"metadata": forged, "spec": {"containers": [{"ports": "11222"}]}}), 1),
    ];
    for (object, operations_wanted) in broken {
        let (answer, response) = answered(&review(&object));
        assert_eq!(answer.skipped.map(|r| r.code), Some(Code::UnreadableReview), "{object}");
        assert_eq!(response["warnings"].as_array().unwrap().len(), 1, "{object}");
        let operations = operations(&response);
        assert_eq!(
            operations.as_array().unwrap().len(),
            operations_wanted,
            "{object}: forged keys go anyway"
        );
    }
    let mut odd = review(&member("p"));
    odd["request"]["operation"] = json!({"not": "a string"});
    assert_eq!(answered(&odd).0.skipped.map(|r| r.code), Some(Code::UnreadableReview));
}

#[test]
fn nulls_are_what_go_writes_for_nothing() {
    let pod = json!({
        "metadata": {"name": "infinispan-7", "namespace": null, "generateName": null, "annotations": null,
            "labels": {"external-ip.dev/cluster": "infinispan"}},
        "spec": {"hostNetwork": null, "initContainers": null,
            "containers": [{"ports": null, "restartPolicy": null},
                {"ports": [{"name": null, "containerPort": 11222, "protocol": null}]}]},
    });
    let (answer, response) = answered(&review(&pod));
    assert!(answer.stamped);
    let metadata = &patched(&pod, &response)["metadata"];
    assert_eq!(metadata["annotations"], json!({names::STAMP_VERSION_ANNOTATION: "1"}));
}

#[test]
fn only_a_body_without_a_uid_cannot_be_answered() {
    let bodies: [&[u8]; 9] = [
        b"",
        b"{}",
        b"null",
        b"[]",
        b"not json",
        b"\xff\xfe",
        br#"{"request": null}"#,
        br#"{"request": {"uid": ""}}"#,
        br#"{"request": {"uid": 5, "object": {}}}"#,
    ];
    for body in bodies {
        assert!(answer(body, &settings(), &slots).is_err(), "{}", String::from_utf8_lossy(body));
    }
    assert!(answer(br#"{"request": {"uid": "x"}}"#, &settings(), &slots).is_ok());
}

#[test]
fn escape_sequences_in_keys_and_values_are_read() {
    let body = r#"{"request": {"uid": "u", "resource": {"group": "", "version": "v1", "resource": "po\u0064s"},
        "operation": "CREATE", "namespace": "d\u0061ta", "object": {
        "metadata": {"n\u0061me": "infinispan\u002d0", "labels": {"external-ip.dev\/cluster": "\u0069nfinispan",
            "stamp.external-ip.dev\/\"\u00e9\n~": "x"}},
        "spec": {"containers": [{"ports": [{"containerPort": 11222, "name": "hot\u0072od"}]}]}}}}"#;
    let answer = answer(body.as_bytes(), &settings(), &slots).unwrap();
    assert!(answer.stamped, "{:?}", answer.skipped);
    let body: Value = serde_json::from_str(body).unwrap();
    let response: Value = serde_json::from_slice(&answer.body).unwrap();
    let pod = patched(&body["request"]["object"], &response["response"]);
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"external-ip.dev/cluster": "infinispan", names::POD_ID_LABEL: "infinispan.infinispan-0"})
    );
    assert_eq!(pod["metadata"]["annotations"][names::STAMP_SLOT_ANNOTATION], "0");
}

#[test]
fn a_key_given_twice_is_removed_once() {
    let body = review(&member("p")).to_string().replace(
        r#""labels":{"#,
        r#""labels":{"stamp.external-ip.dev/x":"1","stamp.external-ip.dev/x":"2","#,
    );
    let answer = answer(body.as_bytes(), &settings(), &slots).unwrap();
    let response: Value = serde_json::from_slice(&answer.body).unwrap();
    let operations = operations(&response["response"]);
    let removed = operations.as_array().unwrap().iter().filter(|o| o["op"] == "remove").count();
    assert_eq!(removed, 1, "{operations}");
}

#[test]
fn warnings_are_short_whatever_a_pod_says() {
    let mut pod = member("p");
    pod["metadata"]["annotations"] = json!({names::PORTS_ANNOTATION: "ü\n".repeat(5000)});
    let (answer, response) = answered(&review(&pod));
    assert_eq!(answer.skipped.map(|r| r.code), Some(Code::InvalidPorts));
    assert!(response["warnings"][0].as_str().unwrap().contains("write ports as 11222"), "{response}");
    pod["spec"]["containers"] = json!("ü".repeat(5000));
    assert!(answered(&review(&pod)).0.skipped.unwrap().detail.len() < 200);
}
