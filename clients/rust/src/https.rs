//! The map over HTTPS: one connection, one question at a time, the server always verified.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HOST};
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::known::{Answer, Fault};
use crate::mapper::StartError;

/// For TCP and TLS of one of the server's addresses; the next one is tried then.
const CONNECT: Duration = Duration::from_secs(5);
/// Above what the server may hold a question: for the way, a position it has to wait for (5 s), and the document.
const ANSWER: Duration = Duration::from_secs(10);
/// The largest document that is read. 10 000 members have about 4 MB.
const DOCUMENT_BYTES: usize = 32 << 20;

/// Where the map is, and what is needed to read it.
#[derive(Debug, Clone)]
pub struct Https {
    url: String,
    namespace: String,
    cluster: String,
    ca_file: PathBuf,
    token_file: Option<PathBuf>,
    /// How long the server may hold a question until the map changes.
    pub wait: Duration,
    /// Between two questions where the server does not hold them.
    pub poll: Duration,
}

impl Https {
    /// `url` is the listener's, `https://` and host or address; `ca_file` holds the CA in PEM and is read again for each
    /// connection. It comes from the ConfigMap `CLUSTER-external-ips`, not from the server that is about to be trusted.
    pub fn new(
        url: impl Into<String>,
        namespace: impl Into<String>,
        cluster: impl Into<String>,
        ca_file: impl Into<PathBuf>,
    ) -> Self {
        Self {
            url: url.into(),
            namespace: namespace.into(),
            cluster: cluster.into(),
            ca_file: ca_file.into(),
            token_file: None,
            wait: Duration::from_secs(25),
            poll: Duration::from_secs(5),
        }
    }

    /// A bearer token, for the audience `external-ip.dev`. The file is read again for each question: tokens expire.
    #[must_use]
    pub fn token_file(self, file: impl Into<PathBuf>) -> Self {
        Self { token_file: Some(file.into()), ..self }
    }

    pub(crate) fn endpoint(self) -> Result<Endpoint, StartError> {
        let wrong = || StartError::Url(self.url.clone());
        let url: Uri = self.url.parse().map_err(|_| wrong())?;
        let authority =
            url.authority().filter(|_| url.scheme_str() == Some("https")).ok_or_else(wrong)?.clone();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        let path = format!(
            "{}/v1/mapping/{}/{}?wait={}",
            url.path().trim_end_matches('/'),
            self.namespace,
            self.cluster,
            self.wait.as_secs()
        );
        let path = path.parse().map_err(|_| wrong())?;
        let port = authority.port_u16().unwrap_or(443);
        let authority = authority.as_str().parse().map_err(|_| wrong())?;
        let Self { ca_file, token_file, wait, .. } = self;
        let place = Place { host, port, name, ca_file };
        Ok(Endpoint { place, path, authority, token_file, answer: wait + ANSWER, open: None })
    }
}

/// A server as it is asked.
pub(crate) struct Endpoint {
    place: Place,
    path: Uri,
    authority: HeaderValue,
    token_file: Option<PathBuf>,
    answer: Duration,
    open: Option<Connection>,
}

struct Place {
    host: String,
    port: u16,
    name: ServerName<'static>,
    ca_file: PathBuf,
}

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Endpoint {
    /// The token as it is now, for the header.
    pub(crate) async fn token(&self) -> Result<Option<HeaderValue>, Fault> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let token = read(file).await?;
        let mut value =
            HeaderValue::try_from(format!("Bearer {}", String::from_utf8_lossy(&token).trim()))
                .map_err(|_| Fault::Unreachable(format!("{}: this is not a token", file.display())))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// One question. A connection that was kept may have been closed meanwhile: then a new one, once.
    pub(crate) async fn ask(&mut self, headers: HeaderMap) -> Result<Answer, Fault> {
        let kept = self.open.take().filter(|c| !c.sender.is_closed());
        let limit = self.answer;
        let ask = async {
            if let Some(connection) = kept
                && let Ok(answer) = self.exchange(connection, headers.clone()).await
            {
                return Ok(answer);
            }
            let connection = self.place.connect().await?;
            self.exchange(connection, headers).await
        };
        timeout(limit, ask).await.unwrap_or_else(|_| Err(unreachable("no answer in time")))
    }

    async fn exchange(&mut self, mut connection: Connection, headers: HeaderMap) -> Result<Answer, Fault> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, self.authority.clone());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let (parts, body) = connection.sender.send_request(request).await.map_err(unreachable)?.into_parts();
        let body =
            Limited::new(body, DOCUMENT_BYTES).collect().await.map_err(unreachable)?.to_bytes().to_vec();
        self.open = Some(connection);
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

impl Place {
    async fn connect(&self) -> Result<Connection, Fault> {
        let config = self.config().await?;
        let connector = TlsConnector::from(Arc::new(config));
        let addresses =
            tokio::net::lookup_host((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        let mut last = unreachable(format!("{} has no address", self.host));
        for address in addresses {
            let tls = timeout(CONNECT, self.secure(address, &connector)).await;
            match tls.unwrap_or_else(|_| Err(format!("no connection in {} s", CONNECT.as_secs()).into())) {
                Ok(tls) => return open(tls).await,
                Err(error) => last = unreachable(format!("{address}: {error}")),
            }
        }
        Err(last)
    }

    async fn secure(
        &self,
        address: std::net::SocketAddr,
        connector: &TlsConnector,
    ) -> Result<TlsStream<TcpStream>, Box<dyn std::error::Error + Send + Sync>> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(connector.connect(self.name.clone(), tcp).await?)
    }

    /// Trusts the CA file's certificates as they are now, and nobody else.
    async fn config(&self) -> Result<ClientConfig, Fault> {
        let pem = read(&self.ca_file).await?;
        let wrong = |error: String| unreachable(format!("{}: {error}", self.ca_file.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
            roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("no certificate in it".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Ok(builder.map_err(unreachable)?.with_root_certificates(roots).with_no_client_auth())
    }
}

async fn open(tls: TlsStream<TcpStream>) -> Result<Connection, Fault> {
    let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(unreachable)?;
    // how it ends is told by the next question
    let driver = tokio::spawn(async { drop(connection.await) });
    Ok(Connection { sender, driver })
}

async fn read(file: &Path) -> Result<Vec<u8>, Fault> {
    tokio::fs::read(file).await.map_err(|e| unreachable(format!("{}: {e}", file.display())))
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::Unreachable(error.into().to_string())
}
