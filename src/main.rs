//! The `external-ip-controller` program.
fn main() {}
