use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

use super::Unreachable;
use crate::constants::{ACCESS_CACHE, ACCESS_CACHE_SIZE, ACCESS_OUTAGE, REVIEW_RETRY};

type Answer<V> = Result<V, Unreachable>;
/// An answer and when it came.
type Answered<V> = (Answer<V>, Instant);

/// Answers of the API server, for a while. Any number of readers with one question make one review; while the API
/// server cannot be asked, the last answer goes on counting for [`ACCESS_OUTAGE`].
pub(super) struct Cache<K, V: Clone> {
    entries: Mutex<HashMap<K, Entry<V>>>,
    /// Whether an answer lets somebody in: those are kept for [`ACCESS_OUTAGE`], whatever else is asked meanwhile.
    admits: fn(&V) -> bool,
}

struct Entry<V: Clone> {
    answer: Shared<BoxFuture<'static, Answered<V>>>,
    /// When the question was asked: an answer is never counted as younger than it is.
    asked: Instant,
    /// The last answer there was before, and when it was asked for.
    before: Option<(V, Instant)>,
}

impl<V: Clone> Entry<V> {
    fn is_fresh(&self, now: Instant) -> bool {
        match self.answer.peek() {
            // from its end: it may have taken as long as a timeout
            Some((Err(_), failed)) => now.duration_since(*failed) < REVIEW_RETRY,
            // not answered yet: the review has its own timeout, which is shorter
            None | Some((Ok(_), _)) => now.duration_since(self.asked) < ACCESS_CACHE,
        }
    }

    /// What is known at `now`, apart from what is being asked.
    fn last(&self, now: Instant) -> Option<(V, Instant)> {
        let last = match self.answer.peek() {
            Some((Ok(value), _)) => Some((value.clone(), self.asked)),
            _ => self.before.clone(),
        };
        last.filter(|(_, asked)| now.duration_since(*asked) < ACCESS_OUTAGE)
    }
}

impl<K: Clone + Eq + Hash, V: Clone + Send + Sync + 'static> Cache<K, V> {
    pub(super) fn new(admits: fn(&V) -> bool) -> Self {
        Self { entries: Mutex::new(HashMap::new()), admits }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The answer for `key`: a fresh one, else the one `ask` brings, else the last one. `ask` is told whether the key
    /// was let in before; where it begins nothing, nothing is kept.
    pub(super) async fn get(
        &self,
        key: K,
        ask: impl FnOnce(bool) -> Answer<BoxFuture<'static, Answer<V>>>,
    ) -> Answer<V> {
        let (answer, before) = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let known = entries.get(&key);
            let before = known.and_then(|e| e.last(now));
            let answer = if let Some(entry) = known.filter(|e| e.is_fresh(now)) {
                entry.answer.clone()
            } else {
                let known = before.as_ref().is_some_and(|(value, _)| (self.admits)(value));
                let asking = match (ask(known), &before) {
                    (Ok(asking), _) => asking,
                    (Err(_), Some((value, _))) => return Ok(value.clone()),
                    (Err(error), None) => return Err(error),
                };
                let answer = asking.map(|answer| (answer, Instant::now())).boxed().shared();
                self.make_room(&mut entries, now);
                let entry = Entry { answer: answer.clone(), asked: now, before: before.clone() };
                entries.insert(key, entry);
                answer
            };
            (answer, before)
        };
        match (answer.await.0, before) {
            (Err(error), Some((value, asked))) => {
                tracing::debug!(%error, age = ?asked.elapsed(), "access decided by the last answer");
                Ok(value)
            }
            (answer, _) => answer,
        }
    }

    /// Keeps the size bounded: what is of no use goes first, then the oldest refusal, then the oldest.
    fn make_room(&self, entries: &mut HashMap<K, Entry<V>>, now: Instant) {
        if entries.len() < ACCESS_CACHE_SIZE {
            return;
        }
        let admitted = |e: &Entry<V>| e.last(now).is_some_and(|(value, _)| (self.admits)(&value));
        let recent = |e: &Entry<V>| now.duration_since(e.asked) < ACCESS_CACHE + Duration::from_secs(1);
        entries.retain(|_, e| recent(e) || admitted(e));
        if entries.len() >= ACCESS_CACHE_SIZE {
            let first =
                entries.iter().min_by_key(|(_, e)| (admitted(e), e.asked)).map(|(key, _)| key.clone());
            first.and_then(|key| entries.remove(&key));
        }
    }
}
