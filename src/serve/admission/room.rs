//! Memory for reviews that are being read. An honest one is there in a moment, so when memory is short the one that
//! has been read for longest ends: senders that dawdle can neither fill it nor keep an honest one waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Bytes for all bodies together.
#[derive(Debug)]
pub(super) struct Room {
    limit: usize,
    readers: Mutex<Readers>,
}

#[derive(Debug, Default)]
struct Readers {
    /// In order of their beginning: bytes so far, and how to end it.
    held: BTreeMap<u64, (usize, CancellationToken)>,
    next: u64,
}

/// One body's bytes; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Room>,
    number: u64,
    /// Cancelled when the bytes are needed for others.
    pub(super) ended: CancellationToken,
}

impl Room {
    /// `limit` is at least the longest single body.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, readers: Mutex::default() })
    }

    /// For a body that begins.
    pub(super) fn begin(self: &Arc<Self>) -> Share {
        let ended = CancellationToken::new();
        let mut readers = self.readers();
        let number = readers.next;
        readers.next += 1;
        readers.held.insert(number, (0, ended.clone()));
        drop(readers);
        Share { room: Arc::clone(self), number, ended }
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// So many bytes more have come.
    pub(super) fn grow(&self, bytes: usize) {
        let mut readers = self.room.readers();
        if let Some((held, _)) = readers.held.get_mut(&self.number) {
            *held += bytes;
        }
        while readers.held.values().map(|(held, _)| held).sum::<usize>() > self.room.limit {
            let Some((_, (_, oldest))) = readers.held.pop_first() else { return };
            oldest.cancel();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.readers().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_bodies_end_until_there_is_room_and_no_others() {
        let room = Room::new(100);
        let [first, second, third] = [(); 3].map(|()| room.begin());
        first.grow(40);
        second.grow(40);
        third.grow(20);
        assert!([&first, &second, &third].iter().all(|s| !s.ended.is_cancelled()), "just enough");
        third.grow(1);
        assert!(first.ended.is_cancelled() && !second.ended.is_cancelled() && !third.ended.is_cancelled());
    }

    #[test]
    fn what_is_done_gives_its_room_back() {
        let room = Room::new(100);
        let first = room.begin();
        first.grow(90);
        drop(first);
        let second = room.begin();
        second.grow(90);
        assert!(!second.ended.is_cancelled());
        assert_eq!(room.readers().held.len(), 1);
    }
}
