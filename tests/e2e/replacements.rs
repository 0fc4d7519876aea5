//! The promise itself, through everything that replaces pods.

use crate::prober::Prober;
use crate::rig::{Rig, eventually, say};
use crate::workload::{Map, Workload};

#[test]
fn no_answer_comes_from_another_pod_whatever_replaces_them() {
    let Some(rig) = Rig::installed() else { return };
    rig.namespace("ring");
    let (named, crowd) = (Workload::stateful_set("ring", "ring"), Workload::deployment("ring", "crowd"));
    named.create(&rig, 3);
    crowd.create(&rig, 3);
    let maps = ["ring", "crowd"].map(|cluster| Map::of_cluster(&rig, "ring", cluster));
    let first = named.routed(&rig, &maps[0], 3);
    crowd.routed(&rig, &maps[1], 3);
    let prober = Prober::start(&rig, &maps);

    for pod in ["ring-0", "ring-1", "ring-2"] {
        rig.kubectl(&["-n", "ring", "delete", "pod", pod, "--wait=false"]);
        replaced(&rig, named, &maps[0], 3, pod);
        prober.go_on(100);
    }
    // gone without a goodbye
    rig.kubectl(&["-n", "ring", "delete", "pod", "ring-1", "--grace-period=0", "--force"]);
    replaced(&rig, named, &maps[0], 3, "ring-1");
    // all at once: addresses inside are given anew in whatever order
    rig.kubectl(&["-n", "ring", "delete", "pods", "-l", "app=ring", "--wait=false"]);
    eventually("the set has three pods again", || match named.pods(&rig).len() {
        3 => Ok(()),
        n => Err(n.to_string()),
    });
    named.routed(&rig, &maps[0], 3);
    prober.go_on(300);

    named.restart(&rig);
    crowd.restart(&rig);
    named.routed(&rig, &maps[0], 3);
    crowd.routed(&rig, &maps[1], 3);
    for count in [5, 3, 5, 3] {
        named.scale(&rig, u32::try_from(count).unwrap());
        named.routed(&rig, &maps[0], count);
        prober.go_on(200);
    }
    crowd.restart(&rig);
    crowd.routed(&rig, &maps[1], 3);
    prober.go_on(500);

    let last = named.routed(&rig, &maps[0], 3);
    let report = prober.stop(&rig);
    say(&format!("prober: {report}"));
    report.assert_nobody_else_answered();
    assert!(report.answers() > 2000, "{report}");
    assert!(report.unread.is_empty(), "{report}");
    let addresses = |entries: &[crate::workload::Entry]| {
        entries.iter().map(|e| (e.pod.clone(), e.outside.clone())).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&first), addresses(&last), "each member has the address it began with");
}

/// Waits until the pod of this name is another one and the map shows all again.
pub(crate) fn replaced(rig: &Rig, workload: Workload, map: &Map, count: usize, pod: &str) {
    let uid = |rig: &Rig| workload.pods(rig).remove(pod);
    eventually(&format!("{pod} is there again"), || uid(rig).map(drop).ok_or_else(|| "no pod".to_owned()));
    workload.routed(rig, map, count);
}
