use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus_client::metrics::gauge::Gauge;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::Limits;
use super::answers::{Answers, Busy, Delivered};
use super::places::Place;
use crate::constants;
use crate::metrics::Metrics;
use crate::serve::panic_text;
use crate::serve::problem::Problem;

/// What all connections of a listener have in common.
pub(super) struct Connection {
    pub(super) listener: &'static str,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) limits: Limits,
    pub(super) router: Router,
    pub(super) open: Gauge,
    pub(super) metrics: Arc<Metrics>,
    /// Ends connections between requests.
    pub(super) shutdown: CancellationToken,
    /// Ends them wherever they are.
    pub(super) abort: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Connection {
    /// One connection, from accept to its end.
    pub(super) async fn run(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Place) {
        let _open = Open::new(self.open.clone());
        // answers are written in one piece, there is nothing to wait for; both options only make things better
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(constants::STALLED_PEER));
        let whole = async {
            match &self.tls {
                None => self.http(stream, false, place).await,
                Some(tls) => {
                    let Some(stream) = self.handshake(tls, stream, peer, &place).await else { return };
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    self.http(stream, http2, place).await;
                }
            }
        };
        tokio::select! {
            () = self.abort.cancelled() => {}
            () = whole => {}
        }
    }

    async fn handshake(
        &self,
        tls: &TlsAcceptor,
        stream: TcpStream,
        peer: SocketAddr,
        place: &Place,
    ) -> Option<TlsStream<TcpStream>> {
        let cause = tokio::select! {
            done = tokio::time::timeout(self.limits.handshake, tls.accept(stream)) => match done {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => {
                    tracing::debug!(listener = self.listener, %peer, %error, "TLS handshake failed");
                    "handshake"
                }
                Err(_) => "handshake_timeout",
            },
            () = place.evicted.cancelled() => "handshake_evicted",
            () = self.shutdown.cancelled() => "shutdown",
        };
        self.metrics.refused(self.listener, cause);
        None
    }

    /// Requests and answers. Which version is settled beforehand (by ALPN; in plain text it is 1.1), so that no time
    /// is spent waiting for the first bytes to tell.
    async fn http(
        self: &Arc<Self>,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        http2: bool,
        place: Place,
    ) {
        place.is_up();
        let answers = Arc::new(Answers::new(place));
        let place = &answers.place;
        let service = hyper::service::service_fn(|request| {
            let (connection, busy) = (Arc::clone(self), Answers::begin(&answers));
            async move { Ok::<_, Infallible>(connection.answer(request, busy).await) }
        });
        let builder = self.builder(http2);
        let mut serving = pin!(builder.serve_connection(TokioIo::new(io), service));
        let mut closing = None;
        loop {
            tokio::select! {
                ended = serving.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(listener = self.listener, %error, "connection ended");
                    }
                    return;
                }
                () = place.evicted.cancelled() => return self.metrics.refused(self.listener, "evicted"),
                () = self.shutdown.cancelled(), if closing.is_none() => closing = Some(self.limits.drain),
                () = idle_for(place, self.limits.idle), if closing.is_none() => closing = Some(self.limits.close),
                () = answers.untaken_for(self.limits.stalled) => {
                    return self.metrics.refused(self.listener, "stalled");
                }
                () = tokio::time::sleep(closing.unwrap_or_default()), if closing.is_some() => {
                    return self.metrics.refused(self.listener, "stalled");
                }
            }
            serving.as_mut().graceful_shutdown();
        }
    }

    fn builder(&self, http2: bool) -> Builder<OnTracker> {
        let builder = Builder::new(OnTracker { tasks: self.tasks.clone(), abort: self.abort.clone() });
        let mut builder = if http2 { builder.http2_only() } else { builder.http1_only() };
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.headers)
            .max_headers(constants::HEADERS)
            .max_buf_size(constants::HEADER_BYTES);
        let (stream_window, connection_window) = constants::HTTP2_WINDOWS;
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(constants::HTTP2_PING)
            .keep_alive_timeout(constants::HTTP2_PING)
            .max_concurrent_streams(constants::HTTP2_STREAMS)
            .max_header_list_size(u32::try_from(constants::HEADER_BYTES).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(constants::HTTP2_RESETS)
            .max_local_error_reset_streams(constants::HTTP2_ERRORS)
            .max_send_buf_size(constants::HTTP2_SEND_BUFFER)
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window);
        builder
    }

    /// A panic costs the request it happened in and nothing else.
    async fn answer(&self, request: Request<Incoming>, busy: Busy) -> Response<Delivered> {
        let answer = self.router.clone().oneshot(request.map(Body::new));
        let answer = match AssertUnwindSafe(answer).catch_unwind().await {
            Ok(Ok(answer)) => answer,
            Ok(Err(impossible)) => match impossible {},
            Err(panic) => {
                self.metrics.panicked(self.listener);
                tracing::error!(listener = self.listener, panic = panic_text(&*panic), "a request panicked");
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")
                    .message("the request met a defect of the controller; it has been logged and counted")
                    .remedy("report it with the log of the controller")
                    .into()
            }
        };
        answer.map(|body| Delivered::new(body, busy))
    }
}

/// Counts a connection for as long as it is there.
struct Open(Gauge);

impl Open {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// HTTP/2 runs each stream as a task of its own; here none outlives the listener.
#[derive(Clone)]
struct OnTracker {
    tasks: TaskTracker,
    abort: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for OnTracker
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let abort = self.abort.clone();
        self.tasks.spawn(async move { abort.run_until_cancelled(stream).await.map(drop) });
    }
}

/// Returns once there has been no request for this long.
async fn idle_for(place: &Place, limit: Duration) {
    loop {
        let since = place.idle_since();
        if since.is_some_and(|since| since.elapsed() >= limit) {
            return;
        }
        tokio::time::sleep_until(since.unwrap_or_else(Instant::now) + limit).await;
    }
}
