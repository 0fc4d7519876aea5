//! How the replicas agree on one CA: whoever finds the Secret empty fills it, if it is still the version it read. The
//! one write that does not need leadership: its precondition makes it safe, and no replica can serve without it.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use external_ip_core::names;
use kube::Client;
use serde::Deserialize;
use serde_json::json;

use super::authority::{Authority, AuthorityError, read_certificates};
use super::rotation::{FORMER_CERTIFICATE, NEXT_CERTIFICATE};
use crate::client::call::{self, CallError, Patch};
use crate::constants::WRITE_TIMEOUT;

pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";
/// Each conflict means that somebody else has written, which happens once per installation.
const ATTEMPTS: usize = 5;

/// Why there is no CA.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    /// Not a CA, or an old one.
    #[error(
        "Secret {namespace}/{}: {error}; to have a new CA made, empty it: kubectl -n {namespace} patch secret {} --type=json -p='[{{\"op\":\"remove\",\"path\":\"/data\"}}]' (clients outside must then be given the new CA)",
        names::CA_SECRET,
        names::CA_SECRET
    )]
    Unusable {
        /// Its namespace.
        namespace: String,
        /// What is wrong with it.
        error: AuthorityError,
    },
    /// RBAC.
    #[error(
        "Secret {namespace}/{}: not allowed to {verb} it ({error}): apply the manifests, which ship it empty and allow to get and patch it",
        names::CA_SECRET
    )]
    Forbidden {
        /// Its namespace.
        namespace: String,
        /// What was refused.
        verb: &'static str,
        /// What the API server says.
        error: CallError,
    },
    /// Nothing can be created in a namespace that is not there.
    #[error(
        "Secret {namespace}/{}: there is no namespace '{namespace}': apply the manifests, or say with --namespace (POD_NAMESPACE) where they are installed",
        names::CA_SECRET
    )]
    NoNamespace {
        /// Which.
        namespace: String,
    },
    /// No answer, or another one than expected.
    #[error("Secret {namespace}/{}: {error}", names::CA_SECRET)]
    Call {
        /// Its namespace.
        namespace: String,
        /// What went wrong.
        error: CallError,
    },
    /// Others write it all the time.
    #[error(
        "Secret {namespace}/{}: changed by somebody else {ATTEMPTS} times in a row; will try again",
        names::CA_SECRET
    )]
    Contended {
        /// Its namespace.
        namespace: String,
    },
}

/// The Secret as it was read.
#[derive(Debug, Deserialize)]
pub(super) struct Secret {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What is known of the CA.
#[derive(Debug)]
pub(super) struct Stored {
    /// What signs, and all that is trusted.
    pub(super) authority: Authority,
    /// What it was read from; `None` where it was just written.
    pub(super) secret: Option<Secret>,
}

/// The CA in the Secret of `namespace`. Where there is none, `current` is written, or a new one: so a Secret that was
/// emptied by accident gets the CA back that clients trust. `now` is seconds since 1970.
pub(super) async fn obtain(
    client: &Client,
    namespace: &str,
    current: Option<&Authority>,
    now: i64,
) -> Result<Stored, SecretError> {
    let unusable = |error| SecretError::Unusable { namespace: namespace.to_owned(), error };
    let failed = |verb, error: CallError| {
        let namespace = namespace.to_owned();
        match error.code() {
            Some(403) => SecretError::Forbidden { namespace, verb, error },
            _ => SecretError::Call { namespace, error },
        }
    };
    let collection = format!("/api/v1/namespaces/{namespace}/secrets");
    let path = format!("{collection}/{}", names::CA_SECRET);
    for _ in 0..ATTEMPTS {
        let found = match call::whole(client, call::get(&path), WRITE_TIMEOUT).await {
            Ok(found) => Some(read(&found).map_err(|error| failed("get", error))?),
            Err(error) if error.code() == Some(404) => None,
            Err(error) => return Err(failed("get", error)),
        };
        if let Some(secret) = found.as_ref().filter(|s| !s.is_empty()) {
            let authority = secret.authority(now).map_err(unusable)?;
            return Ok(Stored { authority, secret: found });
        }
        let (certificates, key) = current_or_new(current, now).map_err(unusable)?;
        let data =
            json!({CERTIFICATE: BASE64.encode(certificates.as_bytes()), KEY: BASE64.encode(key.as_bytes())});
        let (verb, request) = if let Some(Secret { metadata, .. }) = &found {
            let body = json!({"metadata": {"resourceVersion": metadata.resource_version}, "data": data});
            ("patch", call::patch(&path, Patch::Merge, body.to_string().into_bytes()))
        } else {
            let metadata = json!({"name": names::CA_SECRET, "namespace": namespace});
            let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data});
            ("create", call::create(&collection, body.to_string().into_bytes()))
        };
        match call::whole(client, request, WRITE_TIMEOUT).await {
            Ok(_) => {
                let what = if current.is_some() { "wrote the CA back into" } else { "made a CA in" };
                tracing::info!("{what} Secret {namespace}/{}", names::CA_SECRET);
                let authority = Authority::parse(&certificates, &key, now).map_err(unusable)?;
                return Ok(Stored { authority, secret: None });
            }
            Err(error) if verb == "create" && error.code() == Some(404) => {
                return Err(SecretError::NoNamespace { namespace: namespace.to_owned() });
            }
            // somebody else was first, or made it, or took it away: look again
            Err(error) if matches!(error.code(), Some(404 | 409)) => {}
            Err(error) => return Err(failed(verb, error)),
        }
    }
    Err(SecretError::Contended { namespace: namespace.to_owned() })
}

