//! Certificates from mounted files, for example cert-manager's. Read again when they change; the last good pair stays.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;
use x509_parser::parse_x509_certificate;

use super::authority::seconds;
use super::{ServedKey, provider};
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
    certificate: PathBuf,
    key: PathBuf,
    served: Arc<ServedKey>,
    metrics: Arc<Metrics>,
    /// What was last tried, good or not.
    tried: Mutex<Option<Contents>>,
}

/// Both files' bytes, as one.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    /// The pair for `listener`; nothing is read yet.
    pub fn new(listener: &'static str, certificate: &Path, key: &Path, metrics: Arc<Metrics>) -> Self {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Self {
            listener,
            certificate,
            key,
            served: Arc::new(ServedKey::new()),
            metrics,
            tried: Mutex::default(),
        }
    }

    /// What the listener resolves its key from.
    pub fn served(&self) -> Arc<ServedKey> {
        Arc::clone(&self.served)
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

    /// Both files of one moment: read again where the certificate has changed while the key was read.
    async fn read(&self) -> Result<Contents, FileError> {
        let mut certificate = bytes(&self.certificate).await?;
        loop {
            let key = bytes(&self.key).await?;
            let again = bytes(&self.certificate).await?;
            if again == certificate {
                return Ok(Contents { certificate, key });
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
        let (key, not_after) = parsed?;
        self.metrics.certificate(self.listener, not_after);
        self.served.set(key);
        Ok(())
    }

    fn parse(&self, contents: &Contents, now: i64) -> Result<(CertifiedKey, i64), FileError> {
        let bad_certificate =
            |error: String| FileError::Certificate { path: self.certificate.clone(), error };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents.certificate).collect();
        let chain = chain.map_err(|e| bad_certificate(e.to_string()))?;
        let leaf = chain.first().ok_or_else(|| bad_certificate("it has no BEGIN CERTIFICATE".to_owned()))?;
        let (_, x509) = parse_x509_certificate(leaf).map_err(|e| bad_certificate(e.to_string()))?;
        let not_after = x509.validity().not_after.timestamp();
        let bad_key = |error: String| FileError::Key { path: self.key.clone(), error };
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|e| bad_key(e.to_string()))?;
        let signer = provider().key_provider.load_private_key(key).map_err(|e| bad_key(e.to_string()))?;
        let pair = CertifiedKey::new(chain, signer);
        pair.keys_match().map_err(|error| FileError::Mismatch {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            error: error.to_string(),
        })?;
        if not_after <= now {
            let days = (now - not_after) / (24 * 3600);
            return Err(FileError::Expired { path: self.certificate.clone(), days });
        }
        Ok((pair, not_after))
    }
}

async fn bytes(path: &Path) -> Result<Vec<u8>, FileError> {
    tokio::fs::read(path).await.map_err(|error| FileError::Read { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests;
