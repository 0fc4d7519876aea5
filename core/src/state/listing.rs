//! What is held of a kind, and lists of it that come in parts.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::{Change, PodFeed};
use crate::names::Key;
use crate::objects::{Namespace, Node, Pod, Service, Slice};

/// What has come of a list that is not complete. Of an object that is held as it is shown only the place is kept, so that
/// a new list of everything is not held beside the old state.
#[derive(Debug)]
pub(super) struct Listing<K, T> {
    places: HashSet<K>,
    /// Objects that are new or have changed.
    pub(super) news: Vec<T>,
}

impl<K, T> Default for Listing<K, T> {
    fn default() -> Self {
        Self { places: HashSet::new(), news: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash, T: PartialEq> Listing<K, T> {
    /// Takes a part; `held` finds what is held at a place. Nobody else changes that before the list is complete.
    pub(super) fn take<'s>(
        &mut self,
        items: Vec<T>,
        place: impl Fn(&T) -> K,
        held: impl Fn(&K) -> Option<(&'s K, &'s T)>,
    ) where
        K: 's,
        T: 's,
    {
        for item in items {
            let key = place(&item);
            match held(&key) {
                Some((key, known)) if *known == item => self.places.insert(key.clone()),
                _ => {
                    self.news.push(item);
                    self.places.insert(key)
                }
            };
        }
    }

    /// Whether something is at a place.
    pub(super) fn shows(&self, place: &K) -> bool {
        self.places.contains(place)
    }
}

/// One of each feed.
#[derive(Debug, Default)]
pub(super) struct Listings {
    pub(super) pods: HashMap<PodFeed, Listing<Key, Pod>>,
    pub(super) services: Listing<Key, Service>,
    pub(super) slices: Listing<Key, Slice>,
    pub(super) namespaces: Listing<Arc<str>, Namespace>,
    pub(super) nodes: Listing<Arc<str>, Node>,
}

/// An object before and after a change.
pub(super) type Replaced<T> = (Option<Arc<T>>, Option<Arc<T>>);

/// Takes a message into a store; answers what was replaced by what, unequal pairs only.
pub(super) fn apply<K: Clone + Eq + Hash, T: PartialEq>(
    store: &mut HashMap<K, Arc<T>>,
    listing: &mut Listing<K, T>,
    change: Change<T>,
    place: impl Fn(&T) -> K,
) -> Vec<Replaced<T>> {
    let mut replaced = Vec::new();
    let mut put = |store: &mut HashMap<K, Arc<T>>, item: T| {
        let key = place(&item);
        if store.get(&key).is_some_and(|before| **before == item) {
            return;
        }
        let after = Arc::new(item);
        replaced.push((store.insert(key, after.clone()), Some(after)));
    };
    let list = |listing: &mut Listing<K, T>, store: &HashMap<K, Arc<T>>, items| {
        listing.take(items, &place, |k| store.get_key_value(k).map(|(k, held)| (k, &**held)));
    };
    match change {
        Change::Part(items) => list(listing, store, items),
        Change::Unlisted => *listing = Listing::default(),
        Change::Listed { items, .. } => {
            list(listing, store, items);
            let listed = std::mem::take(listing);
            let gone: Vec<K> = store.keys().filter(|k| !listed.shows(k)).cloned().collect();
            for item in listed.news {
                put(store, item);
            }
            replaced.extend(gone.into_iter().map(|key| (store.remove(&key), None)));
        }
        Change::Applied(item) => put(store, item),
        Change::Deleted(item) => {
            replaced.extend(store.remove(&place(&item)).map(|before| (Some(before), None)));
        }
        Change::Progress(_) => {}
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    type Object = (&'static str, u32);

    #[derive(Default)]
    struct Kind {
        store: HashMap<&'static str, Arc<Object>>,
        listing: Listing<&'static str, Object>,
    }

    impl Kind {
        fn take(&mut self, change: Change<Object>) -> usize {
            apply(&mut self.store, &mut self.listing, change, |(name, _)| *name).len()
        }

        fn held(&self) -> Vec<Object> {
            let mut held: Vec<Object> = self.store.values().map(|object| **object).collect();
            held.sort_unstable();
            held
        }
    }

    fn listed(items: &[Object]) -> Change<Object> {
        Change::Listed { items: items.to_vec(), version: 1 }
    }

    #[test]
    fn a_list_in_parts_replaces_everything_at_once_and_only_when_it_is_complete() {
        let mut kind = Kind::default();
        assert_eq!(kind.take(listed(&[("gone", 1), ("same", 1), ("other", 1)])), 3);
        let before = kind.held();
        assert_eq!(kind.take(Change::Part(vec![("same", 1), ("other", 2)])), 0);
        assert_eq!(kind.take(Change::Part(vec![("new", 1)])), 0);
        assert_eq!(kind.held(), before);
        assert_eq!(kind.take(listed(&[("last", 1)])), 4, "all but the same one");
        assert_eq!(kind.held(), [("last", 1), ("new", 1), ("other", 2), ("same", 1)]);
    }

    #[test]
    fn a_list_that_breaks_off_leaves_no_ghosts_and_takes_nothing_away() {
        let mut kind = Kind::default();
        kind.take(listed(&[("a", 1)]));
        kind.take(Change::Part(vec![("ghost", 1)]));
        kind.take(Change::Unlisted);
        assert_eq!(kind.held(), [("a", 1)]);
        kind.take(listed(&[("b", 1)]));
        assert_eq!(kind.held(), [("b", 1)]);
    }

    #[test]
    fn what_a_new_list_shows_unchanged_is_not_held_twice() {
        let mut kind = Kind::default();
        kind.take(listed(&[("a", 1), ("b", 1)]));
        kind.take(Change::Part(vec![("a", 1), ("b", 2)]));
        assert_eq!(kind.listing.news, [("b", 2)]);
    }
}
