//! Properties of planner and map over random histories.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use external_ip_core::mapping::{self, ClusterMapping, EntryState};
use external_ip_core::names::{self, Key};
use external_ip_core::plan::Planner;
use external_ip_core::settings::Settings;
use external_ip_core::state::{State, Update};
use proptest::prelude::*;
use serde_json::json;

use crate::world::World;

/// One thing that happens in a cluster.
#[derive(Debug, Clone)]
enum Step {
    Create { pod: u8, stamped: bool, anonymous: bool },
    Delete(u8),
    Terminate(u8),
    Finish(u8),
    ChangePorts(u8),
    CopyIdentity { from: u8, to: u8 },
    DeleteService(u8),
    BendSelector { slot: u8, to: u8 },
    Namespace(bool),
    NewLeader,
    Pass(u16),
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let pod = 0u8..6;
    prop_oneof![
        6 => (pod.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(pod, stamped, anonymous)| Step::Create { pod, stamped, anonymous }),
        3 => pod.clone().prop_map(Step::Delete),
        1 => pod.clone().prop_map(Step::Terminate),
        1 => pod.clone().prop_map(Step::Finish),
        1 => pod.clone().prop_map(Step::ChangePorts),
        1 => (pod.clone(), pod.clone()).prop_map(|(from, to)| Step::CopyIdentity { from, to }),
        1 => pod.clone().prop_map(Step::DeleteService),
        1 => (pod.clone(), pod).prop_map(|(slot, to)| Step::BendSelector { slot, to }),
        1 => any::<bool>().prop_map(Step::Namespace),
        1 => Just(Step::NewLeader),
        2 => (1u16..800).prop_map(Step::Pass),
        4 => Just(Step::Settle),
    ]
}

