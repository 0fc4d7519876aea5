//! The same puts and gets (a) inside the cluster's network, (b) outside by the map, and (c) outside through one load balancer.
//!
//! `make bench-stores`; docs/benchmarks-stores.md tells how it measures and what that does not show.

mod table;
mod ways;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::infinispan::{self, Infinispan};
use super::jars::Jars;
use super::outside::{Client, Files};
use super::redis::{self, Redis};
use crate::rig::{Rig, root, say};
use table::{BOTH, Interval, WAYS};
use ways::Ways;

/// Programs started anew for each way: what differs between them, as compilation and which members a load balancer chose, is
/// within the intervals. More of them cost 20 to 30 s each.
const FORKS: usize = 8;
/// The 10 000 keys of a fork, in parts: the ways take turns after each, so what disturbs the machine disturbs all.
const SLICES: usize = 40;
const SLICE: usize = 250;
/// Puts and gets before them, which are not counted.
const WARM_UP: usize = 5000;
/// Each way comes first, second and last equally often, and before and after each other one.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0], [1, 0, 2], [0, 2, 1]];
/// What a client outside may take, of the time it takes inside.
const GOAL: f64 = 1.05;

#[test]
#[ignore = "measures for minutes: make bench-stores"]
fn an_infinispan_client_outside_by_the_map_is_about_as_fast_as_one_inside() {
    let (image, jars) = (infinispan::image(), Jars::build());
    let Some(rig) = Rig::installed() else { return };
    let store = Infinispan::by_its_guide(&rig, &image);
    let files = Files::new("infinispan");
    let ways = Ways::prepare(&rig, &jars, "infinispan", &store.map, &store.first, &files);
    let hot_rod = |at: &str, more: &[&str]| -> Vec<String> {
        let words = std::iter::once("hotrod".to_owned()).chain(store.properties(at));
        words.chain(more.iter().map(|&word| word.to_owned())).collect()
    };
    judged("infinispan", || {
        [
            ways.inside(&hot_rod(&ways.inside, &[])),
            ways.by_the_map(&hot_rod(&ways.outside, &[infinispan::TRANSPORT])),
            ways.one_load_balancer(&hot_rod(&ways.one, &["client_intelligence=BASIC"])),
        ]
    });
}

#[test]
#[ignore = "measures for minutes: make bench-stores"]
fn a_redis_cluster_client_outside_by_the_map_is_about_as_fast_as_one_inside() {
    let (image, jars) = (redis::image(), Jars::build());
    let Some(rig) = Rig::installed() else { return };
    let store = Redis::by_its_guide(&rig, &image);
    let files = Files::new("redis");
    let ways = Ways::prepare(&rig, &jars, "redis", &store.map, &store.first, &files);
    let password = format!("password={}", store.password);
    let jedis = |kind: &str, at: &str, more: &[&str]| -> Vec<String> {
        let words = [kind.to_owned(), format!("at={at}"), password.clone()].into_iter();
        words.chain(more.iter().map(|&word| word.to_owned())).collect()
    };
    judged("redis", || {
        [
            ways.inside(&jedis("redis-cluster", &ways.inside, &[])),
            ways.by_the_map(&jedis("redis-cluster", &ways.outside, &["mapped=true"])),
            ways.one_load_balancer(&jedis("redis-one-address", &ways.one, &[])),
        ]
    });
}

/// Measures, keeps the raw results, prints the table; panics where the goal is missed for certain.
fn judged(store: &str, start: impl Fn() -> [Client; 3]) {
    say(&format!("{store}: measuring"));
    let _awake = awake();
    let forks: Vec<Value> = (0..FORKS)
        .map(|fork| {
            say(&format!("fork {} of {FORKS}", fork + 1));
            measured(fork, start())
        })
        .collect();
    let results = json!({"store": store, "operations": SLICES * SLICE, "forks": forks});
    let file = results_file(store);
    std::fs::write(&file, format!("{results}\n")).unwrap();
    say(&format!("{}\nraw results: {}", table::of(&results), file.display()));
    let Interval { low, .. } = table::ratio(&results, "by the map", "inside", BOTH);
    assert!(low <= GOAL, "by the map takes more than {GOAL} of the time inside: at least {low:.3}");
}

/// One fork: for each way the slices in their order.
fn measured(fork: usize, mut clients: [Client; 3]) -> Value {
    clients.iter_mut().for_each(Client::ready);
    let mut parts: [Vec<Value>; 3] = Default::default();
    for client in &mut clients {
        client.ask(&format!("0 {WARM_UP}")); // compiles, connects
    }
    for slice in 0..SLICES {
        for way in ORDERS[(fork * SLICES + slice) % ORDERS.len()] {
            let answer = clients[way].ask(&format!("{} {SLICE}", slice * SLICE));
            assert!(answer["asked"].is_u64(), "{answer}");
            parts[way].push(answer);
        }
    }
    WAYS.iter()
        .zip(parts)
        .map(|(way, parts)| ((*way).to_owned(), json!(parts)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// While the file is open cores wait for work without sleeping (0 µs of latency asked of the kernel's power management). On a
/// virtual machine it takes 50 to 100 µs to wake one, several times what is measured, and whether one sleeps depends on where the
/// scheduler puts two programs that talk. None where the kernel has no such thing: intervals are wider then.
fn awake() -> Option<File> {
    let asked = OpenOptions::new().write(true).open("/dev/cpu_dma_latency").and_then(|mut file| {
        file.write_all(&0_i32.to_ne_bytes())?;
        Ok(file)
    });
    asked.inspect_err(|error| say(&format!("cores may sleep: /dev/cpu_dma_latency: {error}"))).ok()
}

/// In `RESULTS`, or else where the documentation has them.
fn results_file(store: &str) -> PathBuf {
    let directory = std::env::var_os("RESULTS").map_or_else(|| root().join("docs"), PathBuf::from);
    directory.join(format!("benchmarks-stores-{store}.json"))
}
