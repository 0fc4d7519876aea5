//! The shell around the pure core: everything that talks, waits, reads a clock or holds a connection.

pub mod act;
pub mod check;
pub mod cleanup;
pub mod cli;
pub mod client;
pub mod constants;
pub mod control;
pub mod dial;
pub mod inspect;
pub mod map;
pub mod metrics;
pub mod resolve;
pub mod rounds;
pub mod run;
pub mod serve;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod watch;
