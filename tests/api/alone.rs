//! Tests that measure how long something takes: one after the other, with nothing beside them.

mod flood;
mod stuffed;
