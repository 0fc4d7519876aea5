use serde_json::{Value, json};

use super::*;

fn entry(internal: &Value, external: &Value) -> Value {
    json!({"state": "Routed", "internal": internal, "external": external, "slot": 0,
        "ports": [{"name": "a", "protocol": "TCP", "internal": 11222, "external": 20001},
            {"name": "b", "protocol": "UDP", "internal": 53, "external": 53}]})
}

fn map(entries: &[Value]) -> Map {
    Map::parse(json!({"namespace": "data", "entries": entries, "later": 1}).to_string().as_bytes()).unwrap()
}

/// A hyphen where there is none.
fn found(map: &Map, internal: &str, port: u16) -> String {
    map.external_of(internal, port).map_or("-".to_owned(), |e| e.to_string())
}

#[test]
fn ip_and_port_are_both_mapped() {
    let map = map(&[entry(&json!({"ips": ["198.18.0.5"]}), &json!({"ips": ["203.0.113.1"], "host": null}))]);
    assert_eq!(found(&map, "198.18.0.5", 11222), "203.0.113.1:20001");
    assert_eq!(found(&map, "::ffff:198.18.0.5", 11222), "203.0.113.1:20001");
    assert_eq!(found(&map, "198.18.0.5", 20001), "-", "not a port of the member");
    assert_eq!(found(&map, "198.18.0.5", 53), "-", "UDP is none of ours");
    assert_eq!(found(&map, "198.18.0.6", 11222), "-");
    assert!(!map.is_empty());
    assert_eq!(map.members(11222), ["198.18.0.5:11222".parse().unwrap()]);
    assert!(map.members(53).is_empty());
}

#[test]
fn families_pair_and_a_name_serves_both() {
    let both = json!({"ips": ["198.18.0.5", "2001:db8:1::5"]});
    let dual = map(&[entry(&both, &json!({"ips": ["2001:db8::1", "203.0.113.1"]}))]);
    assert_eq!(found(&dual, "198.18.0.5", 11222), "203.0.113.1:20001");
    assert_eq!(found(&dual, "2001:db8:1::5", 11222), "[2001:db8::1]:20001");
    assert_eq!(found(&dual, "[2001:DB8:1::5]", 11222), "[2001:db8::1]:20001");
    let four = map(&[entry(&both, &json!({"ips": ["203.0.113.1"], "host": "lb.example.com"}))]);
    assert_eq!(found(&four, "2001:db8:1::5", 11222), "-", "its name leads to IPv4");
    let named = map(&[entry(&both, &json!({"host": "lb.example.com"}))]);
    for internal in ["198.18.0.5", "2001:db8:1::5"] {
        assert_eq!(found(&named, internal, 11222), "lb.example.com:20001");
    }
}

#[test]
fn members_are_found_by_their_names_however_written() {
    let internal = json!({"ips": ["198.18.0.5"], "names": ["store-0.store.data.svc"]});
    let map = map(&[entry(&internal, &json!({"ips": ["203.0.113.1", "2001:db8::1"]}))]);
    for name in [
        "store-0.store.data.svc",
        "store-0.store.data.svc.",
        "STORE-0.store.data.svc.cluster.local",
        "store-0.store.data.svc.example.svc",
    ] {
        assert_eq!(found(&map, name, 11222), "203.0.113.1:20001", "{name}");
        assert_eq!(map.external_of(name, 11222).unwrap().addresses().count(), 2, "both families");
    }
    for other in ["store-0", "store-0.store.data", "store-1.store.data.svc", "store-0.store.data.svcs", ""] {
        assert_eq!(found(&map, other, 11222), "-", "{other}");
    }
}

#[test]
fn what_is_not_routed_or_claimed_twice_is_not_there() {
    let mut pending = entry(&json!({"ips": ["198.18.0.5"]}), &json!({"ips": ["203.0.113.1"]}));
    pending["state"] = json!("Allocated");
    let bare =
        json!({"state": "Pending", "internal": {"ips": []}, "external": null, "ports": [], "reason": "x"});
    assert!(map(&[pending, bare]).is_empty());
    let one = entry(&json!({"ips": ["198.18.0.5", "198.18.0.6"]}), &json!({"ips": ["203.0.113.1"]}));
    let two = entry(&json!({"ips": ["198.18.0.5"]}), &json!({"ips": ["203.0.113.2"]}));
    let map = map(&[one, two]);
    assert_eq!(found(&map, "198.18.0.5", 11222), "-");
    assert_eq!(found(&map, "198.18.0.6", 11222), "203.0.113.1:20001");
}

#[test]
fn a_document_of_another_kind_is_no_map() {
    for text in ["", "{}", "{\"clusters\": []}", "{\"entries\": [{}]}", "<html>"] {
        assert!(Map::parse(text.as_bytes()).is_err(), "{text}");
    }
}
