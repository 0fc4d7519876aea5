//! The Rust client against the product's own map server, over TLS on loopback. No cluster: the test says what is published.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use external_ip_client::{AddressMapper, Https, StartError};
use external_ip_controller::serve::access::Access;
use external_ip_controller::tls::authority::Authority;
use tokio::time::{Instant, sleep, timeout};

use crate::support::served::{CLUSTER, Member, NAMESPACE, Served, authority, one_token};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Nobody else answers there while it is stopped.
fn its_own() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, local_cluster::free_port().unwrap()).into()
}

/// Long enough for a machine whose cores are shared; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client is given: the CA and a token, as files.
struct Files {
    directory: PathBuf,
}

impl Files {
    fn of(test: &str, authority: &Authority) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("client-{test}"));
        std::fs::create_dir_all(&directory).unwrap();
        let files = Self { directory };
        files.write("ca.crt", authority.bundle());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn source(&self, url: &str) -> Https {
        let mut source = Https::new(url, NAMESPACE, CLUSTER, self.path("ca.crt"));
        source.poll = Duration::from_millis(100);
        source
    }
}

fn member(n: u8, outside: u8) -> Member {
    let address = |a, b, c, d| SocketAddr::from((Ipv4Addr::new(a, b, c, d), 6379));
    Member { inside: address(198, 18, 0, n), outside: address(203, 0, 113, outside) }
}

fn outside(mapper: &AddressMapper, member: Member) -> Option<SocketAddr> {
    mapper.external(member.inside.ip(), member.inside.port())?.addresses().next()
}

async fn eventually(what: &str, mapper: &AddressMapper, there: impl Fn() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < PATIENCE, "waited for: {what}; {:?}", mapper.problem());
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_changed_map_is_followed() {
    let authority = authority();
    let served = Served::start(&authority, ANY, Access::Open);
    let mapper = AddressMapper::https(Files::of("followed", &authority).source(&served.url())).unwrap();
    assert_eq!(outside(&mapper, member(1, 1)), None, "nothing is mapped before there is a map");
    served.publish(&[member(1, 1), member(2, 2)], 7);
    eventually("a map", &mapper, || mapper.age().is_some()).await;
    mapper.ready().await;
    assert_eq!(outside(&mapper, member(2, 2)), Some(member(2, 2).outside));
    let named = mapper.resolve("store-1.store.data.svc.cluster.local", 6379).await.unwrap();
    assert_eq!(named, [member(2, 2).outside]);
    let mut generations = mapper.generations();
    generations.borrow_and_update();
    served.publish(&[member(1, 1), member(3, 2)], 8);
    timeout(PATIENCE, generations.changed()).await.unwrap().unwrap();
    assert_eq!(outside(&mapper, member(3, 2)), Some(member(3, 2).outside));
    let refused = mapper.resolve("198.18.0.2", 6379).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::NotFound, "{refused}");
    assert_eq!(mapper.problem(), None);
}

#[tokio::test]
async fn a_restart_of_the_controller_costs_no_address() {
    let authority = authority();
    let files = Files::of("restart", &authority);
    let served = Served::start(&authority, its_own(), Access::Open);
    served.publish(&[member(1, 1)], 7);
    let mapper = AddressMapper::https(files.source(&served.url())).unwrap();
    timeout(PATIENCE, mapper.ready()).await.unwrap();
    let address = served.address;
    served.stop().await;
    eventually("the loss is noticed", &mapper, || mapper.problem().is_some()).await;
    assert_eq!(outside(&mapper, member(1, 1)), Some(member(1, 1).outside), "the last good map");
    let again = Served::start(&authority, address, Access::Open);
    eventually("a replica without a map is asked", &mapper, || {
        mapper.problem().is_some_and(|p| p.contains("503"))
    })
    .await;
    assert_eq!(outside(&mapper, member(1, 1)), Some(member(1, 1).outside), "no map is not an empty one");
    again.publish(&[member(2, 1)], 9);
    eventually("the new map", &mapper, || outside(&mapper, member(2, 1)).is_some()).await;
    assert_eq!((outside(&mapper, member(1, 1)), mapper.problem()), (None, None));
}

