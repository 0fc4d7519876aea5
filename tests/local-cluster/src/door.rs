//! A way from this machine's loopback to an address that only another network knows.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Forwards TCP connections until it is dropped.
#[derive(Debug)]
pub struct Door {
    local: SocketAddr,
    forwarder: Child,
}

impl Door {
    /// `member` is the member program entering the other network.
    pub(crate) fn open(mut member: Command, address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let local = listener.local_addr()?;
        let forwarder = member
            .args(["forward", &address.to_string()])
            // A socket stays in the network it was made in, whoever accepts on it.
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the forwarder")?;
        Ok(Self { local, forwarder })
    }

    /// Where to connect.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.forwarder.kill();
        let _ = self.forwarder.wait();
    }
}
