use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::constants::{REVIEWS_BURST, REVIEWS_INTERVAL};

/// So many reviews at once, then one per interval.
pub(super) struct Budget(Mutex<(u32, Instant)>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Mutex::new((REVIEWS_BURST, Instant::now())))
    }

    /// Takes one; `false` where there is none left.
    pub(super) fn take(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = &mut *state;
        let earned = since.elapsed().as_nanos() / REVIEWS_INTERVAL.as_nanos();
        if let Ok(earned @ 1..) = u32::try_from(earned.min(u128::from(REVIEWS_BURST))) {
            *left = left.saturating_add(earned).min(REVIEWS_BURST);
            // what is left of an interval counts on, unless the budget is full anyway
            *since = if *left == REVIEWS_BURST { Instant::now() } else { *since + REVIEWS_INTERVAL * earned };
        }
        let some = *left > 0;
        *left -= u32::from(some);
        some
    }
}
