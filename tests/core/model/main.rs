//! The model: the real core of two replicas in a cluster where everything is late, doubled, dropped or done by somebody
//! else, in random order. Everything they publish is held against the truth, told by [`judge`].
//!
//! ```text
//! step -> world -> pods, nodes, endpoints, balancer, edits -> server -> feed -> replica (core) -> server
//!                                                               |                  |
//!                                                               history -> judge <-+ documents, stamps, writes
//! ```
//!
//! Histories are lists of steps that mean something in every state, not a reference machine with preconditions: what
//! can happen next depends on what the product has written, and a history with steps left out must remain one, or
//! nothing can be made short.

// helpers of tests are tests: a failed unwrap is the finding
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod balancer;
mod class;
mod edits;
mod endpoints;
mod feed;
mod found;
mod judge;
mod node_ports;
mod nodes;
mod pods;
mod replica;
mod server;
mod stats;
mod step;
mod world;
mod zone;

use std::cell::RefCell;

use class::{Order, Setting};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use stats::Stats;
use step::{Mix, Step};
use world::World;

/// Histories of each test where `PROPTEST_CASES` does not say.
const CASES: u32 = 300;

fn setting(orders: &'static [Order]) -> impl Strategy<Value = Setting> {
    let limits = prop_oneof![
        5 => Just((64, 128, 1000)),
        1 => Just((2, 128, 1000)),
        1 => Just((64, 3, 1000)),
        1 => Just((64, 128, 3)),
    ];
    (any::<bool>(), limits, step::class(orders)).prop_map(|(dual, limits, class)| Setting {
        dual,
        limits,
        class,
    })
}

fn live(setting: &Setting, steps: &[Step], stats: &mut Stats) -> judge::Verdict {
    let mut world = World::new(setting, stats);
    world.take(Step::Settle)?;
    for step in steps {
        world.take(*step)?;
    }
    world.quiet()
}

/// Leaves out every step without which it goes wrong all the same: proptest tries each once, before it has made the
/// others smaller.
fn shortest(setting: &Setting, mut steps: Vec<Step>) -> (String, Vec<Step>) {
    let goes_wrong = |steps: &[Step]| live(setting, steps, &mut Stats::default()).err();
    let mut why = goes_wrong(&steps).unwrap_or_else(|| "it went wrong once and not again".to_owned());
    let mut at = 0;
    while at < steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        match goes_wrong(&fewer) {
            Some(still) => (why, steps, at) = (still, fewer, 0),
            None => at += 1,
        }
    }
    (why, steps)
}

/// Lives random histories of a mix; prints what they held; fails with the shortest history that goes wrong.
fn explore(name: &str, seed: u64, mix: Mix, length: std::ops::Range<usize>) {
    let given = |variable: &str| std::env::var_os(variable).is_some();
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if !given("PROPTEST_CASES") {
        config.cases = CASES;
    }
    if !given("PROPTEST_MAX_SHRINK_ITERS") {
        (config.max_shrink_iters, config.max_shrink_time) = (20_000, 60_000);
    }
    if !given("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(seed);
    }
    let shrinks = config.max_shrink_iters > 0;
    let stats = RefCell::new(Stats::default());
    let histories = (setting(mix.orders), prop::collection::vec(step::step(mix), length));
    let result = TestRunner::new(config).run(&histories, |(setting, steps)| {
        let mut stats = stats.borrow_mut();
        stats.history();
        live(&setting, &steps, &mut stats).map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, (setting, steps))) => {
            let (why, steps) = if shrinks { shortest(&setting, steps) } else { (why.to_string(), steps) };
            let steps: Vec<String> = steps.iter().map(|step| format!("    Step::{step:?},")).collect();
            panic!("{why}\n{setting:?}\n{}", steps.join("\n"));
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
    let stats = stats.into_inner();
    stats.tell(name);
    let rare = stats.too_rare(mix.orders == PORTS);
    assert!(rare.is_empty(), "too quiet a run: {rare:?}");
}

/// Half of them as most installations are.
const EVERY: [Order; 12] = {
    use Order::*;
    [
        Dedicated,
        Dedicated,
        Dedicated,
        Dedicated,
        Dedicated,
        Dedicated,
        Shared,
        NodePort,
        SharedNodePort,
        DedicatedShared,
        DedicatedNodePort,
        All,
    ]
};
/// Those by which ports of one address are several pods'.
const PORTS: [Order; 7] = {
    use Order::*;
    [Shared, Shared, NodePort, SharedNodePort, DedicatedShared, DedicatedNodePort, All]
};

#[test]
fn whatever_happens_nothing_wrong_is_published_and_nobody_is_lost() {
    let mix = Mix {
        orders: &EVERY,
        classes: 2,
        pods: 26,
        others: 10,
        controllers: 18,
        replicas: 44,
        settle: 2,
        pass: 3,
    };
    explore("everything", 1, mix, 1..250);
}

#[test]
fn addresses_in_use_again_at_once_mislead_nobody_while_watches_lag() {
    let mix = Mix {
        orders: &[Order::Dedicated],
        classes: 0,
        pods: 30,
        others: 4,
        controllers: 20,
        replicas: 46,
        settle: 1,
        pass: 2,
    };
    explore("addresses in use again", 2, mix, 1..250);
}

#[test]
fn ports_of_shared_addresses_lead_to_their_own_pods_while_classes_change() {
    let mix = Mix {
        orders: &PORTS,
        classes: 8,
        pods: 30,
        others: 8,
        controllers: 18,
        replicas: 42,
        settle: 2,
        pass: 3,
    };
    explore("ports of shared addresses", 3, mix, 1..250);
}
