//! Readers of `/v1/watch/{namespace}/{cluster}`, and how long after a change each has its document.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::client;
use crate::world::{MEMBERS, cluster_of};

/// For the first document of all, and for the last ones.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Readers {
    shared: Arc<Shared>,
    _runtime: Runtime,
}

struct Shared {
    /// By cluster: when a change was told that its reader has not seen.
    told: Vec<Mutex<Option<Instant>>>,
    delays: Mutex<Vec<Duration>>,
    /// A permit for each reader that has its first document.
    begun: Semaphore,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    /// One reader for each of the first `clusters`; returns when all of them read.
    pub(super) fn start(mapping: SocketAddr, ca: &Path, clusters: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            told: (0..clusters).map(|_| Mutex::default()).collect(),
            delays: Mutex::default(),
            begun: Semaphore::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let config = client::trusting(ca, b"http/1.1")?;
        for cluster in 0..clusters {
            runtime.spawn(read(mapping, Arc::clone(&config), cluster, Arc::clone(&shared)));
        }
        let all = u32::try_from(clusters)?;
        let begun = async { tokio::time::timeout(PATIENCE, shared.begun.acquire_many(all)).await.map(drop) };
        runtime.block_on(begun).context("not every reader got its first document")?;
        Ok(Self { shared, _runtime: runtime })
    }

    /// Makes a change that the reader of a cluster, if there is one, shall see.
    pub(super) fn expect(&self, cluster: usize, change: impl FnOnce() -> Instant) {
        match self.shared.told.get(cluster) {
            Some(told) => {
                let mut told = locked(told);
                // a change whose predecessor is not seen yet is counted from that one
                let at = change();
                told.get_or_insert(at);
            }
            None => {
                change();
            }
        }
    }

    /// All delays, once every change has been seen; sorted.
    pub(super) fn delays(&self) -> Result<Vec<Duration>> {
        let begun = Instant::now();
        while self.shared.told.iter().any(|told| locked(told).is_some()) {
            ensure!(begun.elapsed() < PATIENCE, "a reader did not see a change");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut delays = locked(&self.shared.delays).clone();
        ensure!(!delays.is_empty(), "nobody saw anything");
        delays.sort_unstable();
        Ok(delays)
    }
}

async fn read(
    at: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    cluster: usize,
    shared: Arc<Shared>,
) -> Result<()> {
    let stream = client::secured(at, config).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let key = cluster_of(cluster * MEMBERS);
    let path = format!("/v1/watch/{}/{}", key.namespace, key.name);
    let request = Request::get(path).header("host", "bench").body(Empty::<Bytes>::new())?;
    let mut body = sender.send_request(request).await?.into_body();
    let (mut first, mut buffer) = (true, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.windows(2).position(|w| w == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            let is_document = event.starts_with(b"data:") || event.windows(6).any(|w| w == b"\ndata:");
            if !is_document {
                continue;
            }
            if std::mem::take(&mut first) {
                shared.begun.add_permits(1);
            } else if let Some(told) = locked(&shared.told[cluster]).take() {
                locked(&shared.delays).push(told.elapsed());
            }
        }
    }
    Ok(())
}
