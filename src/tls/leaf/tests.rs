use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use data_encoding::BASE64;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use x509_parser::parse_x509_certificate;

use super::*;
use crate::client::fake::Fake;
use crate::map::{Current as Published, Liveness};
use crate::serve::listener::Listener;
use crate::tls::server_config;
use crate::tls::testing::{authority, client, connect, names, now, shown};

pub(super) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(Arc::new(Published::new()), Arc::new(Liveness::new())))
}

#[test]
fn a_leaf_is_good_for_ninety_days_and_renewed_after_sixty() {
    let leaf = issue(&authority(), &names(["a"]), now()).unwrap();
    let day = 24 * 3600;
    assert!((leaf.not_after - now() - 90 * day).abs() < 60);
    assert!((leaf.renew_at - now() - 60 * day).abs() < 60);
}

#[test]
fn a_leaf_does_not_outlive_its_ca() {
    let authority = authority();
    let late = authority.not_after() - 100;
    assert_eq!(issue(&authority, &names(["a"]), late).unwrap().not_after, authority.not_after());
}

#[test]
fn addresses_and_names_become_alternative_names_and_nonsense_is_left_out() {
    let wanted = names([
        "203.0.113.9",
        "2001:db8::1",
        "lb.example.org",
        "*.example.org",
        "a b",
        "",
        "ünicode",
        "x..y",
    ]);
    let leaf = issue(&authority(), &wanted, now()).unwrap();
    let (_, x509) = parse_x509_certificate(&leaf.key.cert[0]).unwrap();
    let found = x509.subject_alternative_name().unwrap().unwrap().value.general_names.len();
    assert_eq!(found, 4);
}

#[test]
fn every_leaf_has_a_serial_number_of_its_own() {
    let authority = authority();
    let serial = || {
        let leaf = issue(&authority, &names(["a"]), now()).unwrap();
        parse_x509_certificate(&leaf.key.cert[0]).unwrap().1.raw_serial().to_vec()
    };
    assert_ne!(serial(), serial());
}

#[test]
fn the_services_are_covered_by_every_name_clients_in_the_cluster_use() {
    let names = service_names("ns");
    for name in [
        "external-ip-controller-webhook.ns.svc",
        "external-ip-controller-mapping",
        "external-ip-controller-mapping.ns",
        "external-ip-controller-mapping.ns.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "::1",
    ] {
        assert!(names.contains(name), "{name}");
    }
}

/// A listener with certificates of `managed`, and one HTTP request per connection or several.
fn listen(managed: &SelfManaged) -> SocketAddr {
    let listener = Listener::bind("test", "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address();
    let listener = listener.tls(server_config(managed.served()).unwrap());
    let router = Router::new().route("/", get(async || "hello"));
    tokio::spawn(listener.serve(router, metrics(), CancellationToken::new()));
    address
}

#[tokio::test]
async fn a_new_load_balancer_address_is_in_the_next_handshake_and_open_connections_go_on() {
    let (api, mut server) = Fake::new();
    let managed = Arc::new(SelfManaged::new(
        api,
        "ns",
        ["hook.example.org".to_owned()],
        Verifiers::default(),
        metrics(),
    ));
    assert_eq!(managed.served().problem().as_deref(), Some("not loaded yet"));
    let running = tokio::spawn({
        let managed = Arc::clone(&managed);
        async move { managed.run(CancellationToken::new()).await }
    });
    let mut known = managed.trusted();
    server.next().await.ok(&json!({"metadata": {"resourceVersion": "1"}}));
    let write = server.next().await;
    assert_eq!((write.method.as_str(), &write.body["metadata"]["resourceVersion"]), ("PATCH", &json!("1")));
    write.ok(&json!({}));
    known.wait_for(Option::is_some).await.unwrap();
    let authority = managed.authority().unwrap();
    let address = listen(&managed);
    // the CA is told before the first leaf is made: a client may be that fast
    while managed.served().problem().is_some() {
        tokio::task::yield_now().await;
    }

    let mut open = connect(address, "hook.example.org", client(&authority, &[])).await.unwrap();
    let outside = ServerName::try_from("203.0.113.9").unwrap();
    assert!(matches!(outside, ServerName::IpAddress(_)));
    connect(address, "203.0.113.9", client(&authority, &[])).await.unwrap_err();
    managed.set_outside_names(names(["203.0.113.9", "lb.example.org"]));
    let fresh = async {
        loop {
            if let Ok(stream) = connect(address, "203.0.113.9", client(&authority, &[])).await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    };
    let fresh =
        tokio::time::timeout(Duration::from_secs(20), fresh).await.expect("a leaf for the new address");
    assert_ne!(shown(&open), shown(&fresh));
    connect(address, "lb.example.org", client(&authority, &[])).await.unwrap();
    open.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    running.abort();
}

#[tokio::test]
async fn the_same_names_and_the_same_ca_keep_the_leaf() {
    let (api, mut server) = Fake::new();
    let managed = SelfManaged::new(api, "ns", [], Verifiers::default(), metrics());
    let authority = authority();
    let secret = json!({"metadata": {"resourceVersion": "1"}, "data": {
        "tls.crt": BASE64.encode(authority.bundle().as_bytes()), "tls.key": BASE64.encode(authority.key_pem().as_bytes()),
    }});
    for _ in 0..2 {
        let (renewed, ()) = tokio::join!(managed.renew(), async { server.next().await.ok(&secret) });
        renewed.unwrap();
        managed.set_outside_names(BTreeSet::new());
    }
    let first = managed.served().get().unwrap();
    let (renewed, ()) = tokio::join!(managed.renew(), async { server.next().await.fail(503, "Unavailable") });
    assert!(renewed.is_err(), "the failure is told");
    assert!(Arc::ptr_eq(&first, &managed.served().get().unwrap()), "and the leaf stays");
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_explained_where_readiness_looks() {
    let (api, mut server) = Fake::new();
    let managed = Arc::new(SelfManaged::new(api, "ns", [], Verifiers::default(), metrics()));
    let running = tokio::spawn({
        let managed = Arc::clone(&managed);
        async move { managed.run(CancellationToken::new()).await }
    });
    server.next().await.fail(403, "Forbidden");
    // the next attempt begins when the failure has been told
    server.next().await;
    let problem = managed.served().problem().unwrap();
    assert!(problem.contains("Secret ns/external-ip-controller-ca: not allowed to get it"), "{problem}");
    running.abort();
}
