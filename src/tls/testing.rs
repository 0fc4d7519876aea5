//! Certificates and clients for tests.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::authority::{Authority, seconds};
use super::{ServedKey, leaf, provider};
use crate::metrics::wall_clock;

pub(crate) fn now() -> i64 {
    seconds(wall_clock())
}

pub(crate) fn authority() -> Authority {
    Authority::generate(now()).unwrap()
}

pub(crate) fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// A key for `localhost` of this CA, as a listener serves it.
pub(crate) fn served(authority: &Authority) -> Arc<ServedKey> {
    let served = ServedKey::new();
    served.set(leaf::issue(authority, &names(["localhost"]), now()).unwrap().key);
    Arc::new(served)
}

/// A client that trusts this CA and nobody else.
pub(crate) fn client(authority: &Authority, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in authority.certificates() {
        roots.add(certificate.clone()).unwrap();
    }
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    // a resumed session shows no certificate
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

pub(crate) async fn connect(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

/// The certificate the server showed.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}
