//! Leadership on a real API server.

use std::time::{Duration, Instant};

use external_ip_controller::act::lease::{Role, living_holder};
use external_ip_controller::constants::{LEASE_DURATION, LEASE_RENEW_DEADLINE, LEASE_RETRY};
use local_cluster::Component;

use crate::bare::{Bare, Replica};
use crate::support::eventually;
use crate::support::install::{ACCOUNT, HOME};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_lease_changes_hands_at_once_with_nothing_but_gets_and_patches() {
    let bare = Bare::new().await;
    let client = bare.client().await;
    let seen = bare.cluster.audit_position().unwrap();
    let first = Replica::start(&client, "first");
    first.leads().await;
    let second = Replica::start(&client, "second");
    let holder = living_holder(&client, HOME).await.unwrap().unwrap();
    assert!(holder.starts_with("first_"), "{holder}");
    let released = Instant::now();
    first.stop().await;
    second.leads().await;
    assert!(released.elapsed() < 2 * LEASE_RETRY, "{:?}", released.elapsed());
    second.stop().await;
    assert_eq!(living_holder(&client, HOME).await.unwrap(), None);
    let (events, _) = bare.cluster.audit_events_since(seen).unwrap();
    for event in events.iter().filter(|e| e.user == ACCOUNT && e.resource == "leases") {
        assert!(matches!(event.verb.as_str(), "get" | "patch"), "{event:?}");
        assert!(event.code == 200 || event.code == 409, "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_api_server_ends_leadership_before_the_lease_does() {
    let bare = Bare::new().await;
    let replica = Replica::start(&bare.client().await, "frozen");
    replica.leads().await;
    bare.cluster.pause(Component::ApiServer).unwrap();
    let frozen = Instant::now();
    while replica.leadership.is_leading_now() && frozen.elapsed() < LEASE_DURATION {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let led = frozen.elapsed();
    eventually("the end is announced", async || match replica.role() {
        Role::Following => Ok(()),
        role @ Role::Leading { .. } => Err(format!("{role:?}")),
    })
    .await;
    let announced = frozen.elapsed();
    bare.cluster.resume(Component::ApiServer).unwrap();
    assert!(led <= LEASE_RENEW_DEADLINE, "{led:?}");
    assert!(announced < LEASE_DURATION, "{announced:?}");
    println!("no leadership {:.1} s after the freeze", led.as_secs_f32());
    let thawed = Instant::now();
    replica.leads().await;
    assert_eq!(replica.role(), Role::Leading { term: 2 });
    println!("leading again {:.1} s after it goes on", thawed.elapsed().as_secs_f32());
    replica.stop().await;
}
