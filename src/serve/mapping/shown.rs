//! What a reader is shown, given what it has been shown before.

use std::sync::Arc;

use futures::future::{FutureExt, select_all};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;

use super::{Wanted, no_such_cluster};
use crate::constants::{POSITION_WAIT, POSITION_WAITERS};
use crate::map::{Current, Document, Format, Position, Published, Refresh};
use crate::serve::problem::Problem;

/// The last changes a map shows; in a request, those the reader has been shown.
pub const MAP_POSITION: HeaderName = HeaderName::from_static("map-position");
/// The reader's position is none that the API server has ever had, or has had since it was restored from a backup: this
/// map may be older than what the reader has.
pub const MAPPING_RESET: HeaderName = HeaderName::from_static("mapping-reset");

/// The published map, and what goes with it for one reader.
pub(super) struct Shown {
    pub(super) published: Arc<Published>,
    pub(super) position: Position,
    /// The reader has to begin anew.
    pub(super) reset: bool,
}

impl Shown {
    fn now(published: Arc<Published>) -> Self {
        Self { position: published.position.clone(), published, reset: false }
    }

    /// The document the reader asks for.
    pub(super) fn document(&self, wanted: &Wanted, format: Format) -> Result<&Document, Problem> {
        let documents = self.published.documents();
        match wanted {
            Wanted::Origin => Ok(documents.origin()),
            Wanted::Aggregate => Ok(documents.aggregate(format)),
            Wanted::Cluster(key) => match documents.cluster(key) {
                Some(cluster) => Ok(cluster.document(format)),
                None => Err(no_such_cluster(key).header(MAP_POSITION, value(&self.position))),
            },
        }
    }

    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(MAP_POSITION, value(&self.position));
        if self.reset {
            headers.insert(MAPPING_RESET, HeaderValue::from_static("true"));
        }
    }
}

/// Readers that have seen more than this replica wait here.
pub(super) struct Readers {
    places: Semaphore,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self { places: Semaphore::new(POSITION_WAITERS) }
    }

    /// What is published, once this replica has seen as much as the reader has.
    pub(super) async fn show(
        &self,
        current: &Current,
        refresh: &Refresh,
        seen: Option<&Position>,
    ) -> Result<Shown, Problem> {
        let Some(now) = current.load() else {
            return Err(Problem::unavailable("NotListedYet")
                .message("this replica has just started and has not seen all pods and Services yet")
                .remedy("ask again; the controller's /readyz says what it waits for"));
        };
        let Some(seen) = seen else { return Ok(Shown::now(now)) };
        let behind = || behind(&current.load().unwrap_or_else(|| Arc::clone(&now)), seen);
        let place = if now.reached.is_behind(seen) { Some(self.places.try_acquire()) } else { None };
        match place {
            None => Ok(Shown { position: now.position.keeping(seen), published: now, reset: false }),
            Some(Ok(_place)) => catch_up(current, refresh, &now, seen).await.ok_or_else(behind),
            Some(Err(_)) => Err(behind()),
        }
    }
}

/// The map once it shows what `seen` shows; the map as it is once that is known to be never; `None` after the wait.
async fn catch_up(current: &Current, refresh: &Refresh, now: &Published, seen: &Position) -> Option<Shown> {
    let unknown = now.reached.behind(seen).map(|mark| {
        let (answer, seen) = (refresh.ask(mark), seen.version(mark));
        async move {
            if Some(answer.await) >= seen {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    });
    let unknown = select_all(unknown.collect::<Vec<_>>());
    let caught_up = current.when(|p| !p.reached.is_behind(seen));
    tokio::select! {
        biased;
        published = caught_up => Some(Shown { position: published.position.keeping(seen), published, reset: false }),
        _ = unknown => Some(Shown { reset: true, ..Shown::now(current.load()?) }),
        () = tokio::time::sleep(POSITION_WAIT) => None,
    }
}

fn behind(now: &Published, seen: &Position) -> Problem {
    Problem::unavailable("Behind")
        .message(format!("you have been shown {seen}, this replica has seen {} so far", now.reached))
        .remedy("ask again, or ask another replica; without the header Map-Position you get an older map")
        .header(MAP_POSITION, value(&now.position))
}

pub(super) fn value(position: &Position) -> HeaderValue {
    // digits, letters, dots and hyphens
    HeaderValue::try_from(position.to_string()).unwrap_or(HeaderValue::from_static(""))
}
