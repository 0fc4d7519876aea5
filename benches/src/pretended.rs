//! An API server that is pretended: it lists and streams what it is given, and takes every write as it comes. What it
//! costs is so little and so even that what is measured is the product, and it knows when each change was told.

mod events;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::world::Objects;
use events::{Events, Feed};

/// Resource version of the first lists: above those of all objects.
const FIRST: u64 = 10_000_000;

type Answer = Response<Either<Full<Bytes>, Events>>;

/// Ends when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    api: Arc<Api>,
    _runtime: Runtime,
}

struct Api {
    /// By path of the collection.
    feeds: BTreeMap<&'static str, Arc<Feed>>,
    nothing: Arc<Feed>,
    /// What was written, by path.
    written: Mutex<BTreeMap<String, Value>>,
    version: AtomicU64,
    writes: AtomicU64,
    lists: AtomicU64,
}

const PODS: &str = "/api/v1/pods";

impl Server {
    /// Serves these objects.
    pub(crate) fn start(objects: Objects) -> Result<Self> {
        let feed = |items: Vec<Value>| Arc::new(Feed::new(&items, FIRST));
        let api = Arc::new(Api {
            feeds: BTreeMap::from([
                ("/api/v1/namespaces", feed(objects.namespaces)),
                (PODS, feed(objects.pods)),
                ("/api/v1/services", feed(objects.services)),
                ("/apis/discovery.k8s.io/v1/endpointslices", feed(objects.slices)),
            ]),
            nothing: feed(Vec::new()),
            written: Mutex::default(),
            version: AtomicU64::new(FIRST),
            writes: AtomicU64::new(0),
            lists: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        runtime.spawn(accept(listener, Arc::clone(&api)));
        Ok(Self { address, api, _runtime: runtime })
    }

    /// Shows a pod, which is at this place of the list, as it is now. Answers when it was told.
    pub(crate) fn change_pod(&self, place: usize, mut pod: Value) -> Instant {
        let version = self.api.version.fetch_add(1, Ordering::Relaxed) + 1;
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        let at = Instant::now();
        self.api.feeds[PODS].change(place, &pod, version);
        at
    }

    /// Has everything listed anew, as after an etcd compaction.
    pub(crate) fn expire(&self) {
        let version = self.api.version.fetch_add(1, Ordering::Relaxed) + 1;
        self.api.feeds.values().chain([&self.api.nothing]).for_each(|feed| feed.expire(version));
    }

    /// Writes to pods and Services so far.
    pub(crate) fn writes(&self) -> u64 {
        self.api.writes.load(Ordering::Relaxed)
    }

    /// Last pages of lists of objects so far.
    pub(crate) fn lists(&self) -> u64 {
        self.api.lists.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, api: Arc<Api>) {
    while let Ok((stream, _)) = listener.accept().await {
        // a watch event that waits for an acknowledgement would be late by 40 ms
        let _ = stream.set_nodelay(true);
        let api = Arc::clone(&api);
        let service = service_fn(move |request| {
            let api = Arc::clone(&api);
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

fn parameter<'u>(uri: &'u Uri, name: &str) -> Option<&'u str> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|p| p.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

fn number(uri: &Uri, name: &str) -> Option<u64> {
    parameter(uri, name)?.parse().ok()
}

fn whole(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    answer
}

fn failure(status: StatusCode, reason: &str) -> Answer {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": reason, "code": status.as_u16()});
    whole(status, body.to_string())
}

impl Api {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        if request.method() != Method::GET {
            return self.write(request).await;
        }
        let uri = request.uri();
        let is_collection =
            ["watch", "limit", "labelSelector"].iter().any(|name| parameter(uri, name).is_some());
        if !is_collection {
            let found = self.written().get(uri.path()).map(ToString::to_string);
            return found
                .map_or_else(|| failure(StatusCode::NOT_FOUND, "NotFound"), |o| whole(StatusCode::OK, o));
        }
        let feed = self.feed(uri);
        if parameter(uri, "watch").is_none() {
            let (page, is_last) = feed.list(number(uri, "continue"), number(uri, "limit"));
            self.lists.fetch_add(u64::from(is_last && !Arc::ptr_eq(feed, &self.nothing)), Ordering::Relaxed);
            return whole(StatusCode::OK, page);
        }
        let length = Duration::from_secs(number(uri, "timeoutSeconds").unwrap_or(60));
        match feed.watch(number(uri, "resourceVersion").unwrap_or(0), length) {
            Some(events) => Response::new(Either::Right(events)),
            None => failure(StatusCode::GONE, "Expired"),
        }
    }

    /// Of the three selections of pods, one has all of them.
    fn feed(&self, uri: &Uri) -> &Arc<Feed> {
        let labelled = ["external-ip.dev/cluster", "external-ip.dev%2Fcluster"];
        let here =
            uri.path() != PODS || parameter(uri, "labelSelector").is_some_and(|s| labelled.contains(&s));
        self.feeds.get(uri.path()).filter(|_| here).unwrap_or(&self.nothing)
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let Ok(body) = serde_json::from_slice::<Value>(&body) else {
            return failure(StatusCode::BAD_REQUEST, "BadRequest");
        };
        let path = parts.uri.path();
        self.writes
            .fetch_add(u64::from(path.contains("/pods") || path.contains("/services")), Ordering::Relaxed);
        let mut path = path.to_owned();
        if parts.method == Method::POST {
            path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
        }
        let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
        let mut written = self.written();
        let object = written.entry(path).or_default();
        merge(object, &body);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        object["metadata"]["uid"] = json!("written");
        whole(
            if parts.method == Method::POST { StatusCode::CREATED } else { StatusCode::OK },
            object.to_string(),
        )
    }
}

/// RFC 7386, as far as it is needed.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in fields {
        merge(&mut object[key], value);
    }
}
