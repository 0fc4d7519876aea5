//! The configuration file. What is accepted reads the same once it is written out, as `check` does.
#![no_main]

mod written;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| written::reads_the_same(text));
