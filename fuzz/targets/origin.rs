//! external-ip-proxy's file. The input is what stands below its two keys, so that most of it gets that far.
#![no_main]

mod written;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (external, cluster) = text.split_once('\0').unwrap_or((text, ""));
    written::reads_the_same(&format!("external-ips:{external}\ncluster:{cluster}\n"));
});
