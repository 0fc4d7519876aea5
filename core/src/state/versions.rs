//! How far each feed has been seen.
//!
//! What a map shows depends on the events behind it, not on bookmarks: two replicas that have seen the same events show
//! the same map, though one of them may have had a bookmark the other has not. So a map is marked with the version of
//! the last event, and whoever has seen everything up to there shows nothing older.

use std::collections::BTreeMap;

use super::{Change, PodFeed, Update};
use crate::objects::Versioned;

/// One watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feed {
    /// Of pods.
    Pods(PodFeed),
    /// Of our Services.
    Services,
    /// Of their EndpointSlices.
    Slices,
    /// Of enabled namespaces.
    Namespaces,
    /// Of nodes.
    Nodes,
}

/// How far a feed has been seen: resource versions, comparable within a kind only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Everything up to here has been seen: by events, lists and bookmarks.
    pub reached: u64,
    /// The last change. After a list its version, because a list does not show when what is missing was deleted.
    pub changed: u64,
}

/// How far each feed has been seen; a feed that never spoke is missing.
pub type Versions = BTreeMap<Feed, Seen>;

impl Seen {
    fn take(&mut self, told: Told) {
        match told {
            // lists are consistent: one that is older than what was seen is of an API server restored from a backup
            Told::List(version) => *self = Self { reached: version, changed: version },
            Told::Event(version) => {
                self.changed = self.changed.max(version);
                self.reached = self.reached.max(version);
            }
            Told::Progress(version) => self.reached = self.reached.max(version),
        }
    }
}

/// What a message says about versions.
#[derive(Debug, Clone, Copy)]
enum Told {
    List(u64),
    Event(u64),
    Progress(u64),
}

impl Told {
    fn by<T: Versioned>(change: &Change<T>) -> Option<Self> {
        match change {
            Change::Part(_) | Change::Unlisted => None,
            Change::Listed { version, .. } => Some(Self::List(*version)),
            Change::Applied(object) | Change::Deleted(object) => Some(Self::Event(object.version())),
            Change::Progress(version) => Some(Self::Progress(*version)),
        }
    }
}

impl Update {
    /// The watch it came from.
    pub fn feed(&self) -> Feed {
        match self {
            Self::Pods(feed, _) => Feed::Pods(*feed),
            Self::Services(_) => Feed::Services,
            Self::Slices(_) => Feed::Slices,
            Self::Namespaces(_) => Feed::Namespaces,
            Self::Nodes(_) => Feed::Nodes,
        }
    }

    /// Whether it is a complete list.
    pub fn is_list(&self) -> bool {
        matches!(self.told(), Some(Told::List(_)))
    }

    fn told(&self) -> Option<Told> {
        match self {
            Self::Pods(_, change) => Told::by(change),
            Self::Services(change) => Told::by(change),
            Self::Slices(change) => Told::by(change),
            Self::Namespaces(change) => Told::by(change),
            Self::Nodes(change) => Told::by(change),
        }
    }
}

/// Notes what `update` says.
pub(super) fn take(versions: &mut Versions, update: &Update) {
    if let Some(told) = update.told() {
        versions.entry(update.feed()).or_default().take(told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(told: impl IntoIterator<Item = Told>) -> Seen {
        let mut seen = Seen::default();
        for told in told {
            seen.take(told);
        }
        seen
    }

    #[test]
    fn a_bookmark_is_reached_and_changes_nothing() {
        let seen = after([Told::List(5), Told::Event(7), Told::Progress(20)]);
        assert_eq!(seen, Seen { reached: 20, changed: 7 });
        assert_eq!(after([Told::List(5), Told::Progress(4)]), Seen { reached: 5, changed: 5 });
    }

    #[test]
    fn a_list_may_hide_deletions_up_to_its_version() {
        assert_eq!(after([Told::List(5), Told::Event(7), Told::List(9)]), Seen { reached: 9, changed: 9 });
    }

    #[test]
    fn an_older_list_is_of_a_restored_server_and_the_numbers_begin_again() {
        assert_eq!(after([Told::List(50), Told::Event(70), Told::List(9)]), Seen { reached: 9, changed: 9 });
    }
}
