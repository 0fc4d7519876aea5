use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

// tokio's clock is the monotonic one; tests may stop it
use tokio::time::Instant;

use crate::constants::STALE_AFTER;

/// When each feed last heard from the API server. Feeds are declared before anything is served: one that is declared
/// later would make a replica that was ready not ready again.
#[derive(Debug)]
pub struct Liveness {
    start: Instant,
    feeds: Mutex<Vec<Arc<Feed>>>,
}

#[derive(Debug)]
struct Feed {
    name: Arc<str>,
    /// Milliseconds after `Liveness::start`, plus one; 0 = never.
    heard: AtomicU64,
    listed: AtomicBool,
}

/// A feed's hand on the clock. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FeedPulse {
    start: Instant,
    feed: Arc<Feed>,
}

impl FeedPulse {
    /// The API server has just said something: an event, a bookmark, the answer to a list or to a renewed watch.
    /// A connection that is merely open says nothing.
    pub fn heard(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.feed.heard.store(now + 1, Ordering::Relaxed);
    }

    /// A first list is complete and part of the state. It stays so: a later list replaces the state as a whole.
    pub fn listed(&self) {
        self.heard();
        self.feed.listed.store(true, Ordering::Release);
    }

    /// The feed's name, for logs.
    pub fn name(&self) -> &str {
        &self.feed.name
    }
}

/// One feed, as seen now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedState {
    /// Its name.
    pub name: Arc<str>,
    /// Its first list is complete.
    pub listed: bool,
    /// Since it last heard from the API server; `None` = never.
    pub silent_for: Option<Duration>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self::new()
    }
}

impl Liveness {
    /// No feeds yet.
    pub fn new() -> Self {
        Self { start: Instant::now(), feeds: Mutex::default() }
    }

    /// Declares the feed `name`; asked for again, it is the same feed.
    pub fn feed(&self, name: impl Into<Arc<str>>) -> FeedPulse {
        let name = name.into();
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let known = feeds.iter().find(|f| f.name == name).map(Arc::clone);
        let feed = known.unwrap_or_else(|| {
            let feed = Arc::new(Feed { name, heard: AtomicU64::new(0), listed: AtomicBool::new(false) });
            feeds.push(Arc::clone(&feed));
            feed
        });
        FeedPulse { start: self.start, feed }
    }

    /// All feeds, in the order they were declared.
    pub fn feeds(&self) -> Vec<FeedState> {
        let now = self.start.elapsed();
        let state = |feed: &Arc<Feed>| FeedState {
            name: Arc::clone(&feed.name),
            listed: feed.listed.load(Ordering::Acquire),
            silent_for: match feed.heard.load(Ordering::Relaxed) {
                0 => None,
                heard => Some(now.saturating_sub(Duration::from_millis(heard - 1))),
            },
        };
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner).iter().map(state).collect()
    }

    /// Since the slowest feed last heard from the API server; `None` where one never has, or there is none.
    pub fn age(&self) -> Option<Duration> {
        let ages: Option<Vec<Duration>> = self.feeds().into_iter().map(|f| f.silent_for).collect();
        ages?.into_iter().max()
    }

    /// Whether every feed's first list is complete. Without feeds: no.
    pub fn listed(&self) -> bool {
        let feeds = self.feeds();
        !feeds.is_empty() && feeds.iter().all(|f| f.listed)
    }

    /// Whether what has been seen may be relied on: everything listed, nothing silent for [`STALE_AFTER`].
    pub fn is_live(&self) -> bool {
        self.listed() && self.age().is_some_and(|age| age < STALE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn age_is_that_of_the_slowest_feed() {
        let liveness = Liveness::new();
        assert_eq!((liveness.age(), liveness.listed()), (None, false), "no feed, no claim");
        let (pods, services) = (liveness.feed("pods"), liveness.feed("services"));
        pods.listed();
        assert_eq!((liveness.age(), liveness.listed()), (None, false));
        services.listed();
        assert_eq!((liveness.age(), liveness.listed()), (Some(Duration::ZERO), true));
        tokio::time::advance(Duration::from_secs(7)).await;
        pods.heard();
        assert_eq!(liveness.age(), Some(Duration::from_secs(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_feed_silent_for_30_seconds_ends_liveness_and_its_next_word_restores_it() {
        let liveness = Liveness::new();
        let (pods, services) = (liveness.feed("pods"), liveness.feed("services"));
        pods.listed();
        assert!(!liveness.is_live(), "one is not listed yet");
        services.listed();
        assert!(liveness.is_live());
        tokio::time::advance(STALE_AFTER).await;
        pods.heard();
        assert!(!liveness.is_live() && liveness.listed());
        services.heard();
        assert!(liveness.is_live());
    }

    #[test]
    fn a_name_is_one_feed() {
        let liveness = Liveness::new();
        liveness.feed("pods").listed();
        liveness.feed("pods").heard();
        assert_eq!(liveness.feeds().len(), 1);
        assert!(liveness.listed());
    }
}
