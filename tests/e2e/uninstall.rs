//! What is left afterwards: nothing of ours.

use std::collections::BTreeSet;

use crate::rig::{OWN, Rig, say};
use crate::workload::{Map, Workload};

#[test]
fn after_cleanup_and_delete_no_object_of_ours_is_left() {
    let Some(rig) = Rig::bare() else { return };
    let before = all_objects(&rig);
    assert!(before.len() > 50, "this lists the cluster: {before:?}");
    rig.install();
    rig.namespace("leaving");
    let (set, crowd) = (Workload::stateful_set("leaving", "set"), Workload::deployment("leaving", "crowd"));
    set.create(&rig, 2);
    crowd.create(&rig, 2);
    set.routed(&rig, &Map::of_cluster(&rig, "leaving", "set"), 2);
    crowd.routed(&rig, &Map::of_cluster(&rig, "leaving", "crowd"), 2);
    set.scale(&rig, 1); // leaves a slot that is kept without a pod
    let labelled = |label: &str| -> BTreeSet<String> { listed(&rig, &["-l", label]) };
    let made = labelled("app.kubernetes.io/managed-by=external-ip-controller");
    assert!(made.len() >= 4, "four Services and ConfigMaps: {made:?}");

    rig.uninstall();
    for label in [
        "app.kubernetes.io/managed-by=external-ip-controller",
        "app.kubernetes.io/part-of=external-ip-controller",
        "app.kubernetes.io/name=external-ip-controller",
    ] {
        assert_eq!(labelled(label), BTreeSet::new(), "{label}");
    }
    let pods = rig.list(&["-n", "leaving", "pods"]);
    assert!(pods.iter().all(|pod| pod["spec"]["schedulingGates"].is_null()), "no pod waits for us");
    rig.tidy();
    let after = all_objects(&rig);
    let left: Vec<_> = after.difference(&before).collect();
    assert!(left.is_empty(), "{left:#?}");
    say(&format!("uninstall: {} objects of ours were there, none is left of {OWN}", made.len()));
}

/// Every object of the cluster, by kind, namespace and name, but for the diary that Kubernetes keeps.
pub(crate) fn all_objects(rig: &Rig) -> BTreeSet<String> {
    listed(rig, &[])
}

fn listed(rig: &Rig, selection: &[&str]) -> BTreeSet<String> {
    let kinds = rig.kubectl(&["api-resources", "--verbs=list", "-o", "name"]);
    let diary = |kind: &str| kind.starts_with("events") || kind == "componentstatuses";
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !diary(kind)).collect();
    let columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name";
    let kinds = kinds.join(",");
    let args = ["get", &kinds, "--all-namespaces", "--ignore-not-found", "--no-headers", "-o", columns];
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let found = rig.kubectl(&[&args[..], selection].concat());
    // a kubelet's first heartbeat may come after the cluster is ready
    found.lines().map(words).filter(|line| !line.starts_with("Lease kube-node-lease ")).collect()
}
