//! Random histories of sharing and node-port pods: whatever happens, an outside port that is shown leads to its own pod or
//! to nobody. The judge reads the objects as JSON and asks the product nothing.

use std::time::Duration;

use external_ip_core::names;
use external_ip_core::plan::Planner;
use external_ip_core::settings::{DEFAULT_CLASS, Exposure, Settings};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::World;

#[derive(Debug, Clone)]
enum Step {
    /// A pod of this number is made, with these ports, through the webhook or past it.
    Create {
        pod: u8,
        ports: u8,
        stamped: bool,
        address: u8,
    },
    Delete {
        pod: u8,
    },
    /// A pod with the labels and container ports of another one, past the webhook.
    Copy {
        of: u8,
        address: u8,
    },
    DeleteCopy,
    /// The EndpointSlice controller's writes are seen late, or again at once.
    Lag(bool),
    /// Somebody edits the targets of a shared Service.
    Swap,
    /// The load balancer gives addresses, or does not.
    Balancer(bool),
    /// Another Service is asked for in place of one.
    Recreate {
        service: u8,
    },
    /// The configuration changes: the class has these exposures from now on.
    Class(usize),
    Settle,
    Pass {
        seconds: u16,
    },
    Leader,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5_u8, 0..3_u8, prop::bool::weighted(0.8), 1..6_u8)
            .prop_map(|(pod, ports, stamped, address)| Step::Create { pod, ports, stamped, address }),
        4 => (0..5_u8).prop_map(|pod| Step::Delete { pod }),
        2 => (0..5_u8, 1..6_u8).prop_map(|(of, address)| Step::Copy { of, address }),
        2 => Just(Step::DeleteCopy),
        2 => any::<bool>().prop_map(Step::Lag),
        1 => Just(Step::Swap),
        2 => any::<bool>().prop_map(Step::Balancer),
        1 => (0..4_u8).prop_map(|service| Step::Recreate { service }),
        1 => (0..ORDERS.len()).prop_map(Step::Class),
        5 => Just(Step::Settle),
        2 => (1..700_u16).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Leader),
    ]
}

fn take(world: &mut World, step: &Step) {
    let name = |pod: u8| format!("c-{pod}");
    let ip = |address: u8| json!([{"ip": format!("198.18.7.{address}")}]);
    match step {
        Step::Create { pod, ports, stamped, address } => {
            if world.has_pod(&name(*pod)) {
                return;
            }
            let ports = ["11222", "11222,53/udp,53", "9042"][usize::from(*ports)];
            let name = name(*pod);
            let made = world.pod(&name).annotation(names::PORTS_ANNOTATION, ports);
            let made = made.set("/status/podIPs", ip(*address)).set("/spec/nodeName", json!("one"));
            if *stamped { made.admitted().create() } else { made.create() }
        }
        Step::Delete { pod } => world.delete_pod(&name(*pod)),
        Step::Copy { of, address } => {
            if world.has_pod(&name(*of)) && !world.has_pod("thief") {
                let original = world.pod_value(&name(*of));
                let (spec, labels) = (original["spec"].clone(), original["metadata"]["labels"].clone());
                let thief = world.pod("thief").set("/spec", spec).set("/metadata/labels", labels);
                thief.set("/status/podIPs", ip(*address)).create();
            }
        }
        Step::DeleteCopy => world.delete_pod("thief"),
        Step::Lag(late) => world.hold_slices(*late),
        Step::Swap => {
            if world.services.contains_key("c-ext-shared-0") {
                world.edit_service("c-ext-shared-0", |s| {
                    let ports = s["spec"]["ports"].as_array_mut().unwrap();
                    let last = ports.len() - 1;
                    let (one, other) = (ports[0]["targetPort"].clone(), ports[last]["targetPort"].clone());
                    ports[0]["targetPort"] = other;
                    ports[last]["targetPort"] = one;
                });
            }
        }
        Step::Balancer(gives) => world.load_balancer = *gives,
        Step::Recreate { service } => {
            if let Some(name) = world.services.keys().nth(usize::from(*service)).cloned() {
                world.edit_service(&name, |s| {
                    s["metadata"]["annotations"][names::RECREATE_ANNOTATION] = json!("true");
                });
            }
        }
        Step::Class(order) => {
            world.restart(settings(ORDERS[*order]));
            put_node(world);
        }
        Step::Settle => world.settle(),
        Step::Pass { seconds } => world.pass(Duration::from_secs(u64::from(*seconds))),
        Step::Leader => world.planner = Planner::new(&world.state),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// UIDs of pods the API server's objects lead to from an outside port of a Service.
fn reached<'w>(world: &'w World, service: &Value, port: &Value) -> Vec<&'w str> {
    let selects = |pod: &Value| {
        let selector = service["spec"]["selector"].as_object().unwrap();
        selector.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value)
    };
    let answers = |pod: &Value| {
        let ports = items(&pod["spec"]["containers"]).flat_map(|c| items(&c["ports"]));
        port["targetPort"].is_number() || ports.into_iter().any(|p| p["name"] == port["targetPort"])
    };
    let pods = world.all_pods().filter(|p| selects(p) && answers(p));
    pods.map(|p| p["metadata"]["uid"].as_str().unwrap()).collect()
}

