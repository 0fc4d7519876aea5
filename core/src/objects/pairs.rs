//! Labels and annotations.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

/// A few keys with their values, sorted by key. A tree's smallest node has room for eleven of them, 0.5 kB that most
/// objects would leave empty: at 10 000 pods with their Services a quarter of the memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pairs(Vec<(Box<str>, Box<str>)>);

impl Pairs {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.place(key).ok().map(|at| &*self.0[at].1)
    }

    /// Whether there is such a key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.place(key).is_ok()
    }

    /// All of them, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one out.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.place(key).ok()?;
        Some(self.0.remove(at).1.into_string())
    }

    /// Takes out all whose keys begin with `prefix`.
    pub(super) fn take_prefixed(&mut self, prefix: &str) -> Self {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|(k, _)| k.starts_with(prefix));
        self.0 = left;
        Self(taken).tight()
    }

    /// Without the room that reading has left.
    pub(super) fn tight(mut self) -> Self {
        self.0.shrink_to_fit();
        self
    }

    fn place(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(k, _)| (**k).cmp(key))
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Pairs {
    /// Of a key that comes twice the last value counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<(Box<str>, Box<str>)> =
            pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        // stable, and the last one first
        pairs.reverse();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        pairs.dedup_by(|(later, _), (kept, _)| later == kept);
        Self(pairs)
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs: Vec<(Box<str>, Box<str>)> = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs.into_iter().collect())
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_and_of_a_key_that_comes_twice_the_last_value_counts() {
        let pairs: Pairs = serde_json::from_str(r#"{"b": "1", "a": "2", "b": "3", "c": ""}"#).unwrap();
        assert_eq!(pairs.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "3"), ("c", "")]);
        assert_eq!((pairs.get("b"), pairs.get("d")), (Some("3"), None));
        assert_eq!(pairs, Pairs::from_iter([("c", ""), ("a", "2"), ("b", "3")]));
    }

    #[test]
    fn what_is_taken_is_not_left() {
        let mut pairs = Pairs::from_iter([("a/x", "1"), ("b/y", "2"), ("a/z", "3")]);
        assert_eq!(pairs.take_prefixed("a/").keys().collect::<Vec<_>>(), ["a/x", "a/z"]);
        assert_eq!((pairs.take("b/y").as_deref(), pairs.take("b/y")), (Some("2"), None));
        assert!(pairs.is_empty());
    }
}
