//! Many readers of events at once over real connections, among them slow and broken ones. Each version of the map is
//! told apart by the cluster's class.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::super::tests::{Served, served};
use super::*;
use crate::constants::STALLED_PEER;
use crate::run::raise_open_files;
use crate::serve::listener::{Limits, Listener};
use crate::testing::{cluster, mapping};
use crate::tls::server_config;
use crate::tls::testing::{authority, client, connect, served as key};

/// Longer than anything here takes, shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two changes of the map.
const BETWEEN: Duration = Duration::from_millis(200);

/// When each version was published.
type Published = Arc<std::sync::Mutex<Vec<Instant>>>;

/// A running listener, and who it may be asked by.
struct Running {
    served: Arc<Served>,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    published: Published,
    last: usize,
    connected: AtomicUsize,
    /// Handshakes of the test's own: it shares the cores with the listener, which gives each of them 5 s.
    handshakes: Semaphore,
    /// Between two connections of one that breaks: all of them make 50 a second.
    break_after: Duration,
}

impl Running {
    fn publish(&self, version: usize) {
        let mut a = cluster("data", "a", 3);
        a.class = format!("v{version}");
        // beside it enough that the map of all is more than a connection's buffers hold
        let others = (0..60).map(|n| {
            let mut other = cluster("data", &format!("other{n}"), 100);
            other.class = format!("v{version}");
            other
        });
        self.published.lock().unwrap().push(Instant::now());
        self.served.publish(mapping(others.chain([a])), u64::try_from(version).unwrap() + 1);
    }

    async fn ask(&self, path: &str, header: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let place = self.handshakes.acquire().await.unwrap();
        let mut stream = connect(self.address, "localhost", Arc::clone(&self.config)).await?;
        drop(place);
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).await?;
        Ok(stream)
    }

    /// Reads events until the last version: how long after its publication each came.
    async fn reads(&self) -> Vec<Duration> {
        let mut stream = self.ask("/v1/watch/data/a", "").await.expect("a connection");
        let (mut text, mut buffer, mut seen) = (Vec::new(), vec![0; 16 << 10], None);
        let mut delays = Vec::new();
        loop {
            let read = stream.read(&mut buffer).await.expect("the connection stays");
            assert!(read > 0, "the stream ended at version {seen:?}");
            text.extend_from_slice(&buffer[..read]);
            while let Some((version, end)) = next_version(&text) {
                text.drain(..end);
                assert!(seen < Some(version), "{version} after {seen:?}");
                let first = seen.replace(version).is_none();
                if first {
                    self.connected.fetch_add(1, Ordering::Relaxed);
                } else {
                    delays.push(self.published.lock().unwrap()[version].elapsed());
                }
                if version == self.last {
                    return delays;
                }
            }
        }
    }

    /// Asks again and again for what differs from what it has, until the last version.
    async fn waits(&self) {
        let (mut tag, mut seen) = (String::new(), None);
        while seen != Some(self.last) {
            let header = format!("If-None-Match: {tag}\r\nConnection: close\r\n");
            let mut stream = self.ask("/v1/mapping/data/a?wait=30", &header).await.expect("a connection");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("an answer");
            let text = String::from_utf8(answer.clone()).unwrap();
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            let (version, _) = next_version(&answer).unwrap();
            assert!(seen < Some(version), "{version} after {seen:?}");
            seen = Some(version);
            tag = text.lines().find_map(|l| l.strip_prefix("etag: ")).unwrap().to_owned();
        }
    }

    /// Asks for much and reads nothing.
    async fn never_reads(&self) {
        let _stream = self.ask("/v1/watch", "").await;
        std::future::pending::<()>().await;
    }

    /// Comes, reads a little or nothing, and is gone; again and again.
    async fn breaks(&self, n: usize) {
        loop {
            match n % 3 {
                0 => drop(TcpStream::connect(self.address).await),
                1 => drop(self.ask("/v1/watch", "Broken").await),
                _ => {
                    if let Ok(mut stream) = self.ask("/v1/watch", "").await {
                        let _ = stream.read(&mut [0; 1000]).await;
                    }
                }
            }
            tokio::time::sleep(self.break_after).await;
        }
    }
}

