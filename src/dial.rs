//! Dials external addresses from the leader, where a class asks for it. A connection that is accepted is closed at once.
//!
//! What this shows is the way from the controller's network, which may differ from a client's: hairpins through the load
//! balancer, and nodes that answer for an address themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use external_ip_core::reach::Target;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::constants::{DIAL_LOOK, DIALS_AT_ONCE};
use crate::metrics::Metrics;
use crate::rounds::Rounds;

/// Everything there is to dial.
pub type Targets = Arc<BTreeSet<Target>>;

/// What the dialler works with.
pub struct Dialler {
    /// What to dial, and who is told.
    pub rounds: Rounds<Target, bool>,
    /// Counts dials.
    pub metrics: Arc<Metrics>,
}

impl Dialler {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let metrics = &self.metrics;
        let act = |target: Target| async move {
            let reachable = dial(&target).await;
            metrics.dialled(reachable);
            (reachable, target.interval)
        };
        self.rounds.run(DIAL_LOOK, DIALS_AT_ONCE, act, stop).await;
    }
}

/// Whether somebody accepts a connection there in time.
async fn dial(target: &Target) -> bool {
    matches!(timeout(target.timeout, TcpStream::connect(&target.address)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests;
