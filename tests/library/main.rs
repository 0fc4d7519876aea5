//! Parts of the product as a library on a real API server, without the product as a process: one cluster (the one that
//! KUBECONFIG names, else one of its own), one test at a time, since most of them stop it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failure here is a failed test

mod bare;
mod lease;
#[path = "../support/mod.rs"]
mod support;
mod watch;
mod writes;
