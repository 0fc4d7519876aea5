//! What tests may expect of the control plane level.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use local_cluster::{Cluster, Component, Level, Options};

use crate::{eventually, turn};

fn cluster() -> Cluster {
    Cluster::up(&Options::for_tests("control-plane", Level::ControlPlane)).unwrap()
}

#[test]
fn a_control_plane_serves_what_api_tests_need() {
    let _turn = turn();
    let cluster = cluster();
    pods_get_addresses_and_services_external_ones(&cluster);
    roles_for_users_are_filled(&cluster);
    a_user_asked_for_by_many_at_once_is_one_user(&cluster);
    writes_of_one_account_are_counted(&cluster);
    a_webhook_is_called_on_loopback(&cluster);
    a_kubeconfig_of_ours_attaches_fully(&cluster);
    components_stop_freeze_and_come_back(&cluster);
}

fn pods_get_addresses_and_services_external_ones(cluster: &Cluster) {
    let workload = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: none}]}
---
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {type: LoadBalancer, selector: {app: db}, ports: [{port: 80}]}}
---
{apiVersion: batch/v1, kind: Job, metadata: {name: once}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: none}]}}}}
";
    cluster.apply(workload).unwrap();
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).unwrap();
    cluster.kubectl(&["wait", "--for=condition=Complete", "job/once", "--timeout=60s"]).unwrap();
    let pods =
        cluster.kubectl(&["get", "pods", "-l", "app=db", "-o", "jsonpath={.items[*].status.podIP}"]).unwrap();
    assert!(pods.split(' ').count() == 2 && pods.split(' ').all(|ip| ip.starts_with("198.18.")), "{pods}");
    let (first, last) = cluster.lb_range().unwrap();
    eventually("the Service has an address of the pool", || {
        let ip = cluster
            .kubectl(&["get", "svc", "db", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"])
            .unwrap();
        ip.parse::<Ipv4Addr>().ok().filter(|ip| (first..=last).contains(ip)).ok_or(ip)
    });
    cluster.kubectl(&["delete", "pod", "db-0", "--wait", "--timeout=60s"]).unwrap();
}

fn roles_for_users_are_filled(cluster: &Cluster) {
    for role in ["edit", "view"] {
        eventually("aggregated roles are filled", || {
            let rules = cluster.kubectl(&["get", "clusterrole", role, "-o", "jsonpath={.rules}"]).unwrap();
            if rules.contains("configmaps") { Ok(()) } else { Err(rules) }
        });
    }
}

fn a_user_asked_for_by_many_at_once_is_one_user(cluster: &Cluster) {
    let ask = || {
        let path = cluster.user_kubeconfig("somebody", &[]).unwrap();
        std::fs::read(path.with_extension("crt")).unwrap()
    };
    let made: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|a| a.join().unwrap()).collect()
    });
    assert!(made.iter().all(|certificate| !certificate.is_empty() && *certificate == made[0]));
}

fn writes_of_one_account_are_counted(cluster: &Cluster) {
    cluster.kubectl(&["create", "serviceaccount", "writer"]).unwrap();
    cluster
        .kubectl(&[
            "create",
            "rolebinding",
            "writer",
            "--clusterrole=edit",
            "--serviceaccount=default:writer",
        ])
        .unwrap();
    let account = "system:serviceaccount:default:writer";
    let kubeconfig = cluster.user_kubeconfig(account, &["system:serviceaccounts"]).unwrap();
    let before = cluster.audit_position().unwrap();
    let run = |args: &[&str]| {
        let mut kubectl: Command = cluster.kubectl_command(args);
        kubectl.env("KUBECONFIG", &kubeconfig).output().unwrap().status.success()
    };
    assert!(run(&["create", "configmap", "one"]));
    assert!(run(&["create", "configmap", "two"]));
    assert!(run(&["delete", "configmap", "one", "--wait=false"]));
    assert!(!run(&["delete", "node", "--all"]), "an editor of one namespace deleted nodes");
    let writes = eventually("four writes in the audit log", || {
        let (events, _) = cluster.audit_events_since(before).unwrap();
        let mut writes = BTreeMap::new();
        for event in events.into_iter().filter(|event| event.user == account && event.is_write()) {
            *writes.entry((event.verb, event.resource, event.name, event.code)).or_insert(0) += 1;
        }
        if writes.values().sum::<u32>() >= 3 { Ok(writes) } else { Err(format!("{writes:?}")) }
    });
    let expected: BTreeMap<_, _> = [
        ("create", "configmaps", "one", 201),
        ("create", "configmaps", "two", 201),
        ("delete", "configmaps", "one", 200),
    ]
    .map(|(verb, resource, name, code)| ((verb.to_owned(), resource.to_owned(), name.to_owned(), code), 1))
    .into();
    assert_eq!(writes, expected);
}

