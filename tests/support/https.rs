//! One verified HTTPS request, as a client outside makes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// GET over TLS, the server verified against `ca` for its address.
pub(crate) async fn get(
    address: SocketAddr,
    ca: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Response, String> {
    let ask = async {
        let tls = connect(address, ca, ServerName::from(address.ip())).await?;
        exchange(TokioIo::new(tls), get_request(path, headers)?).await
    };
    tokio::time::timeout(Duration::from_secs(10), ask).await.map_err(|_| "no answer in 10 s".to_owned())?
}

/// What a stream says first: everything until this mark, of an answer that does not end.
pub(crate) async fn beginning(
    address: SocketAddr,
    ca: &str,
    path: &str,
    mark: &str,
) -> Result<String, String> {
    let ask = async {
        let tls = connect(address, ca, ServerName::from(address.ip())).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|e| e.to_string())?;
        let _driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let mut body =
            sender.send_request(get_request(path, &[])?).await.map_err(|e| e.to_string())?.into_body();
        let mut said = String::new();
        while !said.contains(mark) {
            let frame = body
                .frame()
                .await
                .ok_or_else(|| format!("it ends after {said}"))?
                .map_err(|e| e.to_string())?;
            said.push_str(&String::from_utf8_lossy(frame.data_ref().map_or(&[], |data| data)));
        }
        Ok(said)
    };
    tokio::time::timeout(Duration::from_secs(10), ask).await.map_err(|_| "no answer in 10 s".to_owned())?
}

/// A TLS connection, the server verified against `ca` for `name`.
pub(crate) async fn connect(
    address: SocketAddr,
    ca: &str,
    name: ServerName<'static>,
) -> Result<TlsStream<TcpStream>, String> {
    over(tcp(address).await?, ca, name).await
}

/// The same over a connection that is there.
pub(crate) async fn over(
    tcp: TcpStream,
    ca: &str,
    name: ServerName<'static>,
) -> Result<TlsStream<TcpStream>, String> {
    secured(tcp, name, config(ca)?).await
}

/// The same, for HTTP/2.
pub(crate) async fn connect_http2(
    address: SocketAddr,
    ca: &str,
    name: ServerName<'static>,
) -> Result<TlsStream<TcpStream>, String> {
    let mut config = config(ca)?;
    Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec()];
    secured(tcp(address).await?, name, config).await
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, String> {
    let tcp = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    // else a request waits for the acknowledgement of the one before
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(tcp)
}

async fn secured(
    tcp: TcpStream,
    name: ServerName<'static>,
    config: Arc<rustls::ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.map_err(|e| e.to_string())
}

/// GET without TLS, for the admin listener.
pub(crate) async fn plain(address: SocketAddr, path: &str) -> Result<Response, String> {
    let ask = async {
        let tcp = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        exchange(TokioIo::new(tcp), get_request(path, &[])?).await
    };
    tokio::time::timeout(Duration::from_secs(10), ask).await.map_err(|_| "no answer in 10 s".to_owned())?
}

/// POST of JSON without TLS, for etcd's gateway.
pub(crate) async fn post_plain(
    address: SocketAddr,
    path: &str,
    body: &serde_json::Value,
) -> Result<Response, String> {
    let ask = async {
        let tcp = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        let request = Request::post(path).header("host", "etcd").body(Full::from(body.to_string()));
        exchange(TokioIo::new(tcp), request.map_err(|e| e.to_string())?).await
    };
    tokio::time::timeout(Duration::from_secs(10), ask).await.map_err(|_| "no answer in 10 s".to_owned())?
}

fn config(ca: &str) -> Result<Arc<rustls::ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(Arc::new(builder.map_err(|e| e.to_string())?.with_root_certificates(roots).with_no_client_auth()))
}

fn get_request(path: &str, headers: &[(&str, &str)]) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::builder().uri(path).header("host", "mapping");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).map_err(|e| e.to_string())
}

async fn exchange<I>(io: I, request: Request<Full<Bytes>>) -> Result<Response, String>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    driver.abort();
    let body = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Response { status: parts.status, headers: parts.headers, body })
}
