//! Installed from image and manifests: what runs then, and the way from a label to a member that is reached.

use std::process::Command;

use serde_json::Value;

use crate::rig::{OWN, Rig, eventually, say, within};
use crate::workload::{Map, Workload};

/// Resident memory of a replica with nothing to do, measured and stated; the margin is for other allocators' habits.
const IDLE_MEMORY: u64 = 15 << 20;
/// Of the archive, which holds the program uncompressed.
const IMAGE_SIZE: u64 = 12_000_000;

#[test]
fn two_replicas_become_ready_from_the_shipped_manifests() {
    let Some(rig) = Rig::bare() else { return };
    let begun = std::time::Instant::now();
    rig.install();
    let replicas = rig.replicas();
    say(&format!("install: two replicas ready {:?} after the first apply began", begun.elapsed()));
    assert_eq!(replicas.len(), 2);
    for (name, pod) in &replicas {
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!((&status["ready"], &status["restartCount"]), (&true.into(), &0.into()), "{name}");
    }
    let generation = |rig: &Rig| rig.get(&["-n", OWN, "deployment", OWN])["metadata"]["generation"].clone();
    let before = generation(&rig);
    rig.install();
    assert_eq!(generation(&rig), before, "applying again is no rollout");
}

#[test]
fn the_image_is_one_program_that_runs_as_nobody() {
    let Some(rig) = Rig::installed() else { return };
    let archive = std::env::var("IMAGE").unwrap();
    let size = std::fs::metadata(&archive).unwrap().len();
    let layers: Value = serde_json::from_str(&unpacked(&archive, "manifest.json")).unwrap();
    let config: Value =
        serde_json::from_str(&unpacked(&archive, layers[0]["Config"].as_str().unwrap())).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    let files: Vec<String> = layers[0]["Layers"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|layer| files(&archive, layer.as_str().unwrap()))
        .collect();
    assert_eq!(files, ["external-ip-controller"]);

    let (pod, _) = rig.replicas().into_iter().next().unwrap();
    let shell = rig.try_kubectl(&["-n", OWN, "exec", &pod, "--", "sh", "-c", "true"]).unwrap_err();
    assert!(shell.contains("executable file not found"), "{shell}");
    let status = rig.in_process(&pod, "cat $p/status");
    assert_eq!(field(&status, "Uid:"), "65532\t65532\t65532\t65532");
    assert_eq!(field(&status, "CapEff:"), "0000000000000000");
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    say(&format!("image: {} kB", size >> 10));
    assert!(size <= IMAGE_SIZE, "{size}");
}

#[test]
fn a_replica_without_work_stays_small() {
    let Some(rig) = Rig::installed() else { return };
    for (pod, _) in rig.replicas() {
        let status = rig.in_process(&pod, "cat $p/status");
        let bytes = |name: &str| field(&status, name).trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
        let group = rig.in_process(&pod, "cat $p/cgroup");
        say(&format!(
            "memory of {pod}: {} kB resident, {} kB of it its own; {} threads",
            bytes("VmRSS:") >> 10,
            bytes("RssAnon:") >> 10,
            field(&status, "Threads:")
        ));
        assert!(bytes("VmRSS:") < IDLE_MEMORY, "{status}{group}");
    }
}

#[test]
fn each_external_address_leads_to_its_member_and_a_mounted_map_says_so() {
    let Some(rig) = Rig::installed() else { return };
    rig.namespace("first");
    let store = Workload::stateful_set("first", "store");
    store.create(&rig, 3);
    let map = Map::of_cluster(&rig, "first", "store");
    let entries = store.routed(&rig, &map, 3);
    let member = rig.cluster.member().unwrap().display().to_string();
    for entry in &entries {
        let address = entry.address().unwrap().to_string();
        let answer = eventually(&format!("{} answers at {address}", entry.pod), || {
            let out = rig.cluster.in_client(&member).unwrap().args(["get", &address]).output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
        });
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (&answer["pod"], &answer["uid"], &answer["ip"]),
            (&entry.pod.as_str().into(), &entry.uid.as_str().into(), &entry.inside.as_str().into())
        );
    }

    let mut mounts = json_pod();
    mounts["spec"]["volumes"][0]["configMap"]["name"] = "store-external-ips".into();
    let document = rig.outside.run(map.clone().fetch(&[])).unwrap().json();
    within(std::time::Duration::from_secs(10), "the ConfigMap holds the same map", || {
        let written = rig.get(&["-n", "first", "configmap", "store-external-ips"]);
        let written = written["data"]["mapping.json"].as_str().unwrap_or_default().to_owned();
        if serde_json::from_str(&written).is_ok_and(|w: Value| w == document) { Ok(()) } else { Err(written) }
    });
    rig.apply(&mounts.to_string());
    rig.kubectl(&["-n", "first", "wait", "--for=condition=Ready", "pod/reader", "--timeout=60s"]);
    let file = |name: &str| {
        rig.kubectl(&["-n", "first", "exec", "reader", "--", "/member", "cat", &format!("/map/{name}")])
    };
    assert_eq!(serde_json::from_str::<Value>(&file("mapping.json")).unwrap(), document);
    for entry in &entries {
        assert!(file("mapping.yaml").contains(&entry.outside), "{}", file("mapping.yaml"));
    }
    assert!(file("ca.crt").contains("BEGIN CERTIFICATE"));

    store.scale(&rig, 4);
    let entries = store.routed(&rig, &map, 4);
    let begun = std::time::Instant::now();
    eventually("the mounted file follows the map", || {
        let mounted = file("mapping.yaml");
        if entries.iter().all(|entry| mounted.contains(&entry.outside)) { Ok(()) } else { Err(mounted) }
    });
    say(&format!("a mounted map shows a new member {:?} after HTTPS does", begun.elapsed()));
}

/// A pod that mounts a ConfigMap and does nothing.
fn json_pod() -> Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "first", "name": "reader"},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "reader",
                "image": local_cluster::MEMBER_IMAGE,
                "imagePullPolicy": "Never",
                "args": ["serve", "8080"],
                "volumeMounts": [{"name": "map", "mountPath": "/map"}],
            }],
            "volumes": [{"name": "map", "configMap": {"name": ""}}],
        },
    })
}

/// What stands behind a name in `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

fn tar(args: &[&str]) -> Vec<u8> {
    let out = Command::new("tar").args(args).output().unwrap();
    assert!(out.status.success(), "tar {args:?}");
    out.stdout
}

/// One file of an archive.
fn unpacked(archive: &str, name: &str) -> String {
    String::from_utf8(tar(&["-xOf", archive, name])).unwrap()
}

/// What a layer of an archive holds.
fn files(archive: &str, layer: &str) -> Vec<String> {
    let script = "tar -xOf \"$0\" \"$1\" | tar -t";
    let out = Command::new("sh").args(["-c", script, archive, layer]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}
