//! Dials external addresses from the leader, where a class asks for it. A connection that is accepted is closed at once.
//!
//! What this shows is the way from the controller's network, which may differ from a client's: hairpins through the load
//! balancer, and nodes that answer for an address themselves.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use external_ip_core::reach::Target;
use futures::StreamExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::act::lease::Role;
use crate::constants::{DIAL_LOOK, DIALS_AT_ONCE};
use crate::metrics::Metrics;

/// Everything there is to dial.
pub type Targets = Arc<BTreeSet<Target>>;

/// What the dialler works with.
pub struct Dialler {
    /// What to dial, as the state loop says.
    pub targets: watch::Receiver<Targets>,
    /// Only the leader dials.
    pub role: watch::Receiver<Role>,
    /// To the state loop.
    pub results: mpsc::Sender<(Target, bool)>,
    /// Counts dials.
    pub metrics: Arc<Metrics>,
}

impl Dialler {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut due = HashMap::new();
        let mut look = tokio::time::interval(DIAL_LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        stop.run_until_cancelled(async {
            loop {
                look.tick().await;
                self.round(&mut due).await;
            }
        })
        .await;
    }

    /// Dials what is due, a few at once.
    async fn round(&mut self, due: &mut HashMap<Target, Instant>) {
        let leading = matches!(*self.role.borrow(), Role::Leading { .. });
        let targets =
            if leading { Arc::clone(&self.targets.borrow_and_update()) } else { Targets::default() };
        due.retain(|target, _| targets.contains(target));
        let now = Instant::now();
        let wanted = targets.iter().filter(|target| due.get(*target).is_none_or(|at| *at <= now)).cloned();
        let dials = futures::stream::iter(wanted.collect::<Vec<_>>())
            .map(|target| async move { (dial(&target).await, target) })
            .buffer_unordered(DIALS_AT_ONCE);
        let mut dials = std::pin::pin!(dials);
        while let Some((reachable, target)) = dials.next().await {
            self.metrics.dialled(reachable);
            due.insert(target.clone(), Instant::now() + target.interval);
            // the state loop ends only with the process
            let _ = self.results.send((target, reachable)).await;
        }
    }
}

/// Whether somebody accepts a connection there in time.
async fn dial(target: &Target) -> bool {
    matches!(timeout(target.timeout, TcpStream::connect(&target.address)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests;
