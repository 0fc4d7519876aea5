//! Certificates from mounted files, for example cert-manager's. Read again when they change; the last good ones stay.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use external_ip_core::settings::CertificateFiles;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::parse_x509_certificate;

use super::authority::{certificate_pem, read_certificates, seconds};
use super::{ServedKey, Trusted, provider};
use crate::constants::FILES_POLL;
use crate::metrics::{Metrics, wall_clock};

/// Why mounted files cannot be used. Each says which file and what belongs there.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not there, or not for us.
    #[error("{path}: {error}: mount the certificate's Secret there, readable for the process", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Not a chain.
    #[error("{path}: no readable certificate ({error}): it shall hold the PEM chain, leaf first", path = path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// Not a key.
    #[error("{path}: no readable private key ({error}): it shall hold the leaf's key as PEM (PKCS#8, SEC 1 or PKCS#1), without a password", path = path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// A pair that is none.
    #[error("{key} does not belong to the first certificate of {certificate} ({error}): both shall come from one issue, leaf first", key = key.display(), certificate = certificate.display())]
    Mismatch {
        /// Certificate file.
        certificate: PathBuf,
        /// Key file.
        key: PathBuf,
        /// Why.
        error: String,
    },
    /// No CA.
    #[error("{path}: no readable CA certificate ({error}): it shall hold what clients trust, as PEM; leave ca out where the issuer has none to give", path = path.display())]
    Authority {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// Whoever trusted this CA could not connect.
    #[error("{certificate} is not issued by a CA of {ca}: clients that trust the one would refuse the other; mount both from one Secret, or put the issuer's CA there", ca = ca.display(), certificate = certificate.display())]
    Unrelated {
        /// CA file.
        ca: PathBuf,
        /// Certificate file.
        certificate: PathBuf,
    },
    /// Too old.
    #[error("{path}: the certificate expired {days} days ago: have it renewed (cert-manager: look at the Certificate's events), or leave the files out to use the controller's own CA", path = path.display())]
    Expired {
        /// Which.
        path: PathBuf,
        /// Since when.
        days: i64,
    },
}

/// A listener's mounted certificate.
pub struct Files {
    listener: &'static str,
    paths: CertificateFiles,
    served: Arc<ServedKey>,
    trusted: watch::Sender<Option<Arc<str>>>,
    metrics: Arc<Metrics>,
    /// What was last tried, good or not.
    tried: Mutex<Option<Contents>>,
}

/// All files' bytes, as one.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
}

/// What good files mean.
struct Loaded {
    pair: CertifiedKey,
    not_after: i64,
    /// PEM.
    trusted: Option<String>,
}

impl Files {
    /// Those for `listener`; nothing is read yet.
    pub fn new(listener: &'static str, paths: CertificateFiles, metrics: Arc<Metrics>) -> Self {
        let (served, trusted) = (Arc::new(ServedKey::new()), watch::Sender::new(None));
        Self { listener, paths, served, trusted, metrics, tried: Mutex::default() }
    }

    /// What the listener resolves its key from.
    pub fn served(&self) -> Arc<ServedKey> {
        Arc::clone(&self.served)
    }

    /// The CA; `None` where no file is named for it.
    pub fn trusted(&self) -> Option<Trusted> {
        self.paths.ca.as_ref().map(|_| self.trusted.subscribe())
    }

    /// Reads the files for the first time. An error here should end the process: nothing has been served yet, and a
    /// person or a probe is looking.
    pub async fn load(&self) -> Result<(), FileError> {
        let contents = self.read().await?;
        self.serve(contents)
    }