/// Two clusters in one namespace: even pods are of `c`, odd ones of `d`.
fn name(pod: u8) -> (String, &'static str) {
    let cluster = if pod.is_multiple_of(2) { "c" } else { "d" };
    (format!("{cluster}-{}", pod / 2), cluster)
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Create { pod, stamped, anonymous } => {
            let (name, cluster) = name(*pod);
            world.delete_pod(&name);
            let mut builder = world.pod(&name).label(names::CLUSTER_LABEL, cluster);
            if *anonymous {
                builder = builder.anonymous();
            }
            if *stamped { builder.stamped() } else { builder }.create();
        }
        Step::Delete(pod) => world.delete_pod(&name(*pod).0),
        Step::Terminate(pod) => world.try_edit_pod(&name(*pod).0, |v| {
            v["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }),
        Step::Finish(pod) => world.try_edit_pod(&name(*pod).0, |v| v["status"]["phase"] = json!("Failed")),
        Step::ChangePorts(pod) => world.try_edit_pod(&name(*pod).0, |v| {
            v["metadata"]["annotations"][names::PORTS_ANNOTATION] = json!("9042, 7000");
        }),
        Step::CopyIdentity { from, to } => {
            let id = names::pod_id_of_name(name(*from).1, &name(*from).0);
            world.try_edit_pod(&name(*to).0, |v| v["metadata"]["labels"][names::POD_ID_LABEL] = json!(id));
        }
        Step::DeleteService(slot) => {
            let (_, cluster) = name(*slot);
            world.delete_service(&names::slot_service(cluster, u32::from(*slot / 2)));
        }
        Step::BendSelector { slot, to } => {
            let service = names::slot_service(name(*slot).1, u32::from(*slot / 2));
            if world.services.contains_key(&service) {
                let (pod, cluster) = name(*to);
                let id = names::pod_id_of_name(cluster, &pod);
                world.edit_service(&service, |v| v["spec"]["selector"] = json!({names::POD_ID_LABEL: id}));
            }
        }
        Step::Namespace(enabled) => world.enable_namespace(*enabled),
        Step::NewLeader => world.planner = Planner::new(&world.state),
        Step::Pass(seconds) => world.pass(Duration::from_secs((*seconds).into())),
        Step::Settle => world.settle(),
    }
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..40)
}

fn lived(steps: &[Step]) -> World {
    let mut settings = Settings::default();
    settings.limits.slots_per_namespace = 8;
    let mut world = World::new(settings);
    for step in steps {
        take(&mut world, step);
    }
    world.settle();
    world
}

fn all(state: &State) -> BTreeMap<Key, ClusterMapping> {
    state.clusters().filter_map(|k| Some((k.clone(), mapping::cluster_mapping(state, k)?))).collect()
}

/// The kind of an update: order is kept within it only.
fn kind(update: &Update) -> String {
    match update {
        Update::Pods(feed, _) => format!("{feed:?}"),
        Update::Services(_) => "services".into(),
        Update::Slices(_) => "slices".into(),
        Update::Namespaces(_) => "namespaces".into(),
    }
}

/// Few cases for `make test`; `PROPTEST_CASES=10000` for a longer search.
fn config() -> ProptestConfig {
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 64 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_history_converges_and_then_nothing_is_planned(steps in history()) {
        let mut world = lived(&steps);
        world.take_writes();
        let dirty = world.state.take_dirty();
        prop_assert!(dirty.is_empty());
        world.planner = Planner::new(&world.state);
        let actions = world.planner.plan(&world.state, world.now());
        let writes: Vec<_> = actions.iter().filter(|a| a.kind() != "record_event").collect();
        prop_assert!(writes.is_empty(), "a new leader would write {writes:?}");
    }

    #[test]
    fn every_running_pod_within_the_limits_is_routed_in_the_end(steps in history()) {
        let mut world = lived(&steps);
        world.enable_namespace(true);
        world.pass(Duration::from_secs(1300)); // everything has rested, backed off and been retained
        for entry in all(&world.state).values().flat_map(|m| &m.entries).filter(|e| !e.terminating) {
            let excused = matches!(entry.reason, Some("Finished"));
            prop_assert!(excused || entry.state == EntryState::Routed, "{entry:?}");
        }
    }

    #[test]
    fn no_internal_and_no_external_address_is_published_twice(steps in history()) {
        let world = lived(&steps);
        let (mut inside, mut outside) = (HashSet::new(), HashSet::new());
        for entry in all(&world.state).into_values().flat_map(|m| m.entries).filter(|e| e.state == EntryState::Routed) {
            for ip in &entry.internal.ips {
                prop_assert!(inside.insert(*ip), "{ip} twice");
            }
            for (ip, port) in entry.external.iter().flat_map(|x| &x.ips).flat_map(|ip| entry.ports.iter().map(move |p| (ip, p.external))) {
                prop_assert!(outside.insert((*ip, port)), "{ip}:{port} twice");
            }
        }
    }

    #[test]
    fn remaking_only_what_changed_gives_the_same_map_as_making_all(steps in history()) {
        let world = lived(&steps);
        prop_assert_eq!(&world.published, &all(&world.state));
    }

    #[test]
    fn the_map_does_not_depend_on_how_the_kinds_interleave(steps in history(), seed in any::<u64>()) {
        let world = lived(&steps);
        let mut queues: HashMap<String, std::collections::VecDeque<Update>> = HashMap::new();
        for update in &world.log {
            queues.entry(kind(update)).or_default().push_back(update.clone());
        }
        let mut state = State::new(Arc::new(world.state.settings().clone()));
        let mut kinds: Vec<String> = queues.keys().cloned().collect();
        kinds.sort();
        let mut random = seed | 1;
        while !kinds.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = usize::try_from(random >> 33).unwrap() % kinds.len();
            match queues.get_mut(&kinds[pick]).and_then(std::collections::VecDeque::pop_front) {
                Some(update) => state.apply(update),
                None => { kinds.remove(pick); }
            }
        }
        prop_assert_eq!(all(&state), all(&world.state));
    }
}
