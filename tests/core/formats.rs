//! The documents: goldens of every form, YAML traps, equal maps are equal bytes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use external_ip_core::formats::{document, etag, nat_map, origin};
use external_ip_core::mapping::{ClusterMapping, Entry, EntryState, External, Internal, Mapping, PortPair};
use external_ip_core::names::Key;
use external_ip_core::objects::Protocol;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::golden::assert_golden;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn port(name: &str, protocol: Protocol, internal: u16, external: u16) -> PortPair {
    PortPair { name: name.into(), protocol, internal, external }
}

fn routed(number: u32, inside: &[&str], outside: &[&str]) -> Entry {
    Entry {
        pod: format!("infinispan-{number}"),
        uid: format!("5f0c0000-0000-0000-0000-00000000000{number}"),
        slot: Some(number),
        state: EntryState::Routed,
        reason: None,
        message: None,
        drift: None,
        terminating: false,
        ready: true,
        reachable: None,
        internal: Internal {
            ips: ips(inside),
            names: vec![format!("infinispan-{number}.infinispan.data.svc")],
        },
        external: Some(External { ips: ips(outside), host: None }),
        ports: vec![port("hotrod", Protocol::Tcp, 11222, 11222)],
        told: None,
    }
}

fn pending(number: u32) -> Entry {
    Entry {
        state: EntryState::Pending,
        slot: None,
        reason: Some("NoLoadBalancer"),
        message: Some("no address: is a \"LoadBalancer\" controller\ninstalled?".into()),
        ready: false,
        external: None,
        ports: vec![],
        ..routed(number, &["198.18.0.99"], &[])
    }
}

fn cluster(namespace: &str, name: &str, selector: &[(&str, &str)], entries: Vec<Entry>) -> ClusterMapping {
    ClusterMapping {
        namespace: namespace.into(),
        name: name.into(),
        class: "default".into(),
        entries,
        selector: selector.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    }
}

fn mapping(clusters: impl IntoIterator<Item = ClusterMapping>) -> Mapping {
    clusters.into_iter().map(|c| (Key::new(c.namespace.as_str(), c.name.as_str()), Arc::new(c))).collect()
}

fn infinispan() -> ClusterMapping {
    let entries = vec![
        routed(0, &["198.18.0.5"], &["203.0.113.1"]),
        routed(1, &["198.18.0.6", "2001:db8:1::6"], &["203.0.113.2", "2001:db8::2"]),
        pending(2),
    ];
    cluster("data", "infinispan", &[("app", "infinispan-server")], entries)
}

/// Nothing of it fits into `in:out`, but for the last.
fn awkward() -> ClusterMapping {
    let mut other_port = routed(1, &["198.18.0.7"], &["203.0.113.3"]);
    other_port.ports = vec![port("udp-53", Protocol::Udp, 53, 5353)];
    let mut only_a_name = routed(2, &["198.18.0.8"], &[]);
    only_a_name.external = Some(External { ips: vec![], host: Some("lb.example".into()) });
    let mut allocated = routed(3, &["198.18.0.9"], &["203.0.113.4"]);
    allocated.state = EntryState::Allocated;
    let six = routed(0, &["2001:10:20:30:40:50:1:2"], &["2001:db8::1"]);
    let mixed = routed(4, &["198.18.0.10"], &["2001:db8::5"]);
    let good = routed(5, &["2001:db8:1::b", "198.18.0.11"], &["2001:db8::6", "203.0.113.6"]);
    let selector = [("external-ip.dev/cluster", "no"), ("on", "1")];
    cluster("123", "awkward", &selector, vec![six, other_port, only_a_name, allocated, mixed, good])
}

#[test]
fn documents_look_as_in_the_golden_files() {
    let service_ip = Some("203.0.113.9".parse().unwrap());
    for (name, mapping) in [
        ("none", mapping([])),
        ("one", mapping([infinispan()])),
        ("several", mapping([infinispan(), awkward(), cluster("data", "empty", &[], vec![])])),
    ] {
        assert_golden(&format!("formats/{name}.origin.yaml"), &origin::document(&mapping, service_ip).text);
        assert_golden(&format!("formats/{name}.yaml"), &document::aggregate_yaml(&mapping));
        let text = document::aggregate_json(&mapping);
        assert!(text.ends_with("}\n") && text.lines().count() == 1);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_golden(
            &format!("formats/{name}.json"),
            &format!("{}\n", serde_json::to_string_pretty(&json).unwrap()),
        );
    }
    assert_golden("formats/cluster.yaml", &document::cluster_yaml(&infinispan()));
    assert_golden("formats/cluster.json", &document::cluster_json(&infinispan()));
}