#[tokio::test]
async fn a_replica_that_is_behind_takes_nothing_back() {
    let authority = authority();
    let ahead = Served::start(&authority, its_own(), Access::Open);
    ahead.publish(&[member(2, 1)], 9);
    let mapper = AddressMapper::https(Files::of("behind", &authority).source(&ahead.url())).unwrap();
    timeout(PATIENCE, mapper.ready()).await.unwrap();
    let address = ahead.address;
    ahead.stop().await;
    let behind = Served::start(&authority, address, Access::Open);
    behind.publish(&[member(1, 1)], 8);
    eventually("it is refused", &mapper, || mapper.problem().is_some_and(|p| p.contains("503"))).await;
    assert_eq!(outside(&mapper, member(2, 1)), Some(member(2, 1).outside));
    assert_eq!(outside(&mapper, member(1, 1)), None);
    behind.publish(&[member(3, 1)], 10);
    eventually("it has caught up", &mapper, || outside(&mapper, member(3, 1)).is_some()).await;
}

#[tokio::test]
async fn a_stranger_is_not_believed() {
    let (ours, theirs) = (authority(), authority());
    let files = Files::of("stranger", &ours);
    let stranger = Served::start(&theirs, ANY, Access::Open);
    stranger.publish(&[member(1, 66)], 7);
    let mapper = AddressMapper::https(files.source(&stranger.url())).unwrap();
    eventually("it is refused", &mapper, || mapper.problem().is_some_and(|p| p.contains("certificate")))
        .await;
    assert_eq!(outside(&mapper, member(1, 66)), None);
    files.write("ca.crt", theirs.bundle());
    eventually("the CA is read again", &mapper, || outside(&mapper, member(1, 66)).is_some()).await;
}

#[tokio::test]
async fn the_token_is_read_again_for_each_question() {
    let authority = authority();
    let files = Files::of("token", &authority);
    let served = Served::start(&authority, ANY, one_token::access("new"));
    served.publish(&[member(1, 1)], 7);
    files.write("token", "expired\n");
    let source = files.source(&served.url()).token_file(files.path("token"));
    let mapper = AddressMapper::https(source).unwrap();
    eventually("it is refused", &mapper, || mapper.problem().is_some_and(|p| p.contains("401"))).await;
    files.write("token", "new\n");
    eventually("the new one", &mapper, || outside(&mapper, member(1, 1)).is_some()).await;
}

#[tokio::test]
async fn whoever_drops_the_last_mapper_ends_its_questions() {
    let authority = authority();
    let served = Served::start(&authority, ANY, Access::Open);
    served.publish(&[member(1, 1)], 7);
    let mapper = AddressMapper::https(Files::of("dropped", &authority).source(&served.url())).unwrap();
    let clone = mapper.clone();
    timeout(PATIENCE, clone.ready()).await.unwrap();
    drop(mapper);
    served.publish(&[member(2, 1)], 8);
    eventually("clones go on", &clone, || outside(&clone, member(2, 1)).is_some()).await;
    let mut generations = clone.generations();
    drop(clone);
    timeout(PATIENCE, generations.wait_for(|_| false)).await.unwrap().unwrap_err();
}

#[test]
fn only_https_within_a_runtime_is_begun() {
    let source = |url: &str| Https::new(url, NAMESPACE, CLUSTER, "ca.crt");
    assert!(matches!(AddressMapper::https(source("https://127.0.0.1:1")), Err(StartError::NoRuntime)));
    for url in ["http://127.0.0.1:8888", "127.0.0.1:8888", "https://", "https://a b", ""] {
        let error = AddressMapper::https(source(url)).unwrap_err();
        assert!(error.to_string().contains("for example https://"), "{url}: {error}");
    }
}
