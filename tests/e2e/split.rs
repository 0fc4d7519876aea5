//! The map served by a Deployment of its own, installed together with the public Service as its component says.

use std::path::Path;

use crate::rig::{OWN, Rig, eventually, root, say};
use crate::workload::{Map, Workload};

const SERVERS: &str = "external-ip-mapping";

#[test]
fn map_servers_of_their_own_serve_what_the_controller_keeps_and_may_do_nothing_else() {
    let Some(rig) = Rig::bare() else { return };
    let begun = std::time::Instant::now();
    let split = Split::install(&rig);
    say(&format!("split: controller and map servers ready {:?} after the apply began", begun.elapsed()));
    rig.namespace("parted");
    let store = Workload::stateful_set("parted", "store");
    store.create(&rig, 2);
    let map = Map::of_cluster(&rig, "parted", "store");
    let before = store.routed(&rig, &map, 2);

    let account = format!("--as=system:serviceaccount:{OWN}:{SERVERS}");
    for (verb, what) in [("get", "secrets"), ("patch", "services"), ("patch", "pods"), ("update", "leases")] {
        let may = rig.try_kubectl(&["auth", "can-i", verb, what, "-n", OWN, &account]);
        assert!(!matches!(may.as_deref(), Ok("yes")), "map servers may {verb} {what}");
    }
    // whoever is gone, the map is served: both controllers, then one server after the other
    rig.kubectl(&["-n", OWN, "scale", "deployment", OWN, "--replicas=0"]);
    let ours = format!("app.kubernetes.io/name={OWN}");
    rig.kubectl(&["-n", OWN, "wait", "--for=delete", "pod", "-l", &ours, "--timeout=60s"]);
    assert_eq!(store.routed(&rig, &map, 2), before, "no controller, and the map is as it was");
    rig.kubectl(&["-n", OWN, "rollout", "restart", "deployment", SERVERS]);
    rig.kubectl(&["-n", OWN, "rollout", "status", "deployment", SERVERS, "--timeout=120s"]);
    assert_eq!(store.routed(&rig, &map, 2), before, "other servers, and the map is as it was");
    rig.kubectl(&["-n", OWN, "scale", "deployment", OWN, "--replicas=2"]);
    store.scale(&rig, 3);
    store.routed(&rig, &map, 3);
    drop(split);
}

/// What is installed, until it is dropped.
struct Split<'a> {
    rig: &'a Rig,
    kustomization: String,
}

impl<'a> Split<'a> {
    fn install(rig: &'a Rig) -> Self {
        let dir = rig.cluster.dir().unwrap().join("split");
        std::fs::create_dir_all(&dir).unwrap();
        // kustomize takes no absolute path
        let up = "../".repeat(dir.components().count());
        let manifests = |part: &str| format!("{up}{}", relative(&root().join("manifests").join(part)));
        let [base, public, split] = ["base", "components/public", "components/split"].map(manifests);
        let text = format!("resources: [{base}]\ncomponents: [{public}, {split}]\n");
        std::fs::write(dir.join("kustomization.yaml"), text).unwrap();
        let this = Self { rig, kustomization: dir.display().to_string() };
        rig.kubectl(&["apply", "-k", &this.kustomization]);
        for deployment in [OWN, SERVERS] {
            rig.kubectl(&["-n", OWN, "rollout", "status", "deployment", deployment, "--timeout=150s"]);
        }
        this
    }
}

impl Drop for Split<'_> {
    fn drop(&mut self) {
        self.rig.tidy(); // while somebody is there to delete the Services
        let gone = self.rig.try_kubectl(&["delete", "-k", &self.kustomization, "--ignore-not-found"]);
        eventually("the namespace is gone", || match &gone {
            Ok(_)
                if self
                    .rig
                    .kubectl(&["get", "namespace", OWN, "--ignore-not-found", "-o", "name"])
                    .is_empty() =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        });
    }
}

fn relative(path: &Path) -> String {
    path.display().to_string().trim_start_matches('/').to_owned()
}
