//! Two replicas on a real API server while pods come and go, addresses are used again at once, and things break. What the
//! replicas publish meanwhile is judged by a program of its own (`oracle/`), from etcd's history.
//!
//! ```text
//!  churn (as kubelet) ---> API server <--- wire --- replica a, b <--- oracle (reads the map)
//!  disturb ---> all of them      etcd <------------------------------ oracle (reads the history)
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failure here is a failed test

mod churn;
mod clock;
mod disturb;
mod front;
mod gateway;
mod oracle;
mod replica;
mod rig;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use disturb::Disturbance;
use rig::{Plan, Rig};

/// From the lease given up, after the last write in flight, until another replica has it: what a candidate waits at most
/// (2 s), and a call on a machine that is busy.
const HAND_OVER: u64 = 2_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_of_chaos_shows_nothing_wrong_and_loses_nothing() {
    let plan = Plan {
        name: "chaos-short",
        pods: 30,
        life: Duration::from_secs(8),
        pause: Duration::from_secs(2),
        disturbances: vec![
            Disturbance::Edits,
            Disturbance::WebhookUnreachable,
            Disturbance::LeaderPaused,
            Disturbance::ApiServerRestarted,
            Disturbance::Updated,
            Disturbance::LeaderKilled,
        ],
        at_least: &[
            ("foreign writes to Services", 5),
            ("lease changed hands", 2),
            ("lease free until taken", 1),
            ("pods born", 60),
            ("pods born unstamped", 3),
            ("of these within a minute", 30),
            ("maps read: a", 200),
            ("maps read: b", 200),
            ("maps read: roaming", 200),
        ],
        at_most_ms: &[("/hand_over/max_ms", HAND_OVER)],
    };
    Rig::start(&plan).await.run(&plan).await;
}

/// `make chaos`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn minutes_of_chaos_show_nothing_wrong_and_lose_nothing() {
    let rounds: usize = std::env::var("CHAOS_ROUNDS").map_or(2, |n| n.parse().expect("CHAOS_ROUNDS=number"));
    let plan = Plan {
        name: "chaos",
        pods: 200,
        life: Duration::from_secs(40),
        pause: Duration::from_secs(4),
        disturbances: std::iter::repeat_n(Disturbance::ALL, rounds).flatten().collect(),
        at_least: &[
            ("foreign writes to Services", 5),
            ("lease changed hands", 3),
            ("lease free until taken", 1),
            ("pods born", 1000),
            ("pods born unstamped", 10),
            ("of these within a minute", 500),
            ("maps read: a", 500),
            ("maps read: b", 500),
            ("maps read: roaming", 300),
        ],
        at_most_ms: &[("/hand_over/max_ms", HAND_OVER)],
    };
    Rig::start(&plan).await.run(&plan).await;
}
