//! The presets of `manifests/examples/classes`, class by class as they are shipped: what their provider reads stands on the
//! Services, and pods are published at what it gives. The test is each of them, as its documentation says it behaves.

use std::collections::BTreeSet;
use std::path::PathBuf;

use external_ip_core::settings::{Exposure, parse, render};
use serde_json::{Value, json};

use crate::balancer::give;
use crate::explain::{program, said};
use crate::rig::Space;
use crate::support::eventually;

/// Nobody in the tests' cluster serves it.
const NOBODY: &str = "example.com/nobody";

/// Name and text of each preset.
fn files() -> Vec<(String, PathBuf)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/examples/classes");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

/// A configuration with the classes of every preset as well, each behind its preset's name. Those that name no
/// `loadBalancerClass` get one: MetalLB, which runs in the tests' cluster, would serve them.
pub(crate) fn with_presets(config: &str) -> String {
    let mut settings = parse(config).unwrap().settings;
    for (preset, path) in files() {
        let shipped = parse(&std::fs::read_to_string(path).unwrap()).unwrap().settings;
        for (name, mut class) in shipped.classes {
            if class.exposure[0] != Exposure::NodePort {
                class.service.load_balancer_class.get_or_insert_with(|| NOBODY.to_owned());
            }
            settings.classes.insert(format!("{preset}-{name}"), class);
        }
    }
    render(&settings)
}

