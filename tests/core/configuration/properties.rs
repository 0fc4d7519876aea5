use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use external_ip_core::settings::{
    Access, Await, CertificateFiles, CertificateSource, Class, ConfiguredCluster, DEFAULT_CLASS, Limits,
    Retention, ServiceTemplate, Settings, Shared, Tls, parse, render,
};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn word() -> impl Strategy<Value = String> {
    // words that YAML takes for something else, among ordinary ones
    prop_oneof![
        "[a-z]([a-z0-9-]{0,10}[a-z0-9])?",
        select(vec!["true", "no", "null", "y", "off", "e1", "x0", "nan", "inf"]).prop_map(str::to_owned),
    ]
}

/// Anything an annotation may hold, but for what this version refuses.
fn annotation_value() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,30}",
        "[ -~\n\t]{0,30}",
        select(vec![
            "1",
            "1e3",
            "0x10",
            "010",
            "1:2",
            "~",
            "null",
            "yes",
            "",
            " ",
            "- a",
            "a: b",
            "#",
            "{cluster}",
            "2001-01-01",
            ".nan",
            "<<",
            "a\n\nb\n",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%",
            "@",
            "`"
        ])
        .prop_map(str::to_owned),
    ]
    .prop_filter("a near miss of a placeholder is refused", |text| !text.contains('{') || text == "{cluster}")
}

fn seconds() -> impl Strategy<Value = Duration> {
    (1_u64..1_000_000).prop_map(Duration::from_secs)
}

fn template() -> impl Strategy<Value = ServiceTemplate> {
    (
        prop::collection::btree_map(
            word().prop_map(|w| format!("example.com/{w}")),
            annotation_value(),
            0..4,
        ),
        of(word()),
        of(select(vec!["203.0.113.7", "2001:db8::7", "203.0.113.{slot}"])),
        of(select(vec!["Cluster", "Local"])),
        select(vec![vec![], vec!["198.51.100.0/24"], vec!["0.0.0.0/0", "::/0"]]),
        of(select(vec!["SingleStack", "PreferDualStack", "RequireDualStack"])),
        of(any::<bool>()),
        any::<bool>(),
    )
        .prop_map(|(annotations, class, ip, policy, ranges, family, node_ports, not_ready)| {
            ServiceTemplate {
                annotations,
                load_balancer_class: class,
                load_balancer_ip: ip.map(str::to_owned),
                external_traffic_policy: policy.map(str::to_owned),
                load_balancer_source_ranges: ranges.into_iter().map(str::to_owned).collect(),
                ip_family_policy: family.map(str::to_owned),
                allocate_load_balancer_node_ports: node_ports,
                publish_not_ready_addresses: not_ready,
            }
        })
}

fn class() -> impl Strategy<Value = Class> {
    let retention = prop_oneof![Just(Retention::Forever), seconds().prop_map(Retention::For)];
    let shared = (1_u16..60_000, 1_u16..5_000);
    let ahead = (any::<bool>(), seconds(), 0_u32..=1000, 0_u32..=1000);
    (prop::collection::btree_set(word(), 0..3), template(), shared, ahead, retention, seconds()).prop_map(
        |(namespaces, service, (first_port, ports_per_service), ahead, retention, reuse_after)| Class {
            namespaces: namespaces.into_iter().collect(),
            readiness_gate: ahead.0 && service.publish_not_ready_addresses,
            service,
            shared: Shared { first_port, ports_per_service },
            await_address: Await { enabled: ahead.0, timeout: ahead.1, members: ahead.2 },
            spare_slots: ahead.3,
            resolve_names: ahead.0,
            retention,
            reuse_after,
            ..Class::default()
        },
    )
}

/// With static addresses the template has to pass them on.
fn with_addresses(class: Class, count: u8) -> Class {
    if count == 0 || class.service.ip_family_policy.as_deref() == Some("RequireDualStack") {
        return class;
    }
    let mut class = class;
    class.addresses = (0..count).map(|n| IpAddr::from([203, 0, 113, n.wrapping_mul(67)])).collect();
    class.service.annotations.insert("example.com/address".to_owned(), "{address}".to_owned());
    class
}

fn source(ca: impl Strategy<Value = Option<PathBuf>>) -> impl Strategy<Value = CertificateSource> {
    of(("[ -~]{1,20}", "/[a-z]{1,9}", ca)).prop_map(|files| match files {
        None => CertificateSource::SelfManaged,
        Some((certificate, key, ca)) => {
            let (certificate, key) = (PathBuf::from(certificate), PathBuf::from(key));
            CertificateSource::Files(CertificateFiles { certificate, key, ca })
        }
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let clusters = prop::collection::btree_map(
        (word(), word()),
        prop::collection::btree_set(select(vec!["11222", "53/udp", "hotrod", "80/tcp"]), 0..4),
        0..4,
    );
    let classes = prop::collection::btree_map(word(), class(), 0..3);
    let (admission, mapping) = (source(Just(None)), source(of("/[a-z]{1,9}".prop_map(PathBuf::from))));
    (word(), any::<bool>(), admission, mapping, 1_u32..5000, (class(), 0..200_u8), classes, clusters)
        .prop_map(
            |(installation, open, admission, mapping, limit, (default, count), mut classes, clusters)| {
                let default = with_addresses(default, count);
                classes.insert(DEFAULT_CLASS.to_owned(), Class { namespaces: vec![], ..default });
                let limits = Limits { slots_per_cluster: limit, ..Limits::default() };
                for class in classes.values_mut() {
                    let most = limits.addresses_of_a_cluster(class);
                    class.await_address.members = class.await_address.members.min(most);
                }
                let clusters = clusters.into_iter().map(|((namespace, name), ports)| ConfiguredCluster {
                    selector: BTreeMap::from([("app".to_owned(), name.clone())]),
                    name: name.parse().unwrap(),
                    namespace,
                    ports: ports.into_iter().map(|p| p.parse().unwrap()).collect(),
                    class: DEFAULT_CLASS.to_owned(),
                });
                Settings {
                    installation: installation.clone(),
                    access: if open { Access::Open } else { Access::Token },
                    tls: Tls { admission, mapping },
                    cluster_domain: format!("{installation}.local"),
                    limits,
                    classes,
                    clusters: clusters.collect(),
                }
            },
        )
}

proptest! {
    #[test]
    fn what_is_rendered_means_the_same(settings in settings()) {
        let text = render(&settings);
        match parse(&text) {
            Ok(parsed) => prop_assert_eq!(parsed.settings, settings, "{}", text),
            Err(error) => prop_assert!(false, "{error}\n{text}"),
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        let _ = parse(&text);
        let _ = parse(&format!("version: 1\n{text}"));
        let _ = parse(&format!("cluster: {{labels: {text}}}"));
    }

    #[test]
    fn a_damaged_file_never_panics_and_its_error_is_complete(
        settings in settings(), at in any::<prop::sample::Index>(), by in "[ -~\n]{0,3}",
    ) {
        let mut text = render(&settings);
        let mut at = at.index(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.insert_str(at, &by);
        if let Err(error) = parse(&text) {
            prop_assert!(!error.findings.is_empty());
            prop_assert!(error.findings.iter().all(|f| !f.rule.is_empty() && !f.remedy.is_empty()));
        }
    }
}
