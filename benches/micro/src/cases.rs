//! What is measured. Each case prepares first; only the closure it hands over counts.

use std::hint::black_box;
use std::sync::Arc;

use crate::reviews::SHAPES;
use external_ip_core::formats::{document, etag, nat_map, origin};
use external_ip_core::mapping::{self, Mapping, SlotAddress};
use external_ip_core::names::Key;
use external_ip_core::objects::Pod;
use external_ip_core::settings::Settings;
use external_ip_core::stamp;
use external_ip_core::state::{State, Update};

use crate::world::{MEMBERS, NOW, World, cluster_of};

/// Measures what it is given under a name.
type Measure<'m> = dyn FnMut(&str, &mut dyn FnMut()) + 'm;

/// Sizes of installations, in pods.
const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// Writes under way, of other clusters.
const UNDER_WAY: [usize; 2] = [100, 2_000];

/// Runs them all.
pub(crate) fn run(measure: &mut Measure<'_>) {
    stamp(measure);
    watched(measure);
    for pods in SIZES {
        one_change(pods, measure);
    }
    for pods in UNDER_WAY {
        burst(pods, measure);
    }
    formats(measure);
}

/// The webhook's whole decision: review in, answer out.
fn stamp(measure: &mut Measure<'_>) {
    let settings = Settings::default();
    let unknown = |_: &Key, _: &str| -> Option<SlotAddress> { None };
    for shape in SHAPES {
        let review = shape.review();
        measure(&format!("stamp: review of {}", shape.name), &mut || {
            let answer = stamp::answer(&review, &settings, &unknown);
            assert!(answer.is_ok_and(|a| a.stamped == shape.member), "answered");
        });
    }
}

/// What a watch hands over becomes what is kept.
fn watched(measure: &mut Measure<'_>) {
    let mut pod = SHAPES[2].pod();
    pod["metadata"]["resourceVersion"] = "7".into();
    let pod = pod.to_string();
    measure("watch: pod of 8 kB", &mut || {
        assert!(black_box(serde_json::from_str::<Pod>(&pod)).is_ok(), "a pod");
    });
}

/// One pod of many becomes unready.
fn one_change(pods: usize, measure: &mut Measure<'_>) {
    let mut world = World::converged(pods, None);
    let pod = pods / 2;
    let mut update = Some(world.pod_update(pod, false));
    let of = format!("of {pods} pods");
    measure(&format!("state: one pod {of} changes"), &mut || take(&mut world.state, &mut update));
    assert_eq!(world.state.take_dirty().len(), 1, "one cluster is touched");
    let cluster = cluster_of(pod);
    let mut plan = || {
        world.planner.touch([cluster.clone()]);
        assert!(world.planner.plan(&world.state, NOW).is_empty(), "nothing is to be done");
    };
    // once before it counts: the allocator tidies up after the preparation
    plan();
    measure(&format!("plan: one pod {of} has changed"), &mut plan);
    let map = || {
        black_box(mapping::cluster_mapping(&world.state, &cluster));
        black_box(mapping::kept_addresses(&world.state, &cluster));
    };
    map();
    measure(&format!("mapping: cluster of 20 {of}"), &mut || map());
}

fn take(state: &mut State, update: &mut Option<Update>) {
    if let Some(update) = update.take() {
        state.apply(update);
    }
}

/// A cluster is planned and shown to be written while writes of others are under way.
fn burst(others: usize, measure: &mut Measure<'_>) {
    let mut world = World::new(others, None);
    assert_eq!(world.plan().len(), others, "a Service for each is under way");
    for n in others..others + MEMBERS {
        world.show_pod(n, true);
    }
    measure(&format!("plan: 20 new pods, {others} writes under way"), &mut || {
        assert_eq!(world.plan().len(), MEMBERS, "a Service for each");
    });
    world.planner.touch([cluster_of(others)]);
    measure(&format!("plan: nothing new, {others} writes under way"), &mut || {
        assert!(world.plan().is_empty(), "all is under way");
    });
}

/// The documents, of one cluster and of all.
fn formats(measure: &mut Measure<'_>) {
    let world = World::converged(1_000, None);
    let made = |key: &Key| Some((key.clone(), Arc::new(mapping::cluster_mapping(&world.state, key)?)));
    let mapping: Mapping = world.state.clusters().filter_map(made).collect();
    let Some(cluster) = mapping.get(&cluster_of(0)) else { return };
    let mut document = |name: &str, make: &dyn Fn() -> String| {
        measure(name, &mut || {
            black_box(make());
        });
    };
    document("format: v1 JSON, 20 pods", &|| document::cluster_json(cluster));
    document("format: v1 YAML, 20 pods", &|| document::cluster_yaml(cluster));
    document("format: nat-map, 20 pods", &|| nat_map::cluster(cluster));
    document("format: v1 JSON, 1000 pods", &|| document::aggregate_json(&mapping));
    document("format: v1 YAML, 1000 pods", &|| document::aggregate_yaml(&mapping));
    document("format: nat-map, 1000 pods", &|| nat_map::aggregate(&mapping));
    document("format: origin's YAML, 1000 pods", &|| origin::document(&mapping, None).text);
    let json = document::aggregate_json(&mapping);
    document("format: ETag of v1 JSON, 1000 pods", &|| etag(json.as_bytes()));
}
