//! What the leader does to the outside again and again, a few at once: dial addresses, ask for names.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::act::lease::Role;

/// Objects of rounds, as the state loop says.
pub struct Rounds<T, R> {
    /// Everything there is.
    pub targets: watch::Receiver<Arc<BTreeSet<T>>>,
    /// Only the leader does anything.
    pub role: watch::Receiver<Role>,
    /// To the state loop.
    pub results: mpsc::Sender<(T, R)>,
}

impl<T: Ord + Hash + Clone, R> Rounds<T, R> {
    /// Looks every `look` what is due, until `stop`: what is new is, and the rest when `again` says, after it has been
    /// done. At most `at_once` at a time, and a round is not begun before the last one has ended.
    pub async fn run<F: Future<Output = (R, Duration)>>(
        mut self,
        look: Duration,
        at_once: usize,
        act: impl Fn(T) -> F,
        stop: CancellationToken,
    ) {
        let mut due = HashMap::new();
        let mut look = tokio::time::interval(look);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        stop.run_until_cancelled(async {
            loop {
                look.tick().await;
                self.round(&mut due, at_once, &act).await;
            }
        })
        .await;
    }

    async fn round<F: Future<Output = (R, Duration)>>(
        &mut self,
        due: &mut HashMap<T, Instant>,
        at_once: usize,
        act: &impl Fn(T) -> F,
    ) {
        let leading = matches!(*self.role.borrow(), Role::Leading { .. });
        let targets = if leading { Arc::clone(&self.targets.borrow_and_update()) } else { Arc::default() };
        due.retain(|target, _| targets.contains(target));
        let now = Instant::now();
        let wanted = targets.iter().filter(|target| due.get(*target).is_none_or(|at| *at <= now)).cloned();
        let done = futures::stream::iter(wanted.collect::<Vec<_>>())
            .map(|target| async move { (act(target.clone()).await, target) })
            .buffer_unordered(at_once);
        let mut done = std::pin::pin!(done);
        while let Some(((result, pause), target)) = done.next().await {
            due.insert(target.clone(), Instant::now() + pause);
            // the state loop ends only with the process
            let _ = self.results.send((target, result)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_new_is_done_at_once_the_rest_when_its_time_has_come_and_by_the_leader_only() {
        let (sent, targets) = watch::channel(Arc::new(BTreeSet::from(["slow"])));
        let (role, led) = watch::channel(Role::Following);
        let (results, mut done) = mpsc::channel(8);
        let rounds = Rounds { targets, role: led, results };
        let pause = |name: &str| Duration::from_secs(if name == "slow" { 60 } else { 7 });
        let stop = CancellationToken::new();
        let act = move |name: &'static str| async move { ((), pause(name)) };
        let running = tokio::spawn(rounds.run(Duration::from_secs(1), 4, act, stop.clone()));
        let nobody = tokio::time::timeout(Duration::from_secs(100), done.recv()).await;
        assert!(nobody.is_err(), "a follower does nothing");
        role.send_replace(Role::Leading { term: 1 });
        assert_eq!(done.recv().await.unwrap().0, "slow");
        sent.send_replace(Arc::new(BTreeSet::from(["quick", "slow"])));
        let begun = Instant::now();
        for _ in 0..3 {
            assert_eq!(done.recv().await.unwrap().0, "quick");
        }
        let waited = begun.elapsed().as_secs();
        assert!((14..18).contains(&waited), "{waited}");
        sent.send_replace(Arc::new(BTreeSet::from(["slow"])));
        assert_eq!(done.recv().await.unwrap().0, "slow", "what is not wanted any more is not done");
        stop.cancel();
        running.await.unwrap();
    }
}
