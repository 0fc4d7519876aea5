//! Who may stay when a listener is full.
//!
//! A cap alone would be a gift to whoever fills it. So a new connection always gets in, and the one that is least of
//! use makes room: first those without a request, then those still in their handshake, then those with one; among
//! them, those of the address that holds the most; of these the one that has been so for longest. One address is often
//! many clients (a NAT, a node that a load balancer goes through): it is judged by, never limited.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a connection is doing. Ordered by its right to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    /// No request is under way, nor has one been complete enough to be one.
    Idle,
    /// TLS is not up.
    Handshake,
    /// At least one request is under way.
    Request,
}

/// The connections of one listener.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// In order of arrival; a number is never used again.
    held: BTreeMap<u64, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    source: IpAddr,
    doing: Doing,
    requests: usize,
    /// Since when it does what it does.
    since: Instant,
    evict: CancellationToken,
}

impl Entry {
    fn now_does(&mut self, doing: Doing) {
        if self.doing != doing {
            self.doing = doing;
            self.since = Instant::now();
        }
    }
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// Cancelled when somebody else needs the place.
    pub(super) evicted: CancellationToken,
}

impl Places {
    /// A place for a connection from `source`, before its handshake.
    pub(super) fn take(self: &Arc<Self>, source: IpAddr) -> Place {
        let evicted = CancellationToken::new();
        let entry = Entry {
            // an IPv4 client is the same one on a socket of both families
            source: source.to_canonical(),
            doing: Doing::Handshake,
            requests: 0,
            since: Instant::now(),
            evict: evicted.clone(),
        };
        let mut entries = self.entries();
        let number = entries.next;
        entries.next += 1;
        entries.held.insert(number, entry);
        drop(entries);
        Place { places: Arc::clone(self), number, evicted }
    }

    /// Ends the connection that is least of use, where there are `limit`. Those that were ended and are not gone yet do
    /// not count: they make room by themselves, and nobody else has to.
    pub(super) fn limit(&self, limit: usize) -> bool {
        let full = self.entries().held.len() >= limit;
        full && self.evict_of(|_| true)
    }

    /// Ends a handshake where there are `limit` or more: one that dawdles, as an honest client is through in
    /// milliseconds.
    pub(super) fn limit_handshakes(&self, limit: usize) {
        let handshakes = self.entries().held.values().filter(|e| e.doing == Doing::Handshake).count();
        if handshakes >= limit {
            self.evict_of(|doing| doing == Doing::Handshake);
        }
    }

    fn evict_of(&self, those: impl Fn(Doing) -> bool) -> bool {
        let mut entries = self.entries();
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for entry in entries.held.values().filter(|e| those(e.doing)) {
            *held.entry(entry.source).or_default() += 1;
        }
        let candidates = entries.held.iter().filter(|(_, e)| those(e.doing));
        let least = candidates.min_by_key(|(_, e)| (e.doing, usize::MAX - held[&e.source], e.since));
        let Some(number) = least.map(|(number, _)| *number) else { return false };
        if let Some(entry) = entries.held.remove(&number) {
            entry.evict.cancel();
        }
        true
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Bytes of requests may come.
    pub(super) fn is_up(&self) {
        self.change(|entry| entry.now_does(Doing::Idle));
    }

    /// A request has begun.
    pub(super) fn request_begins(&self) {
        self.change(|entry| {
            entry.requests += 1;
            entry.now_does(Doing::Request);
        });
    }

    /// A request has been answered, or given up.
    pub(super) fn request_ends(&self) {
        self.change(|entry| {
            entry.requests = entry.requests.saturating_sub(1);
            if entry.requests == 0 {
                entry.now_does(Doing::Idle);
            }
        });
    }

    /// Since when there has been no request; `None` while there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let entries = self.places.entries();
        entries.held.get(&self.number).filter(|e| e.doing == Doing::Idle).map(|e| e.since)
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.places.entries().held.get_mut(&self.number) {
            change(entry);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.entries().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Connections in order of arrival, a second apart: the last number of their address, and what they do.
    async fn arriving(connections: &[(u8, Doing)]) -> (Arc<Places>, Vec<Place>) {
        let (places, mut held) = (Arc::<Places>::default(), Vec::new());
        for (source, doing) in connections {
            let place = places.take(IpAddr::from([192, 0, 2, *source]));
            if *doing != Doing::Handshake {
                place.is_up();
            }
            if *doing == Doing::Request {
                place.request_begins();
            }
            held.push(place);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        (places, held)
    }

    /// In which order they are ended.
    fn order(places: &Places, held: &[Place]) -> Vec<usize> {
        let mut order = Vec::new();
        while places.limit(1) {
            order.extend(
                (0..held.len())
                    .filter(|n| held[*n].evicted.is_cancelled() && !order.contains(n))
                    .collect::<Vec<_>>(),
            );
        }
        order
    }

    #[tokio::test(start_paused = true)]
    async fn idle_ones_go_before_handshakes_and_those_before_requests_the_longest_first() {
        let (places, held) = arriving(&[
            (1, Doing::Request),
            (2, Doing::Idle),
            (3, Doing::Handshake),
            (4, Doing::Idle),
            (5, Doing::Request),
        ])
        .await;
        held[1].request_begins();
        held[1].request_ends();
        assert_eq!(order(&places, &held), [3, 1, 2, 0, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_address_that_holds_most_gives_up_first() {
        let (places, held) = arriving(&[
            (1, Doing::Request),
            (2, Doing::Request),
            (2, Doing::Request),
            (2, Doing::Request),
            (1, Doing::Request),
        ])
        .await;
        assert_eq!(order(&places, &held), [1, 0, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_handshakes_cost_a_handshake_of_who_has_most_and_no_request() {
        let (places, held) = arriving(&[
            (1, Doing::Handshake),
            (2, Doing::Handshake),
            (2, Doing::Handshake),
            (3, Doing::Idle),
        ])
        .await;
        places.limit_handshakes(4);
        assert!(held.iter().all(|p| !p.evicted.is_cancelled()));
        places.limit_handshakes(3);
        let ended: Vec<bool> = held.iter().map(|p| p.evicted.is_cancelled()).collect();
        assert_eq!(ended, [false, true, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_told_to_go_counts_no_more_though_it_is_still_there() {
        let (places, held) =
            arriving(&[(1, Doing::Handshake), (1, Doing::Handshake), (2, Doing::Idle)]).await;
        places.limit_handshakes(2);
        assert!(held[0].evicted.is_cancelled());
        assert!(!places.limit(3), "a place is about to be free");
        assert!(!held[2].evicted.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_when_the_last_of_its_requests_has_ended() {
        let (_places, held) = arriving(&[(1, Doing::Request)]).await;
        held[0].request_begins();
        held[0].request_ends();
        assert_eq!(held[0].idle_since(), None);
        held[0].request_ends();
        assert_eq!(held[0].idle_since(), Some(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_was_given_back_or_taken_away_is_nobodys() {
        let (places, mut held) = arriving(&[(1, Doing::Idle), (1, Doing::Idle)]).await;
        held.remove(0);
        assert!(places.limit(1) && held[0].evicted.is_cancelled());
        let later = places.take(IpAddr::from([192, 0, 2, 1]));
        held.clear();
        assert!(places.limit(1) && later.evicted.is_cancelled(), "a late drop takes no other place away");
        assert!(!places.limit(1));
    }
}
