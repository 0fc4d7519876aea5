use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::map::{Current, Liveness};
use crate::tls::authority::Authority;
use crate::tls::testing::{authority, client, connect, served};
use crate::tls::{ServedKey, server_config};

/// Longer than anything here takes, shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(20);
/// A limit a test waits for.
const SOON: Duration = Duration::from_millis(50);

/// A running listener.
struct Running {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn run(tls: Option<Arc<ServedKey>>, limits: Limits, router: Router) -> Running {
    let metrics = Arc::new(Metrics::new(Arc::new(Current::new()), Arc::new(Liveness::new())));
    let mut listener = Listener::bind("test", "127.0.0.1:0".parse().unwrap()).unwrap().limits(limits);
    if let Some(key) = tls {
        listener = listener.tls(server_config(key).unwrap());
    }
    let (address, shutdown) = (listener.address(), CancellationToken::new());
    let task = tokio::spawn(listener.serve(router, Arc::clone(&metrics), shutdown.clone()));
    Running { address, metrics, shutdown, task }
}

impl Running {
    fn counted(&self, line: &str) -> bool {
        self.metrics.text().contains(line)
    }

    async fn plain(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ends(self) {
        timeout(PATIENCE, self.task).await.expect("the listener ends").unwrap();
        assert!(
            self.metrics.text().contains("external_ip_connections{listener=\"test\"} 0\n"),
            "no connection is left"
        );
    }
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

/// One HTTP/1.1 exchange over a connection that stays open: the whole answer as text.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(stream).await
}

async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !is_whole(&text) {
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an answer").unwrap();
        assert!(read > 0, "the connection ended within an answer: {text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    text
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.to_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// Reads until the peer closes.
async fn closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    // a reset is an end as well
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection ends");
}

async fn http2(
    running: &Running,
    authority: &Authority,
) -> (hyper::client::conn::http2::SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
    let stream = connect(running.address, "localhost", client(authority, &["h2"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn ask2(
    sender: &mut hyper::client::conn::http2::SendRequest<Body>,
    path: &str,
) -> (StatusCode, String) {
    let request = Request::get(format!("https://localhost{path}")).body(Body::empty()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn a_client_that_trusts_the_ca_is_answered_over_both_http_versions() {
    let authority = authority();
    let running = run(Some(served(&authority)), Limits::default(), hello());
    let mut one = connect(running.address, "localhost", client(&authority, &["http/1.1"])).await.unwrap();
    assert!(ask(&mut one, "/").await.ends_with("hello"));
    let (mut two, _connection) = http2(&running, &authority).await;
    assert_eq!(ask2(&mut two, "/").await, (StatusCode::OK, "hello".to_owned()));
    let mut old = connect(running.address, "localhost", client(&authority, &[])).await.unwrap();
    assert!(ask(&mut old, "/").await.ends_with("hello"), "without ALPN it is HTTP/1.1");
}

#[tokio::test]
async fn a_client_that_trusts_another_ca_or_asks_for_another_name_gets_no_connection() {
    let (ours, other) = (authority(), authority());
    let running = run(Some(served(&ours)), Limits::default(), hello());
    connect(running.address, "localhost", client(&other, &[])).await.unwrap_err();
    connect(running.address, "example.org", client(&ours, &[])).await.unwrap_err();
    let mut good = connect(running.address, "localhost", client(&ours, &[])).await.unwrap();
    assert!(ask(&mut good, "/").await.ends_with("hello"));
    running.shutdown.cancel();
    let metrics = Arc::clone(&running.metrics);
    running.ends().await;
    let text = metrics.text();
    assert!(
        text.contains("external_ip_connections_refused_total{listener=\"test\",cause=\"handshake\"} 2"),
        "{text}"
    );
}

#[tokio::test]
async fn without_a_key_handshakes_are_refused_and_a_new_key_needs_no_new_listener() {
    let authority = authority();
    let key = Arc::new(ServedKey::new());
    let running = run(Some(Arc::clone(&key)), Limits::default(), hello());
    connect(running.address, "localhost", client(&authority, &[])).await.unwrap_err();
    key.set((*served(&authority).get().unwrap()).clone());
    connect(running.address, "localhost", client(&authority, &[])).await.unwrap();
}

#[tokio::test]
async fn a_client_that_dawdles_in_the_handshake_is_dropped() {
    let limits = Limits { handshake: SOON, ..Limits::default() };
    let running = run(Some(served(&authority())), limits, hello());
    let mut slow = running.plain().await;
    slow.write_all(&[22, 3, 1]).await.unwrap();
    closed(&mut slow).await;
    assert!(running.counted("cause=\"handshake_timeout\"} 1"));
}

#[tokio::test]
async fn the_oldest_handshake_makes_room_for_a_new_one() {
    let authority = authority();
    let limits = Limits { handshakes: 1, handshake: PATIENCE * 10, ..Limits::default() };
    let running = run(Some(served(&authority)), limits, hello());
    let mut silent = running.plain().await;
    let mut honest = connect(running.address, "localhost", client(&authority, &[])).await.unwrap();
    assert!(ask(&mut honest, "/").await.ends_with("hello"));
    closed(&mut silent).await;
    assert!(running.counted("cause=\"handshake_evicted\"} 1"));
}

#[tokio::test]
async fn where_the_listener_is_full_an_idle_connection_makes_room_and_one_with_a_request_stays() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tells, waits) = (Arc::clone(&begun), Arc::clone(&go));
    let slow = async move || {
        tells.notify_one();
        waits.notified().await;
        "done"
    };
    let limits = Limits { connections: 2, headers: PATIENCE * 10, ..Limits::default() };
    let running = run(None, limits, hello().route("/slow", get(slow)));
    let mut busy = running.plain().await;
    let request = tokio::spawn(async move { ask(&mut busy, "/slow").await });
    begun.notified().await;
    let mut idle = running.plain().await;
    assert!(ask(&mut idle, "/").await.ends_with("hello"));
    let mut third = running.plain().await;
    assert!(ask(&mut third, "/").await.ends_with("hello"));
    closed(&mut idle).await;
    assert!(running.counted("cause=\"evicted\"} 1\n"));
    assert!(running.counted("external_ip_connections{listener=\"test\"} 2\n"), "never more than the cap");
    go.notify_one();
    assert!(request.await.unwrap().ends_with("done"));
}

#[tokio::test]
async fn a_listener_full_of_slow_clients_answers_the_next_one() {
    let router = hello().route("/slow", get(std::future::pending::<&'static str>));
    let limits = Limits { connections: 8, headers: PATIENCE * 10, ..Limits::default() };
    let running = run(None, limits, router);
    let mut slow = Vec::new();
    for n in 0..8 {
        let mut stream = running.plain().await;
        // half of them with a request that is never answered, half within their headers
        let text = if n % 2 == 0 { "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" } else { "GET / HTTP/1.1\r\nHo" };
        stream.write_all(text.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for _ in 0..20 {
        let mut honest = running.plain().await;
        assert!(ask(&mut honest, "/").await.ends_with("hello"));
    }
}

#[tokio::test]
async fn headers_that_never_end_end_the_connection() {
    let running = run(None, Limits { headers: SOON, ..Limits::default() }, hello());
    let mut slow = running.plain().await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
    closed(&mut slow).await;
    let mut silent = running.plain().await;
    closed(&mut silent).await;
    let mut idle = running.plain().await;
    assert!(ask(&mut idle, "/").await.ends_with("hello"));
    closed(&mut idle).await;
}

#[tokio::test]
async fn an_http_2_connection_without_requests_is_closed_and_one_with_a_request_is_not() {
    let authority = authority();
    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    let router = Router::new().route("/slow", get(async move || waits.notified().await));
    let running = run(Some(served(&authority)), Limits { idle: SOON, ..Limits::default() }, router);
    let (idle, ended) = http2(&running, &authority).await;
    let (mut busy, busy_ended) = http2(&running, &authority).await;
    let answer = tokio::spawn(async move { ask2(&mut busy, "/slow").await });
    timeout(PATIENCE, ended).await.expect("it ends").unwrap().unwrap();
    drop(idle);
    assert!(!busy_ended.is_finished(), "a request is under way");
    go.notify_one();
    assert_eq!(answer.await.unwrap().0, StatusCode::OK);
}

/// HTTP/2 by hand, for what no honest client sends.
mod frames {
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RESET: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const CONTINUATION: u8 = 9;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
    pub(super) const ENHANCE_YOUR_CALM: u32 = 11;
    /// `GET https://x/` by HPACK's static table, and the host as a literal.
    pub(super) const GET: &[u8] = &[0x82, 0x87, 0x84, 0x41, 1, b'x'];

    pub(super) fn preface() -> Vec<u8> {
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
    }

    pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The error code of a GOAWAY among the frames the server sent.
    pub(super) fn goaway(mut bytes: &[u8]) -> Option<u32> {
        while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let payload = rest.get(..length)?;
            if head[3] == GOAWAY {
                return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
            bytes = &rest[length..];
        }
        None
    }
}

/// Sends `bytes` again and again until the server ends the connection: how many bytes that took, and what it said.
async fn flood(
    running: &Running,
    authority: &Authority,
    first: &[u8],
    mut more: impl FnMut() -> Vec<u8>,
) -> (usize, Vec<u8>) {
    let stream = connect(running.address, "localhost", client(authority, &["h2"])).await.unwrap();
    let (mut reads, mut writes) = tokio::io::split(stream);
    let said = tokio::spawn(async move {
        let mut said = Vec::new();
        let _ = reads.read_to_end(&mut said).await;
        said
    });
    writes.write_all(first).await.unwrap();
    let mut sent = 0;
    while !said.is_finished() && sent < 4 << 20 {
        let bytes = more();
        if writes.write_all(&bytes).await.is_err() || writes.flush().await.is_err() {
            break;
        }
        sent += bytes.len();
        tokio::task::yield_now().await;
    }
    (sent, timeout(PATIENCE, said).await.expect("the server ends the connection").unwrap())
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_their_connection_and_no_other() {
    let authority = authority();
    let running = run(Some(served(&authority)), Limits::default(), hello());
    let (mut honest, _connection) = http2(&running, &authority).await;
    let mut stream = 1;
    let burst = || {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            bytes.extend(frames::frame(
                frames::HEADERS,
                frames::END_HEADERS | frames::END_STREAM,
                stream,
                frames::GET,
            ));
            bytes.extend(frames::frame(frames::RESET, 0, stream, &8_u32.to_be_bytes()));
            stream += 2;
        }
        bytes
    };
    let (sent, said) = flood(&running, &authority, &frames::preface(), burst).await;
    assert_eq!(frames::goaway(&said), Some(frames::ENHANCE_YOUR_CALM));
    assert!(sent < 1 << 20, "{sent} bytes");
    assert_eq!(ask2(&mut honest, "/").await.0, StatusCode::OK);
}

#[tokio::test]
async fn headers_that_never_end_over_http_2_end_their_connection_before_they_cost_memory() {
    let authority = authority();
    let running = run(Some(served(&authority)), Limits::default(), hello());
    let (mut honest, _connection) = http2(&running, &authority).await;
    let first =
        [frames::preface(), frames::frame(frames::HEADERS, frames::END_STREAM, 1, frames::GET)].concat();
    // a literal header field that is never indexed: four bytes of name, four of value, again and again
    let field = [&[0x10, 4][..], b"name", &[4], b"more"].concat().repeat(1_000);
    let (sent, said) =
        flood(&running, &authority, &first, || frames::frame(frames::CONTINUATION, 0, 1, &field)).await;
    assert!(frames::goaway(&said).is_some());
    assert!(sent < 1 << 20, "{sent} bytes");
    assert_eq!(ask2(&mut honest, "/").await.0, StatusCode::OK);
}

#[tokio::test]
async fn headers_longer_than_the_limit_are_refused_over_both_versions_and_a_token_of_the_longest_is_not() {
    let authority = authority();
    let running = run(Some(served(&authority)), Limits::default(), hello());
    for (length, good) in [(constants::TOKEN_BYTES, true), (constants::HEADER_BYTES, false)] {
        let value = "x".repeat(length);
        let mut one = connect(running.address, "localhost", client(&authority, &["http/1.1"])).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: {value}\r\n\r\n");
        one.write_all(request.as_bytes()).await.unwrap();
        let status = if good { "HTTP/1.1 200" } else { "HTTP/1.1 431" };
        assert!(answer(&mut one).await.starts_with(status), "{length}");
        let (mut two, _connection) = http2(&running, &authority).await;
        let request = Request::get("https://localhost/").header("authorization", value);
        let answer = two.send_request(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.is_ok_and(|a| a.status() == 200), good, "{length}");
    }
}

#[tokio::test]
async fn a_client_that_was_told_to_go_and_does_not_is_ended() {
    let authority = authority();
    let limits = Limits { idle: SOON, close: SOON, ..Limits::default() };
    let running = run(Some(served(&authority)), limits, hello());
    let mut stream = connect(running.address, "localhost", client(&authority, &["h2"])).await.unwrap();
    // a request whose body never ends: answered, and open from the client's side
    let half = frames::frame(frames::HEADERS, frames::END_HEADERS, 1, frames::GET);
    stream.write_all(&[frames::preface(), half].concat()).await.unwrap();
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_its_answer_is_ended() {
    let authority = authority();
    let large = Router::new().route("/", get(async || "x".repeat(1 << 20)));
    let running = run(Some(served(&authority)), Limits { stalled: SOON, ..Limits::default() }, large);
    // no window is ever given
    let first = [
        frames::preface(),
        frames::frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
        frames::frame(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, 1, frames::GET),
    ]
    .concat();
    let mut stream = connect(running.address, "localhost", client(&authority, &["h2"])).await.unwrap();
    stream.write_all(&first).await.unwrap();
    closed(&mut stream).await;
    assert!(running.counted("cause=\"stalled\"} 1\n"), "{}", running.metrics.text());
}

#[tokio::test]
async fn a_panic_costs_its_request_and_nothing_else() {
    let authority = authority();
    let router = hello().route("/panic", get(async || -> &'static str { panic!("on purpose") }));
    let running = run(Some(served(&authority)), Limits::default(), router);
    let mut one = connect(running.address, "localhost", client(&authority, &[])).await.unwrap();
    let refused = ask(&mut one, "/panic").await;
    assert!(refused.starts_with("HTTP/1.1 500") && refused.contains("InternalError"), "{refused}");
    assert!(ask(&mut one, "/").await.ends_with("hello"));
    let (mut two, _connection) = http2(&running, &authority).await;
    assert_eq!(ask2(&mut two, "/panic").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(ask2(&mut two, "/").await.0, StatusCode::OK);
    assert!(running.counted("external_ip_panics_total{place=\"test\"} 2"));
}

#[tokio::test]
async fn a_drain_lets_open_requests_end_closes_idle_connections_and_takes_no_new_ones() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tells, waits) = (Arc::clone(&begun), Arc::clone(&go));
    let slow = async move || {
        tells.notify_one();
        waits.notified().await;
        "done"
    };
    let running = run(None, Limits::default(), hello().route("/slow", get(slow)));
    let mut idle = running.plain().await;
    assert!(ask(&mut idle, "/").await.ends_with("hello"));
    let mut open = running.plain().await;
    let request = tokio::spawn(async move { ask(&mut open, "/slow").await });
    begun.notified().await;
    running.shutdown.cancel();
    closed(&mut idle).await;
    TcpStream::connect(running.address).await.unwrap_err();
    assert!(!running.task.is_finished());
    go.notify_one();
    assert!(request.await.unwrap().ends_with("done"));
    running.ends().await;
}

#[tokio::test]
async fn a_drain_ends_at_its_limit_and_leaves_no_task_behind() {
    /// Counts how many of it are alive.
    struct Alive(Arc<AtomicUsize>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let authority = authority();
    let (alive, begun) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, tells) = (Arc::clone(&alive), Arc::clone(&begun));
    let never = async move || {
        count.fetch_add(1, Ordering::SeqCst);
        let _alive = Alive(count);
        tells.notify_one();
        std::future::pending::<()>().await;
    };
    let running = run(
        Some(served(&authority)),
        Limits { drain: SOON, ..Limits::default() },
        Router::new().route("/", get(never)),
    );
    let (mut two, _connection) = http2(&running, &authority).await;
    let request = Request::get("https://localhost/").body(Body::empty()).unwrap();
    let asked = tokio::spawn(async move { two.send_request(request).await });
    begun.notified().await;
    running.shutdown.cancel();
    running.ends().await;
    assert_eq!(alive.load(Ordering::SeqCst), 0, "the stream's own task is gone too");
    assert!(asked.await.unwrap().is_err());
}

#[tokio::test]
async fn the_unspecified_address_takes_both_families_or_the_one_there_is() {
    let listener = Listener::bind("test", "[::]:0".parse().unwrap()).unwrap();
    let port = listener.address().port();
    assert_ne!(port, 0);
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Listener::bind("mapping", taken.local_addr().unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("mapping listener: cannot listen on 127.0.0.1:"), "{error}");
    assert!(error.contains("another process has the port"), "{error}");
}
