//! Leafs of the self-managed CA: one per process, in memory, made again when its names change or its life is two
//! thirds over.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use external_ip_core::names;
use kube::Client;
use rcgen::{
    Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::authority::{Authority, AuthorityError, seconds, set_life};
use super::rotation::{self, Step};
use super::secret::{self, Secret};
use super::{ServedKey, Trusted, Verifiers, provider};
use crate::constants::{AUTHORITY_POLL, AUTHORITY_RETRY, BUNDLE_SETTLES, LEAF_LIFE};
use crate::metrics::{Metrics, wall_clock};

/// A leaf and its dates, seconds since 1970.
pub struct Leaf {
    /// Certificate and key.
    pub key: CertifiedKey,
    /// When it ends.
    pub not_after: i64,
    /// When the next one is due.
    pub renew_at: i64,
}

/// A leaf of `authority` for `names` (DNS names and addresses as text; what is neither is left out), with a key of its
/// own, from `now` (seconds since 1970) for [`LEAF_LIFE`], but not longer than its CA.
pub fn issue(authority: &Authority, names: &BTreeSet<String>, now: i64) -> Result<Leaf, AuthorityError> {
    let (certificate, key, not_after) = sign(authority, names, now)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // without the CA: whoever trusts it has it, and a longer handshake serves nobody
    let key = CertifiedKey::from_der(vec![certificate.der().clone()], der, &provider())
        .map_err(|e| AuthorityError::Generate(e.to_string()))?;
    Ok(Leaf { key, not_after, renew_at: now + (not_after - now) * 2 / 3 })
}

/// The same as PEM: certificate and key.
pub(super) fn issue_pem(
    authority: &Authority,
    names: &BTreeSet<String>,
    now: i64,
) -> Result<(String, String), AuthorityError> {
    let (certificate, key, _) = sign(authority, names, now)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Certificate, key, and when it ends.
fn sign(
    authority: &Authority,
    names: &BTreeSet<String>,
    now: i64,
) -> Result<(Certificate, KeyPair, i64), AuthorityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    let not_after = now.saturating_add(seconds(LEAF_LIFE)).min(authority.not_after());
    set_life(&mut params, now, not_after);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, names::CONTROLLER_NAME);
    params.subject_alt_names = names.iter().filter_map(|n| alternative_name(n)).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, authority.issuer())?;
    Ok((certificate, key, not_after))
}

/// Addresses as such; names as far as they can be in a certificate: letters, digits, `-`, `_`, `.` and a leading `*.`.
fn alternative_name(name: &str) -> Option<SanType> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(SanType::IpAddress(address));
    }
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let good = !plain.is_empty()
        && plain.len() <= 253
        && plain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        });
    let name = if good { name.to_owned().try_into().ok() } else { None };
    name.map(SanType::DnsName)
}

