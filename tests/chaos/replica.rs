//! A replica with its own way to the API server and its own clock. Killed and started again, it keeps its places.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use local_cluster::Cluster;

use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::support::api::Api;
use crate::support::install::ACCOUNT;
use crate::support::product::{Launch, Ports, Product};
use crate::support::proxy::Proxy;

const CONFIG: &str = "
version: 1
access: open
limits: {slotsPerCluster: 100, slotsPerNamespace: 120}
classes:
  default: {retention: 3s, reuseAfter: 1s}
";

pub(crate) struct Replica {
    pub(crate) name: &'static str,
    pub(crate) product: Product,
    /// Nearer to the replica than the gateway.
    pub(crate) wire: Proxy,
    pub(crate) gateway: Gateway,
    pub(crate) clock: Clock,
    ports: Ports,
    home: Home,
}

/// What it is started from.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) directory: PathBuf,
    pub(crate) clock_library: PathBuf,
    /// An older version's program; `None` = this one's.
    pub(crate) program: Option<PathBuf>,
}

impl Replica {
    pub(crate) async fn start(name: &'static str, cluster: &Cluster, home: &Home) -> Self {
        let account = cluster.user_kubeconfig(ACCOUNT, &["system:serviceaccounts"]).unwrap();
        let gateway = Gateway::to(Api::new(&account).await.0).await;
        let wire = Proxy::to(gateway.address).await;
        let cluster_of = format!("{{name: c, cluster: {{server: 'http://{}'}}}}", wire.address);
        let kubeconfig = format!(
            "{{apiVersion: v1, kind: Config, clusters: [{cluster_of}], users: [{{name: u, user: {{}}}}], contexts: \
             [{{name: x, context: {{cluster: c, user: u}}}}], current-context: x}}\n"
        );
        std::fs::write(home.directory.join(format!("{name}.kubeconfig")), kubeconfig).unwrap();
        let clock = Clock::new(home.directory.join(format!("{name}.clock")));
        let ports = Ports::default().chosen();
        let product = launch(name, cluster, home, &clock, ports);
        Self { name, product, wire, gateway, clock, ports, home: home.clone() }
    }

    /// Starts it again, as `program`; the one before is ended where it still runs. Its clock is right again.
    pub(crate) fn again(&mut self, cluster: &Cluster, program: Option<&Path>) {
        self.product.kill();
        self.clock.step(0);
        self.home.program = program.map(Path::to_owned);
        self.product = launch(self.name, cluster, &self.home, &self.clock, self.ports);
    }

    pub(crate) fn admission(&self) -> SocketAddr {
        self.product.admission
    }

    pub(crate) async fn leads(&self) -> bool {
        let metrics = crate::support::https::plain(self.product.admin, "/metrics").await;
        metrics.is_ok_and(|m| m.body.lines().any(|l| l.ends_with("leader 1")))
    }
}

fn launch(name: &str, cluster: &Cluster, home: &Home, clock: &Clock, ports: Ports) -> Product {
    let env = [("LD_PRELOAD", home.clock_library.as_path()), ("CLOCK_OFFSET", clock.0.as_path())];
    Product::start(&Launch {
        name,
        kubeconfig: &home.directory.join(format!("{name}.kubeconfig")),
        config: CONFIG,
        directory: &home.directory,
        ports,
        program: home.program.as_deref(),
        env: &env,
        cluster,
    })
}
