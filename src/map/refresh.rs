use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Asks watches to find out at once how far the API server is, for readers that wait. A bookmark comes every 20 seconds
/// otherwise.
#[derive(Debug, Default)]
pub struct Refresh {
    feeds: Mutex<BTreeMap<Arc<str>, Asking>>,
}

/// The readers' side of one feed.
#[derive(Debug)]
struct Asking {
    /// Counts the questions.
    asked: watch::Sender<u64>,
    current: watch::Receiver<Current>,
}

/// Where the API server was.
#[derive(Debug, Clone, Copy, Default)]
struct Current {
    /// The last question asked before it was read.
    asked: u64,
    version: u64,
}

/// The feed's side.
#[derive(Debug)]
pub struct Questions {
    asked: watch::Receiver<u64>,
    current: watch::Sender<Current>,
    /// When the next may be taken.
    next: Instant,
}

/// Between two answers: whoever may read may ask, and each answer is a call to the API server. Short beside the seconds
/// a bookmark takes.
const PAUSE: Duration = Duration::from_millis(250);

impl Refresh {
    /// Declares a feed.
    pub fn feed(&self, mark: Arc<str>) -> Questions {
        let (asked, questions) = watch::channel(0);
        let (answers, current) = watch::channel(Current::default());
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner).insert(mark, Asking { asked, current });
        Questions { asked: questions, current: answers, next: Instant::now() }
    }

    /// Asks the feed `mark`. The answer is a resource version that the API server was at after this call; it never
    /// comes where there is no such feed or the API server is not reached.
    pub fn ask(&self, mark: &str) -> impl Future<Output = u64> + Send + use<> {
        let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let asking = feeds.get(mark).map(|feed| {
            feed.asked.send_modify(|n| *n += 1);
            (*feed.asked.borrow(), feed.current.clone())
        });
        async move {
            let answer = match asking {
                Some((question, mut current)) => {
                    current.wait_for(|c| c.asked >= question).await.ok().map(|c| c.version)
                }
                None => None,
            };
            match answer {
                Some(version) => version,
                None => std::future::pending().await,
            }
        }
    }
}

impl Questions {
    /// Of a feed nobody asks.
    pub fn none() -> Self {
        Self { asked: watch::channel(0).1, current: watch::Sender::default(), next: Instant::now() }
    }

    /// Returns once there is a question, and not at once after the last.
    pub async fn wait(&mut self) {
        sleep_until(self.next).await;
        if self.asked.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.asked.mark_changed();
    }

    /// Takes the question, if there is one.
    pub fn take(&mut self) -> Option<u64> {
        self.asked.has_changed().is_ok_and(|c| c).then(|| {
            self.next = Instant::now() + PAUSE;
            *self.asked.borrow_and_update()
        })
    }

    /// The API server is at `version`, read after `question` was taken.
    pub fn answer(&self, question: u64, version: u64) {
        self.current.send_replace(Current { asked: question, version });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn only_what_was_read_after_the_question_is_an_answer() {
        let refresh = Refresh::default();
        let mut feed = refresh.feed("p".into());
        let first = refresh.ask("p");
        let taken = feed.take().unwrap();
        let second = refresh.ask("p");
        feed.answer(taken, 7);
        assert_eq!(first.await, 7);
        assert!(timeout(SOON, second).await.is_err(), "7 may have been read before it was asked");
        let begun = Instant::now();
        feed.wait().await;
        assert!(begun.elapsed() + SOON >= PAUSE, "not at once after the last");
        let taken = feed.take().unwrap();
        let third = refresh.ask("p");
        feed.answer(taken, 8);
        assert!(timeout(SOON, third).await.is_err());
        assert!(feed.take().is_some());
        assert!(feed.take().is_none(), "taken once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_feed_that_is_not_there_never_answers() {
        assert!(timeout(SOON, Refresh::default().ask("x")).await.is_err());
        assert!(timeout(SOON, Questions::none().wait()).await.is_err());
    }
}
