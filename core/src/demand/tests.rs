use std::collections::BTreeMap;

use super::*;

fn port(name: &str, number: u16, protocol: Protocol) -> ContainerPort {
    ContainerPort { name: name.into(), number, protocol }
}

fn ask<'a>(ports: Option<&'a str>, declared: &'a [ContainerPort]) -> Ask<'a> {
    Ask {
        namespace: "data",
        cluster: "infinispan",
        ports_annotation: ports,
        class_annotation: None,
        await_annotation: None,
        inject_annotation: None,
        container_ports: declared,
        host_network: false,
        mirror: false,
        configured: None,
    }
}

fn entry(name: &str, selector: &[(&str, &str)]) -> ConfiguredCluster {
    ConfiguredCluster {
        name: name.parse().unwrap(),
        namespace: "data".into(),
        selector: selector.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ports: vec![],
        class: DEFAULT_CLASS.into(),
    }
}

fn ports_of(ask: &Ask) -> Result<Vec<String>, Code> {
    let settings = Settings::default();
    match demand(ask, &settings) {
        Ok(d) => {
            assert!(d.ports.is_sorted() && d.ports.iter().all(|p| p.port == p.target));
            Ok(d.ports.iter().map(|p| format!("{} {}/{}", p.name, p.port, p.protocol)).collect())
        }
        Err(reason) => Err(reason.code),
    }
}

#[test]
fn ports_are_numbers_names_or_everything_declared() {
    let declared = [
        port("hotrod", 11222, Protocol::Tcp),
        port("", 5353, Protocol::Udp),
        port("dns", 53, Protocol::Udp),
        port("dns-tcp", 53, Protocol::Tcp),
    ];
    let of = |text| ports_of(&ask(text, &declared)).unwrap();
    assert_eq!(of(None), ["dns 53/UDP", "dns-tcp 53/TCP", "hotrod 11222/TCP", "udp-5353 5353/UDP"]);
    assert_eq!(of(Some("hotrod")), ["hotrod 11222/TCP"]);
    assert_eq!(of(Some("11222, hotrod,11222/tcp")), ["hotrod 11222/TCP"]);
    assert_eq!(of(Some("5353")), ["udp-5353 5353/UDP"], "declared under one other protocol");
    assert_eq!(of(Some("53")), ["dns-tcp 53/TCP"], "declared under both");
    assert_eq!(of(Some("8080,11222/udp")), ["tcp-8080 8080/TCP", "udp-11222 11222/UDP"]);
}

#[test]
fn ports_that_cannot_be_had_are_reasons() {
    let declared = [port("hotrod", 11222, Protocol::Tcp)];
    let of = |text, declared| ports_of(&ask(text, declared)).unwrap_err();
    assert_eq!(of(Some("rest"), &declared), Code::UnknownPort);
    assert_eq!(of(Some("hotrod/udp"), &declared), Code::UnknownPort);
    assert_eq!(of(Some("11222x!"), &declared), Code::InvalidPorts);
    assert_eq!(of(Some("0"), &declared), Code::InvalidPorts);
    assert_eq!(of(Some(""), &declared), Code::NoPorts, "an empty list is no ports, not all");
    assert_eq!(of(None, &[]), Code::NoPorts);
    let many: Vec<_> = (1..=101).map(|n| port("", n, Protocol::Tcp)).collect();
    assert_eq!(of(None, &many), Code::InvalidPorts);
    assert_eq!(ports_of(&ask(None, &many[..100])).unwrap().len(), 100);
}

#[test]
fn service_port_names_are_unique_whatever_the_containers_say() {
    let declared = [
        port("web", 80, Protocol::Tcp),
        port("web", 81, Protocol::Tcp),
        port("tcp-83", 82, Protocol::Tcp),
        port("", 83, Protocol::Tcp),
        port("Not Valid", 84, Protocol::Tcp),
    ];
    let names = ports_of(&ask(None, &declared)).unwrap();
    assert_eq!(names, ["tcp-80 80/TCP", "tcp-81 81/TCP", "tcp-82 82/TCP", "tcp-83 83/TCP", "tcp-84 84/TCP"]);
}

