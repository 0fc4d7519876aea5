//! Three places to put a client, and what each begins with.

use std::process::Command;

use local_cluster::MEMBER_IMAGE;
use serde_json::json;

use crate::rig::{Rig, eventually};
use crate::stores::jars::Jars;
use crate::stores::outside::{Client, Files, follows, program};
use crate::workload::{Entry, Map};

/// A pod that lends its network to the client inside.
const INSIDE: &str = "inside";
/// A load balancer for all members.
const ONE: &str = "all-members";

/// For one store: clients are the same program, with other arguments, in other networks.
pub(super) struct Ways<'a> {
    rig: &'a Rig,
    jars: &'a Jars,
    map: &'a Map,
    files: &'a Files,
    /// The address of a member inside.
    pub(super) inside: String,
    /// The same member's external address.
    pub(super) outside: String,
    /// The address of the load balancer for all.
    pub(super) one: String,
}

impl<'a> Ways<'a> {
    /// Namespace and label `app` are the store's name.
    pub(super) fn prepare(
        rig: &'a Rig,
        jars: &'a Jars,
        store: &str,
        map: &'a Map,
        members: &[Entry],
        files: &'a Files,
    ) -> Self {
        let port = members[0].port;
        let container = json!({
            "name": "inside", "image": MEMBER_IMAGE, "imagePullPolicy": "Never", "args": ["serve", "11222"],
            "env": [{"name": "POD_NAME", "value": INSIDE}],
        });
        rig.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": INSIDE, "namespace": store}, "spec": {"containers": [container]}}).to_string());
        let spec = json!({"type": "LoadBalancer", "selector": {"app": store}, "ports": [{"port": port}]});
        rig.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": ONE, "namespace": store}, "spec": spec}).to_string());
        rig.kubectl(&["-n", store, "wait", "--for=condition=Ready", "--timeout=60s", "pod", INSIDE]);
        let one = format!("{}:{port}", address(rig, store));
        answers(rig, &one);
        let inside = format!("{}:{port}", members[0].inside);
        let outside = members[0].address().unwrap().to_string();
        Self { rig, jars, map, files, inside, outside, one }
    }

    /// In the network of a pod.
    pub(super) fn inside(&self, arguments: &[String]) -> Client {
        let enter = format!(
            "for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ 2> /dev/null | grep -qx POD_NAME={INSIDE} && \
             exec nsenter --target ${{p#/proc/}} --net -- \"$@\"; done; echo no pod {INSIDE} >&2; exit 1"
        );
        let mut shell = self.rig.cluster.in_node("sh").unwrap();
        shell.args(["-c", &enter, "sh", "java"]);
        self.start(shell, arguments)
    }

    pub(super) fn by_the_map(&self, arguments: &[String]) -> Client {
        let mut java = program(self.rig, "java");
        follows(&mut java, self.map, self.files);
        self.start(java, arguments)
    }

    pub(super) fn one_load_balancer(&self, arguments: &[String]) -> Client {
        self.start(program(self.rig, "java"), arguments)
    }

    fn start(&self, mut java: Command, arguments: &[String]) -> Client {
        Client::start(java.args(self.jars.arguments("Bench")).args(arguments))
    }
}

fn address(rig: &Rig, namespace: &str) -> String {
    let output = "jsonpath={.status.loadBalancer.ingress[0].ip}";
    eventually("a load balancer for all members", || {
        let found = rig.kubectl(&["-n", namespace, "get", "service", ONE, "-o", output]);
        if found.is_empty() { Err("nothing yet".to_owned()) } else { Ok(found) }
    })
}

/// Waits until connections from outside lead somewhere.
fn answers(rig: &Rig, at: &str) {
    let at = at.to_owned();
    eventually("the load balancer leads to a member", || {
        let at = at.clone();
        rig.outside
            .run(async move { tokio::net::TcpStream::connect(at).await.map(drop).map_err(|e| e.to_string()) })
    });
}
