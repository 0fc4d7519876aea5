//! What tests may expect of the node level: that addresses lead where they should, and only there.

use std::fs;
use std::io::Read;
use std::net::TcpStream;

use local_cluster::image::{self, Image};
use local_cluster::{Cluster, MEMBER_IMAGE, Options};

use crate::{eventually, node_level, place, turn};

#[test]
fn a_node_leads_external_addresses_to_pods_and_nothing_else_outside() {
    let _turn = turn();
    let Some(level) = node_level() else { return };
    let cluster = Cluster::up(&Options::for_tests("node", level)).unwrap();
    external_addresses_lead_to_the_right_pod(&cluster);
    a_door_lets_tests_stand_outside(&cluster);
    outside_reaches_neither_pods_nor_services(&cluster);
    pods_reach_services_and_external_addresses(&cluster);
    a_replaced_pod_keeps_its_external_address(&cluster);
    the_api_server_reaches_a_webhook_in_a_pod(&cluster);
    a_loaded_image_runs(&cluster);
}

/// A pod that tells who it is.
fn pod(name: &str, image: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{id: {name}}}}}
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: member
    image: {image}
    imagePullPolicy: Never
    args: [serve, \"8080\", 9090/udp]
    env:
    - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
    - {{name: POD_UID, valueFrom: {{fieldRef: {{fieldPath: metadata.uid}}}}}}
    - {{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
    securityContext:
      runAsNonRoot: true
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {{drop: [ALL]}}
    readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"
    )
}

fn service(name: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: LoadBalancer
  allocateLoadBalancerNodePorts: false
  selector: {{id: {name}}}
  ports: [{{port: 11222, targetPort: 8080}}]
"
    )
}

fn get(cluster: &Cluster, what: &str, path: &str) -> String {
    cluster.kubectl(&["get", what, "-o", &format!("jsonpath={{{path}}}")]).unwrap()
}

fn external_ip(cluster: &Cluster, name: &str) -> String {
    eventually("the Service has an external address", || {
        let ip = get(cluster, &format!("service/{name}"), ".status.loadBalancer.ingress[0].ip");
        if ip.is_empty() { Err(ip) } else { Ok(ip) }
    })
}

