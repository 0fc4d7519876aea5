//! The map over HTTP.
//!
//! Bodies hold entries only: equal maps are equal bytes with an equal `ETag` on every replica. What differs per replica
//! is in headers: `Age` (seconds since the slowest watch last heard from the API server) and `Map-Position`.

mod held;
mod openapi;
mod pods;
mod request;
mod routes;
mod shown;
mod status;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use external_ip_core::names::Key;
use http::header::{AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use tokio_util::sync::CancellationToken;

use super::access::{self, Access, Wish};
use super::problem::Problem;
use crate::map::{Current, Document, Explainer, Format, Liveness, Position, Refresh};
use crate::metrics::Metrics;
use crate::tls::Trusted;
use held::Held;
pub use shown::{MAP_POSITION, MAPPING_RESET};
use shown::{Readers, Shown};

/// What the mapping listener serves from.
pub struct Mapping {
    /// The published map.
    pub current: Arc<Current>,
    /// Age of what is published.
    pub liveness: Arc<Liveness>,
    /// For readers who have seen more than this replica.
    pub refresh: Arc<Refresh>,
    /// For explanations.
    pub explainer: Explainer,
    /// Who may read.
    pub access: Access,
    /// For `/ca.pem`; `None` where nobody has said what it is.
    pub ca: Option<Trusted>,
    /// Counts requests.
    pub metrics: Arc<Metrics>,
    /// Ends what is held: readers go to another replica.
    pub stop: CancellationToken,
}

struct Shared {
    mapping: Mapping,
    readers: Readers,
    held: Held,
}

/// A document, before its format is chosen.
#[derive(Debug, Clone)]
enum Wanted {
    Origin,
    Aggregate,
    Cluster(Key),
}

impl Wanted {
    fn name(&self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Aggregate => "aggregate",
            Self::Cluster(_) => "cluster",
        }
    }

    /// Changes where the document may have.
    fn changes(&self, current: &Current) -> tokio::sync::watch::Receiver<u64> {
        match self {
            Self::Origin | Self::Aggregate => current.changed_documents(),
            Self::Cluster(key) => current.changed_cluster(key),
        }
    }

    fn wish(&self) -> Wish {
        match self {
            Self::Origin | Self::Aggregate => Wish::Aggregate,
            Self::Cluster(key) => access::cluster(&key.namespace, &key.name),
        }
    }
}

/// The routes of the mapping listener.
pub fn router(mapping: Mapping) -> Router {
    let shared = Arc::new(Shared { mapping, readers: Readers::new(), held: Held::new() });
    let routes = routes::all().into_iter().fold(Router::new(), |all, (path, route)| all.route(path, route));
    routes
        .fallback(async |State(s): State<Arc<Shared>>, uri: Uri| s.counted("other", Err(no_such_path(&uri))))
        .method_not_allowed_fallback(async |State(s): State<Arc<Shared>>| {
            s.counted("other", Err(only_reading()))
        })
        .with_state(shared)
}

impl Shared {
    async fn answer(&self, wanted: Wanted, request: Request) -> Response {
        let (asked, _) = request.into_parts();
        let answer = self.document(&wanted, &asked.headers, &asked.uri).await;
        self.counted(wanted.name(), answer)
    }

    async fn stream(self: &Arc<Self>, wanted: Wanted, request: Request) -> Response {
        let (asked, _) = request.into_parts();
        let answer = self.watch(wanted, &asked.headers, &asked.uri).await;
        self.counted("watch", answer)
    }

    async fn pod(&self, pod: Key, request: Request) -> Response {
        let (asked, _) = request.into_parts();
        let answer = self.explain(pod, &asked.headers, &asked.uri).await;
        self.counted("pod", answer)
    }

    async fn description(&self, request: Request) -> Response {
        let (asked, _) = request.into_parts();
        self.counted("openapi", Ok(openapi::answer(&asked.headers).await))
    }

    async fn page(&self, request: Request) -> Response {
        let (asked, _) = request.into_parts();
        let answer = self.status(&asked.headers).await;
        self.counted("status", answer)
    }

    fn counted(&self, document: &'static str, answer: Result<Response, Problem>) -> Response {
        let answer = answer.unwrap_or_else(Response::from);
        self.mapping.metrics.request(document, answer.status());
        answer
    }

