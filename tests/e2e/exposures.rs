//! The other ways to an address, with traffic: told before the start, shared, and at the node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::prober::{Prober, reach};
use crate::replacements::replaced;
use crate::rig::{Rig, say};
use crate::workload::{Entry, Map, PORT, Workload};

const CLASSES: &str = "
version: 1
classes:
  default: {}
  sharing: {exposure: [shared]}
  nodes: {exposure: [nodePort]}
";

/// What processes are told by: variables and files.
const INJECT: (&str, &str) = ("external-ip.dev/inject", "env, volume");

#[test]
fn told_before_start_shared_and_at_the_node_each_port_leads_to_its_own_pod_whatever_replaces_it() {
    let Some(rig) = Rig::configured(CLASSES) else { return };
    rig.namespace("ways");
    let told = Workload::stateful_set("ways", "told").annotated(&[INJECT]);
    let sharing =
        Workload::stateful_set("ways", "sharing").annotated(&[("external-ip.dev/class", "sharing"), INJECT]);
    let nodes = Workload::stateful_set("ways", "nodes").annotated(&[("external-ip.dev/class", "nodes")]);
    let all = [told, sharing, nodes];
    for workload in all {
        workload.create(&rig, 3);
    }
    let maps = all.map(|workload| Map::of_cluster(&rig, "ways", workload.name));
    let look = |rig: &Rig, count| [0, 1, 2].map(|i| all[i].routed(rig, &maps[i], count));
    let first = look(&rig, 3);
    one_address_for_all(&first[1]);
    one_address_for_all(&first[2]); // there is one node
    assert!(first[2].iter().all(|entry| (30000..=32767).contains(&entry.port)), "{first:?}");
    knows_what_the_map_says(&rig, &first[0]);
    knows_what_the_map_says(&rig, &first[1]);
    let prober = Prober::start(&rig, &maps);

    for (workload, map) in all.iter().zip(&maps) {
        let pod = format!("{}-1", workload.name);
        rig.kubectl(&["-n", "ways", "delete", "pod", &pod, "--wait=false"]);
        replaced(&rig, *workload, map, 3, &pod);
        prober.go_on(200);
    }
    // all at once: addresses inside are given anew in whatever order, over all three
    rig.kubectl(&["-n", "ways", "delete", "pods", "--all", "--wait=true"]);
    look(&rig, 3);
    prober.go_on(300);
    // ports come to the shared Service and go from it while others are asked through it
    for count in [5, 2, 3] {
        for workload in all {
            workload.scale(&rig, u32::try_from(count).unwrap());
        }
        look(&rig, count);
        prober.go_on(300);
    }
    let last = look(&rig, 3);
    knows_what_the_map_says(&rig, &last[0]);
    knows_what_the_map_says(&rig, &last[1]);
    assert_eq!(first.each_ref().map(|e| points(e)), last.each_ref().map(|e| points(e)), "each kept its own");
    // every Service made anew: the new addresses come first, so that no entry is ever missing
    prober.go_on(100);
    prober.watch_members();
    recreate(&rig, &all);
    let anew = look(&rig, 3);
    for (former, new) in last.iter().zip(&anew) {
        let (former, new) = (points(former), points(new));
        assert!(former.iter().all(|(pod, at)| new[pod] != *at), "{former:?} {new:?}");
    }
    reach(&rig, &anew[2]);
    for i in [0, 1] {
        knows(&rig, &anew[i], &last[i]);
        says_what_it_was_told(&rig, &maps[i], &last[i]);
    }
    prober.go_on(300);
    let report = prober.stop(&rig);
    say(&format!("prober, told and shared and at the node: {report}"));
    report.assert_nobody_else_answered();
    assert!(report.answers() > 2000, "{report}");
    assert!(report.unread.is_empty(), "{report}");
    assert_eq!(report.fewest, Some(9), "all were in every map while their Services were made anew: {report}");
}

/// `recreate` as a person runs it, of all clusters at a time; the installation says by which configuration.
fn recreate(rig: &Rig, all: &[Workload]) {
    let begin = |workload: &Workload| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_external-ip-controller"));
        command.args([
            "recreate",
            workload.name,
            "--all",
            "--at-once",
            "3",
            "--namespace",
            workload.namespace,
        ]);
        command.env("KUBECONFIG", rig.cluster.kubeconfig());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<Child> = all.iter().map(begin).collect();
    for child in running {
        let out = child.wait_with_output().unwrap();
        let said = [&out.stdout, &out.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
        assert!(out.status.success() && said.contains(" were made anew"), "{said}");
    }
}

fn points(entries: &[Entry]) -> BTreeMap<String, Option<SocketAddr>> {
    entries.iter().map(|entry| (entry.pod.clone(), entry.address())).collect()
}

/// Entries are sorted by slot, and a slot made anew has another number.
fn of_pod<'a>(entries: &'a [Entry], pod: &str) -> &'a Entry {
    entries.iter().find(|entry| entry.pod == pod).unwrap_or_else(|| panic!("no {pod} in {entries:#?}"))
}

fn one_address_for_all(entries: &[Entry]) {
    assert!(entries.iter().all(|entry| entry.outside == entries[0].outside), "{entries:#?}");
    let points: std::collections::BTreeSet<_> = entries.iter().map(Entry::address).collect();
    assert_eq!(points.len(), entries.len(), "{entries:#?}");
}

fn knows_what_the_map_says(rig: &Rig, entries: &[Entry]) {
    knows(rig, entries, entries);
}

/// A process's environment never changes, and of the files it tells what its first line found: both were there before it
/// started. They tell of an address as `told`, and go on doing so.
fn knows(rig: &Rig, entries: &[Entry], told: &[Entry]) {
    for (entry, answer) in entries.iter().zip(reach(rig, entries)) {
        assert_eq!(answer["pod"], entry.pod.as_str());
        let told = of_pod(told, &entry.pod);
        let (ip, port) = (&told.outside, told.port.to_string());
        let variables =
            json!({"EXTERNAL_IP": ip, "EXTERNAL_HOST": "", format!("EXTERNAL_PORT_{PORT}"): port});
        assert_eq!(answer["external"], variables, "{answer}");
        let files =
            json!({"address": ip, "host": "", format!("port-{PORT}"): port, "slot": told.slot.to_string()});
        assert_eq!(answer["began"], files, "{answer}");
        assert_eq!(answer["files"], files, "{answer}");
    }
}

/// The files follow the pod's annotations within a minute or two, so these must stay as well. The map says what is wrong.
fn says_what_it_was_told(rig: &Rig, map: &Map, told: &[Entry]) {
    let map = rig.outside.run(map.clone().fetch(&[])).unwrap().json();
    let shown = map["entries"].as_array().unwrap();
    assert_eq!(shown.len(), told.len(), "{map}");
    for shown in shown {
        let told = of_pod(told, shown["pod"].as_str().unwrap());
        let pod = rig.get(&["-n", "ways", "pod", &told.pod]);
        let stamp =
            |key: &str| pod["metadata"]["annotations"][format!("stamp.external-ip.dev/{key}")].clone();
        assert_eq!((stamp("address"), stamp("slot")), (json!(told.outside), json!(told.slot.to_string())));
        assert_eq!(shown["told"]["ips"], json!([told.outside]), "{shown}");
    }
}
