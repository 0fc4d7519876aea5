//! How the API server is reached.
//!
//! One kube client for everything, put together here rather than by kube's default stack, because that one retries by
//! itself (a hanging API server would hold a call longer than its caller allows), logs every failed request as an
//! error, and does not notice a peer that is gone while a connection is idle.

pub mod call;
#[cfg(test)]
pub(crate) mod fake;

use std::time::Duration;

use anyhow::{Context, Result};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, Client, ConfigExt};
use kube::config::{Config, KubeConfigOptions};
use tower::{BoxError, ServiceBuilder};

/// Time for TCP and TLS together. Shorter than any call's own timeout, so that a dead address costs one attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An idle connection is probed after this long; with [`KEEPALIVE_RETRIES`] a vanished peer is known within 20 s,
/// before the watches count as stale.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 2;
/// Bytes the peer does not acknowledge for this long end a connection: probes are not sent while data is in flight.
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);
/// Idle connections are kept this long: longer than the lease's retry, shorter than usual load balancers' limits.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// What the API server's audit log shows.
const USER_AGENT: &str = concat!("external-ip-controller/", env!("CARGO_PKG_VERSION"));

/// The client of this process: of the file `KUBECONFIG` names (else `~/.kube/config`), else of the pod it runs in.
/// Nothing is sent yet, so an API server that is not there is no error. A pod's token and CA files are read again
/// about once a minute.
///
/// # Errors
/// Neither configuration can be read; the message says why for each.
pub async fn from_environment() -> Result<Client> {
    let config = if std::env::var_os("KUBECONFIG").is_some() {
        Config::from_kubeconfig(&KubeConfigOptions::default()).await.context("reading KUBECONFIG")?
    } else {
        Config::infer().await.context(
            "no API server to talk to: set KUBECONFIG to a file, or run in a pod with a service account's token",
        )?
    };
    from_config(config)
}

/// The client of whoever calls at a terminal: as kubectl finds it, in the context named if one is named.
///
/// # Errors
/// No kubeconfig can be read, or it has no such context.
pub async fn of_user(context: Option<&str>) -> Result<Client> {
    let Some(context) = context else { return from_environment().await };
    let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
    from_config(Config::from_kubeconfig(&options).await.context("reading the kubeconfig")?)
}

/// A client of `config`.
///
/// # Errors
/// The configuration's certificates, keys or credentials cannot be used.
pub fn from_config(mut config: Config) -> Result<Client> {
    if let Some(proxy) = config.proxy_url.take() {
        tracing::warn!(%proxy, "proxies are not supported: connecting to the API server directly");
    }
    let agent = (http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT));
    config.headers.push(agent);
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    http.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    #[cfg(target_os = "linux")]
    http.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(http)?);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let transport = HttpClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(transport);
    Ok(Client::new(service, config.default_namespace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;

    /// Serves the `Authorization` and `User-Agent` headers it is sent.
    async fn mirror() -> http::Uri {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let show = service_fn(async |request: http::Request<Incoming>| {
            let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
            let text = format!("{} {}", header("authorization"), header("user-agent"));
            Ok::<_, BoxError>(http::Response::new(text))
        });
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), show));
            }
        });
        format!("http://{address}").parse().unwrap()
    }

    async fn seen(client: &Client) -> String {
        let answer = call::whole(client, call::get("/"), Duration::from_secs(5)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn with_token_file(name: &str, uri: http::Uri) -> (Client, std::path::PathBuf) {
        let token = std::env::temp_dir().join(format!("external-ip-token-{name}-{}", std::process::id()));
        std::fs::write(&token, "first").unwrap();
        let mut config = Config::new(uri);
        config.auth_info.token_file = Some(token.to_str().unwrap().to_owned());
        (from_config(config).unwrap(), token)
    }

    #[tokio::test]
    async fn requests_carry_the_token_and_say_who_asks() {
        let (client, token) = with_token_file("sent", mirror().await);
        let agent = format!("external-ip-controller/{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(seen(&client).await, format!("Bearer first {agent}"));
        std::fs::remove_file(token).unwrap();
    }

    #[tokio::test]
    #[ignore = "waits a minute of real time; run with --ignored after an update of kube"]
    async fn a_renewed_token_is_used_within_a_minute() {
        let (client, token) = with_token_file("renewed", mirror().await);
        assert!(seen(&client).await.starts_with("Bearer first"));
        std::fs::write(&token, "second").unwrap();
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert!(seen(&client).await.starts_with("Bearer second"));
        std::fs::remove_file(token).unwrap();
    }
}
