//! The load: one review, over one connection as the API server holds one, a given number of requests in flight.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::reviews::SHAPES;

/// What to send, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// Where to.
    #[arg(long)]
    to: SocketAddr,
    /// Path of the webhook.
    #[arg(long, default_value = "/mutate")]
    path: String,
    /// The CA to trust, a PEM file.
    #[arg(long)]
    ca: PathBuf,
    /// Number of the review, see `reviews`.
    #[arg(long)]
    review: usize,
    /// Requests in flight.
    #[arg(long)]
    in_flight: usize,
    /// Requests in all.
    #[arg(long)]
    requests: usize,
}

pub(crate) fn run(load: &Load) -> Result<()> {
    let shape = SHAPES.get(load.review).context("there is no such review")?;
    let review = Bytes::from(shape.review());
    // one thread: as many cores as there are shall be the server's
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut times, took) = runtime.block_on(send(load, &review))?;
    times.sort_unstable();
    #[allow(clippy::cast_precision_loss)] // thousands
    let per_second = times.len() as f64 / took.as_secs_f64();
    let micros = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_micros();
    println!(
        "{}",
        serde_json::json!({"requests": times.len(), "per_second": per_second.round(), "bytes": review.len(),
            "p50_us": u64::try_from(micros(50))?, "p99_us": u64::try_from(micros(99))?})
    );
    Ok(())
}

async fn send(load: &Load, review: &Bytes) -> Result<(Vec<Duration>, Duration)> {
    let mut sender = connect(load).await?;
    // the first builds the connection's state on both sides
    ask(&mut sender, &load.path, review).await?;
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    let each = load.requests.div_ceil(load.in_flight);
    for _ in 0..load.in_flight {
        let (mut sender, review, path) = (sender.clone(), review.clone(), load.path.clone());
        workers.spawn(async move {
            let mut times = Vec::with_capacity(each);
            for _ in 0..each {
                times.push(ask(&mut sender, &path, &review).await?);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = workers.join_next().await {
        times.extend(done??);
    }
    Ok((times, begun.elapsed()))
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, path: &str, review: &Bytes) -> Result<Duration> {
    let begun = Instant::now();
    sender.ready().await?;
    let request =
        Request::post(format!("https://127.0.0.1{path}")).header("content-type", "application/json");
    let answer = sender.send_request(request.body(Full::new(review.clone()))?).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    let took = begun.elapsed();
    // an answer that is an error is quick and worth nothing
    let allowed = body.windows(14).any(|w| w == br#""allowed":true"#);
    ensure!(status == 200 && allowed, "{status}: {}", String::from_utf8_lossy(&body));
    Ok(took)
}

async fn connect(load: &Load) -> Result<SendRequest<Full<Bytes>>> {
    let stream = secured(load.to, trusting(&load.ca, b"h2")?).await?;
    ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "HTTP/2 was not agreed on");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A client that trusts a CA, a PEM file, and speaks one protocol.
pub(crate) fn trusting(ca: &Path, protocol: &[u8]) -> Result<Arc<ClientConfig>> {
    trusting_as(ca, protocol, None)
}

/// A certificate with its chain, and its key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The same, and says who it is.
pub(crate) fn trusting_as(
    ca: &Path,
    protocol: &[u8],
    identity: Option<Identity>,
) -> Result<Arc<ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).context("the CA")? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// A connection whose server has been verified.
pub(crate) async fn secured(to: SocketAddr, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(TlsConnector::from(config).connect(ServerName::from(to.ip()), stream).await?)
}