/// Names every leaf has: the two Services by every form a client in the cluster may use, and this machine.
pub fn service_names(namespace: &str) -> BTreeSet<String> {
    let of_service = |service: &str| {
        [
            service.to_owned(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ]
    };
    let local = [
        "localhost".to_owned(),
        IpAddr::V4(Ipv4Addr::LOCALHOST).to_string(),
        IpAddr::V6(Ipv6Addr::LOCALHOST).to_string(),
    ];
    [names::WEBHOOK_SERVICE, names::MAPPING_SERVICE].into_iter().flat_map(of_service).chain(local).collect()
}

/// The certificates of a replica that keeps its own CA. Both TLS listeners may share one.
pub struct SelfManaged {
    client: Client,
    namespace: String,
    served: Arc<ServedKey>,
    metrics: Arc<Metrics>,
    fixed: BTreeSet<String>,
    outside: watch::Sender<BTreeSet<String>>,
    authority: Mutex<Option<Arc<Authority>>>,
    trusted: watch::Sender<Option<Arc<str>>>,
    leaf: Mutex<Option<Current>>,
    verifiers: Verifiers,
    /// The next CA and since when everybody knows it.
    known: Mutex<Option<(CertificateDer<'static>, Instant)>>,
}

/// What the served leaf was made for.
struct Current {
    names: BTreeSet<String>,
    authority: Arc<Authority>,
    renew_at: i64,
}

impl SelfManaged {
    /// Certificates from the CA in the Secret of `namespace`. `fixed` are names beyond [`service_names`] that never
    /// change, for example the host of a webhook registered by URL. A new CA signs once `verifiers` know it.
    pub fn new(
        client: Client,
        namespace: &str,
        fixed: impl IntoIterator<Item = String>,
        verifiers: Verifiers,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut names = service_names(namespace);
        names.extend(fixed);
        Self {
            client,
            namespace: namespace.to_owned(),
            served: Arc::new(ServedKey::new()),
            metrics,
            fixed: names,
            outside: watch::Sender::new(BTreeSet::new()),
            authority: Mutex::new(None),
            trusted: watch::Sender::new(None),
            leaf: Mutex::new(None),
            verifiers,
            known: Mutex::new(None),
        }
    }

    /// What listeners resolve their key from.
    pub fn served(&self) -> Arc<ServedKey> {
        Arc::clone(&self.served)
    }

    /// Every name a leaf has at this moment.
    pub fn names(&self) -> BTreeSet<String> {
        self.fixed.iter().chain(&*self.outside.borrow()).cloned().collect()
    }

    /// Changes when [`names`](Self::names) do.
    pub fn names_changes(&self) -> watch::Receiver<BTreeSet<String>> {
        self.outside.subscribe()
    }

    /// Addresses and host names of the mapping Service's load balancer, from the control loop. The leaf is made again
    /// where they differ from the last ones.
    pub fn set_outside_names(&self, names: BTreeSet<String>) {
        self.outside.send_if_modified(|current| {
            let changed = *current != names;
            *current = names;
            changed
        });
    }

    /// For `/ca.pem`, the ConfigMaps and the registration.
    pub fn trusted(&self) -> Trusted {
        self.trusted.subscribe()
    }

    /// The CA in use; `None` until it is known.
    pub fn authority(&self) -> Option<Arc<Authority>> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Obtains the CA and keeps a leaf served until `shutdown`. Failures are logged when they change and tried again;
    /// what is served stays served meanwhile.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut outside = self.outside.subscribe();
        let mut last_failure = String::new();
        loop {
            let (wait, failure) = match self.renew().await {
                Ok(wait) => (wait, String::new()),
                Err(failure) => (AUTHORITY_RETRY, failure),
            };
            if failure != last_failure && !failure.is_empty() {
                tracing::error!("TLS certificate: {failure}");
                self.served.explain(failure.clone());
            }
            last_failure = failure;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.reissue_on_change(&mut outside) => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Looks at the Secret, makes a new leaf where one is due, and takes a rotation's next step. Says when to look again.
    async fn renew(&self) -> Result<Duration, String> {
        let now = seconds(wall_clock());
        let current = self.authority();
        let found = secret::obtain(&self.client, &self.namespace, current.as_deref(), now).await;
        let (authority, secret) = match (found, current) {
            (Ok(found), Some(current)) if found.authority.is(&current) => (current, found.secret),
            (Ok(found), _) => {
                let authority = Arc::new(found.authority);
                self.metrics.certificate("authority", authority.not_after());
                *self.authority.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&authority));
                self.trusted.send_replace(Some(authority.bundle().into()));
                (authority, found.secret)
            }
            // the API server away or the Secret broken: leafs of the CA in memory go on being good
            (Err(error), Some(current)) => {
                self.reissue(&current, now)?;
                return Err(error.to_string());
            }
            (Err(error), None) => return Err(error.to_string()),
        };
        self.reissue(&authority, now)?;
        match secret {
            Some(secret) => self.rotate(&secret, &authority, now).await,
            None => Ok(AUTHORITY_POLL),
        }
    }

    /// Takes the next step of a rotation where there is one. Says when to look again.
    async fn rotate(&self, secret: &Secret, authority: &Authority, now: i64) -> Result<Duration, String> {
        let failed = |error: rotation::RotationError| format!("replacing the CA: {error}");
        let step = rotation::step(secret, authority, now).map_err(failed)?;
        if let Step::Wait(until) = step {
            let until = until.and_then(|at| u64::try_from(at - now).ok()).map(Duration::from_secs);
            return Ok(until.unwrap_or(AUTHORITY_POLL).min(AUTHORITY_POLL));
        }
        if step == Step::Sign
            && let Some(wait) = self.next_is_unknown(secret, now).await?
        {
            return Ok(wait);
        }
        let Some(patch) = rotation::patch(secret, authority, step, now).map_err(failed)? else {
            return Ok(AUTHORITY_POLL);
        };
        let written = secret::write(&self.client, &self.namespace, secret, patch).await;
        if written.map_err(|e| e.to_string())? {
            tracing::warn!("{}", step.told());
        }
        Ok(Duration::ZERO)
    }

    /// How long to wait before the next CA may sign; `None` once everybody has known it for long enough.
    async fn next_is_unknown(&self, secret: &Secret, now: i64) -> Result<Option<Duration>, String> {
        let next = rotation::next(secret, now).map_err(|e| e.to_string())?;
        let lacking = self.verifiers.first_without(&self.client, next.signer()).await;
        if let Some(object) = lacking.map_err(|e| format!("who knows the next CA: {e}"))? {
            *self.known() = None;
            return Err(format!("the next CA does not sign yet: the leader has not written it to {object}"));
        }
        let mut known = self.known();
        let since = match &*known {
            Some((certificate, since)) if certificate == next.signer() => *since,
            _ => {
                let now = Instant::now();
                *known = Some((next.signer().clone(), now));
                now
            }
        };
        Ok(BUNDLE_SETTLES.checked_sub(since.elapsed()).filter(|wait| !wait.is_zero()))
    }

    fn known(&self) -> MutexGuard<'_, Option<(CertificateDer<'static>, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the names have changed, were followed by a new leaf, and need no look at the Secret; never, once
    /// the sender is gone.
    async fn reissue_on_change(&self, outside: &mut watch::Receiver<BTreeSet<String>>) {
        while outside.changed().await.is_ok() {
            let Some(authority) = self.authority() else { continue };
            if self.reissue(&authority, seconds(wall_clock())).is_err() {
                return;
            }
        }
    }

    fn reissue(&self, authority: &Arc<Authority>, now: i64) -> Result<(), String> {
        let names = self.names();
        let mut leaf = self.leaf.lock().unwrap_or_else(PoisonError::into_inner);
        let good = leaf
            .as_ref()
            .is_some_and(|l| l.names == names && l.authority.signs_as(authority) && now < l.renew_at);
        if good {
            return Ok(());
        }
        let made = issue(authority, &names, now).map_err(|e| e.to_string())?;
        let days =
            Duration::from_secs(u64::try_from(made.not_after - now).unwrap_or(0)).as_secs() / (24 * 3600);
        tracing::info!(days, names = names.len(), "serving a new certificate");
        self.metrics.certificate("leaf", made.not_after);
        self.served.set(made.key);
        *leaf = Some(Current { names, authority: Arc::clone(authority), renew_at: made.renew_at });
        Ok(())
    }
}

#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;
