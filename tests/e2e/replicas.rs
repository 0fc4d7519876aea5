//! Two replicas, of which one goes: the map stays whole, and somebody goes on writing.

use std::time::{Duration, Instant};

use crate::prober::{Prober, reach};
use crate::rig::{OWN, Rig, eventually, say, within};
use crate::workload::{Map, Workload};

/// The Lease, one attempt of the follower with its jitter, and what a machine adds that compiles beside the test.
const TAKE_OVER: Duration = Duration::from_secs(15 + 3 + 7);

#[test]
fn a_rolling_restart_loses_no_entry_and_no_reader() {
    let Some(rig) = Rig::installed() else { return };
    rig.namespace("steady");
    let steady = Workload::stateful_set("steady", "steady");
    steady.create(&rig, 3);
    let map = Map::of_cluster(&rig, "steady", "steady");
    let before = steady.routed(&rig, &map, 3);
    reach(&rig, &before);
    let prober = Prober::start(&rig, std::slice::from_ref(&map));
    prober.watch_members();
    let begun = Instant::now();
    rig.kubectl(&["-n", OWN, "rollout", "restart", "deployment", OWN]);
    rig.kubectl(&["-n", OWN, "rollout", "status", "deployment", OWN, "--timeout=180s"]);
    rig.former_replicas_are_gone();
    let took = begun.elapsed();
    prober.go_on(300);
    let report = prober.stop(&rig);
    say(&format!(
        "rolling restart of the controller in {took:?}: {report}; fewest members: {:?}",
        report.fewest
    ));
    report.assert_nobody_else_answered();
    assert_eq!(report.fewest, Some(3), "an entry was missing: {report}");
    assert!(report.unread.is_empty(), "{report}");
    assert_eq!(steady.routed(&rig, &map, 3), before);
}

#[test]
fn the_other_replica_takes_over_when_the_leader_is_killed() {
    let Some(rig) = Rig::installed() else { return };
    rig.namespace("orphaned");
    let orphaned = Workload::stateful_set("orphaned", "orphaned");
    orphaned.create(&rig, 2);
    let map = Map::of_cluster(&rig, "orphaned", "orphaned");
    orphaned.routed(&rig, &map, 2);
    let leader = |rig: &Rig| {
        let lease = rig.get(&["-n", OWN, "lease", OWN]);
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        rig.replicas().into_iter().map(|(name, _)| name).find(|name| holder.starts_with(name.as_str()))
    };
    let first = eventually("a replica leads", || leader(&rig).ok_or_else(|| "nobody".to_owned()));
    let prober = Prober::start(&rig, std::slice::from_ref(&map));

    rig.in_process(&first, "kill -9 ${p#/proc/}");
    let begun = Instant::now();
    // nor does it come back
    rig.kubectl(&["-n", OWN, "delete", "pod", &first, "--grace-period=0", "--force"]);
    orphaned.scale(&rig, 3);
    let second = within(TAKE_OVER, "another replica leads", || match leader(&rig) {
        Some(name) if name != first => Ok(name),
        other => Err(format!("{other:?}")),
    });
    let took = begun.elapsed();
    orphaned.routed(&rig, &map, 3);
    let routed = begun.elapsed();
    prober.go_on(200);
    let report = prober.stop(&rig);
    say(&format!(
        "leader killed: {second} leads after {took:?}, the new pod is routed after {routed:?}: {report}"
    ));
    report.assert_nobody_else_answered();
    assert!(routed < TAKE_OVER, "{routed:?}");
    rig.install(); // waits until there are two again
}