/// Certificates and key as PEM.
fn current_or_new(current: Option<&Authority>, now: i64) -> Result<(String, String), AuthorityError> {
    let pem = |authority: &Authority| (authority.bundle().to_owned(), authority.key_pem());
    current.map_or_else(|| Ok(pem(&Authority::generate(now)?)), |current| Ok(pem(current)))
}

fn read(bytes: &[u8]) -> Result<Secret, CallError> {
    serde_json::from_slice(bytes).map_err(|e| CallError::Transport(format!("not a Secret: {e}")))
}

/// Writes `change` (a merge patch of `metadata.annotations` and `data`) to the Secret as it was read. `false`: somebody
/// else has written in between, read again.
pub(super) async fn write(
    client: &Client,
    namespace: &str,
    read: &Secret,
    mut change: serde_json::Value,
) -> Result<bool, SecretError> {
    change["metadata"]["resourceVersion"] = json!(read.metadata.resource_version);
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{}", names::CA_SECRET);
    let request = call::patch(&path, Patch::Merge, change.to_string().into_bytes());
    match call::whole(client, request, WRITE_TIMEOUT).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(false),
        Err(error) => Err(SecretError::Call { namespace: namespace.to_owned(), error }),
    }
}

impl Secret {
    fn is_empty(&self) -> bool {
        [CERTIFICATE, KEY].iter().all(|key| !self.holds(key))
    }

    pub(super) fn holds(&self, key: &str) -> bool {
        self.data.get(key).is_some_and(|value| !value.is_empty())
    }

    pub(super) fn text(&self, key: &str) -> Result<String, String> {
        let value = self.data.get(key).ok_or("it is missing")?;
        let bytes = BASE64.decode(value.as_bytes()).map_err(|e| e.to_string())?;
        String::from_utf8(bytes).map_err(|e| e.to_string())
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.get(key).map(String::as_str)
    }

    fn authority(&self, now: i64) -> Result<Authority, AuthorityError> {
        let certificates = self.text(CERTIFICATE).map_err(AuthorityError::Certificate)?;
        let key = self.text(KEY).map_err(AuthorityError::Key)?;
        // what cannot be read here is told by the rotation; whatever it is, the CA goes on signing
        let more = [NEXT_CERTIFICATE, FORMER_CERTIFICATE].into_iter();
        let more = more.filter_map(|key| read_certificates(&self.text(key).ok()?).ok()).flatten();
        Ok(Authority::parse(&certificates, &key, now)?.trusting(more.collect()))
    }
}

#[cfg(test)]
mod tests;
