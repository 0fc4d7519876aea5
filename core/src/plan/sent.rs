//! Which Events were sent, and how many more may be.

use std::collections::HashSet;
use std::time::Duration;

use crate::action::Event;

/// Events sent at once; then one more per [`EVENT_REFILL`]. Protects etcd from a thousand labelled pods in a namespace
/// that is not enabled.
const EVENT_BURST: u32 = 50;
/// Time in which one more Event may be sent.
pub(super) const EVENT_REFILL: Duration = Duration::from_millis(200);
/// Events remembered as sent; beyond it memory starts over and the API server's `AlreadyExists` takes its place.
const EVENTS_KNOWN: usize = 20_000;

/// What this leader has sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    known: HashSet<String>,
    /// How many may be sent at once, and since when there are so many.
    left: Option<(u32, Duration)>,
}

impl Sent {
    /// Whether an Event is new and may be sent now; `Err` = at this time.
    pub(super) fn may_send(&mut self, event: &Event, now: Duration) -> Result<bool, Duration> {
        let name = event.object_name();
        if self.known.contains(&name) {
            return Ok(false);
        }
        let (left, since) = self.left.unwrap_or((EVENT_BURST, now));
        let refilled = u32::try_from(now.saturating_sub(since).as_millis() / EVENT_REFILL.as_millis())
            .unwrap_or(EVENT_BURST);
        let left = left.saturating_add(refilled).min(EVENT_BURST);
        if left == 0 {
            return Err(now + EVENT_REFILL);
        }
        self.left = Some((left - 1, if refilled == 0 { since } else { now }));
        if self.known.len() >= EVENTS_KNOWN {
            self.known.clear();
        }
        self.known.insert(name);
        Ok(true)
    }

    /// It was not sent after all.
    pub(super) fn forget(&mut self, event: &Event) {
        self.known.remove(&event.object_name());
    }
}
