//! The controller's state, read once with the caller's rights.

use std::sync::Arc;

use anyhow::{Context, Result};
use external_ip_core::names::Key;
use external_ip_core::objects::{Namespace, Node, Pod};
use external_ip_core::settings::Settings;
use external_ip_core::state::{Change, Feed, PodFeed, State, Update};
use kube::Client;
use serde::de::DeserializeOwned;

use super::configuration::object;
use super::note;
use crate::client::call::CallError;
use crate::watch::{FeedSpec, Selection, feeds, list};

/// What of the cluster is read.
pub(super) struct Reader<'a> {
    pub(super) client: &'a Client,
    /// All there is to read for who may not read everywhere.
    pub(super) namespace: &'a str,
    narrowed: bool,
}

impl<'a> Reader<'a> {
    /// Reads everywhere, or only in `namespace` where the caller may do no more.
    pub(super) fn new(client: &'a Client, namespace: &'a str) -> Self {
        Self { client, namespace, narrowed: false }
    }

    /// What the controller watches, as it is now.
    pub(super) async fn state(&mut self, settings: &Settings) -> Result<State> {
        let mut state = State::new(Arc::new(settings.clone()));
        for spec in feeds(settings) {
            state.apply(self.update(&spec).await?);
        }
        if self.narrowed {
            note(&format!(
                "only namespace {} may be read: limits of the whole installation and addresses used elsewhere are not seen",
                self.namespace
            ));
        }
        Ok(state)
    }

    async fn update(&mut self, spec: &FeedSpec) -> Result<Update> {
        let update = match spec.feed {
            Feed::Pods(from @ PodFeed::Configured(_)) => {
                Update::Pods(from, listed(self.elsewhere(spec).await?))
            }
            Feed::Pods(from) => Update::Pods(from, listed(self.list(spec).await?)),
            Feed::Services => Update::Services(listed(self.list(spec).await?)),
            Feed::Slices => Update::Slices(listed(self.list(spec).await?)),
            Feed::Namespaces => Update::Namespaces(listed(self.namespaces(spec).await?)),
            Feed::Nodes => Update::Nodes(listed(self.nodes(spec).await?)),
        };
        Ok(update)
    }

    async fn list<T: DeserializeOwned>(&mut self, spec: &FeedSpec) -> Result<Vec<T>> {
        match list(self.client, &spec.selection).await {
            Err(error) if is_forbidden(&error) => {
                self.narrowed = true;
                let path = narrowed(&spec.selection.path, self.namespace);
                let selection = Selection { path, ..spec.selection.clone() };
                list(self.client, &selection).await.with_context(|| format!("listing {}", spec.name))
            }
            found => found.with_context(|| format!("listing {}", spec.name)),
        }
    }

    /// Pods of a configured cluster; none where its namespace is not the caller's to read.
    async fn elsewhere(&self, spec: &FeedSpec) -> Result<Vec<Pod>> {
        let here = spec.selection.path == format!("/api/v1/namespaces/{}/pods", self.namespace);
        match list(self.client, &spec.selection).await {
            Err(error) if is_forbidden(&error) && !here => Ok(Vec::new()),
            found => found.with_context(|| format!("listing {}", spec.name)),
        }
    }

    async fn namespaces(&mut self, spec: &FeedSpec) -> Result<Vec<Namespace>> {
        match list(self.client, &spec.selection).await {
            Err(error) if is_forbidden(&error) => {}
            found => return found.context("listing namespaces"),
        }
        let name = self.namespace;
        match object(self.client, &format!("/api/v1/namespaces/{name}")).await {
            Ok(found) => Ok(vec![found]),
            Err(error) if error.code() == Some(403) => {
                note(&format!("Namespace {name} may not be read: it is taken to be enabled"));
                Ok(vec![Namespace { name: name.into(), version: 0, enabled: true, deleting: false }])
            }
            Err(error) => Err(error).with_context(|| format!("reading namespace {name}")),
        }
    }

    /// Nodes are in no namespace: a team mostly may not read them.
    async fn nodes(&self, spec: &FeedSpec) -> Result<Vec<Node>> {
        match list(self.client, &spec.selection).await {
            Err(error) if is_forbidden(&error) => {
                note("Nodes may not be read: addresses of exposure nodePort are not seen");
                Ok(Vec::new())
            }
            found => found.context("listing nodes"),
        }
    }

    /// One pod, whether it takes part or not; `None` where there is none.
    pub(super) async fn pod(&self, key: &Key) -> Result<Option<Pod>> {
        let Key { namespace, name } = key;
        match object(self.client, &format!("/api/v1/namespaces/{namespace}/pods/{name}")).await {
            Ok(pod) => Ok(Some(pod)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading pod {key}")),
        }
    }
}

fn listed<T>(items: Vec<T>) -> Change<T> {
    Change::Listed { items, version: 0 }
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    error.downcast_ref::<CallError>().is_some_and(|error| error.code() == Some(403))
}

/// `/api/v1/pods` within one namespace.
fn narrowed(path: &str, namespace: &str) -> String {
    match path.rsplit_once('/') {
        Some((group, plural)) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_narrowed_to_one_namespace() {
        assert_eq!(narrowed("/api/v1/pods", "data"), "/api/v1/namespaces/data/pods");
        let slices = narrowed("/apis/discovery.k8s.io/v1/endpointslices", "data");
        assert_eq!(slices, "/apis/discovery.k8s.io/v1/namespaces/data/endpointslices");
    }
}
