//! Every object the API server ever held, by resource version.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Pod,
    Service,
    Slice,
    Namespace,
    Node,
}

/// An object's value from a version on; `None` = it is gone.
type Moment = (u64, Option<Arc<Value>>);

#[derive(Debug, Default)]
pub(crate) struct History {
    objects: BTreeMap<(Kind, String), Vec<Moment>>,
}

impl History {
    pub(crate) fn record(&mut self, kind: Kind, name: &str, version: u64, object: Option<Arc<Value>>) {
        self.objects.entry((kind, name.to_owned())).or_default().push((version, object));
    }

    /// All objects of a kind as they were at a version.
    pub(crate) fn at(&self, kind: Kind, version: u64) -> impl Iterator<Item = &Arc<Value>> {
        let from = (kind, String::new());
        let moments = self.objects.range(from..).take_while(move |((k, _), _)| *k == kind);
        moments.filter_map(move |(_, moments)| {
            let seen = moments.partition_point(|(v, _)| *v <= version);
            moments[..seen].last()?.1.as_ref()
        })
    }
}
