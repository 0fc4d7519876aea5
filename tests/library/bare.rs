//! The cluster of this binary, with the account and the rights of the manifests and without the product.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use external_ip_controller::act::lease::{self, Leadership, Role};
use external_ip_controller::client;
use external_ip_controller::map::{Current, Liveness};
use external_ip_controller::metrics::Metrics;
use kube::Client;
use local_cluster::{Cluster, Component, Level, free_port};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::api::{Api, config};
use crate::support::eventually;
use crate::support::install::{ACCOUNT, HOME, install};
use crate::support::proxy::Proxy;

/// The cluster, for one test.
pub(crate) struct Bare {
    pub(crate) cluster: &'static Cluster,
    pub(crate) admin: Api,
    kubeconfig: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Bare {
    pub(crate) async fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::const_new(());
        static CLUSTER: OnceLock<(Cluster, PathBuf)> = OnceLock::new();
        let alone = ALONE.lock().await;
        let start = || {
            let cluster = Cluster::for_tests("library", Level::ControlPlane).expect("a cluster to test on");
            install(&cluster, free_port().unwrap());
            let kubeconfig = cluster.user_kubeconfig(ACCOUNT, &["system:serviceaccounts"]).unwrap();
            (cluster, kubeconfig)
        };
        let (cluster, kubeconfig) =
            tokio::task::spawn_blocking(move || CLUSTER.get_or_init(start)).await.unwrap();
        let admin = Api::new(cluster.kubeconfig()).await;
        Self { cluster, admin, kubeconfig: kubeconfig.clone(), _alone: alone }
    }

    /// The product's way to the API server.
    pub(crate) async fn client(&self) -> Client {
        Api::new(&self.kubeconfig).await.0
    }

    /// The product's way to the API server, over a wire of its own.
    pub(crate) async fn wired(&self) -> (Client, Proxy) {
        let mut config = config(&self.kubeconfig).await;
        let port = config.cluster_url.port_u16().expect("a local cluster");
        let proxy = Proxy::to(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
        config.cluster_url = format!("https://{}", proxy.address).parse().unwrap();
        (client::from_config(config).unwrap(), proxy)
    }

    /// Ends API server and etcd, so that etcd's data may be copied or replaced.
    pub(crate) fn stop_store(&self) {
        self.cluster.kill(Component::ApiServer).unwrap();
        self.cluster.stop(Component::Etcd).unwrap();
    }

    pub(crate) fn start_store(&self) {
        self.cluster.start(Component::Etcd).unwrap();
        self.cluster.start(Component::ApiServer).unwrap();
        self.cluster.wait_ready(Duration::from_secs(60)).unwrap();
    }

    /// An enabled namespace.
    pub(crate) async fn namespace(&self, name: &str) {
        let labels = json!({"external-ip.dev/enabled": "true"});
        self.admin
            .post("/api/v1/namespaces", &json!({"metadata": {"name": name, "labels": labels}}))
            .await
            .ok();
    }
}

/// Counters for parts that want them.
pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(Arc::new(Current::new()), Arc::new(Liveness::new())))
}

/// A replica as far as the Lease goes.
pub(crate) struct Replica {
    pub(crate) leadership: Leadership,
    pub(crate) release: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Replica {
    pub(crate) fn start(client: &Client, name: &str) -> Self {
        let (candidate, leadership) = lease::candidate(client, HOME, name);
        let release = CancellationToken::new();
        let task = tokio::spawn(candidate.run(release.clone()));
        Self { leadership, release, task }
    }

    pub(crate) fn role(&self) -> Role {
        *self.leadership.changes().borrow()
    }

    /// Waits until it leads.
    pub(crate) async fn leads(&self) {
        eventually("the replica leads", async || {
            if self.leadership.is_leading_now() { Ok(()) } else { Err(format!("{:?}", self.role())) }
        })
        .await;
    }

    /// Gives leadership up, as at a shutdown.
    pub(crate) async fn stop(self) {
        self.release.cancel();
        self.task.await.unwrap();
    }
}