#[test]
fn what_a_pair_cannot_say_is_left_out_and_counted() {
    let found = origin::document(&mapping([awkward()]), None);
    assert_eq!(found.left_out, 4);
    let document: Value = serde_saphyr::from_str(&found.text).unwrap();
    assert_eq!(
        document["runtime-configuration"],
        json!({"left-out": 4, "external-mapping": ["198.18.0.11:203.0.113.6"]})
    );
}

#[test]
fn one_cluster_has_the_origins_sections_and_several_a_list() {
    let read = |mapping: &Mapping| -> Value {
        let found = origin::document(mapping, Some("2001:10::".parse().unwrap()));
        serde_saphyr::from_str(&found.text).unwrap()
    };
    let one = read(&mapping([infinispan()]));
    assert_eq!(one["external-ips"], json!({"namespace": "data", "dynamic-ips": true}));
    assert_eq!(one["cluster"], json!({"labels": {"app": "infinispan-server"}, "ports": [11222]}));
    assert_eq!(one["runtime-configuration"]["service-ip"], "2001:10::");
    let two = read(&mapping([infinispan(), awkward()]));
    assert!(two.get("external-ips").is_none() && two.get("cluster").is_none());
    assert_eq!(two["clusters"][0]["labels"], json!({"external-ip.dev/cluster": "no", "on": "1"}));
    assert_eq!(two["clusters"][0]["ports"], json!([53, 11222]));
    let none = read(&mapping([]));
    assert_eq!(none["runtime-configuration"]["external-mapping"], json!([]));
}

#[test]
fn words_that_yaml_takes_for_something_else_are_quoted() {
    let traps = [
        "y",
        "No",
        "ON",
        "off",
        "true",
        "NULL",
        "1",
        "1.5",
        "0x1f",
        "010",
        "1_000",
        "1e3",
        "2001-01-01",
        "12.e3",
        "",
        "0",
        "1a",
    ];
    for trap in traps {
        let text = origin::document(&mapping([cluster(trap, "c", &[(trap, trap)], vec![])]), None).text;
        assert!(
            text.contains(&format!("{{labels: {{\"{trap}\": \"{trap}\"}}"))
                && text.contains(&format!("namespace: \"{trap}\",")),
            "{text}"
        );
    }
}

#[test]
fn etags_are_quoted_and_differ_with_the_bytes() {
    let (a, b) = (etag(b"a"), etag(b"b"));
    assert!(a != b && a == etag(b"a"));
    assert!(a.len() == 28 && a.starts_with('"') && a.ends_with('"'));
    let mapping = mapping([infinispan()]);
    assert_ne!(
        etag(document::aggregate_json(&mapping).as_bytes()),
        etag(document::aggregate_yaml(&mapping).as_bytes())
    );
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let ip = prop_oneof![
        any::<u32>().prop_map(|n| IpAddr::V4(n.into())),
        any::<u128>().prop_map(|n| IpAddr::V6(n.into()))
    ];
    let addresses = prop::collection::vec(ip, 0..3);
    let state = prop::sample::select(vec![EntryState::Pending, EntryState::Allocated, EntryState::Routed]);
    let ports = prop::collection::vec((1_u16..4, 1_u16..4), 0..2);
    (".{0,9}", addresses.clone(), prop::option::of(addresses), state, prop::option::of(".{0,20}"), ports)
        .prop_map(|(pod, inside, outside, state, text, ports)| Entry {
            pod,
            state,
            message: text.clone(),
            internal: Internal { ips: inside, names: text.clone().into_iter().collect() },
            external: outside.map(|ips| External { ips, host: text }),
            ports: ports.into_iter().map(|(i, e)| port("p", Protocol::Udp, i, e)).collect(),
            ..routed(0, &[], &[])
        })
}

fn any_mapping() -> impl Strategy<Value = Mapping> {
    let selector = prop::collection::btree_map("[a-z0-9.]{1,6}", "[A-Za-z0-9._-]{0,6}", 0..3);
    let parts = (".{1,6}", ".{1,6}", selector, prop::collection::vec(any_entry(), 0..4));
    prop::collection::vec(parts, 0..4).prop_map(|clusters| {
        mapping(clusters.into_iter().map(|(namespace, name, selector, entries)| ClusterMapping {
            selector,
            ..cluster(&namespace, &name, &[], entries)
        }))
    })
}

