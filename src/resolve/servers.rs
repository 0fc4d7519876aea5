//! The name servers to ask: given ones, or those of the pod's `resolv.conf`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::constants::NAME_SERVERS;

/// Where name servers listen.
const PORT: u16 = 53;

/// Whom to ask.
#[derive(Debug, Clone)]
pub enum Servers {
    /// These, in this order.
    Given(Vec<NameServer>),
    /// Those of this file, read at each question: it may change under a process.
    File(PathBuf),
}

impl Servers {
    /// Some of them, at most [`NAME_SERVERS`]. Where there are none, this host, as the C library does.
    pub(super) async fn now(&self) -> Vec<SocketAddr> {
        match self {
            Self::Given(servers) => servers.iter().map(|server| server.0).take(NAME_SERVERS).collect(),
            Self::File(file) => read(&tokio::fs::read_to_string(file).await.unwrap_or_default()),
        }
    }
}

/// `nameserver` lines of a resolver configuration; its other lines concern names that are not absolute.
fn read(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address: IpAddr =
            words.next().filter(|word| *word == "nameserver").and(words.next())?.parse().ok()?;
        Some(SocketAddr::new(address, PORT))
    };
    let found: Vec<SocketAddr> = text.lines().filter_map(server).take(NAME_SERVERS).collect();
    if found.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))] } else { found }
}

/// A name server: an address, with a port where that is not 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameServer(SocketAddr);

impl FromStr for NameServer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bare = |ip: IpAddr| SocketAddr::new(ip, PORT);
        let address = text.parse().or_else(|_| text.parse().map(bare));
        address.map(Self).map_err(|_| "write an address, as 198.51.100.53 or [2001:db8::53]:5353".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_kubelets_write_them() {
        let found = read(
            "search data.svc.cluster.local svc.cluster.local\nnameserver 198.18.0.10\n# nameserver 198.18.0.1\noptions ndots:5\n",
        );
        assert_eq!(found, ["198.18.0.10:53".parse().unwrap()]);
        let many = read("nameserver 198.18.0.1\nnameserver\tfd00::1 \nnameserver x\nnameserver 198.18.0.3\n");
        assert_eq!(many, ["198.18.0.1:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()]);
        assert_eq!(read("options ndots:5\n"), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn given_name_servers_may_have_a_port() {
        let read = |text: &str| text.parse::<NameServer>().map(|server| server.0.to_string());
        assert_eq!(read("198.51.100.53").unwrap(), "198.51.100.53:53");
        assert_eq!(read("2001:db8::53").unwrap(), "[2001:db8::53]:53");
        assert_eq!(read("127.0.0.1:5353").unwrap(), "127.0.0.1:5353");
        assert!(read("dns.example").is_err());
    }
}
