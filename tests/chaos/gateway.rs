//! One replica's way to the API server: plain HTTP on the near side, so that single answers can be kept back.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::{Body, Client};
use tokio::net::TcpListener;

/// Forwards requests as long as it lives.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    swallowing: Arc<AtomicBool>,
    swallowed: Arc<AtomicUsize>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Gateway {
    /// To the API server as `client` reaches it, under its name.
    pub(crate) async fn to(client: Client) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (swallowing, swallowed) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (on, count) = (Arc::clone(&swallowing), Arc::clone(&swallowed));
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (client, on, count) = (client.clone(), Arc::clone(&on), Arc::clone(&count));
                let service = service_fn(move |request| {
                    forward(client.clone(), request, Arc::clone(&on), Arc::clone(&count))
                });
                let serving = hyper::server::conn::http1::Builder::new();
                tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, swallowing, swallowed, accepting }
    }

    /// Whether writes to the Lease take effect and are never answered. Gives how many were swallowed so far.
    pub(crate) fn swallow_lease_answers(&self, on: bool) -> usize {
        self.swallowing.store(on, Ordering::Relaxed);
        self.swallowed.load(Ordering::Relaxed)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn forward(
    client: Client,
    request: Request<Incoming>,
    swallowing: Arc<AtomicBool>,
    swallowed: Arc<AtomicUsize>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let lease = parts.method != Method::GET && parts.uri.path().contains("/leases/");
    let answer = match body.collect().await {
        Ok(body) => client.send(Request::from_parts(parts, Body::from(body.to_bytes().to_vec()))).await,
        Err(_) => return Ok(unreachable_server()), // the replica is gone
    };
    if lease && swallowing.load(Ordering::Relaxed) {
        swallowed.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<()>().await; // until the replica gives up and closes
    }
    Ok(answer.unwrap_or_else(|_| unreachable_server()))
}

fn unreachable_server() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}
