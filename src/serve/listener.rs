//! A TCP listener with limits: TLS or plain, HTTP/1.1 and HTTP/2, a bounded number of connections, and an end to all
//! of them when the process is asked to stop.

mod answers;
mod connection;
mod places;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::constants;
use crate::metrics::Metrics;
use connection::Connection;
use places::Places;

/// Length of the kernel's queue of connections nobody has accepted yet; it holds a burst while the loop is busy.
const BACKLOG: i32 = 1024;

/// What a listener grants. The defaults are the process's constants; tests shrink them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; one more ends another, see [`places`].
    pub connections: usize,
    /// Handshakes at once; one more ends another.
    pub handshakes: usize,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For the headers of an HTTP/1.1 request, and for its beginning.
    pub headers: Duration,
    /// For an HTTP/2 connection without a request.
    pub idle: Duration,
    /// For a client to take the next piece of its answer.
    pub stalled: Duration,
    /// For the end of a connection that is closed for being idle.
    pub close: Duration,
    /// For open requests once the process stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: constants::CONNECTIONS,
            handshakes: constants::HANDSHAKES,
            handshake: constants::HANDSHAKE_TIMEOUT,
            headers: constants::HEADER_TIMEOUT,
            idle: constants::IDLE_TIMEOUT,
            stalled: constants::STALLED_PEER,
            close: constants::CLOSE_TIMEOUT,
            drain: constants::DRAIN,
        }
    }
}

impl Limits {
    /// For clients that stay, waiting for changes.
    pub fn of_readers() -> Self {
        Self {
            connections: constants::MAPPING_CONNECTIONS,
            handshakes: constants::MAPPING_HANDSHAKES,
            ..Self::default()
        }
    }
}

/// A listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{listener} listener: cannot listen on {address}: {error}{}", remedy(.error))]
pub struct BindError {
    /// Which.
    pub listener: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub error: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has the port: stop it, or choose another one with --listen-*"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose a higher one",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has the address",
        _ => "",
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    socket: std::net::TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
}

impl Listener {
    /// Listens on `address` in plain text; connections wait in the kernel until [`serve`](Self::serve). `[::]` takes
    /// both IP families; where IPv6 is off, it means `0.0.0.0`.
    pub fn bind(name: &'static str, address: SocketAddr) -> Result<Self, BindError> {
        let bound = bind(address).or_else(|error| {
            let any_v6 = address.is_ipv6() && address.ip().is_unspecified();
            if any_v6 && no_ipv6(&error) {
                bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
            } else {
                Err(error)
            }
        });
        let bound = bound.and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = bound.map_err(|error| BindError { listener: name, address, error })?;
        Ok(Self { name, socket, address, tls: None, limits: Limits::default() })
    }

    /// Speaks TLS. The configuration's ALPN decides between HTTP/2 and HTTP/1.1.
    #[must_use]
    pub fn tls(self, config: Arc<ServerConfig>) -> Self {
        Self { tls: Some(config), ..self }
    }

    /// Other limits than the process's own.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Where it listens; the port is the real one where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then closes the socket, lets open requests end within the drain limit, and returns
    /// when no task of it is left. All of them run where this is awaited.
    pub async fn serve(self, router: Router, metrics: Arc<Metrics>, shutdown: CancellationToken) {
        let socket = match TcpListener::from_std(self.socket) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(listener = self.name, %error, "cannot be waited on"),
        };
        let tasks = TaskTracker::new();
        let abort = CancellationToken::new();
        let connection = Arc::new(Connection {
            listener: self.name,
            tls: self.tls.map(TlsAcceptor::from),
            limits: self.limits.clone(),
            router,
            open: metrics.connections(self.name),
            metrics,
            shutdown: shutdown.clone(),
            abort: abort.clone(),
            tasks: tasks.clone(),
        });
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = accept(&socket, &connection) => {}
        }
        drop(socket);
        tasks.close();
        if tokio::time::timeout(self.limits.drain, tasks.wait()).await.is_err() {
            tracing::warn!(
                listener = self.name,
                tasks = tasks.len(),
                "requests still open at the end of the drain"
            );
        }
        abort.cancel();
        tasks.wait().await;
    }
}

/// Accepts for ever. Where the listener is full, another connection makes room.
async fn accept(socket: &TcpListener, connection: &Arc<Connection>) {
    let room = Arc::new(Semaphore::new(connection.limits.connections));
    let places = Arc::<Places>::default();
    let mut wait = constants::ACCEPT_BACKOFF;
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                wait = constants::ACCEPT_BACKOFF;
                // the semaphore is never closed
                let Ok(permit) = room_for_one(&room, &places, &connection.limits).await else { return };
                let (connection, place) = (Arc::clone(connection), places.take(peer.ip()));
                let tasks = connection.tasks.clone();
                tasks.spawn(async move {
                    let _permit = permit;
                    connection.run(stream, peer, place).await;
                });
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(listener = connection.listener, %error, "cannot accept connections at the moment");
                connection.metrics.refused(connection.listener, "accept");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(constants::ACCEPT_BACKOFF_MAX);
            }
        }
    }
}

async fn room_for_one(
    room: &Arc<Semaphore>,
    places: &Arc<Places>,
    limits: &Limits,
) -> Result<OwnedSemaphorePermit, AcquireError> {
    places.limit_handshakes(limits.handshakes);
    if let Ok(permit) = Arc::clone(room).try_acquire_owned() {
        return Ok(permit);
    }
    // what is ended gives its permit back a moment later; so there are never more than the cap
    places.limit(limits.connections);
    Arc::clone(room).acquire_owned().await
}

/// The connection failed before it was accepted: nothing of ours is short (`accept(2)`).
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// EAFNOSUPPORT has no kind of its own in std.
fn no_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // the system's default may be off (net.ipv6.bindv6only)
        socket.set_only_v6(false)?;
    }
    // a restarted process has its port at once, although connections of its predecessor linger in TIME_WAIT
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
