use std::collections::BTreeMap;

use external_ip_core::names;
use external_ip_core::stamp::answer;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{answered, patched, review, settings, slots};

type Map = BTreeMap<String, String>;

/// Keys with everything a JSON pointer or a JSON string must escape, some of them ours.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z~/\"\\\\é\n]{1,8}",
        "[a-z~/\"\\\\é\n]{0,6}".prop_map(|s| format!("{}{s}", names::RESERVED_PREFIX)),
        prop::sample::select(vec![
            names::CLUSTER_LABEL,
            names::POD_ID_LABEL,
            names::STAMP_VERSION_ANNOTATION,
            names::STAMP_SLOT_ANNOTATION,
            names::PORTS_ANNOTATION,
            names::CLASS_ANNOTATION,
            names::AWAIT_ANNOTATION,
            names::MIRROR_ANNOTATION,
            "app",
        ])
        .prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,12}",
        prop::sample::select(vec!["infinispan", "hazel", "11222", "true", "1", "0", "default"])
            .prop_map(str::to_owned),
    ]
}

/// Absent, null, empty or filled.
fn metadata_map() -> impl Strategy<Value = Option<Option<Map>>> {
    prop::option::weighted(
        0.9,
        prop::option::weighted(0.9, prop::collection::btree_map(key(), value(), 0..6)),
    )
}

fn pod() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["infinispan-0", "infinispan-1", ""]);
    (metadata_map(), metadata_map(), name, any::<bool>()).prop_map(|(labels, annotations, name, host)| {
        let mut metadata = json!({"name": name, "generateName": "infinispan-"});
        for (key, map) in [("labels", labels), ("annotations", annotations)] {
            if let Some(map) = map {
                metadata[key] = json!(map);
            }
        }
        let containers = json!([{"ports": [{"containerPort": 11222}]}]);
        json!({"metadata": metadata, "spec": {"hostNetwork": host, "containers": containers}})
    })
}

fn entries(pod: &Value, map: &str, reserved: bool) -> Map {
    let found: Option<Map> = serde_json::from_value(pod["metadata"][map].clone()).unwrap();
    let found = found.unwrap_or_default();
    found.into_iter().filter(|(k, _)| k.starts_with(names::RESERVED_PREFIX) == reserved).collect()
}

proptest! {
    #[test]
    fn a_patch_gives_exactly_our_metadata_and_leaves_the_rest(pod in pod()) {
        let (answer, response) = answered(&review(&pod));
        let after = patched(&pod, &response);
        let mut spec = after["spec"].clone();
        let gates = spec.as_object_mut().and_then(|s| s.remove("schedulingGates"));
        prop_assert_eq!(&pod["spec"], &spec);
        let waits = answer.stamped && pod["metadata"]["annotations"][names::AWAIT_ANNOTATION] == "true";
        let ours = Some(json!([{"name": names::ADDRESS_GATE}]));
        prop_assert!(gates.is_none() || waits && gates == ours, "{:?}", gates);
        for map in ["labels", "annotations"] {
            prop_assert_eq!(entries(&pod, map, false), entries(&after, map, false));
        }
        let (labels, annotations) = (entries(&after, "labels", true), entries(&after, "annotations", true));
        if !answer.stamped {
            prop_assert!(labels.is_empty() && annotations.is_empty());
            return Ok(());
        }
        prop_assert_eq!(labels.keys().collect::<Vec<_>>(), [names::POD_ID_LABEL]);
        let kept = pod["metadata"]["name"] == "infinispan-0"
            && pod["metadata"]["labels"][names::CLUSTER_LABEL] == "infinispan";
        let keys: &[&str] = if kept {
            &[
                names::STAMP_ADDRESS_ANNOTATION, names::STAMP_HOST_ANNOTATION,
                "stamp.external-ip.dev/port-11222", names::STAMP_SLOT_ANNOTATION, names::STAMP_VERSION_ANNOTATION,
            ]
        } else {
            &[names::STAMP_VERSION_ANNOTATION]
        };
        prop_assert_eq!(annotations.keys().map(String::as_str).collect::<Vec<_>>(), keys);
    }

    #[test]
    fn a_stamped_pod_needs_no_further_patch(pod in pod()) {
        let (_, response) = answered(&review(&pod));
        let after = patched(&pod, &response);
        let (_, again) = answered(&review(&after));
        prop_assert!(again.get("patch").is_none(), "{again}");
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = answer(&body, &settings(), &slots);
    }

    #[test]
    fn a_damaged_review_never_panics(pod in pod(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = review(&pod).to_string().into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = answer(&body, &settings(), &slots);
        body.truncate(at);
        let _ = answer(&body, &settings(), &slots);
    }
}
