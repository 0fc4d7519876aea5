//! What a client has been shown, what an answer adds to it, and when to ask again. Pure: no clock, no network.

use std::time::Duration;

use http::header::{AGE, AUTHORIZATION, ETAG, HeaderName, IF_NONE_MATCH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use crate::map::Map;

pub(crate) const MAP_POSITION: HeaderName = HeaderName::from_static("map-position");

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// The last map's marks, sent back with each question: so no replica answers with an older one.
#[derive(Debug, Default)]
pub(crate) struct Known {
    tag: Option<HeaderValue>,
    position: Option<HeaderValue>,
}

/// A map that is in force.
#[derive(Debug)]
pub(crate) struct Heard {
    /// `None`: the one we have.
    pub(crate) map: Option<Map>,
    /// Since the server last heard from its API server.
    pub(crate) age: Duration,
}

/// Why there is no new map. The last one stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Unreachable(String),
    #[error("the server answers {status}: {message}")]
    Refused { status: StatusCode, message: String, retry_after: Option<Duration> },
    #[error("this is not a cluster's document: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl Fault {
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// As the server explains itself.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Problem {
    reason: String,
    message: String,
}

impl Known {
    /// Headers of the next question.
    pub(crate) fn headers(&self, token: Option<&HeaderValue>) -> HeaderMap {
        let marks = [(IF_NONE_MATCH, &self.tag), (MAP_POSITION, &self.position)];
        let marks = marks.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        marks.chain(token.map(|t| (AUTHORIZATION, t.clone()))).collect()
    }

    /// Learns from an answer. `Mapping-Reset` needs nothing of its own: that map and its position replace ours as any
    /// other does.
    pub(crate) fn hear(&mut self, answer: &Answer) -> Result<Heard, Fault> {
        let Answer { status, headers, body } = answer;
        let map = match *status {
            StatusCode::OK => Some(Map::parse(body)?),
            StatusCode::NOT_MODIFIED => None,
            other => Some(self.problem(other, headers, body)?),
        };
        if map.is_some() {
            self.tag = headers.get(ETAG).cloned();
        }
        if let Some(position) = headers.get(MAP_POSITION) {
            self.position = Some(position.clone());
        }
        Ok(Heard { map, age: seconds(headers, AGE).unwrap_or_default() })
    }

    /// A cluster that is gone is a map without entries: its addresses may be another's soon.
    fn problem(&mut self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<Map, Fault> {
        let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        // the position says that it was the map which was asked, not something on the way
        let gone = problem.reason == "NoSuchCluster" && headers.contains_key(MAP_POSITION);
        if status == StatusCode::NOT_FOUND && gone {
            return Ok(Map::default());
        }
        if problem.reason == "InvalidPosition" {
            // of another version: begin anew
            *self = Self::default();
        }
        let message = if problem.message.is_empty() { problem.reason } else { problem.message };
        Err(Fault::Refused { status, message, retry_after: seconds(headers, RETRY_AFTER) })
    }
}

fn seconds(headers: &HeaderMap, name: HeaderName) -> Option<Duration> {
    headers.get(name)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// When to ask again.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Between two questions where the server does not hold them.
    pub(crate) poll: Duration,
    failures: u32,
}

/// After a new map: changes come in bursts, and each answer is a whole document. What a burst's last change is late by.
const BURST: Duration = Duration::from_millis(100);
/// An answer that took this long was held by the server (`?wait=`): ask again at once.
const HELD: Duration = Duration::from_secs(1);
/// After the first failure; doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// The longest wait between attempts: what a client is late by when the controller comes back.
const LAST_RETRY: Duration = Duration::from_secs(15);

impl Pace {
    pub(crate) fn new(poll: Duration) -> Self {
        Self { poll, failures: 0 }
    }

    /// After an answer that took `took`. `chance` is between 0 and 1: clients that began together drift apart.
    pub(crate) fn heard(&mut self, heard: &Heard, took: Duration, chance: f64) -> Duration {
        self.failures = 0;
        match &heard.map {
            Some(map) if !map.is_empty() => BURST,
            None if took >= HELD => Duration::ZERO,
            _ => self.poll.mul_f64(0.75 + chance / 2.0),
        }
    }

    /// After a failure: longer each time, somewhere between a half and the whole; never before the server wants it.
    pub(crate) fn failed(&mut self, fault: &Fault, chance: f64) -> Duration {
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(10)).min(LAST_RETRY);
        self.failures += 1;
        let wanted = fault.retry_after().unwrap_or_default().min(LAST_RETRY);
        wanted + doubled.mul_f64(0.5 + chance / 2.0)
    }
}

#[cfg(test)]
mod tests;
