//! Ports as users write them and as the API has them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Protocol {
    /// The default.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl FromStr for Protocol {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|p| p.as_str().eq_ignore_ascii_case(text))
            .ok_or(())
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One element of a list of ports: a number with a protocol, or a container port's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSpec {
    /// Number or name.
    pub port: PortRef,
    /// Given protocol; a named port has its container's where this is `None`.
    pub protocol: Option<Protocol>,
}

/// A port by number or by the name a container declares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortRef {
    /// 1 to 65535.
    Number(u16),
    /// An IANA service name of at most 15 characters, as the API demands of container ports.
    Name(String),
}

/// Why a text is not a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPort {
    /// Neither a number from 1 to 65535 nor a name.
    #[error("'{0}' is not a port: write a number from 1 to 65535 or a container port's name")]
    Port(String),
    /// Unknown protocol.
    #[error("'{0}' has an unknown protocol: write /tcp, /udp or /sctp")]
    Protocol(String),
}

impl PortSpec {
    /// TCP port `number`.
    pub fn tcp(number: u16) -> Self {
        Self { port: PortRef::Number(number), protocol: None }
    }

    /// Reads a comma separated list; an empty list is no ports.
    pub fn list(text: &str) -> Result<Vec<Self>, InvalidPort> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
    }
}

impl FromStr for PortSpec {
    type Err = InvalidPort;
    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let (port, protocol) = match text.split_once('/') {
            None => (text, None),
            Some((port, protocol)) => {
                (port, Some(protocol.parse().map_err(|()| InvalidPort::Protocol(text.to_owned()))?))
            }
        };
        let invalid = || InvalidPort::Port(text.to_owned());
        let port = if port.bytes().all(|b| b.is_ascii_digit()) {
            PortRef::Number(port.parse().ok().filter(|n| *n > 0).ok_or_else(invalid)?)
        } else if is_port_name(port) {
            PortRef::Name(port.to_owned())
        } else {
            return Err(invalid());
        };
        Ok(Self { port, protocol })
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            PortRef::Number(n) => write!(f, "{n}")?,
            PortRef::Name(n) => f.write_str(n)?,
        }
        match self.protocol {
            Some(p) => write!(f, "/{}", p.as_str().to_ascii_lowercase()),
            None => Ok(()),
        }
    }
}

fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_users_write_them() {
        let list = PortSpec::list("11222, 5353/udp,hotrod ,").unwrap();
        assert_eq!(list.iter().map(ToString::to_string).collect::<Vec<_>>(), ["11222", "5353/udp", "hotrod"]);
        assert!(PortSpec::list(" ").unwrap().is_empty());
    }

    #[test]
    fn what_is_not_a_port_is_named() {
        for bad in
            ["0", "65536", "99999999999", "-1", "hot rod", "Hotrod", "a--b", "averyverylongname", "/tcp"]
        {
            assert!(matches!(PortSpec::list(bad), Err(InvalidPort::Port(_))), "{bad}");
        }
        assert_eq!(PortSpec::list("1/icmp"), Err(InvalidPort::Protocol("1/icmp".into())));
    }
}
