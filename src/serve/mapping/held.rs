//! Answers that are held until there is something to say.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::shown::Shown;
use super::{Shared, Wanted};
use crate::constants::HELD_ANSWERS;
use crate::map::Format;
use crate::serve::problem::Problem;

/// Readers whose answers are held.
pub(super) struct Held {
    places: Arc<Semaphore>,
}

impl Held {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(HELD_ANSWERS)) }
    }

    /// A place for as long as the answer is held.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Problem::unavailable("Busy")
                .message("as many readers as this replica has room for wait for a change already")
                .remedy("ask again, or without wait")
        })
    }
}

impl Shared {
    /// What there is to show once the document differs from the one `shown` has, or after `wait`, or when the process
    /// stops.
    pub(super) async fn hold(
        &self,
        wanted: &Wanted,
        format: Format,
        shown: Shown,
        wait: Duration,
    ) -> Result<Shown, Problem> {
        let _place = self.held.place()?;
        let mut changes = wanted.changes(&self.mapping.current);
        let known = shown.document(wanted, format)?.etag.clone();
        let Shown { position, published, .. } = shown;
        // who sleeps holds no map, which may be an old one by then
        drop(published);
        let differs = async {
            loop {
                changes.borrow_and_update();
                let shown = self.show(Some(&position)).await?;
                if shown.reset || shown.document(wanted, format)?.etag != known {
                    return Ok(shown);
                }
                drop(shown);
                // the sender lives as long as the listener
                let _ = changes.changed().await;
            }
        };
        tokio::select! {
            shown = differs => shown,
            () = tokio::time::sleep(wait) => self.show(Some(&position)).await,
            () = self.mapping.stop.cancelled() => self.show(Some(&position)).await,
        }
    }
}

#[cfg(test)]
mod tests;
