//! Each pod gets to each state once, whatever happens to it later.

use external_ip_core::milestones::Milestone::{Allocated, Routed};
use external_ip_core::milestones::Milestones;
use external_ip_core::names::{self, Key};
use external_ip_core::settings::Settings;
use serde_json::json;

use crate::world::{NS, World};

#[test]
fn a_pod_reaches_each_state_once_and_its_successor_anew() {
    let (mut world, mut milestones) = (World::new(Settings::default()), Milestones::default());
    let mut take = |world: &World| {
        let mapping = world.mapping("c");
        let new = milestones.take(&Key::new(NS, "c"), mapping.as_ref());
        new.into_iter().map(|(pod, state)| (pod.to_owned(), state)).collect::<Vec<_>>()
    };
    let both = || vec![("c-0".to_owned(), Allocated), ("c-0".to_owned(), Routed)];
    world.load_balancer = false;
    world.pod("c-0").stamped().create();
    world.settle();
    assert_eq!(take(&world), []);
    world.load_balancer = true;
    world.settle();
    assert_eq!(take(&world), both());
    world.edit_pod("c-0", |p| p["metadata"]["annotations"][names::PORTS_ANNOTATION] = json!("8080"));
    assert_eq!(take(&world), [], "it falls back to Allocated");
    world.settle();
    assert_eq!(take(&world), [], "and has been Routed before");
    world.delete_pod("c-0");
    world.settle();
    assert_eq!(take(&world), []);
    world.pod("c-0").stamped().create();
    world.settle();
    assert_eq!(take(&world), both(), "another pod of the same name");
}
