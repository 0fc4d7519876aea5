//! One HTTP connection that is opened again when it breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

/// For an answer that is not a stream.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody to ask.
pub(crate) struct Peer {
    address: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
    open: Option<SendRequest<Full<Bytes>>>,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

impl Peer {
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, open: None }
    }

    /// Verified for its address against `ca`, in PEM.
    pub(crate) fn tls(address: SocketAddr, ca: &[u8]) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate.context("the CA")?).context("the CA")?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        Ok(Self { address, tls: Some(Arc::new(builder.with_no_client_auth())), open: None })
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let whole = async {
            let (parts, body) = self.send(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        let answer = tokio::time::timeout(PATIENCE, whole).await.context("no answer").and_then(|a| a);
        if answer.is_err() {
            self.open = None;
        }
        answer
    }

    /// Sends a request; the answer's body may go on for ever.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<http::Response<Incoming>> {
        if self.open.as_ref().is_none_or(SendRequest::is_closed) {
            self.open = Some(self.connect().await?);
        }
        let open = self.open.as_mut().context("a connection")?;
        open.ready().await?;
        Ok(open.send_request(request).await?)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return start(TokioIo::new(tcp)).await };
        let name = ServerName::from(self.address.ip());
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
        start(TokioIo::new(connector.connect(name, tcp).await?)).await
    }
}

async fn start<I>(io: I) -> Result<SendRequest<Full<Bytes>>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await?;
    tokio::spawn(connection);
    Ok(sender)
}

pub(crate) fn get(path: &str, headers: &[(&str, &str)]) -> Result<Request<Full<Bytes>>> {
    let mut request = Request::get(path).header("host", "oracle");
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    Ok(request.body(Full::default())?)
}

pub(crate) fn post(path: &str, body: &serde_json::Value) -> Result<Request<Full<Bytes>>> {
    Ok(Request::post(path).header("host", "oracle").body(Full::from(body.to_string()))?)
}
