//! The calls that make a ConfigMap what it shall be.

use std::sync::Arc;

use external_ip_core::names::Key;
use http::Request;
use kube::client::Body;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::ConfigMaps;
use super::documents::Document;
use super::held::{Held, path};
use crate::client::call::{self, CallError, Patch};
use crate::constants::WRITE_TIMEOUT;

/// Why a ConfigMap is not what it should be.
#[derive(Debug)]
pub(super) enum Trouble {
    NotLeading,
    Foreign,
    Call(CallError),
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// One write: what is wanted, and what is there.
pub(super) struct Write {
    pub(super) key: Key,
    pub(super) wanted: Option<Arc<Document>>,
    pub(super) held: Option<Held>,
}

impl ConfigMaps {
    /// Carries out one write and counts it.
    pub(super) async fn carry_out(&self, write: Write) -> (Write, Result<Option<Held>, Trouble>) {
        let (kind, result) = match (&write.wanted, &write.held) {
            (Some(wanted), held) => {
                ("apply_config_map", self.apply(&write.key, wanted, held.as_ref()).await.map(Some))
            }
            (None, Some(held)) => ("delete_config_map", self.delete(held).await.map(|()| None)),
            (None, None) => ("none", Ok(None)),
        };
        let outcome = match &result {
            Ok(_) => "done",
            Err(Trouble::NotLeading) => "not_leading",
            Err(Trouble::Foreign) => "name_taken",
            Err(Trouble::Call(error)) if matches!(error.code(), Some(404 | 409)) => "conflict",
            Err(Trouble::Call(error)) if error.is_transient() => "unreachable",
            Err(Trouble::Call(_)) => "refused",
        };
        self.metrics.write(kind, outcome);
        (write, result)
    }

    async fn apply(&self, key: &Key, wanted: &Document, held: Option<&Held>) -> Result<Held, Trouble> {
        match held {
            Some(held) if held.is_of(&self.installation) => self.update(wanted, held).await,
            Some(_) => Err(Trouble::Foreign),
            None => {
                let body = wanted.manifest(key, &self.installation).to_string();
                match self.send(call::create(&path(&key.namespace, ""), body.into())).await {
                    Err(Trouble::Call(CallError::Status(s))) if s.reason == "AlreadyExists" => {
                        let found: Held = self.send(call::get(&path(&key.namespace, &key.name))).await?;
                        match found.is_of(&self.installation) {
                            true if wanted.is_met_by(&found) => Ok(found),
                            true => self.update(wanted, &found).await,
                            false => Err(Trouble::Foreign),
                        }
                    }
                    result => result,
                }
            }
        }
    }

    async fn update(&self, wanted: &Document, held: &Held) -> Result<Held, Trouble> {
        let body = wanted.patch(held, &self.installation).to_string();
        let path = path(&held.key.namespace, &held.key.name);
        self.send(call::patch(&path, Patch::Merge, body.into())).await
    }

    async fn delete(&self, held: &Held) -> Result<(), Trouble> {
        let options = call::preconditions(&held.uid, held.version);
        let request = call::delete(&path(&held.key.namespace, &held.key.name), options);
        match self.send::<IgnoredAny>(request).await {
            Err(Trouble::Call(error)) if error.code() == Some(404) => Ok(()),
            result => result.map(|_| ()),
        }
    }

    async fn send<T: DeserializeOwned>(&self, request: Request<Body>) -> Result<T, Trouble> {
        if !self.leadership.is_leading_now() {
            return Err(Trouble::NotLeading);
        }
        let bytes = call::whole(&self.client, request, WRITE_TIMEOUT).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| CallError::Transport(format!("the answer cannot be read: {error}")).into())
    }
}
