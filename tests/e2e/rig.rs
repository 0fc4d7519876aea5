//! What a test holds: a node, and what is installed on it.

use std::fmt::Debug;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use local_cluster::Cluster;
use serde_json::{Value, json};

use crate::node::{Node, State};
use crate::outside::Outside;

/// The controller's namespace, Deployment and everything else that has only one name.
pub(crate) const OWN: &str = "external-ip-controller";
/// What is applied: byte for byte, since the image is loaded under the name it asks for.
pub(crate) const MANIFEST: &str = "manifests/install-public.yaml";
/// Long enough for a machine whose cores are shared; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(90);

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A node, held by one test.
pub(crate) struct Rig {
    pub(crate) cluster: &'static Cluster,
    pub(crate) outside: &'static Outside,
    node: Node,
    /// What to delete at the end of the test: kind and name.
    made: Mutex<Vec<(String, String)>>,
}

impl Rig {
    /// Waits for a node. `None`, after saying why, where no pods can run and nobody requires it.
    fn take(preferred: State) -> Option<Self> {
        let node = Node::take(preferred)?;
        Some(Self { cluster: node.cluster(), outside: node.outside(), node, made: Mutex::default() })
    }

    /// With the product installed and both replicas ready.
    pub(crate) fn installed() -> Option<Self> {
        let rig = Self::take(State::Installed)?;
        rig.install();
        rig.former_replicas_are_gone(); // of a test that configured it otherwise
        Some(rig)
    }

    /// As [`Rig::installed`], with another configuration file; the next test has the shipped one again.
    pub(crate) fn configured(file: &str) -> Option<Self> {
        let rig = Self::installed()?;
        let name = "config-of-a-test";
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": OWN, "name": name}, "data": {"config.yaml": file}});
        rig.apply(&object.to_string());
        let volumes = json!([{"name": "config", "configMap": {"name": name}}]);
        let patch = json!({"spec": {"template": {"spec": {"volumes": volumes}}}}).to_string();
        rig.kubectl(&["-n", OWN, "patch", "deployment", OWN, "--patch", &patch]);
        rig.kubectl(&["-n", OWN, "rollout", "status", "deployment", OWN, "--timeout=120s"]);
        rig.former_replicas_are_gone();
        Some(rig)
    }

    /// Waits until those of a rollout alone answer.
    pub(crate) fn former_replicas_are_gone(&self) {
        eventually("the former replicas are gone", || match self.replicas().len() {
            2 => Ok(()),
            n => Err(n.to_string()),
        });
    }

    /// With no trace of the product.
    pub(crate) fn bare() -> Option<Self> {
        let rig = Self::take(State::Bare)?;
        if !rig.kubectl(&["get", "namespace", OWN, "--ignore-not-found", "-o", "name"]).is_empty() {
            rig.uninstall();
        }
        Some(rig)
    }

    pub(crate) fn install(&self) {
        self.node.is(State::Installed);
        self.kubectl(&["apply", "-f", MANIFEST]);
        self.kubectl(&["-n", OWN, "rollout", "status", "deployment", OWN, "--timeout=120s"]);
    }

    /// As the documentation says it; whether everything is gone then, `uninstall` asks.
    pub(crate) fn uninstall(&self) {
        self.node.is(State::Bare);
        self.kubectl(&["-n", OWN, "scale", "deployment", OWN, "--replicas=0"]);
        let ours = format!("app.kubernetes.io/name={OWN}");
        self.kubectl(&["-n", OWN, "wait", "--for=delete", "pod", "-l", &ours, "--timeout=90s"]);
        self.kubectl(&["apply", "-f", "manifests/examples/cleanup.yaml"]);
        let job = ["-n", OWN, "wait", "--for=condition=complete", "job/external-ip-cleanup", "--timeout=60s"];
        self.kubectl(&job);
        self.kubectl(&["delete", "-f", MANIFEST]);
    }

    /// kubectl in the repository's root; panics with what it said.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        let out = self.cluster.kubectl_command(args).current_dir(root()).output().expect("kubectl starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if out.status.success() {
            Ok(text(&out.stdout))
        } else {
            Err(format!("kubectl {}: {}", args.join(" "), text(&out.stderr)))
        }
    }

    /// `kubectl get ... -o json`.
    pub(crate) fn get(&self, args: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], args].concat());
        serde_json::from_str(&text).expect("kubectl writes JSON")
    }

    /// The items of a list.
    pub(crate) fn list(&self, args: &[&str]) -> Vec<Value> {
        self.get(args)["items"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) fn apply(&self, yaml: &str) {
        self.cluster.apply(yaml).unwrap();
    }

    /// An enabled namespace that ends with the test.
    pub(crate) fn namespace(&self, name: &str) {
        self.made("namespace", name);
        self.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{external-ip.dev/enabled: \"true\"}}}}}}"
        ));
    }

    /// An object without a namespace that ends with the test.
    pub(crate) fn made(&self, kind: &str, name: &str) {
        self.made.lock().unwrap().push((kind.to_owned(), name.to_owned()));
    }

    /// Deletes what this test has made and waits until it is gone.
    pub(crate) fn tidy(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for (kind, name) in made {
            let gone = ["delete", &kind, &name, "--ignore-not-found", "--timeout=120s"];
            if let Err(error) = self.try_kubectl(&gone) {
                say(&error);
            }
        }
    }

    /// The running pods of the controller: name and object.
    pub(crate) fn replicas(&self) -> Vec<(String, Value)> {
        let ours = format!("app.kubernetes.io/name={OWN}");
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let pods = self.list(&["-n", OWN, "pods", "-l", &ours]);
        pods.into_iter().map(|pod| (name(&pod), pod)).collect()
    }

    /// `/proc/PID` of the container's first process in the pod of this name, as a shell inside the node sees it.
    pub(crate) fn in_process(&self, pod: &str, command: &str) -> String {
        let script = format!(
            "for p in /proc/[0-9]*; do case $(readlink $p/exe) in */external-ip-controller) \
             tr '\\0' '\\n' < $p/environ | grep -qx POD_NAME={pod} && {{ {command}; exit 0; }};; esac; done; exit 1"
        );
        let out = self.cluster.in_node("sh").unwrap().args(["-c", &script]).output().unwrap();
        assert!(out.status.success(), "no process of pod {pod}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn dump(&self) {
        let ours = format!("app.kubernetes.io/name={OWN}");
        for args in [
            &["get", "pods,services,endpointslices", "-A", "-o", "wide"][..],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &["-n", OWN, "get", "leases,configmaps,jobs"],
            &["-n", OWN, "logs", "-l", &ours, "--prefix", "--tail=80"],
            &["-n", OWN, "logs", "job/external-ip-cleanup", "--tail=40"],
        ] {
            say(&format!("--- kubectl {}", args.join(" ")));
            say(&self.try_kubectl(args).unwrap_or_else(|error| error));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dump();
        }
        self.tidy();
    }
}

/// One line for whoever watches, past the test harness, which keeps the output of tests that pass.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Asks until the answer is there; panics with the last one.
pub(crate) fn eventually<T: Debug>(what: &str, ask: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, ask)
}

/// As [`eventually`], with a limit of its own.
pub(crate) fn within<T: Debug>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) if begun.elapsed() > limit => panic!("not within {limit:?}: {what}: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
