//! The product as it is shipped, on a node whose pods run: installed from its own image and its own manifests, asked from
//! outside the cluster's network.
//!
//! Each test has a node for itself, since some of them uninstall what the others need: the one of `make cluster-up` that
//! `KUBECONFIG` names, else one of two of their own. `make test-e2e` packs the image and sets `IMAGE`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failure here is a failed test

mod demo;
mod exposures;
mod install;
mod node;
mod origin;
mod outside;
mod prober;
mod readme;
mod replacements;
mod replicas;
mod rig;
mod split;
mod stores;
#[path = "../support/mod.rs"]
mod support;
mod uninstall;
mod workload;
