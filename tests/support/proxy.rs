//! A wire to the API server that a test can cut or freeze, for one client only.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wire {
    /// They carry bytes.
    Open,
    /// Those there are break, new ones are closed at once.
    Cut,
    /// Those there are stay open and silent; new ones carry bytes.
    Frozen,
    /// Those there and new ones stay open and silent, as behind a network that drops every packet.
    Silent,
}

/// Forwards connections as long as it lives.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// With a count of its changes: a connection made after a freeze is not frozen by it.
    wire: Arc<watch::Sender<(Wire, u64)>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Arc::new(watch::Sender::new((Wire::Open, 0)));
        let changes = Arc::clone(&wire);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if changes.borrow().0 != Wire::Cut {
                    tokio::spawn(forward(stream, target, changes.subscribe()));
                }
            }
        });
        Self { address, wire, accepting }
    }

    /// From now on.
    pub(crate) fn set(&self, wire: Wire) {
        self.wire.send_modify(|now| *now = (wire, now.1 + 1));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Wire::Cut);
    }
}

async fn forward(mut near: TcpStream, target: SocketAddr, mut wire: watch::Receiver<(Wire, u64)>) {
    let since = wire.borrow().1;
    if wire.borrow().0 == Wire::Silent {
        let _ = wire.wait_for(|(wire, _)| *wire != Wire::Silent).await;
        return;
    }
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => return,
        _ = wire.wait_for(|(wire, at)| *wire != Wire::Open && *at > since) => {}
    }
    // frozen: held open, nothing is carried, until the wire is cut
    let _ = wire.wait_for(|(wire, _)| *wire == Wire::Cut).await;
}
