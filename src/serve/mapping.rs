//! The map over HTTP.
//!
//! Bodies hold entries only: equal maps are equal bytes with an equal `ETag` on every replica. What differs per replica
//! is in headers: `Age` (seconds since the slowest watch last heard from the API server) and `Map-Position`.

mod pods;
mod request;
mod shown;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;
use external_ip_core::names::Key;
use http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::access::{self, Access, Wish};
use super::problem::Problem;
use crate::map::{Current, Document, Explainer, Format, Liveness, Refresh};
use crate::metrics::Metrics;
use crate::tls::Trusted;
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
}

struct Shared {
    mapping: Mapping,
    readers: Readers,
}

/// A document, before its format is chosen.
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

    fn wish(&self) -> Wish {
        match self {
            Self::Origin | Self::Aggregate => Wish::Aggregate,
            Self::Cluster(key) => access::cluster(&key.namespace, &key.name),
        }
    }
}

/// The routes of the mapping listener.
pub fn router(mapping: Mapping) -> Router {
    let shared = Arc::new(Shared { mapping, readers: Readers::new() });
    Router::new()
        .route(
            "/",
            get(async |State(s): State<Arc<Shared>>, request: Request| {
                s.answer(Wanted::Origin, request).await
            }),
        )
        .route(
            "/v1/mapping",
            get(async |State(s): State<Arc<Shared>>, request: Request| {
                s.answer(Wanted::Aggregate, request).await
            }),
        )
        .route(
            "/v1/mapping/{namespace}/{cluster}",
            get(
                async |State(s): State<Arc<Shared>>,
                       Path((namespace, cluster)): Path<(String, String)>,
                       request: Request| {
                    s.answer(Wanted::Cluster(Key::new(namespace, cluster)), request).await
                },
            ),
        )
        .route(
            "/v1/pods/{namespace}/{pod}",
            get(
                async |State(s): State<Arc<Shared>>,
                       Path((namespace, pod)): Path<(String, String)>,
                       request: Request| {
                    let (asked, _) = request.into_parts();
                    let answer = s.explain(Key::new(namespace, pod), &asked.headers, &asked.uri).await;
                    s.counted("pod", answer)
                },
            ),
        )
        .route("/ca.pem", get(async |State(s): State<Arc<Shared>>| s.ca()))
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
        let Mapping { access, metrics, .. } = &self.mapping;
        access.check(headers, &wanted.wish(), metrics).await?;
        let shown = self.readers.show(&self.mapping.current, &self.mapping.refresh, headers).await?;
        let documents = shown.published.documents();
        let document = match wanted {
            Wanted::Origin => documents.origin(),
            Wanted::Aggregate => documents.aggregate(format),
            Wanted::Cluster(key) => match documents.cluster(key) {
                Some(cluster) => cluster.document(format),
                None => return Err(no_such_cluster(key).header(MAP_POSITION, shown::value(&shown.position))),
            },
        };
        Ok(self.deliver(&shown, document, format.media_type(), headers))
    }

    fn deliver(
        &self,
        shown: &Shown,
        document: &Document,
        media_type: &'static str,
        asked: &HeaderMap,
    ) -> Response {
        let known = request::knows(asked, &document.etag);
        let (status, body) = if known {
            (StatusCode::NOT_MODIFIED, Bytes::new())
        } else {
            (StatusCode::OK, document.body.clone())
        };
        let mut answer = Response::new(Body::from(body));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        if !known {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        headers.insert(ETAG, document.etag.clone());
        // a cache may keep it, but must ask each time: what is late can be wrong for whoever connects
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        shown.mark(headers);
        // a feed that never was heard has nothing published, so there is an age; rounded down, as RFC 9111 has it
        let age = self.mapping.liveness.age().unwrap_or_default();
        headers.insert(AGE, HeaderValue::from(age.as_secs()));
        answer
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

fn no_such_cluster(key: &Key) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "NoSuchCluster")
        .message(format!("there is no cluster {key}: no pod of it is known and no address is kept for it"))
        .remedy("look at the label external-ip.dev/cluster of the pods, and at external-ip.dev/enabled=true of their namespace")
}

fn no_such_path(uri: &Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "NoSuchPath")
        .message(format!("there is nothing at {}", uri.path()))
        .remedy("there are /, /v1/mapping, /v1/mapping/NAMESPACE/CLUSTER, /v1/pods/NAMESPACE/POD and /ca.pem")
}

fn only_reading() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "OnlyReading")
        .message("the map can be read only: use GET or HEAD")
}

#[cfg(test)]
mod tests;
