//! Asks DNS for the addresses of load balancers that are known by name, from the leader.
//!
//! A stub resolver: it asks the name servers that the process is given, which do the work. Names of load balancers are
//! absolute, so search domains are of no use here.

mod message;
mod servers;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use external_ip_core::resolve::{Answer, Question};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::constants::{NAME_ANSWER_BYTES, NAME_ATTEMPTS, NAME_TIMEOUT, NAMES_AT_ONCE, NAMES_LOOK};
use crate::metrics::Metrics;
use crate::rounds::Rounds;
use crate::tls;
use message::{Query, Read};
pub use servers::{NameServer, Servers};

/// Everything there is to ask.
pub type Questions = Arc<BTreeSet<Question>>;

/// What the resolver works with.
pub struct Resolver {
    /// What to ask, and who is told.
    pub rounds: Rounds<Question, Answer>,
    /// Whom to ask.
    pub servers: Servers,
    /// Counts questions.
    pub metrics: Arc<Metrics>,
}

impl Resolver {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (servers, metrics) = (&self.servers, &self.metrics);
        let act = |question: Question| async move {
            let answer = ask(&servers.now().await, &question.host).await;
            metrics.asked(&answer);
            let pause = answer.again_after();
            (answer, pause)
        };
        self.rounds.run(NAMES_LOOK, NAMES_AT_ONCE, act, stop).await;
    }
}

/// Both families. What is known of one alone is not half an answer: the other's addresses would come and go.
async fn ask(servers: &[SocketAddr], host: &str) -> Answer {
    let (v4, v6) = futures::future::join(family(servers, host, false), family(servers, host, true)).await;
    let (Some(v4), Some(v6)) = (v4, v6) else { return Answer::Failed };
    let shortest = |found: [&(Vec<IpAddr>, Duration); 2], empty: bool| {
        found.into_iter().filter(|(ips, _)| ips.is_empty() == empty).map(|(_, ttl)| *ttl).min()
    };
    match shortest([&v4, &v6], false) {
        Some(ttl) => Answer::Addresses { ips: [v4.0, v6.0].concat(), ttl },
        None => Answer::Nothing { ttl: shortest([&v4, &v6], true).unwrap_or_default() },
    }
}

/// What the first server says that can say anything.
async fn family(servers: &[SocketAddr], host: &str, v6: bool) -> Option<(Vec<IpAddr>, Duration)> {
    for _ in 0..NAME_ATTEMPTS {
        for server in servers {
            let query = Query { id: unguessable()?, host, v6 };
            if let Ok(Ok(Read::Found(ips, ttl))) = timeout(NAME_TIMEOUT, exchange(*server, query)).await {
                return Some((ips, ttl));
            }
        }
    }
    None
}

/// Half of what protects an answer from being forged by somebody who does not see the question; the other half is the
/// port, which the kernel chooses.
fn unguessable() -> Option<u16> {
    let mut id = [0; 2];
    tls::provider().secure_random.fill(&mut id).ok()?;
    Some(u16::from_be_bytes(id))
}

/// By UDP, and by TCP what does not fit.
async fn exchange(server: SocketAddr, query: Query<'_>) -> io::Result<Read> {
    let message = query.message().ok_or(io::ErrorKind::InvalidInput)?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // from here on the kernel drops what comes from elsewhere
    socket.connect(server).await?;
    socket.send(&message).await?;
    let mut buffer = [0; NAME_ANSWER_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match query.read(&buffer[..length]) {
            Read::Foreign => {}
            Read::CutOff => return by_tcp(server, query, &message).await,
            read => return Ok(read),
        }
    }
}

async fn by_tcp(server: SocketAddr, query: Query<'_>, message: &[u8]) -> io::Result<Read> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    if length > NAME_ANSWER_BYTES {
        return Ok(Read::Failed);
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(query.read(&answer))
}

#[cfg(test)]
mod tests;
