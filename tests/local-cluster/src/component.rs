//! The programs of a cluster and how each is called.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};

use crate::options::Level;
use crate::site::{NODE_IP, PODS, SERVICES, SERVICES_V6, Site};

/// One program of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The store.
    Etcd,
    /// The API server.
    ApiServer,
    /// Kubernetes' own controllers.
    ControllerManager,
    /// Places pods on nodes.
    Scheduler,
    /// Gives LoadBalancer Services their addresses.
    MetalLb,
    /// Pretends nodes and pods (control plane level).
    Kwok,
    /// Runs containers (node level).
    Containerd,
    /// Runs pods (node level).
    Kubelet,
    /// Leads Service addresses to pods (node level).
    KubeProxy,
    /// Makes the API server inside the node reachable at a port of the machine's loopback (node level).
    Gateway,
}

impl Component {
    /// All of them, in the order they start.
    pub const ALL: [Self; 10] = [
        Self::Etcd,
        Self::Containerd,
        Self::ApiServer,
        Self::Gateway,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Kwok,
        Self::Kubelet,
        Self::KubeProxy,
        Self::MetalLb,
    ];

    /// Its name: log file, process mark and command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::MetalLb => "metallb",
            Self::Kwok => "kwok",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Gateway => "gateway",
        }
    }

    /// Whether it is part of a cluster of this level.
    pub fn runs_at(self, level: Level) -> bool {
        match self {
            Self::Kwok => level == Level::ControlPlane,
            Self::Containerd | Self::Kubelet | Self::KubeProxy | Self::Gateway => level == Level::Node,
            _ => true,
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Component {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(found) = Self::ALL.into_iter().find(|component| component.as_str() == text) {
            return Ok(found);
        }
        let names: Vec<_> = Self::ALL.iter().map(|component| component.as_str()).collect();
        bail!("no component '{text}': one of {}", names.join(", "))
    }
}

/// kube-controller-manager runs only these: all of them together take three times as long until the first
/// account exists.
const CONTROLLERS: [&str; 22] = [
    "clusterrole-aggregation-controller", // without it the roles edit and view are empty
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "taint-eviction-controller",
    "validatingadmissionpolicy-status-controller",
];

/// What to execute for a component.
pub(crate) struct Call {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Call {
    fn new(program: PathBuf, args: impl IntoIterator<Item = String>) -> Self {
        Self { program, args: args.into_iter().collect(), env: Vec::new() }
    }
}

/// The command line of `component` in `site`: computed each time, so that it can be started again at any moment.
pub(crate) fn call(site: &Site, component: Component) -> Call {
    let binary = |name: &str| site.tools.bin.join(name);
    match component {
        Component::Etcd => Call::new(binary("etcd"), etcd(site)),
        Component::ApiServer => Call::new(binary("kube-apiserver"), api_server(site)),
        Component::ControllerManager => {
            Call::new(binary("kube-controller-manager"), controller_manager(site))
        }
        Component::Scheduler => Call::new(binary("kube-scheduler"), client_of_api(site, "kube-scheduler")),
        Component::MetalLb => metallb(site),
        Component::Kwok => Call::new(binary("kwok"), kwok(site)),
        Component::Containerd => Call::new(
            site.tools.debian.join("usr/bin/containerd"),
            [format!("--config={}", site.config("containerd.toml"))],
        ),
        Component::Kubelet => Call::new(
            binary("kubelet"),
            [
                format!("--config={}", site.config("kubelet.yaml")),
                format!("--kubeconfig={}", site.inner_kubeconfig("kubelet")),
                format!("--hostname-override={}", site.name),
                format!("--node-ip={NODE_IP}"),
            ],
        ),
        Component::KubeProxy => {
            Call::new(binary("kube-proxy"), [format!("--config={}", site.config("kube-proxy.yaml"))])
        }
        Component::Gateway => Call::new(
            site.tools.member.clone(),
            ["forward".to_owned(), format!("{NODE_IP}:{}", site.ports.inner_api)],
        ),
    }
}

fn etcd(site: &Site) -> Vec<String> {
    let client = format!("http://127.0.0.1:{}", site.ports.etcd);
    let peer = format!("http://127.0.0.1:{}", site.ports.etcd_peer);
    vec![
        format!("--data-dir={}", site.etcd_data().display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // What is written survives a killed process, not a crashed machine: nobody restores a test cluster.
        "--unsafe-no-fsync".to_owned(),
        "--quota-backend-bytes=8589934592".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

fn api_server(site: &Site) -> Vec<String> {
    let mut args = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", site.ports.etcd),
        format!("--secure-port={}", site.ports.inner_api),
        format!("--tls-cert-file={}", site.pki("server.crt")),
        format!("--tls-private-key-file={}", site.pki("server.key")),
        format!("--client-ca-file={}", site.pki("ca.crt")),
        format!("--cert-dir={}", site.pki("")),
        format!("--service-account-key-file={}", site.pki("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", site.pki("service-accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        match site.level {
            Level::ControlPlane => format!("--service-cluster-ip-range={SERVICES},{SERVICES_V6}"),
            Level::Node => format!("--service-cluster-ip-range={SERVICES}"),
        },
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        format!("--token-auth-file={}", site.pki("tokens.csv")),
        "--allow-privileged=true".to_owned(),
        format!("--audit-policy-file={}", site.config("audit-policy.yaml")),
        format!("--audit-log-path={}", site.audit_log().display()),
        // Written before the request is over, not in batches: tests count writes.
        "--audit-log-mode=blocking".to_owned(),
        // In MB. A rotated log would hide events from whoever reads on from an offset.
        "--audit-log-maxsize=100000".to_owned(),
    ];
    if site.json_store {
        args.push("--storage-media-type=application/json".to_owned());
    }
    match site.level {
        // No Node to announce: without the reconciler the API server may live on loopback.
        Level::ControlPlane => args.extend([
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
        ]),
        Level::Node => args.extend([
            format!("--advertise-address={NODE_IP}"),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--kubelet-client-certificate={}", site.pki("kubelet-client.crt")),
            format!("--kubelet-client-key={}", site.pki("kubelet-client.key")),
        ]),
    }
    args
}

/// Flags kube-controller-manager and kube-scheduler have in common: no election, no port of their own.
fn client_of_api(site: &Site, user: &str) -> Vec<String> {
    let kubeconfig = site.inner_kubeconfig(user);
    vec![
        format!("--kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        // The default throttle makes a StatefulSet of a hundred pods a matter of minutes.
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ]
}

fn controller_manager(site: &Site) -> Vec<String> {
    let mut args = client_of_api(site, "kube-controller-manager");
    args.extend([
        format!("--service-account-private-key-file={}", site.pki("service-accounts.key")),
        format!("--root-ca-file={}", site.pki("ca.crt")),
        format!("--controllers={}", CONTROLLERS.join(",")),
        format!("--flex-volume-plugin-dir={}", site.dir.join("config/volume-plugins").display()),
        "--concurrent-service-endpoint-syncs=20".to_owned(),
        "--concurrent-statefulset-syncs=20".to_owned(),
    ]);
    args
}

fn metallb(site: &Site) -> Call {
    let mut call = Call::new(
        site.tools.bin.join("metallb"),
        [
            "--webhook-mode=disabled".to_owned(),
            "--disable-cert-rotation".to_owned(),
            format!("--port={}", site.ports.metallb),
        ],
    );
    call.env = vec![
        ("METALLB_NAMESPACE", "metallb-system".to_owned()),
        ("KUBECONFIG", site.inner_kubeconfig("metallb")),
    ];
    call
}

fn kwok(site: &Site) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", site.inner_kubeconfig("kwok")),
        format!("--config={}", site.tools.bin.join("kwok-stages/stages.yaml").display()),
        "--manage-all-nodes".to_owned(),
        format!("--cidr={PODS}"),
        format!("--node-ip={NODE_IP}"),
        "--node-lease-duration-seconds=40".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_read_back_as_written() {
        for component in Component::ALL {
            assert_eq!(component.as_str().parse::<Component>().unwrap(), component);
        }
    }
}