/// What a provider does with a Service that waits for it.
enum Does {
    /// Gives this address.
    Gives(&'static str),
    /// Gives what is asked for in this annotation.
    GivesAskedBy(&'static str),
    /// Gives what is asked for in `spec.loadBalancerIP`.
    GivesAskedByField,
    /// Chooses an address and writes it on the Service first, as kube-vip's cloud provider does.
    WritesAndGives(&'static str),
    /// Gives a name, which DNS knows a while later.
    Names(&'static str, &'static str),
    /// Has no room for the second port at first.
    RefusesOnePort(&'static str),
    /// Gives the addresses of nodes.
    GivesNodes(&'static [&'static str]),
    /// Nothing: it is not asked.
    Nothing,
}

struct Case {
    class: &'static str,
    pods: usize,
    /// What stands on the Service.
    reads: &'static [(&'static str, &'static str)],
    does: Does,
}

const fn case(
    class: &'static str,
    pods: usize,
    reads: &'static [(&'static str, &'static str)],
    does: Does,
) -> Case {
    Case { class, pods, reads, does }
}

const METALLB: (&str, &str) = ("/spec/allocateLoadBalancerNodePorts", "false");
const CILIUM: (&str, &str) = ("/spec/loadBalancerClass", "\"io.cilium/l2-announcer\"");
const GOOGLE: (&str, &str) = ("/spec/loadBalancerClass", "\"networking.gke.io/l4-regional-external\"");
const AWS: &[(&str, &str)] = &[
    ("/spec/loadBalancerClass", "\"service.k8s.aws/nlb\""),
    ("/metadata/annotations/service.beta.kubernetes.io~1aws-load-balancer-nlb-target-type", "\"ip\""),
    ("/metadata/annotations/service.beta.kubernetes.io~1aws-load-balancer-scheme", "\"internet-facing\""),
    ("/spec/allocateLoadBalancerNodePorts", "false"),
];

const CASES: &[Case] = &[
    case("metallb-default", 1, &[METALLB], Does::Gives("198.51.100.129")),
    case(
        "metallb-public",
        1,
        &[METALLB, ("/metadata/annotations/metallb.io~1address-pool", "\"public\"")],
        Does::Gives("198.51.100.130"),
    ),
    case("metallb-shared", 2, &[METALLB], Does::Gives("198.51.100.131")),
    case("metallb-static", 1, &[METALLB], Does::GivesAskedBy("metallb.io/loadBalancerIPs")),
    case("cilium-default", 1, &[CILIUM], Does::Gives("198.51.100.132")),
    case("cilium-shared", 2, &[CILIUM], Does::RefusesOnePort("198.51.100.133")),
    case("cilium-static", 1, &[CILIUM], Does::GivesAskedBy("lbipam.cilium.io/ips")),
    case("kube-vip-default", 1, &[], Does::WritesAndGives("198.51.100.134")),
    case("kube-vip-shared", 2, &[], Does::WritesAndGives("198.51.100.135")),
    case("kube-vip-static", 1, &[], Does::GivesAskedBy("kube-vip.io/loadbalancerIPs")),
    case("aws-nlb-default", 1, AWS, Does::Names("own.elb.example", "198.51.100.136")),
    case("aws-nlb-shared", 2, AWS, Does::Names("shared.elb.example", "198.51.100.137")),
    case("gcp-default", 1, &[GOOGLE], Does::Gives("198.51.100.138")),
    case(
        "gcp-internal",
        1,
        &[("/spec/loadBalancerClass", "\"networking.gke.io/l4-regional-internal\"")],
        Does::Gives("198.18.77.1"),
    ),
    case("gcp-shared", 2, &[GOOGLE], Does::Gives("198.51.100.139")),
    case("gcp-static", 1, &[GOOGLE], Does::GivesAskedByField),
    case("azure-default", 1, &[], Does::Gives("198.51.100.140")),
    case(
        "azure-internal",
        1,
        &[("/metadata/annotations/service.beta.kubernetes.io~1azure-load-balancer-internal", "\"true\"")],
        Does::Gives("198.18.77.2"),
    ),
    case("azure-shared", 2, &[], Does::RefusesOnePort("198.51.100.141")),
    case("azure-static", 1, &[], Does::GivesAskedBy("service.beta.kubernetes.io/azure-load-balancer-ipv4")),
    case("k3s-default", 2, &[("/spec/type", "\"NodePort\"")], Does::Nothing),
    case("k3s-shared", 2, &[], Does::GivesNodes(&["198.18.9.11", "198.18.9.12"])),
];

/// One class at work: its cluster has the class's name.
struct Trial<'s> {
    space: &'s Space,
    case: &'s Case,
}

impl Trial<'_> {
    async fn begin(&self) {
        for pod in 0..self.case.pods {
            let class = self.case.class;
            let cluster = json!({"external-ip.dev/cluster": class});
            let metadata = json!({"labels": cluster, "annotations": {"external-ip.dev/class": class}});
            self.space.pod(&format!("{class}-{pod}"), json!({"metadata": metadata})).await;
        }
    }

    /// The Service that waits for its provider, once all pods have their ports on it.
    async fn service(&self) -> Value {
        let Case { class, pods, .. } = self.case;
        let selector = format!("services?labelSelector=external-ip.dev/cluster%3D{class}");
        eventually(&format!("{class} has its Service"), async || {
            let list = self.space.api.get(&self.space.core(&selector)).await.ok();
            let found = list["items"].as_array().cloned().unwrap_or_default();
            let ports: usize = found.iter().filter_map(|s| s["spec"]["ports"].as_array()).map(Vec::len).sum();
            if ports == *pods { Ok(found[0].clone()) } else { Err(json!(found).to_string()) }
        })
        .await
    }

    async fn give(&self, service: &Value, ingress: Value) {
        give(self.space, service["metadata"]["name"].as_str().unwrap(), ingress).await;
    }

    /// Plays the provider; answers the addresses at which the pods have to be.
    async fn play(&self, service: &Value) -> Vec<String> {
        let annotation = |key: &str| service["metadata"]["annotations"][key].as_str().unwrap().to_owned();
        let address = match self.case.does {
            Does::Gives(address) => address.to_owned(),
            Does::GivesAskedBy(key) => annotation(key),
            Does::GivesAskedByField => service["spec"]["loadBalancerIP"].as_str().unwrap().to_owned(),
            Does::WritesAndGives(address) => {
                let own = json!({"kube-vip.io/loadbalancerIPs": address});
                let name = service["metadata"]["name"].as_str().unwrap();
                let own = json!({"metadata": {"annotations": own}, "spec": {"loadBalancerIP": address}});
                self.space.api.patch(&self.space.core(&format!("services/{name}")), &own).await.ok();
                address.to_owned()
            }
            Does::Names(host, address) => {
                self.give(service, json!([{"hostname": host}])).await;
                for pod in 0..self.case.pods {
                    self.says(pod, "WaitingForName").await;
                }
                self.space.rig.dns.lead(host, &[address]);
                return vec![address.to_owned()];
            }
            Does::RefusesOnePort(address) => {
                let last = &service["spec"]["ports"][1];
                let error = json!([{"port": last["port"], "protocol": "TCP", "error": "example.com/Full"}]);
                self.give(service, json!([{"ip": address, "ports": error}])).await;
                self.says_of_one("PortError").await;
                address.to_owned()
            }
            Does::GivesNodes(nodes) => {
                let ingress: Vec<Value> = nodes.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
                self.give(service, json!(ingress)).await;
                return nodes.iter().map(|ip| (*ip).to_owned()).collect();
            }
            Does::Nothing => return Vec::new(),
        };
        self.give(service, json!([{"ip": address}])).await;
        vec![address]
    }

    async fn says(&self, pod: usize, reason: &str) {
        let class = self.case.class;
        self.space.reason(class, &format!("{class}-{pod}"), reason).await;
    }

    /// One of the two pods has this reason, and the other is routed.
    async fn says_of_one(&self, reason: &str) {
        eventually(&format!("one pod of {} has {reason}", self.case.class), async || {
            let entries = self.space.entries(self.case.class).await;
            let with = |key: &str, value: &str| entries.values().filter(|e| e[key] == value).count();
            let parted = with("reason", reason) == 1 && with("state", "Routed") == 1;
            if parted { Ok(()) } else { Err(json!(entries).to_string()) }
        })
        .await;
    }

    /// Each pod is at these addresses and at a port that no other has.
    async fn ends(&self, addresses: &[String]) {
        let Case { class, pods, .. } = self.case;
        eventually(&format!("the pods of {class} are at {addresses:?}"), async || {
            let entries = self.space.entries(class).await;
            let there = |e: &&Value| {
                let node = addresses.is_empty() && e["external"]["ips"][0].is_string();
                e["state"] == "Routed" && (node || e["external"]["ips"] == json!(addresses))
            };
            let ports: BTreeSet<u64> =
                entries.values().filter(there).filter_map(|e| e["ports"][0]["external"].as_u64()).collect();
            if ports.len() == *pods { Ok(()) } else { Err(json!(entries).to_string()) }
        })
        .await;
    }

    async fn run(&self) {
        let service = self.service().await;
        for (field, value) in self.case.reads {
            let found = service.pointer(field).unwrap_or(&Value::Null).to_string();
            assert_eq!(found, *value, "{} {field}: {service}", self.case.class);
        }
        let addresses = self.play(&service).await;
        self.ends(&addresses).await;
        if let Does::WritesAndGives(address) = self.case.does {
            let found = self.service().await;
            assert_eq!(
                found["metadata"]["annotations"]["kube-vip.io/loadbalancerIPs"], address,
                "left alone"
            );
            assert_eq!(found["spec"]["loadBalancerIP"], address, "left alone");
        }
    }
}

#[tokio::test]
async fn each_class_of_each_preset_tells_its_provider_what_it_reads_and_publishes_what_it_gives() {
    let space = Space::new("providers").await;
    let shipped: BTreeSet<String> = files()
        .iter()
        .flat_map(|(preset, path)| {
            let check = program(space.rig.cluster.kubeconfig(), &["check", path.to_str().unwrap()]);
            assert!(check.status.success(), "{preset}: {}", said(&check));
            let classes = parse(&std::fs::read_to_string(path).unwrap()).unwrap().settings.classes;
            classes.into_keys().map(move |class| format!("{preset}-{class}"))
        })
        .collect();
    let tried: BTreeSet<String> = CASES.iter().map(|case| case.class.to_owned()).collect();
    assert_eq!(tried, shipped, "every class that is shipped");
    let trials: Vec<Trial<'_>> = CASES.iter().map(|case| Trial { space: &space, case }).collect();
    for trial in &trials {
        trial.begin().await;
    }
    for trial in &trials {
        trial.run().await;
    }
}

#[tokio::test]
async fn on_k3s_a_second_cluster_on_the_same_ports_is_told_that_it_waits_for_an_address() {
    let space = Space::new("providers-k3s").await;
    let class = json!({"metadata": {"annotations": {"external-ip.dev/class": "k3s-shared"}}});
    space.pod("c-0", class.clone()).await;
    space.reason("c", "c-0", "WaitingForAddress").await;
    give(&space, "c-ext-shared-0", json!([{"ip": "198.18.9.21"}])).await;
    space.routed(&["c-0"]).await;
    let mut other = class;
    other["metadata"]["labels"] = json!({"external-ip.dev/cluster": "other"});
    // ServiceLB finds no node with the port and leaves it alone
    space.pod("other-0", other).await;
    space.reason("other", "other-0", "WaitingForAddress").await;
    space.routed(&["c-0"]).await;
}
