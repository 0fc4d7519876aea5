//! One watch of one replica: list, then events in order, as late as the history says.

use std::sync::Arc;
use std::time::Duration;

use external_ip_core::names;
use external_ip_core::state::{Change, PodFeed, Update};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::judge::Kind;
use crate::server::Server;

/// What a watch selects, in the numbering of the steps. The configuration's first cluster has `app=e`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    Namespaces,
    Services,
    Slices,
    Pods(PodFeed),
    Nodes,
}

pub(crate) const SELECTIONS: [Selection; crate::replica::FEEDS as usize] = [
    Selection::Namespaces,
    Selection::Services,
    Selection::Slices,
    Selection::Pods(PodFeed::Labelled),
    Selection::Pods(PodFeed::Stamped),
    Selection::Pods(PodFeed::Configured(0)),
    Selection::Nodes,
];

impl Selection {
    fn kind(self) -> Kind {
        match self {
            Self::Namespaces => Kind::Namespace,
            Self::Services => Kind::Service,
            Self::Slices => Kind::Slice,
            Self::Pods(_) => Kind::Pod,
            Self::Nodes => Kind::Node,
        }
    }

    fn selects(self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let has = |key: &str| labels[key].is_string();
        match self {
            Self::Nodes => true,
            Self::Namespaces => labels[names::ENABLED_LABEL] == "true",
            Self::Services | Self::Slices => labels[names::MANAGED_BY_LABEL] == names::CONTROLLER_NAME,
            Self::Pods(PodFeed::Labelled) => has(names::CLUSTER_LABEL),
            Self::Pods(PodFeed::Stamped) => has(names::POD_ID_LABEL) && !has(names::CLUSTER_LABEL),
            Self::Pods(PodFeed::Configured(_)) => {
                labels["app"] == "e" && !has(names::CLUSTER_LABEL) && !has(names::POD_ID_LABEL)
            }
        }
    }

    fn update(self, change: Change<Arc<Value>>) -> Update {
        match self {
            Self::Namespaces => Update::Namespaces(read(change)),
            Self::Services => Update::Services(read(change)),
            Self::Slices => Update::Slices(read(change)),
            Self::Pods(feed) => Update::Pods(feed, read(change)),
            Self::Nodes => Update::Nodes(read(change)),
        }
    }
}

fn read<T: DeserializeOwned>(change: Change<Arc<Value>>) -> Change<T> {
    let parse =
        |value: Arc<Value>| T::deserialize(&*value).expect("the core reads what the API server writes");
    match change {
        Change::Listed { items, version } => {
            Change::Listed { items: items.into_iter().map(parse).collect(), version }
        }
        Change::Part(items) => Change::Part(items.into_iter().map(parse).collect()),
        Change::Unlisted => Change::Unlisted,
        Change::Applied(value) => Change::Applied(parse(value)),
        Change::Deleted(value) => Change::Deleted(parse(value)),
        Change::Progress(version) => Change::Progress(version),
    }
}

pub(crate) struct Feed {
    selection: Selection,
    listed: bool,
    /// The connection was lost: the next message is a list.
    lost: bool,
    /// Events of the log that were looked at.
    at: usize,
    seen: u64,
    heard: Duration,
    last: Option<Change<Arc<Value>>>,
}

impl Feed {
    pub(crate) fn new(selection: Selection) -> Self {
        Self { selection, listed: false, lost: true, at: 0, seen: 0, heard: Duration::ZERO, last: None }
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Everything up to this version has reached the replica.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    pub(crate) fn heard(&self) -> Duration {
        self.heard
    }

    /// Up to `messages` messages that have not been delivered.
    pub(crate) fn next(&mut self, server: &Server, messages: usize) -> Vec<Update> {
        let mut updates = Vec::new();
        while updates.len() < messages {
            let Some(change) = self.message(server) else { break };
            self.last = Some(change.clone());
            updates.push(self.selection.update(change));
            self.heard = server.clock;
        }
        updates
    }

    fn message(&mut self, server: &Server) -> Option<Change<Arc<Value>>> {
        if self.lost {
            return Some(self.list(server));
        }
        while let Some(event) = server.log.get(self.at) {
            self.at += 1;
            if event.kind != self.selection.kind() {
                continue;
            }
            let passes = |object: &Option<Arc<Value>>| object.clone().filter(|o| self.selection.selects(o));
            let change = match (passes(&event.before), passes(&event.after)) {
                (_, Some(after)) => Change::Applied(after),
                // as the API server does it: the object as it last passed, with the version at which it left
                (Some(before), None) => {
                    let mut gone = (*before).clone();
                    gone["metadata"]["resourceVersion"] = event.version.to_string().into();
                    Change::Deleted(Arc::new(gone))
                }
                (None, None) => continue,
            };
            self.seen = event.version;
            return Some(change);
        }
        None
    }

    fn list(&mut self, server: &Server) -> Change<Arc<Value>> {
        (self.listed, self.lost, self.at, self.seen) = (true, false, server.log.len(), server.version());
        let items =
            server.all(self.selection.kind()).filter(|o| self.selection.selects(o)).cloned().collect();
        Change::Listed { items, version: self.seen }
    }

    /// The connection breaks; what happens until the next message is not told.
    pub(crate) fn lose(&mut self) -> bool {
        !std::mem::replace(&mut self.lost, true)
    }

    /// The last message once more.
    pub(crate) fn again(&mut self, server: &Server) -> Option<Update> {
        let last = self.last.clone()?;
        self.heard = server.clock;
        Some(self.selection.update(last))
    }

    fn is_up_to_date(&self, server: &Server) -> bool {
        let concerns =
            |object: &Option<Arc<Value>>| object.as_ref().is_some_and(|o| self.selection.selects(o));
        let mut missing = server.log[self.at..].iter().filter(|e| e.kind == self.selection.kind());
        !self.lost && !missing.any(|e| concerns(&e.before) || concerns(&e.after))
    }

    /// What the API server says when everything was told.
    pub(crate) fn bookmark(&mut self, server: &Server) -> Option<Update> {
        if !self.is_up_to_date(server) || self.seen == server.version() {
            return None;
        }
        (self.at, self.seen, self.heard) = (server.log.len(), server.version(), server.clock);
        let change = Change::Progress(self.seen);
        self.last = Some(change.clone());
        Some(self.selection.update(change))
    }

    /// Heard of, where nothing is late.
    pub(crate) fn hear(&mut self, server: &Server) {
        if self.is_up_to_date(server) {
            self.heard = server.clock;
        }
    }
}
