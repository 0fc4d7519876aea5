//! What a Service is to the API server's webhook calls: connections go to one of the replicas that take them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::support::https::plain;

/// Forwards connections as long as it lives.
pub(crate) struct Front {
    pub(crate) port: u16,
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    /// Whether it lets anybody through.
    open: Arc<watch::Sender<bool>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Front {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let targets: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let open = Arc::new(watch::Sender::new(true));
        let (to, gate) = (Arc::clone(&targets), Arc::clone(&open));
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if *gate.borrow() {
                    // the next connection begins with the next target
                    let targets = {
                        let mut targets = to.lock().unwrap();
                        if !targets.is_empty() {
                            targets.rotate_left(1);
                        }
                        targets.clone()
                    };
                    tokio::spawn(forward(stream, targets, gate.subscribe()));
                }
            }
        });
        Self { port, targets, open, accepting }
    }

    /// Leads to the replicas (admin and admission listener) that say they are ready, as a Service does.
    pub(crate) async fn follow(self: Arc<Self>, replicas: Vec<(SocketAddr, SocketAddr)>) {
        /// A kubelet's default.
        const PROBE: Duration = Duration::from_secs(1);
        loop {
            let mut ready = Vec::new();
            for (admin, admission) in &replicas {
                if matches!(timeout(PROBE, plain(*admin, "/readyz")).await, Ok(Ok(r)) if r.status == 200) {
                    ready.push(*admission);
                }
            }
            *self.targets.lock().unwrap() = ready;
            sleep(PROBE / 4).await;
        }
    }

    /// Whether it knows where to lead.
    pub(crate) fn leads_somewhere(&self) -> bool {
        !self.targets.lock().unwrap().is_empty()
    }

    /// Cuts all connections, or takes new ones again.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set_open(false);
    }
}

async fn forward(mut near: TcpStream, targets: Vec<SocketAddr>, mut open: watch::Receiver<bool>) {
    for target in targets {
        if let Ok(mut far) = TcpStream::connect(target).await {
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = open.wait_for(|open| !open) => {}
            }
            return;
        }
    }
}
