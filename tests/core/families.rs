//! Addresses pair by family, whatever mixture of families pod, endpoints and load balancer have; every protocol gets
//! through.

use std::net::IpAddr;

use external_ip_core::formats::nat_map;
use external_ip_core::mapping::{Entry, EntryState};
use external_ip_core::objects::Protocol;
use external_ip_core::settings::Settings;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::World;

/// What of IPv4 and IPv6 there is.
#[derive(Debug, Clone, Copy)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    fn pick(self, v4: &str, v6: &str) -> Vec<String> {
        let both = [(self.v4, v4), (self.v6, v6)];
        both.into_iter().filter(|(there, _)| *there).map(|(_, ip)| ip.to_owned()).collect()
    }

    fn has(self, ip: &IpAddr) -> bool {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }
}

fn families() -> impl Strategy<Value = Families> {
    prop_oneof![Just((true, false)), Just((false, true)), Just((true, true))]
        .prop_map(|(v4, v6)| Families { v4, v6 })
}

/// One pod, a Service whose policy is `policy`, and a load balancer with addresses of these families, by name or not.
fn entry(pod: Families, policy: Option<&str>, outside: Families, by_name: bool) -> (World, Entry) {
    let mut settings = Settings::default();
    settings.classes.get_mut("default").unwrap().service.ip_family_policy = policy.map(str::to_owned);
    let mut world = World::new(settings);
    world.load_balancer = false;
    let ips: Vec<Value> =
        pod.pick("198.18.0.5", "2001:db8:1::5").into_iter().map(|ip| json!({"ip": ip})).collect();
    world.pod("c-0").stamped().set("/status/podIPs", json!(ips)).create();
    world.settle();
    let mut given: Vec<Value> =
        outside.pick("203.0.113.1", "2001:db8::1").into_iter().map(|ip| json!({"ip": ip})).collect();
    if by_name {
        given.insert(0, json!({"hostname": "a.lb.example"}));
    }
    world.edit_service("c-ext-0", |s| s["status"]["loadBalancer"]["ingress"] = json!(given));
    world.settle();
    let entry = world.entry("c", "c-0");
    (world, entry)
}

proptest! {
    #[test]
    fn what_is_routed_has_outside_addresses_of_routed_families_only_and_drivers_see_pairs(
        pod in families(), dual in any::<bool>(), outside in families(), by_name in any::<bool>(),
    ) {
        let (world, entry) = entry(pod, dual.then_some("PreferDualStack"), outside, by_name);
        let first = if pod.v4 { Families { v4: true, v6: false } } else { Families { v4: false, v6: true } };
        let served = if dual { pod } else { first };
        let meets = (served.v4 && outside.v4) || (served.v6 && outside.v6);
        prop_assert_eq!(entry.state == EntryState::Routed, meets, "{:?}", entry);
        let map: Value = serde_json::from_str(&nat_map::cluster(&world.mapping("c").unwrap())).unwrap();
        let map = map.as_object().unwrap();
        if !meets {
            prop_assert!(map.is_empty() && entry.external.is_none());
            return Ok(());
        }
        let external = entry.external.unwrap();
        prop_assert!(external.ips.iter().all(|ip| served.has(ip) && outside.has(ip)));
        for (key, target) in map {
            let inside: Result<IpAddr, _> = key.rsplit_once(':').unwrap().0.parse();
            let host = target["host"].as_str().unwrap();
            if by_name {
                prop_assert_eq!(host, "a.lb.example");
            } else if let Ok(inside) = inside {
                prop_assert_eq!(inside.is_ipv4(), host.parse::<IpAddr>().unwrap().is_ipv4());
            }
        }
        let by_address = map.keys().filter(|key| key.rsplit_once(':').unwrap().0.parse::<IpAddr>().is_ok());
        let pairs = entry.internal.ips.iter().filter(|ip| served.has(ip) && outside.has(ip));
        prop_assert_eq!(by_address.count(), pairs.count());
        prop_assert_eq!(map.len() - entry.internal.names.len() , map.keys().filter(|k| !k.contains(".svc")).count());
    }
}

#[test]
fn tcp_udp_and_sctp_ports_get_through_plan_and_map() {
    let mut world = World::new(Settings::default());
    let ports = json!([
        {"name": "sip", "containerPort": 5060, "protocol": "TCP"},
        {"name": "sip-udp", "containerPort": 5060, "protocol": "UDP"},
        {"name": "m3ua", "containerPort": 2905, "protocol": "SCTP"},
    ]);
    world.pod("c-0").stamped().set("/spec/containers/0/ports", ports).create();
    world.settle();
    let entry = world.entry("c", "c-0");
    assert_eq!(entry.state, EntryState::Routed);
    let pairs: Vec<_> = entry.ports.iter().map(|p| (p.protocol, p.internal, p.external)).collect();
    for pair in [(Protocol::Tcp, 5060, 5060), (Protocol::Udp, 5060, 5060), (Protocol::Sctp, 2905, 2905)] {
        assert!(pairs.contains(&pair), "{pairs:?}");
    }
    let written = world.services["c-ext-0"]["spec"]["ports"].as_array().unwrap();
    assert!(written.iter().any(|p| p["protocol"] == "SCTP" && p["port"] == 2905), "{written:?}");
}
