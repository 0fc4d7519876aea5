//! A user's way to a real API server: HTTP/1.1 over TLS with a client certificate, as the product's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::client;

/// What is to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Option<String>,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None }
    }

    pub(crate) fn post(path: impl Into<String>, body: &Value) -> Self {
        Self { method: Method::POST, path: path.into(), body: Some(body.to_string()) }
    }

    /// A merge patch.
    pub(crate) fn patch(path: impl Into<String>, body: &Value) -> Self {
        Self { method: Method::PATCH, path: path.into(), body: Some(body.to_string()) }
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, path: path.into(), body: None }
    }
}

#[derive(Clone)]
pub(crate) struct Api {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// A connection of its own: one request after the other.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

#[derive(Deserialize)]
struct Kubeconfig {
    clusters: (NamedCluster,),
    users: (NamedUser,),
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Server,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Server {
    server: String,
    certificate_authority: PathBuf,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: PathBuf,
    client_key: PathBuf,
}

impl Api {
    /// As a kubeconfig of one cluster and one user says, whose files lie beside it.
    pub(crate) fn new(kubeconfig: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(kubeconfig)?;
        let Kubeconfig { clusters: (cluster,), users: (user,) } = serde_saphyr::from_str(&text)?;
        let Server { server, certificate_authority } = cluster.cluster;
        let host = server.strip_prefix("https://").context("not https")?;
        let address = host.replace("localhost", "127.0.0.1").parse().context(server.clone())?;
        let User { client_certificate, client_key } = user.user;
        let chain: Vec<_> = CertificateDer::pem_file_iter(client_certificate)?.collect::<Result<_, _>>()?;
        let identity = (chain, PrivateKeyDer::from_pem_file(client_key)?);
        Ok(Self { address, tls: client::trusting_as(&certificate_authority, b"http/1.1", Some(identity))? })
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        let stream = client::secured(self.address, Arc::clone(&self.tls)).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender })
    }

    /// The answer to one call.
    pub(crate) async fn ask(&self, call: &Call) -> Result<Value> {
        self.connect().await?.ask(call).await
    }

    /// Makes all calls, in their order, so many at once.
    pub(crate) async fn all(&self, calls: Vec<Call>, at_once: usize) -> Result<()> {
        let calls = Arc::new(Mutex::new(calls.into_iter()));
        let mut workers = JoinSet::new();
        for _ in 0..at_once {
            let (calls, api) = (Arc::clone(&calls), self.clone());
            workers.spawn(async move {
                let mut connection = api.connect().await?;
                let next = || calls.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some(call) = next() {
                    connection.ask(&call).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = workers.join_next().await {
            done??;
        }
        Ok(())
    }
}

impl Connection {
    pub(crate) async fn ask(&mut self, call: &Call) -> Result<Value> {
        let body = self.open(call).await?.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }

    /// The answer with its body still to come; an error where it is one.
    pub(crate) async fn open(&mut self, call: &Call) -> Result<Response<Incoming>> {
        let kind =
            if call.method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = Full::from(call.body.clone().unwrap_or_default());
        let request = Request::builder().method(&call.method).uri(&call.path);
        let request = request.header("host", "127.0.0.1").header("content-type", kind).body(body)?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.into_body().collect().await?.to_bytes();
            bail!("{} {}: {status}: {}", call.method, call.path, String::from_utf8_lossy(&body));
        }
        Ok(answer)
    }
}
