//! Who comes next at a limit that clusters share.

use std::time::Duration;

use external_ip_core::names;
use external_ip_core::settings::{DEFAULT_CLASS, Settings};

use crate::addresses::pool;
use crate::world::{ASKS, World};

/// With room for this many, by what clusters share.
fn room(shared: &str, count: u8) -> Settings {
    let mut settings = Settings::default();
    let class = settings.classes.get_mut(DEFAULT_CLASS).unwrap();
    match shared {
        "namespace" => settings.limits.slots_per_namespace = count.into(),
        "class" => class.load_balancers = Some(count.into()),
        "installation" => settings.limits.load_balancers = count.into(),
        _ => {
            class.addresses = pool(100, count);
            class.service.annotations.insert(ASKS.to_owned(), "{address}".to_owned());
        }
    }
    settings
}

/// A pod of the cluster its name begins with, made at this second.
fn pod(world: &mut World, name: &str, second: i64) {
    let (cluster, _) = name.split_once('-').unwrap();
    world.pod(name).label(names::CLUSTER_LABEL, cluster).created(second).stamped().create();
    world.settle();
}

/// The names of these pods that are routed.
fn routed<'n>(world: &World, pods: &[&'n str]) -> Vec<&'n str> {
    let is_routed = |pod: &str| {
        let (cluster, _) = pod.split_once('-').unwrap();
        world.summary(cluster).iter().any(|line| line.starts_with(&format!("{pod} Routed")))
    };
    pods.iter().copied().filter(|pod| is_routed(pod)).collect()
}

/// There is room for the first one. They come in another order than that of their clusters' names.
fn waiting(shared: &str, pods: &[&str]) -> World {
    let mut world = World::new(room(shared, 1));
    for (second, name) in (10..).zip(pods) {
        pod(&mut world, name, second);
    }
    assert_eq!(routed(&world, pods), pods[..1], "{shared}");
    world
}

const SHARED: [&str; 4] = ["namespace", "class", "installation", "addresses"];

#[test]
fn what_becomes_free_goes_to_the_pod_that_has_waited_longest_whatever_its_clusters_name() {
    let pods = ["m-0", "b-0", "z-0", "a-0"];
    for shared in SHARED {
        let mut world = waiting(shared, &pods);
        for pair in pods.windows(2) {
            world.delete_pod(pair[0]);
            world.pass(Duration::from_secs(1300));
            assert_eq!(routed(&world, &pods), pair[1..], "{shared}");
        }
    }
}

#[test]
fn where_a_limit_is_raised_those_who_have_waited_longest_are_served() {
    let pods = ["m-0", "b-0", "z-0", "b-1", "a-0"];
    for shared in SHARED {
        for count in 2..=5 {
            let mut world = waiting(shared, &pods);
            world.restart(room(shared, count));
            world.settle();
            assert_eq!(routed(&world, &pods), pods[..count.into()], "{shared}");
        }
    }
}

#[test]
fn who_waits_longest_at_one_limit_is_in_nobodys_way_at_another() {
    let mut settings = room("installation", 3);
    let mut scarce = settings.classes[DEFAULT_CLASS].clone();
    scarce.load_balancers = Some(1);
    settings.classes.insert("scarce".to_owned(), scarce);
    let mut world = World::new(settings);
    for (second, name, class) in [(10, "z-0", "scarce"), (11, "z-1", "scarce"), (12, "m-0", DEFAULT_CLASS)] {
        let (cluster, _) = name.split_once('-').unwrap();
        let pod = world.pod(name).label(names::CLUSTER_LABEL, cluster).created(second);
        pod.annotation(names::CLASS_ANNOTATION, class).stamped().create();
        world.settle();
    }
    pod(&mut world, "b-0", 13);
    pod(&mut world, "a-0", 14);
    assert_eq!(routed(&world, &["z-0", "z-1", "m-0", "b-0", "a-0"]), ["z-0", "m-0", "b-0"]);
    world.delete_pod("m-0");
    world.pass(Duration::from_secs(601));
    assert_eq!(routed(&world, &["z-0", "z-1", "b-0", "a-0"]), ["z-0", "b-0", "a-0"]);
    assert_eq!(world.summary("z")[1], "z-1 Pending ClassLimit");
}
