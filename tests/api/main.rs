//! The product on a real API server with a real load balancer allocation (MetalLB) and pretended pods (kwok). Runs on
//! the cluster KUBECONFIG names, else starts one of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failure here is a failed test

mod access;
mod alone;
mod awaiting;
mod bad_input;
mod balancer;
mod client;
mod documents;
mod explain;
mod exposure;
mod lifecycle;
mod limits;
mod names;
mod node_port;
mod outage;
mod plan;
mod policies;
mod providers;
mod reach;
mod readiness;
mod recreate;
mod rig;
mod rights;
mod rotation;
mod shared;
mod split;
mod static_addresses;
#[path = "../support/mod.rs"]
mod support;