fn a_webhook_is_called_on_loopback(cluster: &Cluster) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let called = std::thread::spawn(move || listener.accept().map(drop)); // hangs up: the API server says so
    cluster
        .apply(&format!(
            "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {{name: loopback}}
webhooks:
- name: loopback.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 5
  rules: [{{apiGroups: [\"\"], apiVersions: [v1], operations: [CREATE], resources: [secrets]}}]
  clientConfig: {{url: \"https://127.0.0.1:{port}/\"}}
"
        ))
        .unwrap();
    eventually("a Secret is refused because the webhook hangs up", || {
        match cluster.kubectl(&["create", "secret", "generic", "s", "--dry-run=server"]) {
            Err(error) if error.to_string().contains("failed calling webhook") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    called.join().unwrap().unwrap();
    cluster.kubectl(&["delete", "validatingwebhookconfiguration", "loopback"]).unwrap();
}

/// Set in the process that the next check starts.
const ASKED: &str = "LOCAL_CLUSTER_TEST_CURRENT";

/// Not a test of its own: what [`a_kubeconfig_of_ours_attaches_fully`] runs in another environment.
#[test]
fn current_cluster_is_told() {
    if std::env::var_os(ASKED).is_some() {
        let current = Cluster::current().unwrap();
        println!("CURRENT {:?}", current.map(|cluster| (cluster.is_ours(), cluster.runs_pods())));
    }
}

fn a_kubeconfig_of_ours_attaches_fully(cluster: &Cluster) {
    let ask = |kubeconfig: &Path| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "control_plane::current_cluster_is_told", "--nocapture"]);
        let out = child.env(ASKED, "1").env("KUBECONFIG", kubeconfig).env_remove("CLUSTER").output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.lines().find_map(|line| Some(line.split_once("CURRENT ")?.1.to_owned())).unwrap_or(text)
    };
    assert_eq!(ask(cluster.kubeconfig()), "Some((true, false))");
    let elsewhere = crate::place("kubeconfig");
    std::fs::copy(cluster.kubeconfig(), &elsewhere).unwrap();
    assert_eq!(ask(&elsewhere), "Some((false, true))", "a copy elsewhere is a cluster like the user's own");
    std::fs::remove_file(elsewhere).unwrap();
    assert_eq!(ask(Path::new("")), "None");
}

fn components_stop_freeze_and_come_back(cluster: &Cluster) {
    let limit = Duration::from_secs(60);
    cluster.kubectl(&["create", "configmap", "kept"]).unwrap();
    cluster.pause(Component::ApiServer).unwrap();
    assert!(
        cluster.kubectl(&["get", "configmap", "kept", "--request-timeout=1s"]).is_err(),
        "a frozen server answered"
    );
    cluster.resume(Component::ApiServer).unwrap();
    cluster.wait_ready(limit).unwrap();

    cluster.kill(Component::Etcd).unwrap();
    cluster.stop(Component::ApiServer).unwrap();
    assert!(cluster.stop(Component::ApiServer).is_err(), "stopped twice");
    cluster.start(Component::Etcd).unwrap();
    cluster.start(Component::ApiServer).unwrap();
    assert!(cluster.start(Component::ApiServer).is_err(), "started twice");
    cluster.wait_ready(limit).unwrap();
    cluster.kubectl(&["get", "configmap", "kept"]).unwrap();
    for component in [Component::ControllerManager, Component::MetalLb, Component::Kwok, Component::Scheduler]
    {
        cluster.kill(component).unwrap();
        cluster.start(component).unwrap();
    }
    assert!(cluster.start(Component::Kubelet).is_err(), "no kubelet at this level");
}
