use external_ip_core::state::{Change, PodFeed};

use super::*;
use crate::map::Explainer;
use crate::watch::feeds;

/// All feeds, empty, up to `version`.
fn listed(version: u64) -> [Update; 5] {
    let pods = |feed| Update::Pods(feed, Change::Listed { items: vec![], version });
    [
        pods(PodFeed::Labelled),
        pods(PodFeed::Stamped),
        Update::Services(Change::Listed { items: vec![], version }),
        Update::Slices(Change::Listed { items: vec![], version }),
        Update::Namespaces(Change::Listed { items: vec![], version }),
    ]
}

/// A running loop, and what it lives on.
struct Loop {
    updates: mpsc::Sender<Update>,
    role: watch::Sender<Role>,
    service: watch::Sender<Option<Arc<Service>>>,
    current: Arc<Current>,
    explainer: Explainer,
    running: tokio::task::JoinHandle<()>,
}

impl Loop {
    fn start() -> Self {
        let (updates_in, updates) = mpsc::channel(8);
        let (role_in, role) = watch::channel(Role::Following);
        let (service, mapping_service) = watch::channel(None);
        let (_, outcomes) = mpsc::unbounded_channel();
        let (actions, _) = mpsc::unbounded_channel();
        let (settings, current) = (Arc::new(Settings::default()), Arc::new(Current::new()));
        let (explainer, questions) = Explainer::new();
        let (_, dialled) = mpsc::channel(1);
        let (_, answers) = mpsc::channel(1);
        let liveness = Arc::default();
        let inputs =
            Inputs { updates, outcomes, role, mapping_service, questions, dialled, answers, liveness };
        let metrics = Arc::new(Metrics::new(Arc::clone(&current), Arc::default()));
        let (targets, _) = watch::channel(Targets::default());
        let (questions, _) = watch::channel(Questions::default());
        let outputs = Outputs { current: Arc::clone(&current), actions, targets, questions, metrics };
        let control = Control::new(Arc::clone(&settings), &feeds(&settings), inputs, outputs);
        let running = tokio::spawn(control.run(CancellationToken::new()));
        Self { updates: updates_in, role: role_in, service, current, explainer, running }
    }

    async fn send(&self, update: Update) {
        self.updates.send(update).await.expect("the state loop runs");
    }

    async fn list(&self, version: u64) {
        for update in listed(version) {
            self.send(update).await;
        }
        self.shown("n", version).await;
    }

    /// Waits until a feed is shown up to `version`; how long that took.
    async fn shown(&self, feed: &str, version: u64) -> Duration {
        let begun = Instant::now();
        let seen = self.current.when(|p| p.reached.version(feed) == Some(version));
        tokio::time::timeout(Duration::from_secs(1), seen).await.expect("it is published");
        begun.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn the_map_goes_on_while_a_replica_drains_whose_lease_is_given_up() {
    let rig = Loop::start();
    let ask = || rig.explainer.ask(Key::new("data", "c-0"));
    assert!(ask().await.is_none(), "nothing is explained from half a state");
    rig.list(5).await;
    assert!(ask().await.is_some_and(|found| found.explanation.is_none()), "nobody of this name");
    drop(rig.role);
    rig.updates.send(Update::Namespaces(Change::Progress(9))).await.expect("the state loop runs");
    let seen = rig.current.when(|p| p.reached.version("n") == Some(9));
    tokio::time::timeout(Duration::from_secs(1), seen).await.expect("it is still published");
    drop(rig.service);
    drop(rig.updates);
    rig.running.await.expect("it ends with the watches");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_comes_alone_is_shown_at_once_and_those_right_after_it_together() {
    let rig = Loop::start();
    rig.list(5).await;
    let pod = |version: u64| {
        let labels = serde_json::json!({"external-ip.dev/cluster": "c"});
        let metadata = serde_json::json!({"namespace": "data", "name": "c-0", "uid": "u", "labels": labels,
            "resourceVersion": version.to_string()});
        let pod = serde_json::json!({"metadata": metadata});
        Update::Pods(PodFeed::Labelled, Change::Applied(serde_json::from_value(pod).unwrap()))
    };
    rig.send(pod(6)).await;
    assert_eq!(rig.shown("p", 6).await, Duration::ZERO);
    let mut shown = rig.current.subscribe();
    shown.mark_unchanged();
    rig.send(pod(7)).await;
    tokio::time::sleep(STEP_EVERY / 2).await;
    assert!(!shown.has_changed().unwrap(), "it waits for others");
    rig.send(pod(8)).await;
    assert!(rig.shown("p", 8).await <= STEP_EVERY, "in time");
    let before = *shown.borrow_and_update();
    tokio::time::sleep(10 * STEP_EVERY).await;
    assert_eq!(*shown.borrow_and_update(), before, "both at once");
    rig.send(pod(9)).await;
    assert_eq!(rig.shown("p", 9).await, Duration::ZERO);
}