/// What is wrong with what is shown; how many entries were.
fn judge(world: &World) -> Result<usize, String> {
    let entries = world.mapping("c").map(|m| m.entries).unwrap_or_default();
    let mut shown = 0;
    for entry in entries.iter().filter(|e| e.external.is_some()) {
        let ips = &entry.external.as_ref().unwrap().ips;
        for pair in &entry.ports {
            shown += 1;
            let mut leads = Vec::new();
            for service in world.services.values() {
                for port in items(&service["spec"]["ports"]) {
                    let outside = if service["spec"]["type"] == "NodePort" { "nodePort" } else { "port" };
                    let here = items(&service["status"]["loadBalancer"]["ingress"])
                        .any(|i| ips.iter().any(|ip| i["ip"] == ip.to_string()));
                    let protocol = port["protocol"].as_str().unwrap_or("TCP");
                    if (outside == "nodePort" || here)
                        && port[outside] == pair.external
                        && protocol == pair.protocol.as_str()
                    {
                        leads.extend(reached(world, service, port));
                        leads.extend(world.seen_behind(service, port));
                    }
                }
            }
            if leads.iter().any(|uid| *uid != entry.uid) {
                return Err(format!("{entry:?} leads to {leads:?}"));
            }
        }
    }
    Ok(shown)
}

const ORDERS: [&[Exposure]; 5] = [
    &[Exposure::Shared],
    &[Exposure::Shared, Exposure::NodePort],
    &[Exposure::Dedicated, Exposure::Shared, Exposure::NodePort],
    &[Exposure::Dedicated, Exposure::NodePort],
    &[Exposure::NodePort],
];

fn settings(exposure: &[Exposure]) -> Settings {
    let mut settings = Settings::default();
    let class = settings.classes.get_mut(DEFAULT_CLASS).unwrap();
    class.exposure = exposure.to_vec();
    (class.shared.ports_per_service, class.load_balancers) = (4, Some(2));
    settings
}

fn put_node(world: &mut World) {
    world.put_node("one", &[("ExternalIP", "203.0.113.101")]);
}

fn live(exposure: &[Exposure], steps: &[Step]) -> Result<usize, TestCaseError> {
    let mut world = World::new(settings(exposure));
    put_node(&mut world);
    let mut shown = 0;
    for (n, step) in steps.iter().enumerate() {
        take(&mut world, step);
        shown += judge(&world).map_err(|e| TestCaseError::fail(format!("after step {n}, {step:?}: {e}")))?;
    }
    world.delete_pod("thief");
    world.hold_slices(false);
    world.load_balancer = true;
    world.pass(Duration::from_secs(3600));
    world.take_writes();
    world.planner = Planner::new(&world.state);
    world.settle();
    let writes: Vec<&str> = world.take_writes().into_iter().filter(|w| *w != "record_event").collect();
    prop_assert!(writes.is_empty(), "all is done, and a new leader writes {writes:?}");
    Ok(shown)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, rng_seed: prop::test_runner::RngSeed::Fixed(5), ..ProptestConfig::default() })]

    #[test]
    fn an_outside_port_that_is_shown_leads_to_its_own_pod_or_nobody(
        steps in prop::collection::vec(step(), 5..40),
        order in 0..ORDERS.len(),
    ) {
        live(ORDERS[order], &steps)?;
    }
}

#[test]
fn histories_show_something() {
    let create = |pod| Step::Create { pod, ports: 1, stamped: true, address: pod + 1 };
    let shown = live(&[Exposure::Shared], &[create(0), create(1), Step::Settle]).unwrap();
    assert!(shown >= 3, "{shown}");
}