/// The first version in the text, and where it ends.
fn next_version(text: &[u8]) -> Option<(usize, usize)> {
    const BEFORE: &[u8] = b"\"class\":\"v";
    let start = text.windows(BEFORE.len()).position(|w| w == BEFORE)? + BEFORE.len();
    let length = text[start..].iter().position(|b| *b == b'"')?;
    let version = std::str::from_utf8(&text[start..start + length]).unwrap().parse().unwrap();
    Some((version, start + length))
}

/// `readers` of events who must miss nothing and one in ten of that number more who wait; beside them, where there are
/// `others`, as many who never read, and who break.
async fn many(readers: usize, others: bool, changes: usize) {
    raise_open_files();
    // a connection has two ends here
    let needed = u64::try_from(readers).unwrap() * 3;
    let limit = getrlimit(Resource::Nofile).maximum;
    assert!(limit.is_none_or(|most| most >= needed), "raise the limit of open files: ulimit -Hn {needed}");
    let authority = authority();
    let served = Arc::new(served());
    let listener = Listener::bind("mapping", "127.0.0.1:0".parse().unwrap()).unwrap();
    let running = Arc::new(Running {
        address: listener.address(),
        config: client(&authority, &["http/1.1"]),
        published: Arc::default(),
        last: changes,
        connected: AtomicUsize::new(0),
        handshakes: Semaphore::new(24),
        break_after: Duration::from_millis(20) * u32::try_from(readers / 10).unwrap(),
        served: Arc::clone(&served),
    });
    running.publish(0);
    let listener = listener.tls(server_config(key(&authority)).unwrap()).limits(Limits::of_readers());
    let listening =
        tokio::spawn(listener.serve(served.router.clone(), Arc::clone(&served.metrics), served.stop.clone()));

    let (mut honest, mut waiting, mut harmful) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let begun = Instant::now();
    for n in 0..readers {
        let reader = Arc::clone(&running);
        honest.spawn(async move { reader.reads().await });
        if n % 10 == 0 {
            let [waits, idles, breaks] = [(); 3].map(|()| Arc::clone(&running));
            waiting.spawn(async move { waits.waits().await });
            if others {
                harmful.spawn(async move { idles.never_reads().await });
                harmful.spawn(async move { breaks.breaks(n / 10).await });
            }
        }
    }
    let all_there = async {
        while running.connected.load(Ordering::Relaxed) < readers {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_there).await.expect("all readers are there");
    let there = begun.elapsed();
    for version in 1..=changes {
        running.publish(version);
        tokio::time::sleep(BETWEEN).await;
    }
    let done = tokio::time::timeout(PATIENCE, async { (honest.join_all().await, waiting.join_all().await) });
    let (delays, _) = done.await.expect("every reader sees the last version");
    harmful.shutdown().await;
    let mut delays: Vec<Duration> = delays.into_iter().flatten().collect();
    delays.sort_unstable();
    let quantile = |hundredths: usize| delays[(delays.len() - 1) * hundredths / 100];
    let beside =
        if others { format!("{0} who never read and {0} who break", readers / 10) } else { "nobody".into() };
    println!(
        "{readers} readers beside {beside}, there after {there:?}; {} events for {changes} changes: p50 {:?}, p99 {:?}, slowest {:?}",
        delays.len(),
        quantile(50),
        quantile(99),
        quantile(100)
    );
    assert!(
        quantile(100) < STALLED_PEER,
        "nobody waits for those who do not read: they are ended after that"
    );
    let metrics = served.metrics.text();
    for cause in ["evicted", "handshake_evicted", "handshake_timeout", "accept"] {
        assert!(!metrics.contains(&format!("cause=\"{cause}\"")), "{metrics}");
    }
    assert!(!metrics.contains("external_ip_panics_total{"), "{metrics}");
    served.stop.cancel();
    tokio::time::timeout(PATIENCE, listening).await.expect("nothing is left").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_miss_nothing_and_never_go_back_beside_slow_and_broken_ones() {
    many(150, true, 5).await;
}

/// `make watchers`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: make watchers"]
async fn a_thousand_readers_miss_nothing_and_never_go_back_beside_slow_and_broken_ones() {
    many(1_000, false, 30).await;
    many(1_000, true, 30).await;
}
