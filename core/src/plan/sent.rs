//! Which Events were sent, and how many more may be.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::action::Event;
use crate::names::Key;

/// Events sent at once; then one more per [`EVENT_REFILL`]. Protects etcd from a thousand labelled pods in a namespace
/// that is not enabled.
const EVENT_BURST: u32 = 50;
/// Time in which one more Event may be sent.
const EVENT_REFILL: Duration = Duration::from_millis(200);
/// Events remembered as sent; beyond it memory starts over and the API server's `AlreadyExists` takes its place.
const EVENTS_KNOWN: usize = 20_000;

/// What this leader has sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    known: HashSet<String>,
    /// How many may be sent at once, and since when there are so many.
    left: Option<(u32, Duration)>,
    /// When a cluster that waits may send one more: each at its own time, or all would look again for every single one.
    turns: HashMap<Key, Duration>,
    last_turn: Duration,
}

impl Sent {
    /// Whether an Event is new and a cluster may send it now; `Err` = at this time.
    pub(super) fn may_send(&mut self, event: &Event, cluster: &Key, now: Duration) -> Result<bool, Duration> {
        let name = event.object_name();
        if self.known.contains(&name) {
            return Ok(false);
        }
        let (left, since) = self.left.unwrap_or((EVENT_BURST, now));
        let refilled = u32::try_from(now.saturating_sub(since).as_millis() / EVENT_REFILL.as_millis())
            .unwrap_or(EVENT_BURST);
        let left = left.saturating_add(refilled).min(EVENT_BURST);
        if left == 0 {
            return Err(self.turn(cluster, now));
        }
        self.left = Some((left - 1, if refilled == 0 { since } else { now }));
        if self.known.len() >= EVENTS_KNOWN {
            self.known.clear();
        }
        self.known.insert(name);
        Ok(true)
    }

    fn turn(&mut self, cluster: &Key, now: Duration) -> Duration {
        if self.last_turn <= now {
            self.turns.clear();
            self.last_turn = now;
        }
        if let Some(turn) = self.turns.get(cluster).filter(|turn| **turn > now) {
            return *turn;
        }
        self.last_turn += EVENT_REFILL;
        self.turns.insert(cluster.clone(), self.last_turn);
        self.last_turn
    }

    /// It was not sent after all.
    pub(super) fn forget(&mut self, event: &Event) {
        self.known.remove(&event.object_name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Code;

    fn event(of: u32) -> Event {
        let text = String::new;
        let name = format!("c-{of}");
        let (namespace, api_version, kind, uid) = (text(), text(), text(), text());
        Event { namespace, api_version, kind, name, uid, reason: Code::WaitingForSlot.into(), at: 0 }
    }

    #[test]
    fn clusters_that_wait_to_send_an_event_have_a_turn_each() {
        let mut sent = Sent::default();
        let clusters: Vec<Key> = (0..EVENT_BURST + 100).map(|n| Key::new("data", n.to_string())).collect();
        let mut ask = |of: u32, now| sent.may_send(&event(of), &clusters[of as usize], now);
        assert!((0..EVENT_BURST).all(|n| ask(n, Duration::ZERO) == Ok(true)));
        for round in 0..2 {
            for n in 0..100 {
                let turn = Err(EVENT_REFILL * (n + 1));
                assert_eq!(ask(EVENT_BURST + n, Duration::ZERO), turn, "round {round}");
            }
        }
        for n in 0..100 {
            assert_eq!(ask(EVENT_BURST + n, EVENT_REFILL * (n + 1)), Ok(true), "its turn");
        }
    }
}
