//! Tests of the pure core.

mod plan;
mod world;
