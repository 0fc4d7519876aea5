//! A leaf for mapping servers that run elsewhere and hold no CA: the leader makes it, a Secret carries it, and they mount
//! that. So a server that clients outside connect to can sign nothing and read nothing of the API server's but the map.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use external_ip_core::names;
use kube::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use x509_parser::parse_x509_certificate;

use super::authority::{Authority, AuthorityError, seconds};
use super::leaf;
use crate::client::call::{self, CallError, Patch};
use crate::constants::{LEAF_LIFE, WRITE_TIMEOUT};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// What the leaf was made for, so that nobody has to take it apart to see whether it still is right.
const MADE_FOR: &str = "made-for";

/// Why there is no leaf in the Secret.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The API server says no, or nothing.
    #[error(
        "Secret {namespace}/{}: {error}: overlay `split` ships it empty, with the right to get and patch it",
        names::MAPPING_TLS_SECRET
    )]
    Call {
        /// Its namespace.
        namespace: String,
        /// What went wrong.
        error: CallError,
    },
    /// No certificate could be made.
    #[error(transparent)]
    Issue(#[from] AuthorityError),
}

#[derive(Deserialize)]
struct Secret {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

impl Secret {
    fn text(&self, key: &str) -> Option<String> {
        String::from_utf8(BASE64.decode(self.data.get(key)?.as_bytes()).ok()?).ok()
    }

    /// Whether the leaf in it is of `authority`, for `names`, and has a third of its life before it.
    fn is_good(&self, authority: &Authority, names: &BTreeSet<String>, now: i64) -> bool {
        let good = || {
            let (certificate, key) = (self.text(CERTIFICATE)?, self.text(KEY)?);
            let marked = self.text(MADE_FOR)? == made_for(authority, names, &certificate, &key);
            let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
            let (_, x509) = parse_x509_certificate(&der).ok()?;
            Some(marked && x509.validity().not_after.timestamp() > now + seconds(LEAF_LIFE) / 3)
        };
        good().unwrap_or(false)
    }
}

/// Sees to it that the Secret in `namespace` holds a good leaf of `authority` for `names`; `true` where one was written.
/// Only to the version that was read: somebody else's write is looked at the next time. `now` is seconds since 1970.
pub async fn hand_over(
    client: &Client,
    namespace: &str,
    authority: &Authority,
    names: &BTreeSet<String>,
    now: i64,
) -> Result<bool, HandoverError> {
    let failed = |error| HandoverError::Call { namespace: namespace.to_owned(), error };
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{}", names::MAPPING_TLS_SECRET);
    let found = call::whole(client, call::get(&path), WRITE_TIMEOUT).await.map_err(failed)?;
    let found: Secret = serde_json::from_slice(&found)
        .map_err(|e| failed(CallError::Transport(format!("not a Secret: {e}"))))?;
    if found.is_good(authority, names, now) {
        return Ok(false);
    }
    let (certificate, key) = leaf::issue_pem(authority, names, now)?;
    let made_for = made_for(authority, names, &certificate, &key);
    let data: BTreeMap<_, _> = [(CERTIFICATE, certificate), (KEY, key), (MADE_FOR, made_for)]
        .map(|(name, text)| (name, BASE64.encode(text.as_bytes())))
        .into();
    let body = json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "data": data});
    match call::whole(client, call::patch(&path, Patch::Merge, body.to_string().into()), WRITE_TIMEOUT).await
    {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(409) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn made_for(authority: &Authority, names: &BTreeSet<String>, certificate: &str, key: &str) -> String {
    let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let text =
        [authority.issuer().key().public_key_raw(), names.as_bytes(), certificate.as_bytes(), key.as_bytes()];
    names::short_hash(&text.join(&0), 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::Fake;

    const NOW: i64 = 1_800_000_000;

    /// Hands over where the Secret holds `data`; the result and the data written, if any.
    async fn offered(
        data: serde_json::Value,
        authority: &Authority,
        names: &BTreeSet<String>,
        now: i64,
    ) -> (bool, serde_json::Value) {
        let (client, mut server) = Fake::new();
        let answers = async {
            server.next().await.ok(&json!({"metadata": {"resourceVersion": "7"}, "data": data}));
            let write = server.next().await;
            assert_eq!(write.body["metadata"]["resourceVersion"], "7");
            let data = write.body["data"].clone();
            write.ok(&json!({}));
            data
        };
        let work = hand_over(&client, "home", authority, names, now);
        tokio::pin!(work, answers);
        let data = tokio::select! {
            written = &mut work => return (written.unwrap(), serde_json::Value::Null),
            data = &mut answers => data,
        };
        (work.await.unwrap(), data)
    }

    #[tokio::test]
    async fn a_leaf_is_made_for_an_empty_secret_and_again_when_it_is_not_right_any_more() {
        let (authority, other) = (Authority::generate(NOW).unwrap(), Authority::generate(NOW).unwrap());
        let names = BTreeSet::from(["map.example.com".to_owned()]);
        let more = BTreeSet::from(["map.example.com".to_owned(), "203.0.113.9".to_owned()]);
        let (written, data) = offered(json!({}), &authority, &names, NOW).await;
        assert!(written);
        let certificate = BASE64.decode(data["tls.crt"].as_str().unwrap().as_bytes()).unwrap();
        let der = CertificateDer::from_pem_slice(&certificate).unwrap();
        let (_, x509) = parse_x509_certificate(&der).unwrap();
        assert!(!x509.is_ca());
        assert_eq!(x509.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);

        assert!(!offered(data.clone(), &authority, &names, NOW).await.0, "good");
        assert!(!offered(data.clone(), &authority, &names, NOW + 59 * 86400).await.0, "still good");
        assert!(offered(data.clone(), &authority, &names, NOW + 61 * 86400).await.0, "old");
        assert!(offered(data.clone(), &authority, &more, NOW).await.0, "another name");
        assert!(offered(data.clone(), &other, &names, NOW).await.0, "another CA");
        for key in [CERTIFICATE, KEY] {
            let mut edited = data.clone();
            edited[key] = json!(BASE64.encode(b"edited"));
            assert!(offered(edited, &authority, &names, NOW).await.0, "edited {key}");
        }
    }
}
