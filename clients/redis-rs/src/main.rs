//! A Redis Cluster from outside, with redis-rs: its resolver is asked at each connection, so a changed map is followed.
//!
//! `redis-by-the-map URL NAMESPACE CLUSTER CA_FILE TOKEN_FILE SECONDS` waits for the first map for so many seconds. It prints lines of
//! JSON: `{"ready": true}`, or what failed and how long after its first question; then, for each line `PREFIX N` of the standard
//! input, of which it writes and reads N keys, how that went.
//!
//! With TLS, redis-rs checks the members' certificates for what it calls them by, which is their internal address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use external_ip_client::{AddressMapper, Https};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::AsyncDNSResolver;
use redis::{AsyncCommands, RedisFuture};
use tokio::io::{AsyncBufReadExt, BufReader};

const PORT: u16 = 6379;

/// The map in the place of DNS. What is not in it is refused at once.
struct ByMap(AddressMapper);

impl AsyncDNSResolver for ByMap {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let addresses = self.0.resolve(host, port).await?;
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

async fn connect(mapper: AddressMapper, limit: Duration) -> anyhow::Result<ClusterConnection> {
    let ready = tokio::time::timeout(limit, mapper.ready()).await;
    ready.ok().with_context(|| mapper.problem().unwrap_or_else(|| format!("no answer in {limit:?}")))?;
    let members = mapper.map().members(PORT);
    anyhow::ensure!(!members.is_empty(), "the map has no members");
    let client = ClusterClientBuilder::new(members.iter().map(|m| format!("redis://{m}")))
        .async_dns_resolver(ByMap(mapper))
        .connection_timeout(Duration::from_secs(10))
        .response_timeout(Duration::from_secs(10))
        .build()?;
    Ok(client.get_async_connection().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, namespace, cluster, ca, token, seconds] = &arguments[..] else {
        anyhow::bail!("usage: redis-by-the-map URL NAMESPACE CLUSTER CA_FILE TOKEN_FILE SECONDS");
    };
    let limit = Duration::try_from_secs_f64(seconds.parse()?)?;
    let begun = Instant::now();
    let mapper = AddressMapper::https(Https::new(url, namespace, cluster, ca).token_file(token))?;
    let mut redis = match connect(mapper, limit).await {
        Ok(redis) => redis,
        Err(error) => {
            let after = begun.elapsed().as_secs_f64();
            println!("{}", serde_json::json!({"error": error.to_string(), "after": after}));
            return Ok(());
        }
    };
    println!("{}", serde_json::json!({"ready": true}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let (prefix, count) = line.split_once(' ').context("a line is PREFIX N")?;
        println!("{}", work(&mut redis, prefix, count.parse()?).await);
    }
    Ok(())
}

/// What was done, what failed, the longest operation in seconds.
async fn work(redis: &mut ClusterConnection, prefix: &str, count: u32) -> serde_json::Value {
    let (mut done, mut slowest, mut error) = (0, Duration::ZERO, None);
    for n in 0..count {
        let begun = Instant::now();
        match put_and_get(redis, &format!("{prefix}:{n}"), n).await {
            Ok(()) => done += 1,
            Err(failed) => error = Some(failed.to_string()),
        }
        slowest = slowest.max(begun.elapsed());
    }
    serde_json::json!({"done": done, "error": error, "slowest": slowest.as_secs_f64()})
}

async fn put_and_get(redis: &mut ClusterConnection, key: &str, value: u32) -> anyhow::Result<()> {
    let () = redis.set(key, value).await?;
    let read: u32 = redis.get(key).await?;
    anyhow::ensure!(read == value, "{key} is {read}, not {value}");
    Ok(())
}
