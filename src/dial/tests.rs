use std::collections::HashMap;
use std::time::Duration;

use external_ip_core::names::Key;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::act::lease::Role;
use crate::map::{Current, Liveness};

fn target(address: &str) -> Target {
    Target {
        service: Key::new("data", "c-ext-0"),
        cluster: Key::new("data", "c"),
        pod_uid: "u".into(),
        address: address.into(),
        interval: Duration::from_secs(600),
        timeout: Duration::from_millis(500),
    }
}

struct Rig {
    targets: watch::Sender<Targets>,
    role: watch::Sender<Role>,
    results: mpsc::Receiver<(Target, bool)>,
    stop: CancellationToken,
}

fn rig(role: Role) -> Rig {
    let (targets, seen) = watch::channel(Targets::default());
    let (role, led) = watch::channel(role);
    let (sent, results) = mpsc::channel(64);
    let metrics = Arc::new(Metrics::new(Arc::new(Current::new()), Arc::new(Liveness::new())));
    let stop = CancellationToken::new();
    let rounds = Rounds { targets: seen, role: led, results: sent };
    tokio::spawn(Dialler { rounds, metrics }.run(stop.clone()));
    Rig { targets, role, results, stop }
}

impl Rig {
    async fn next(&mut self) -> Option<(String, bool)> {
        let next = tokio::time::timeout(Duration::from_secs(10), self.results.recv()).await;
        next.ok().flatten().map(|(target, reachable)| (target.address, reachable))
    }
}

#[tokio::test]
async fn who_accepts_is_reached_who_refuses_is_not_and_each_is_dialled_once_per_interval() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().to_string();
    let closed = format!("127.0.0.1:{}", local_cluster::free_port().unwrap());
    let mut rig = rig(Role::Leading { term: 1 });
    rig.targets.send_replace(Arc::new([target(&open), target(&closed)].into()));
    let found: HashMap<_, _> = [rig.next().await.unwrap(), rig.next().await.unwrap()].into();
    assert_eq!(found, [(open.clone(), true), (closed, false)].into());
    // another target is another pod or address: it does not wait for the interval of the first
    rig.targets
        .send_replace(Arc::new([Target { pod_uid: "v".into(), ..target(&open) }, target(&open)].into()));
    assert_eq!(rig.next().await, Some((open, true)));
    assert!(rig.results.try_recv().is_err(), "the first is not due yet");
    rig.stop.cancel();
}

#[tokio::test]
async fn only_the_leader_dials() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().to_string();
    let mut rig = rig(Role::Following);
    rig.targets.send_replace(Arc::new([target(&open)].into()));
    let nobody = tokio::time::timeout(DIAL_LOOK * 2, listener.accept()).await;
    assert!(nobody.is_err(), "a follower has dialled");
    rig.role.send_replace(Role::Leading { term: 1 });
    assert_eq!(rig.next().await, Some((open, true)));
}