#[test]
fn what_cannot_be_exposed_has_its_reason() {
    let mut settings = Settings::default();
    let only = Class { namespaces: vec!["other".into()], ..Class::default() };
    settings.classes.insert("gold".into(), only);
    let declared = [port("", 1, Protocol::Tcp)];
    let good = ask(None, &declared);
    let code = |ask: Ask| demand(&ask, &settings).map(|d| d.class_name).map_err(|r| r.code);
    assert_eq!(code(good), Ok("default"));
    assert_eq!(code(Ask { host_network: true, ..good }), Err(Code::HostNetwork));
    assert_eq!(code(Ask { mirror: true, host_network: true, ..good }), Err(Code::MirrorPod));
    assert_eq!(code(Ask { cluster: "My_Cluster", ..good }), Err(Code::InvalidClusterName));
    assert_eq!(code(Ask { cluster: "", ..good }), Err(Code::InvalidClusterName));
    assert_eq!(code(Ask { class_annotation: Some("silver"), ..good }), Err(Code::UnknownClass));
    assert_eq!(code(Ask { class_annotation: Some("gold"), ..good }), Err(Code::ClassNotAllowed));
    assert_eq!(code(Ask { class_annotation: Some("gold"), namespace: "other", ..good }), Ok("gold"));
    for bad in ["yes", "", "True"] {
        assert_eq!(code(Ask { await_annotation: Some(bad), ..good }), Err(Code::InvalidSettings));
    }
    for bad in ["environment", "", "env,"] {
        assert_eq!(code(Ask { inject_annotation: Some(bad), ..good }), Err(Code::InvalidSettings));
    }
    let fine = Ask { await_annotation: Some("true"), inject_annotation: Some("env, volume"), ..good };
    assert_eq!(code(fine), Ok("default"));
}

#[test]
fn long_and_unprintable_values_are_shortened_in_reasons() {
    let text = format!("\n{}", "é".repeat(300));
    let reason = demand(&ask(Some(&text), &[]), &Settings::default()).unwrap_err();
    assert!(reason.detail.chars().count() <= QUOTED_MAX + 3 && !reason.detail.contains('\n'), "{reason:?}");
}

#[test]
fn the_label_wins_and_two_entries_are_ambiguous() {
    let settings = Settings {
        clusters: vec![entry("b", &[("app", "x")]), entry("a", &[("app", "x"), ("tier", "1")])],
        ..Settings::default()
    };
    let of = |namespace: &str, pairs: &[(&str, &'static str)]| {
        let labels: BTreeMap<String, &'static str> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        match cluster_of(|k| labels.get(k).copied(), namespace, &settings) {
            Membership::None => "none".to_owned(),
            Membership::Cluster { name, configured } => format!("{name} {}", configured.is_some()),
            Membership::Ambiguous { names } => names.join("|"),
        }
    };
    assert_eq!(of("data", &[("app", "y")]), "none");
    assert_eq!(of("else", &[("app", "x")]), "none");
    assert_eq!(of("data", &[("app", "x")]), "b true");
    assert_eq!(of("data", &[("app", "x"), ("tier", "1")]), "a|b");
    assert_eq!(of("data", &[("app", "x"), ("tier", "1"), (names::CLUSTER_LABEL, "c")]), "c false");
    assert_eq!(of("data", &[("app", "x"), (names::CLUSTER_LABEL, "b")]), "b true");
    assert_eq!(of("data", &[("app", "y"), (names::CLUSTER_LABEL, "b")]), "b false", "not selected by it");
    assert_eq!(of("data", &[(names::CLUSTER_LABEL, "Not A Name")]), "Not A Name false");
}

#[test]
fn an_entry_of_the_configuration_goes_before_annotations() {
    let mut settings = Settings::default();
    settings.classes.insert("gold".into(), Class::default());
    let declared = [port("hotrod", 11222, Protocol::Tcp)];
    let mut configured = entry("infinispan", &[("app", "x")]);
    let of = |configured: &ConfiguredCluster| {
        let ask = Ask {
            configured: Some(configured),
            class_annotation: Some("gold"),
            ..ask(Some("22"), &declared)
        };
        let demand = demand(&ask, &settings).unwrap();
        (demand.class_name.to_owned(), demand.ports[0].port)
    };
    assert_eq!(of(&configured), ("default".into(), 22), "it says nothing about ports");
    configured.ports = vec!["hotrod".parse().unwrap()];
    configured.class = "gold".into();
    assert_eq!(of(&configured), ("gold".into(), 11222));
}
