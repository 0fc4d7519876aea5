//! Tests of the pure core.
//!
//! Golden files lie under `tests/core/golden`: `UPDATE_GOLDENS=1 cargo test -p external-ip-core` writes them anew, and
//! the diff is what a reviewer reads.

// helpers of tests are tests: a failed unwrap is the finding
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod addresses;
mod configuration;
mod cost;
mod explain;
mod exposure;
mod failures;
mod families;
mod formats;
mod gates;
mod golden;
mod histories;
mod limits;
mod milestones;
mod names;
mod others;
mod plan;
mod reach;
mod readiness;
mod recreate;
mod sharing;
mod stamp;
mod world;