    /// Follows the files until `shutdown`. By looking every few seconds and not by inotify: kubelets swap a link
    /// (`..data`) two directories up, so that no event ever reaches the file; events need a watch per level, are lost
    /// when a queue is full and do not exist on some file systems, and a look must follow them in any case.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut last_failure = String::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(FILES_POLL) => {}
            }
            let failure = match self.read().await {
                // a file that could not be read for a moment and is what it was
                Ok(contents) if self.was_tried(&contents) => {
                    last_failure.clear();
                    continue;
                }
                Ok(contents) => self.serve(contents).err(),
                Err(error) => Some(error),
            };
            let failure = failure.map(|e| e.to_string()).unwrap_or_default();
            if failure.is_empty() {
                tracing::info!(listener = self.listener, "serving a new certificate");
            } else if failure != last_failure {
                tracing::error!(listener = self.listener, "still serving the former certificate: {failure}");
                self.metrics.reload_failed(self.listener);
            }
            last_failure = failure;
        }
    }

    /// All files of one moment: read again where the certificate has changed while the others were read.
    async fn read(&self) -> Result<Contents, FileError> {
        let paths = &self.paths;
        let mut certificate = bytes(&paths.certificate).await?;
        loop {
            let key = bytes(&paths.key).await?;
            let ca = match &paths.ca {
                Some(path) => Some(bytes(path).await?),
                None => None,
            };
            let again = bytes(&paths.certificate).await?;
            if again == certificate {
                return Ok(Contents { certificate, key, ca });
            }
            certificate = again;
        }
    }

    fn was_tried(&self, contents: &Contents) -> bool {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(contents)
    }

    fn serve(&self, contents: Contents) -> Result<(), FileError> {
        let parsed = self.parse(&contents, seconds(wall_clock()));
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = Some(contents);
        let Loaded { pair, not_after, trusted } = parsed?;
        self.metrics.certificate(self.listener, not_after);
        // whoever looks for the CA of what is served finds it
        if let Some(trusted) = trusted {
            self.trusted.send_if_modified(|known| {
                let changed = known.as_deref() != Some(&*trusted);
                *known = Some(trusted.into());
                changed
            });
        }
        self.served.set(pair);
        Ok(())
    }

    fn parse(&self, contents: &Contents, now: i64) -> Result<Loaded, FileError> {
        let paths = &self.paths;
        let bad_certificate =
            |error: String| FileError::Certificate { path: paths.certificate.clone(), error };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents.certificate).collect();
        let chain = chain.map_err(|e| bad_certificate(e.to_string()))?;
        let leaf = chain.first().ok_or_else(|| bad_certificate("it has no BEGIN CERTIFICATE".to_owned()))?;
        let (_, x509) = parse_x509_certificate(leaf).map_err(|e| bad_certificate(e.to_string()))?;
        let not_after = x509.validity().not_after.timestamp();
        let bad_key = |error: String| FileError::Key { path: paths.key.clone(), error };
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|e| bad_key(e.to_string()))?;
        let signer = provider().key_provider.load_private_key(key).map_err(|e| bad_key(e.to_string()))?;
        let pair = CertifiedKey::new(chain, signer);
        pair.keys_match().map_err(|error| FileError::Mismatch {
            certificate: paths.certificate.clone(),
            key: paths.key.clone(),
            error: error.to_string(),
        })?;
        if not_after <= now {
            let days = (now - not_after) / (24 * 3600);
            return Err(FileError::Expired { path: paths.certificate.clone(), days });
        }
        let trusted = match (&paths.ca, &contents.ca) {
            (Some(path), Some(bytes)) => Some(self.authority(path, bytes, &pair, now)?),
            _ => None,
        };
        Ok(Loaded { pair, not_after, trusted })
    }

    /// The certificates of the CA file and nothing else of it, as PEM.
    fn authority(
        &self,
        path: &Path,
        bytes: &[u8],
        pair: &CertifiedKey,
        now: i64,
    ) -> Result<String, FileError> {
        let unreadable = |error: String| FileError::Authority { path: path.to_owned(), error };
        let text = std::str::from_utf8(bytes).map_err(|e| unreadable(e.to_string()))?;
        let certificates = read_certificates(text).map_err(unreadable)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|e| unreadable(e.to_string()))?;
        }
        if is_unrelated(pair, &roots, now) {
            let certificate = self.paths.certificate.clone();
            return Err(FileError::Unrelated { ca: path.to_owned(), certificate });
        }
        Ok(certificates.iter().map(|der| certificate_pem(der)).collect())
    }
}

/// Whether nobody who trusts `roots` can accept the pair. Other faults (a use that is not allowed, a path too long) are
/// for clients to judge, which differ in that.
fn is_unrelated(pair: &CertifiedKey, roots: &RootCertStore, now: i64) -> bool {
    let Some((leaf, intermediates)) = pair.cert.split_first() else { return true };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
    let algorithms = provider().signature_verification_algorithms.all;
    let verified = ParsedCertificate::try_from(leaf).and_then(|leaf| {
        verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, now, algorithms)
    });
    matches!(
        verified,
        Err(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature
        ))
    )
}

async fn bytes(path: &Path) -> Result<Vec<u8>, FileError> {
    tokio::fs::read(path).await.map_err(|error| FileError::Read { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests;
