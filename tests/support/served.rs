//! The product's own map server in this process: its router, its TLS listener, a map that the test publishes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use external_ip_controller::map::{Current, Explainer, Liveness, Position, Refresh, Snapshot};
use external_ip_controller::metrics::Metrics;
use external_ip_controller::serve::access::Access;
use external_ip_controller::serve::listener::Listener;
use external_ip_controller::serve::mapping::{Mapping, router};
use external_ip_controller::tls::authority::Authority;
use external_ip_controller::tls::{ServedKey, leaf, server_config};
use external_ip_core::mapping::{ClusterMapping, Entry, EntryState, External, Internal, PortPair};
use external_ip_core::names::Key;
use external_ip_core::objects::Protocol;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The cluster all tests are about.
pub(crate) const NAMESPACE: &str = "data";
pub(crate) const CLUSTER: &str = "store";

pub(crate) struct Served {
    current: Arc<Current>,
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    /// A replica; nothing is published yet.
    pub(crate) fn start(authority: &Authority, address: SocketAddr, access: Access) -> Self {
        let key = ServedKey::new();
        let names = BTreeSet::from([address.ip().to_string()]);
        key.set(leaf::issue(authority, &names, now()).unwrap().key);
        let listener = Listener::bind("mapping", address).unwrap().tls(server_config(Arc::new(key)).unwrap());
        let (current, liveness) = (Arc::new(Current::new()), Arc::new(Liveness::new()));
        liveness.feed("pods").listed();
        let metrics = Arc::new(Metrics::new(Arc::clone(&current), Arc::clone(&liveness)));
        let shutdown = CancellationToken::new();
        let mapping = Mapping {
            current: Arc::clone(&current),
            liveness,
            refresh: Arc::<Refresh>::default(),
            explainer: Explainer::new().0,
            access,
            ca: None,
            metrics: Arc::clone(&metrics),
            stop: shutdown.clone(),
        };
        let address = listener.address();
        let task = tokio::spawn(listener.serve(router(mapping), metrics, shutdown.clone()));
        Self { current, address, shutdown, task }
    }

    /// Shows these members, as of `version`.
    pub(crate) fn publish(&self, members: &[Member], version: u64) {
        let position: Position = format!("e1.n1.p{version}.s1").parse().unwrap();
        let mapping = ClusterMapping {
            namespace: NAMESPACE.into(),
            name: CLUSTER.into(),
            class: "default".into(),
            entries: members.iter().zip(0..).map(|(member, slot)| member.entry(slot)).collect(),
            selector: [].into(),
        };
        let mapping = Arc::new([(Key::new(NAMESPACE, CLUSTER), Arc::new(mapping))].into());
        self.current.publish(Snapshot {
            mapping,
            reached: position.clone(),
            position,
            ..Snapshot::default()
        });
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns when the port is free.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// Where a member is inside and outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) inside: SocketAddr,
    pub(crate) outside: SocketAddr,
}

impl Member {
    fn entry(self, slot: u32) -> Entry {
        let one = |ip: IpAddr| vec![ip];
        Entry {
            pod: format!("{CLUSTER}-{slot}"),
            uid: format!("uid-{slot}"),
            slot: Some(slot),
            state: EntryState::Routed,
            reason: None,
            message: None,
            terminating: false,
            ready: true,
            reachable: None,
            drift: None,
            internal: Internal {
                ips: one(self.inside.ip()),
                names: vec![format!("{CLUSTER}-{slot}.{CLUSTER}.{NAMESPACE}.svc")],
            },
            external: Some(External { ips: one(self.outside.ip()), host: None }),
            ports: vec![PortPair {
                name: "p".into(),
                protocol: Protocol::Tcp,
                internal: self.inside.port(),
                external: self.outside.port(),
            }],
            told: None,
        }
    }
}

pub(crate) fn authority() -> Authority {
    Authority::generate(now()).unwrap()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

/// Knows one token, which may read.
pub(crate) mod one_token {
    use external_ip_controller::serve::access::{Access, Account, Reviewer, Unreachable, Wish};
    use std::future::ready;
    use std::pin::Pin;
    use std::sync::Arc;

    pub(crate) fn access(token: &str) -> Access {
        Access::token(Arc::new(OneToken(token.to_owned())))
    }

    struct OneToken(String);

    type Soon<T> = Pin<Box<dyn Future<Output = Result<T, Unreachable>> + Send>>;

    impl Reviewer for OneToken {
        fn authenticate(&self, token: &str) -> Soon<Option<Account>> {
            let account = Account { name: "reader".into(), user: "reader".into() };
            Box::pin(ready(Ok((token == self.0).then_some(account))))
        }
        fn authorize(&self, _: &Account, _: &Wish) -> Soon<bool> {
            Box::pin(ready(Ok(true)))
        }
    }
}
