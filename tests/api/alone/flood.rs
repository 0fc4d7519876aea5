//! Hostile clients at every listener, and what an admission costs meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use external_ip_controller::constants::WEBHOOK_TIMEOUT;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::rig::{CONFIG, ca, rig};
use crate::support::api::Api;
use crate::support::https;

const REVIEWS: usize = 120;

/// A review of 7.7 kB, which is what a StatefulSet's pod comes as.
fn review() -> Bytes {
    let pod = json!({
        "metadata": {"name": "c-0", "namespace": "flood", "labels": {"external-ip.dev/cluster": "c"},
            "annotations": {"notes": "x".repeat(7_000)}},
        "spec": {"containers": [{"name": "main", "ports": [{"containerPort": 11222}]}]},
    });
    let request = json!({"uid": "u", "operation": "CREATE", "namespace": "flood", "object": pod,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"}});
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    Bytes::from(review.to_string())
}

/// A connection as the API server holds one.
async fn open(at: SocketAddr, ca: &str) -> SendRequest<Full<Bytes>> {
    let stream = https::connect_http2(at, ca, ServerName::from(at.ip())).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn admit(sender: &mut SendRequest<Full<Bytes>>, review: &Bytes) -> Duration {
    let begun = Instant::now();
    let request = Request::post("https://webhook/mutate").header("content-type", "application/json");
    let answer = sender.send_request(request.body(Full::new(review.clone())).unwrap()).await;
    let answer = answer.unwrap_or_else(|e| panic!("after {:?}: {e:?}", begun.elapsed()));
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.windows(8).any(|w| w == b"\"patch\":"), "stamped");
    begun.elapsed()
}

/// Half and the slowest hundredth of admissions over one connection, over a new connection each, and of probes.
struct Latency {
    kept: (Duration, Duration),
    fresh: (Duration, Duration),
    probes: (Duration, Duration),
}

/// On a thread of its own: what the attackers keep this test's other thread busy with is no delay of admissions.
async fn measured(at: SocketAddr, admin: SocketAddr, ca: &str) -> Latency {
    let ca = ca.to_owned();
    let alone = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(measure(at, admin, &ca))
    };
    tokio::task::spawn_blocking(alone).await.unwrap()
}

async fn measure(at: SocketAddr, admin: SocketAddr, ca: &str) -> Latency {
    let review = review();
    let (mut kept, mut fresh, mut probes) = (Vec::new(), Vec::new(), Vec::new());
    let mut sender = open(at, ca).await;
    for n in 0..REVIEWS {
        kept.push(admit(&mut sender, &review).await);
        if n % 4 == 0 {
            let begun = Instant::now();
            let mut another = open(at, ca).await;
            admit(&mut another, &review).await;
            fresh.push(begun.elapsed());
            let begun = Instant::now();
            assert_eq!(https::plain(admin, "/livez").await.unwrap().status, 200, "probes are answered");
            probes.push(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Latency { kept: quantiles(kept), fresh: quantiles(fresh), probes: quantiles(probes) }
}

fn quantiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// From another address than the API server has.
async fn from_elsewhere(at: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
    socket.connect(at).await
}

/// Between two connections of an attacker: there are always more of them than places, so about a thousand connections
/// a second come. Without it the attackers would use up the cores that they share with the product, and what would be
/// measured is the scheduler.
const PAUSE: Duration = Duration::from_millis(200);

/// What hostile clients do again and again, as soon as they are thrown out.
async fn attack(at: SocketAddr, bytes: Vec<u8>, stop: Arc<AtomicBool>, made: Arc<AtomicUsize>) {
    let mut sink = [0; 1024];
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = from_elsewhere(at).await else { continue };
        made.fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(&bytes).await;
        // until they are thrown out, or for a moment
        let until = tokio::time::timeout(Duration::from_millis(500), async {
            while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
        });
        let _ = until.await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reviews whose bodies never end.
async fn dawdle(at: SocketAddr, ca: String, stop: Arc<AtomicBool>, made: Arc<AtomicUsize>) {
    let head = "POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4194304\r\n\r\n";
    while !stop.load(Ordering::Relaxed) {
        let Ok(tcp) = from_elsewhere(at).await else { continue };
        let Ok(mut stream) = https::over(tcp, &ca, ServerName::from(at.ip())).await else { continue };
        made.fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(&[head.as_bytes(), &vec![b' '; 200_000]].concat()).await;
        let mut sink = [0; 1024];
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut sink)).await;
    }
}

/// The beginning of a TLS handshake: a complete record header, of a hello that never comes.
const HALF_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

#[tokio::test]
async fn floods_at_every_listener_keep_no_admission_waiting_until_it_is_given_up() {
    let rig = rig().await;
    let product = rig.replica("flooded", CONFIG);
    product.ready().await;
    let ca = ca(&Api::new(rig.cluster.kubeconfig()).await).await;
    let quiet = measured(product.admission, product.admin, &ca).await;

    let (stop, mut attackers) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    let counts: Vec<Arc<AtomicUsize>> = (0..4).map(|_| Arc::default()).collect();
    let slow_headers = b"GET /metrics HTTP/1.1\r\nhost: x\r\nslow: ".to_vec();
    // more of each than the listener has places, at the plain one, and than it has handshakes, at the one for admission
    for (count, at, bytes, clients) in [
        (&counts[0], product.admission, HALF_HELLO.to_vec(), 200),
        (&counts[1], product.mapping, HALF_HELLO.to_vec(), 200),
        (&counts[2], product.admin, slow_headers, 600),
    ] {
        for _ in 0..clients {
            attackers.spawn(attack(at, bytes.clone(), Arc::clone(&stop), Arc::clone(count)));
        }
    }
    for _ in 0..40 {
        let made = Arc::clone(&counts[3]);
        attackers.spawn(dawdle(product.admission, ca.clone(), Arc::clone(&stop), made));
    }
    let made = || counts.iter().map(|c| c.load(Ordering::Relaxed)).collect::<Vec<_>>();
    crate::support::eventually("the flood has begun", async || {
        let made = made();
        if made.iter().all(|count| *count > 40) { Ok(()) } else { Err(format!("{made:?}")) }
    })
    .await;
    let begun = Instant::now();
    let refused = async || {
        let metrics = product.admin("/metrics").await.body;
        metrics.lines().filter(|l| l.contains("connections")).collect::<Vec<_>>().join("\n")
    };
    println!("{}", refused().await);
    let flooded = measured(product.admission, product.admin, &ca).await;
    let took = begun.elapsed();
    let made = made();
    stop.store(true, Ordering::Relaxed);
    attackers.join_all().await;

    let tell = |what: &str, l: &Latency| {
        println!(
            "{what}: kept connection p50 {:?} p99 {:?}, new connection p50 {:?} p99 {:?}, probe p50 {:?} p99 {:?}",
            l.kept.0, l.kept.1, l.fresh.0, l.fresh.1, l.probes.0, l.probes.1
        );
    };
    tell("quiet", &quiet);
    tell("flood", &flooded);
    println!(
        "connections of the flood: handshakes {} and {}, headers {}, bodies {}; {took:?}",
        made[0], made[1], made[2], made[3]
    );
    println!("{}", refused().await);
    // Attackers, product and whatever else is tested share the machine's cores, so the factor is told, not judged. The API
    // server gives up after `WEBHOOK_TIMEOUT`; without room being made, nobody new is answered at all.
    for (what, slowest) in [("kept", flooded.kept.1), ("new", flooded.fresh.1), ("probe", flooded.probes.1)] {
        assert!(slowest < WEBHOOK_TIMEOUT, "{what}: {slowest:?}");
    }
    let metrics = product.admin("/metrics").await.body;
    assert!(!metrics.contains("external_ip_panics_total{"), "no panic");
}