/// What a member answers to someone outside.
fn ask_from_outside(cluster: &Cluster, address: &str) -> Result<String, String> {
    let member = cluster.member().unwrap().display().to_string();
    let out = cluster.in_client(&member).unwrap().args(["get", address]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

/// Asks until the pod with this uid answers; any other pod's answer ends the test.
fn reaches(cluster: &Cluster, address: &str, uid: &str) {
    eventually("the pod answers at its external address", || {
        let answer = ask_from_outside(cluster, address)?;
        assert!(answer.contains(&format!("\"uid\":\"{uid}\"")), "{address}: wanted {uid}, answered {answer}");
        Ok(())
    });
}

fn external_addresses_lead_to_the_right_pod(cluster: &Cluster) {
    for name in ["a", "b"] {
        cluster.apply(&pod(name, MEMBER_IMAGE)).unwrap();
        cluster.apply(&service(name)).unwrap();
    }
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/a", "pod/b", "--timeout=60s"]).unwrap();
    let addresses = ["a", "b"].map(|name| external_ip(cluster, name));
    assert_ne!(addresses[0], addresses[1]);
    for (name, address) in ["a", "b"].iter().zip(&addresses) {
        reaches(cluster, &format!("{address}:11222"), &get(cluster, &format!("pod/{name}"), ".metadata.uid"));
    }
}

fn a_door_lets_tests_stand_outside(cluster: &Cluster) {
    let address = format!("{}:11222", external_ip(cluster, "a")).parse().unwrap();
    let door = cluster.door_outside(address).unwrap();
    let mut answer = String::new();
    TcpStream::connect(door.local()).unwrap().read_to_string(&mut answer).unwrap();
    assert!(answer.contains(&get(cluster, "pod/a", ".metadata.uid")), "{answer}");
    let local = door.local();
    drop(door);
    assert!(TcpStream::connect(local).is_err(), "the door is still open");
}

fn outside_reaches_neither_pods_nor_services(cluster: &Cluster) {
    let inside = [
        format!("{}:8080", get(cluster, "pod/a", ".status.podIP")),
        format!("{}:11222", get(cluster, "service/a", ".spec.clusterIP")),
        format!("{}:443", get(cluster, "service/kubernetes", ".spec.clusterIP")),
    ];
    for address in &inside {
        let refused = ask_from_outside(cluster, address).expect_err("outside reached the inside");
        assert!(refused.contains("unreachable"), "{address}: {refused}");
    }
    let nobody =
        ask_from_outside(cluster, "203.0.113.249:11222").expect_err("an address nobody has answered");
    assert!(nobody.contains("timed out") || nobody.contains("o route"), "{nobody}");
}

fn pods_reach_services_and_external_addresses(cluster: &Cluster) {
    let uid = get(cluster, "pod/a", ".metadata.uid");
    let targets = [get(cluster, "service/a", ".spec.clusterIP"), external_ip(cluster, "a")];
    // From the other pod, and from the pod itself (out and back in on one bridge port).
    for (from, target) in ["b", "a"].iter().flat_map(|from| targets.iter().map(move |target| (from, target)))
    {
        let answer =
            cluster.kubectl(&["exec", from, "--", "/member", "get", &format!("{target}:11222")]).unwrap();
        assert!(answer.contains(&uid), "{from} -> {target}: {answer}");
    }
    let answer = cluster.in_node(&cluster.member().unwrap().display().to_string()).unwrap();
    let mut command = answer;
    let out = command.args(["get", &format!("{}:11222", targets[0])]).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains(&uid), "node -> Service: {out:?}");
}

fn a_replaced_pod_keeps_its_external_address(cluster: &Cluster) {
    let address = external_ip(cluster, "a");
    let old = get(cluster, "pod/a", ".metadata.uid");
    let begun = std::time::Instant::now();
    cluster.kubectl(&["delete", "pod", "a", "--wait", "--timeout=60s"]).unwrap();
    assert!(
        begun.elapsed().as_secs() < 20,
        "the member did not end at SIGTERM but at the end of its grace period"
    );
    cluster.apply(&pod("a", MEMBER_IMAGE)).unwrap();
    let new = get(cluster, "pod/a", ".metadata.uid");
    assert_ne!(old, new);
    assert_eq!(external_ip(cluster, "a"), address);
    reaches(cluster, &format!("{address}:11222"), &new);
}

/// The member speaks no TLS: that the API server complains about just this shows that it got there.
fn the_api_server_reaches_a_webhook_in_a_pod(cluster: &Cluster) {
    cluster
        .apply(
            "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: inside}
webhooks:
- name: inside.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 5
  rules: [{apiGroups: [\"\"], apiVersions: [v1], operations: [CREATE], resources: [secrets]}]
  clientConfig: {service: {namespace: default, name: b, port: 11222}}
",
        )
        .unwrap();
    eventually("the API server talks to the pod behind the Service", || {
        match cluster.kubectl(&["create", "secret", "generic", "s", "--dry-run=server"]) {
            Err(error) if error.to_string().contains("first record does not look like a TLS handshake") => {
                Ok(())
            }
            Err(error) if error.to_string().contains("server gave HTTP response") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    cluster.kubectl(&["delete", "validatingwebhookconfiguration", "inside"]).unwrap();
}

fn a_loaded_image_runs(cluster: &Cluster) {
    let dir = place("image");
    fs::create_dir_all(dir.join("root/opt")).unwrap();
    fs::copy(cluster.member().unwrap(), dir.join("root/opt/program")).unwrap();
    let image = Image {
        entrypoint: vec!["/opt/program".to_owned()],
        user: "65532:65532".to_owned(),
        ..Image::new("localhost/loaded:7")
    };
    image::pack(&dir.join("root"), &image, &dir.join("image.tar")).unwrap();
    cluster.load_image(&dir.join("image.tar")).unwrap();
    cluster.apply(&pod("loaded", "localhost/loaded:7")).unwrap();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/loaded", "--timeout=60s"]).unwrap();
    fs::remove_dir_all(dir).unwrap();
}
