//! Real data stores in pods, and their real clients outside: every member is reached directly, through the map alone.
//!
//! `make test-stores`; not part of `make test-e2e`, because they take minutes and fetch the stores.

mod benchmark;
mod images;
mod infinispan;
mod jars;
mod outside;
mod redis;
