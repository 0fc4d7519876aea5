//! What the tests on a real API server share: the product as a child process, requests to the API server and verified
//! HTTPS requests to the product.

#![allow(dead_code)] // each test binary uses a part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failure here is a failed test

pub(crate) mod api;
pub(crate) mod dns;
pub(crate) mod https;
pub(crate) mod install;
pub(crate) mod product;
pub(crate) mod proxy;
pub(crate) mod served;

use std::future::Future;
use std::time::{Duration, Instant};

/// Long enough for a machine whose cores are shared; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `look` finds something. Panics after [`PATIENCE`] with what it said last.
pub(crate) async fn eventually<T, F>(what: &str, look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    within(PATIENCE, what, look).await
}

/// As [`eventually`], with a limit of its own.
pub(crate) async fn within<T, F>(limit: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + limit;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(found) if Instant::now() > end => panic!("waited {limit:?} for: {what}\nlast seen: {found}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
