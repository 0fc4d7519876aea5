//! An API server for unit tests: every request is an [`Exchange`] the test answers, or leaves hanging.

use std::collections::BTreeMap;

use axum::body::Bytes;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tower::BoxError;

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

pub(crate) struct Fake {
    exchanges: mpsc::UnboundedReceiver<Exchange>,
}

/// A request. Dropped without an answer, the connection breaks.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) content: String,
    pub(crate) body: Value,
    reply: oneshot::Sender<Answer>,
}

impl Fake {
    pub(crate) fn new() -> (Client, Self) {
        let (tx, exchanges) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let tx = tx.clone();
            async move {
                let (reply, answer) = oneshot::channel();
                tx.send(Exchange::of(request, reply).await).map_err(|_| BoxError::from("nobody answers"))?;
                answer.await.map_err(|_| BoxError::from("connection reset"))
            }
        });
        (Client::new(service, "default"), Self { exchanges })
    }

    pub(crate) async fn next(&mut self) -> Exchange {
        self.exchanges.recv().await.expect("the client is in use")
    }

    /// A request that has been made already.
    pub(crate) fn taken(&mut self) -> Option<Exchange> {
        self.exchanges.try_recv().ok()
    }

    /// Whether no request has been made that was not taken.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.taken().is_none()
    }
}

impl Exchange {
    async fn of(request: Request<Body>, reply: oneshot::Sender<Answer>) -> Self {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let pairs = parts.uri.query().unwrap_or_default().split('&').filter_map(|p| p.split_once('='));
        Self {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            content: parts
                .headers
                .get("content-type")
                .map(|v| v.to_str().unwrap().to_owned())
                .unwrap_or_default(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            reply,
        }
    }

    pub(crate) fn ok(self, body: &Value) {
        self.answer(200, body);
    }

    pub(crate) fn answer(self, code: u16, body: &Value) {
        let body = Full::new(Bytes::from(body.to_string())).map_err(Into::into).boxed_unsync();
        let response = Response::builder().status(code).body(body).unwrap();
        // the client may have given up
        let _ = self.reply.send(response);
    }

    pub(crate) fn fail(self, code: u16, reason: &str) {
        let body =
            json!({"kind": "Status", "code": code, "reason": reason, "message": format!("it is {reason}")});
        self.answer(code, &body);
    }

    /// Answers 200 with a body that goes on; it ends when the sender is dropped.
    pub(crate) fn stream(self) -> mpsc::UnboundedSender<String> {
        let (tx, mut rx) = mpsc::unbounded_channel::<String>();
        let frames = futures::stream::poll_fn(move |cx| {
            rx.poll_recv(cx).map(|text| text.map(|t| Ok(Frame::data(Bytes::from(t)))))
        });
        let _ = self.reply.send(Response::new(StreamBody::new(frames).boxed_unsync()));
        tx
    }
}
