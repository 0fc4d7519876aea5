//! The paths of the mapping listener, and who answers at each.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use external_ip_core::names::Key;

use super::{Shared, Wanted};

type Names = Path<(String, String)>;
type Here = State<Arc<Shared>>;

/// All of them.
pub(super) fn all() -> [(&'static str, MethodRouter<Arc<Shared>>); 9] {
    [
        ("/", get(async |State(s): Here, asked: Request| s.answer(Wanted::Origin, asked).await)),
        ("/v1/mapping", get(async |State(s): Here, asked: Request| s.answer(Wanted::Aggregate, asked).await)),
        (
            "/v1/mapping/{namespace}/{cluster}",
            get(async |State(s): Here, names: Names, asked: Request| s.answer(cluster(names), asked).await),
        ),
        ("/v1/watch", get(async |State(s): Here, asked: Request| s.stream(Wanted::Aggregate, asked).await)),
        (
            "/v1/watch/{namespace}/{cluster}",
            get(async |State(s): Here, names: Names, asked: Request| s.stream(cluster(names), asked).await),
        ),
        (
            "/v1/pods/{namespace}/{pod}",
            get(async |State(s): Here, names: Names, asked: Request| s.pod(key(names), asked).await),
        ),
        ("/openapi.json", get(async |State(s): Here, asked: Request| s.description(asked).await)),
        ("/status", get(async |State(s): Here, asked: Request| s.page(asked).await)),
        ("/ca.pem", get(async |State(s): Here| -> Response { s.ca() })),
    ]
}

fn cluster(names: Names) -> Wanted {
    Wanted::Cluster(key(names))
}

fn key(Path((namespace, name)): Names) -> Key {
    Key::new(namespace, name)
}
