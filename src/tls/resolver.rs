//! The key a listener serves now.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A listener's key. Handshakes that begin after [`set`](Self::set) see the new one; those under way and connections
/// that are open go on.
#[derive(Debug)]
pub struct ServedKey {
    key: ArcSwapOption<CertifiedKey>,
    missing: ArcSwap<String>,
}

impl Default for ServedKey {
    fn default() -> Self {
        Self::new()
    }
}

impl ServedKey {
    /// No key yet: handshakes are refused.
    pub fn new() -> Self {
        Self { key: ArcSwapOption::empty(), missing: ArcSwap::from_pointee("not loaded yet".to_owned()) }
    }

    /// Serves `key` from now on.
    pub fn set(&self, key: CertifiedKey) {
        self.key.store(Some(Arc::new(key)));
    }

    /// Says why there is no key; of no effect once there is one.
    pub fn explain(&self, reason: String) {
        self.missing.store(Arc::new(reason));
    }

    /// What is served now.
    pub fn get(&self) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }

    /// Why there is no key; `None` where there is one.
    pub fn problem(&self) -> Option<String> {
        self.key.load().is_none().then(|| self.missing.load().to_string())
    }
}

impl ResolvesServerCert for ServedKey {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get()
    }
}