proptest! {
    #[test]
    fn yaml_and_json_say_the_same(mapping in any_mapping()) {
        let json: Value = serde_json::from_str(&document::aggregate_json(&mapping)).unwrap();
        let yaml: Value = serde_saphyr::from_str(&document::aggregate_yaml(&mapping)).unwrap();
        prop_assert_eq!(&json, &yaml);
        prop_assert_eq!(json["clusters"].as_array().unwrap().len(), mapping.len());
        for (cluster, json) in mapping.values().zip(json["clusters"].as_array().unwrap()) {
            let own: Value = serde_json::from_str(&document::cluster_json(cluster)).unwrap();
            prop_assert_eq!(&own, json);
            let own: Value = serde_saphyr::from_str(&document::cluster_yaml(cluster)).unwrap();
            prop_assert_eq!(&own, json);
        }
    }

    #[test]
    fn equal_maps_are_equal_bytes(mapping in any_mapping()) {
        let rebuilt: Mapping =
            mapping.iter().rev().map(|(k, v)| (k.clone(), Arc::new(v.as_ref().clone()))).collect();
        prop_assert_eq!(document::aggregate_json(&mapping), document::aggregate_json(&rebuilt));
        prop_assert_eq!(document::aggregate_yaml(&mapping), document::aggregate_yaml(&rebuilt));
        prop_assert_eq!(origin::document(&mapping, None), origin::document(&rebuilt, None));
    }

    #[test]
    fn the_origins_document_has_each_routed_entry_once_or_counts_it(mapping in any_mapping()) {
        let found = origin::document(&mapping, None);
        let yaml: Value = serde_saphyr::from_str(&found.text).unwrap();
        let pairs = yaml["runtime-configuration"]["external-mapping"].as_array().unwrap();
        let routed = mapping.values().flat_map(|c| &c.entries).filter(|e| e.state == EntryState::Routed);
        prop_assert_eq!(pairs.len() + found.left_out, routed.count());
        for pair in pairs {
            let (inside, outside) = pair.as_str().unwrap().split_once(':').unwrap();
            prop_assert!(inside.parse::<std::net::Ipv4Addr>().is_ok() && outside.parse::<std::net::Ipv4Addr>().is_ok());
        }
        if let [only] = mapping.values().collect::<Vec<_>>()[..] {
            let labels: BTreeMap<String, String> =
                serde_json::from_value(yaml["cluster"]["labels"].clone()).unwrap();
            prop_assert_eq!(&labels, &only.selector);
        }
    }
}

#[test]
fn the_nat_map_pairs_routed_tcp_ports_by_family_and_has_members_names_and_load_balancers_names() {
    let mut dual = routed(1, &["198.18.0.6", "2001:db8:1::6"], &["203.0.113.2", "2001:db8::2"]);
    dual.ports.push(port("other", Protocol::Tcp, 7000, 17000));
    dual.ports.push(port("gossip", Protocol::Udp, 7001, 7001));
    let mut named = routed(2, &["198.18.0.7"], &[]);
    named.external = Some(External { ips: vec![], host: Some("lb.example".into()) });
    let v4_only = routed(3, &["198.18.0.8", "2001:db8:1::8"], &["203.0.113.4"]);
    let allocated = Entry { state: EntryState::Allocated, ..routed(4, &["198.18.0.9"], &["203.0.113.5"]) };
    let mut resolved = routed(5, &["198.18.0.10", "2001:db8:1::10"], &["203.0.113.6"]);
    resolved.external.as_mut().unwrap().host = Some("lb.example".into());
    let map: Value = serde_json::from_str(&nat_map::cluster(&cluster(
        "data",
        "c",
        &[],
        vec![dual, named, v4_only, allocated, resolved],
    )))
    .unwrap();
    let target = |host: &str, port: u16| json!({"host": host, "port": port});
    let expected = json!({
        "198.18.0.6:11222": target("203.0.113.2", 11222),
        "198.18.0.6:7000": target("203.0.113.2", 17000),
        "2001:db8:1::6:11222": target("2001:db8::2", 11222),
        "2001:db8:1::6:7000": target("2001:db8::2", 17000),
        "infinispan-1.infinispan.data.svc:11222": target("203.0.113.2", 11222),
        "infinispan-1.infinispan.data.svc:7000": target("203.0.113.2", 17000),
        "198.18.0.7:11222": target("lb.example", 11222),
        "infinispan-2.infinispan.data.svc:11222": target("lb.example", 11222),
        "198.18.0.8:11222": target("203.0.113.4", 11222),
        "infinispan-3.infinispan.data.svc:11222": target("203.0.113.4", 11222),
        "198.18.0.10:11222": target("lb.example", 11222),
        "infinispan-5.infinispan.data.svc:11222": target("lb.example", 11222),
    });
    assert_eq!(map, expected);
}
