//! Certificates of the TLS listeners: leafs of our own CA, or mounted files. Either way a listener resolves its key at
//! each handshake, so a new one costs no connection.

pub mod authority;
mod bundle;
pub mod files;
pub mod handover;
pub mod leaf;
pub mod resolver;
mod rotation;
mod secret;
mod trusted;

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use tokio::sync::watch;

pub use resolver::ServedKey;
pub use trusted::Verifiers;

/// What clients of a listener shall trust, PEM, as it changes; `None` until it is known.
pub type Trusted = watch::Receiver<Option<Arc<str>>>;

/// Makes ring the process's crypto provider. Once, before anything uses TLS; a second call changes nothing.
pub fn install_provider() {
    // an error says that one is installed already, which can only be this one
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The provider by value, so that nothing here depends on [`install_provider`].
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS 1.2 and 1.3, HTTP/2 preferred over HTTP/1.1, no client certificates, the key from `served`.
///
/// # Errors
/// Only if the provider had no cipher suite of these versions.
pub fn server_config(served: Arc<ServedKey>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(served);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
pub(crate) mod testing;
