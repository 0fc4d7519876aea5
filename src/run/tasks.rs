//! Tasks by name, and how the process stops.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::constants::{DRAIN, LINGER};
use crate::serve::admin::Health;

/// What stops when, after the first signal.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    /// At once: no new writes; leadership is given up when those under way are answered.
    pub(super) writing: CancellationToken,
    /// After [`LINGER`]: listeners take no more connections and let open requests finish.
    pub(super) serving: CancellationToken,
    /// When the listeners are done: watches and the rest.
    pub(super) all: CancellationToken,
}

impl Stop {
    /// Stops `writing` at SIGTERM or SIGINT. A second signal ends the process at once.
    pub(super) fn on_signals() -> Result<Self> {
        let stop = Self {
            writing: CancellationToken::new(),
            serving: CancellationToken::new(),
            all: CancellationToken::new(),
        };
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let writing = stop.writing.clone();
        // not a task by name: it has no end of its own
        tokio::spawn(async move {
            let mut signals = 0;
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                signals += 1;
                if signals > 1 {
                    tracing::warn!("second signal: stopping without draining");
                    std::process::exit(1);
                }
                tracing::info!("stopping: handing over, then draining (a second signal stops at once)");
                writing.cancel();
            }
        });
        Ok(stop)
    }
}

/// The process's tasks. One that ends before the process stops takes the process with it: half a controller is worse
/// than none, since it looks alive.
pub(super) struct Tasks {
    set: JoinSet<String>,
    listeners: usize,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self { set: JoinSet::new(), listeners: 0 }
    }

    /// For modules that spawn by themselves; their tasks return their names.
    pub(super) fn set(&mut self) -> &mut JoinSet<String> {
        &mut self.set
    }

    pub(super) fn spawn(&mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        self.listeners += usize::from(is_listener(name));
        let name = name.to_owned();
        self.set.spawn(async move {
            task.await;
            name
        });
    }

    /// On a thread of its own: what it does wakes no other one, and it waits for nothing that others compute.
    pub(super) fn spawn_apart(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ended = ended; // told as it is dropped, after a panic as well
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(task),
                Err(error) => tracing::error!(name, %error, "no runtime"),
            }
        })?;
        self.spawn(name, async move { _ = end.await });
        Ok(())
    }

    /// Waits for the signal, stops in order, and for the end of all tasks.
    pub(super) async fn until_stopped(mut self, stop: &Stop, health: &Arc<Health>) -> Result<()> {
        // the signal first: tasks that end because of it may be seen in the same moment
        tokio::select! {
            biased;
            () = stop.writing.cancelled() => {}
            Some(ended) = self.set.join_next() => return Err(failure(ended)),
        }
        health.stop();
        let ordered = async {
            tokio::time::sleep(LINGER).await;
            stop.serving.cancel();
        };
        tokio::pin!(ordered);
        let limit = tokio::time::sleep(LINGER + DRAIN + Duration::from_secs(1));
        tokio::pin!(limit);
        let (mut lingering, mut listeners) = (true, self.listeners);
        loop {
            tokio::select! {
                () = &mut ordered, if lingering => lingering = false,
                () = &mut limit => return Err(anyhow!("not drained in time; open requests were cut off")),
                ended = self.set.join_next() => match ended {
                    Some(Ok(name)) => {
                        listeners -= usize::from(is_listener(&name));
                        if listeners == 0 {
                            stop.all.cancel();
                        }
                    }
                    Some(Err(error)) => return Err(failure(Err(error))),
                    None => return Ok(()),
                },
            }
        }
    }
}

fn is_listener(name: &str) -> bool {
    matches!(name, "admission" | "mapping" | "admin")
}

fn failure(ended: Result<String, JoinError>) -> anyhow::Error {
    match ended {
        Ok(name) => anyhow!("task '{name}' has ended, which it never should: ending the process"),
        Err(error) => anyhow!("a task panicked: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{Current, Liveness};

    fn stop() -> Stop {
        Stop {
            writing: CancellationToken::new(),
            serving: CancellationToken::new(),
            all: CancellationToken::new(),
        }
    }

    fn health() -> Arc<Health> {
        Arc::new(Health::new(Arc::new(Current::new()), Arc::new(Liveness::new())))
    }

    fn listeners(tasks: &mut Tasks, stop: &Stop) {
        for name in ["admission", "mapping", "admin"] {
            tasks.spawn(name, stop.serving.clone().cancelled_owned());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_because_of_the_signal_is_no_failure() {
        // seen in the same moment as the signal: as often as not before this was decided
        for _ in 0..64 {
            let (stop, mut tasks) = (stop(), Tasks::new());
            listeners(&mut tasks, &stop);
            tasks.spawn("writers", stop.writing.clone().cancelled_owned());
            stop.writing.cancel();
            tokio::task::yield_now().await;
            tasks.until_stopped(&stop, &health()).await.expect("drained");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_by_itself_ends_the_process_by_name() {
        let (stop, mut tasks) = (stop(), Tasks::new());
        listeners(&mut tasks, &stop);
        tasks.spawn("state", async {});
        let error = tasks.until_stopped(&stop, &health()).await.unwrap_err();
        assert!(error.to_string().contains("'state'"), "{error}");
    }

    #[tokio::test]
    async fn what_runs_apart_has_its_thread_and_ends_the_process_like_any_other_task() {
        let (stop, mut tasks) = (stop(), Tasks::new());
        listeners(&mut tasks, &stop);
        let (tell, told) = tokio::sync::oneshot::channel();
        let apart = async move {
            tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
            panic!("for the test");
        };
        tasks.spawn_apart("admission", apart).unwrap();
        let error = tasks.until_stopped(&stop, &health()).await.unwrap_err();
        assert_eq!(told.await.unwrap().as_deref(), Some("admission"));
        assert!(error.to_string().contains("'admission'"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_does_not_drain_is_cut_off_within_the_grace_period() {
        let (stop, mut tasks) = (stop(), Tasks::new());
        tasks.spawn("mapping", std::future::pending());
        stop.writing.cancel();
        let start = tokio::time::Instant::now();
        assert!(tasks.until_stopped(&stop, &health()).await.is_err());
        assert!(start.elapsed() < Duration::from_secs(28), "{:?}", start.elapsed());
    }
}
