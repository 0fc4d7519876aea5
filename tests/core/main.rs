//! Tests of the pure core.

mod plan;
mod properties;
mod world;