    async fn document(&self, wanted: &Wanted, headers: &HeaderMap, uri: &Uri) -> Result<Response, Problem> {
        let format = match wanted {
            Wanted::Origin => Format::Yaml,
            Wanted::Aggregate | Wanted::Cluster(_) => request::format(headers, uri)?,
        };
        let (wait, seen) = (request::wait(uri)?, request::position(headers)?);
        self.check(headers, wanted).await?;
        let mut shown = self.show(seen.as_ref()).await?;
        let gzip = request::takes_gzip(headers);
        let mut document = shown.document(wanted, format)?;
        let mut compressed = if gzip { document.gzip().await } else { None };
        let known = request::knows(headers, &compressed.unwrap_or(document).etag);
        if known && !wait.is_zero() && !shown.reset {
            shown = self.hold(wanted, format, shown, wait).await?;
            self.check(headers, wanted).await?;
            document = shown.document(wanted, format)?;
            compressed = if gzip { document.gzip().await } else { None };
        }
        Ok(self.deliver(&shown, document, compressed, format.media_type(), headers))
    }

    async fn check(&self, headers: &HeaderMap, wanted: &Wanted) -> Result<(), Problem> {
        self.mapping.access.check(headers, &wanted.wish(), &self.mapping.metrics).await
    }

    async fn show(&self, seen: Option<&Position>) -> Result<Shown, Problem> {
        self.readers.show(&self.mapping.current, &self.mapping.refresh, seen).await
    }

    fn deliver(
        &self,
        shown: &Shown,
        document: &Document,
        compressed: Option<&Document>,
        media_type: &'static str,
        asked: &HeaderMap,
    ) -> Response {
        let mut answer = written(document, compressed, media_type, asked);
        let headers = answer.headers_mut();
        shown.mark(headers);
        headers.insert(AGE, HeaderValue::from(self.age()));
        answer
    }

    /// Seconds since the slowest watch last heard from the API server, rounded down as RFC 9111 has it.
    fn age(&self) -> u64 {
        // a feed that never was heard has nothing published, so there is an age
        self.mapping.liveness.age().unwrap_or_default().as_secs()
    }

    fn ca(&self) -> Response {
        let answer = match self.mapping.ca.as_ref().map(|ca| ca.borrow().clone()) {
            Some(Some(bundle)) => {
                let mut answer = Response::new(Body::from(bundle.to_string()));
                let headers = answer.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-pem-file"));
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                Ok(answer)
            }
            Some(None) => Err(Problem::unavailable("NotLoadedYet").message("the CA has not been read yet")),
            None => Err(Problem::new(StatusCode::NOT_FOUND, "NoAuthority")
                .message("this listener's certificate comes from mounted files, whose CA is not known here")
                .remedy("name it in the configuration: tls.mapping.ca, for example cert-manager's ca.crt")),
        };
        self.counted("ca", answer)
    }
}

/// A document as it is sent, or that the reader has it.
fn written(
    document: &Document,
    compressed: Option<&Document>,
    media_type: &'static str,
    asked: &HeaderMap,
) -> Response {
    let sent = compressed.unwrap_or(document);
    let known = request::knows(asked, &sent.etag);
    let mut answer = Response::new(Body::from(if known { Bytes::new() } else { sent.body.clone() }));
    if known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = answer.headers_mut();
    if !known {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if compressed.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    headers.insert(ETAG, sent.etag.clone());
    // a cache may keep it, but must ask each time: what is late can be wrong for whoever connects
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    answer
}

fn no_such_cluster(key: &Key) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "NoSuchCluster")
        .message(format!("there is no cluster {key}: no pod of it is known and no address is kept for it"))
        .remedy("look at the label external-ip.dev/cluster of the pods, and at external-ip.dev/enabled=true of their namespace")
}

fn no_such_path(uri: &Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "NoSuchPath")
        .message(format!("there is nothing at {}", uri.path()))
        .remedy("there are /, /v1/mapping, /v1/mapping/NAMESPACE/CLUSTER, the same below /v1/watch, /v1/pods/NAMESPACE/POD, /status, /openapi.json and /ca.pem")
}

fn only_reading() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "OnlyReading")
        .message("the map can be read only: use GET or HEAD")
}

#[cfg(test)]
mod tests;
