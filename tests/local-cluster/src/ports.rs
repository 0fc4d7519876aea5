//! Ports of the loopback for listeners that come and go.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

const LOWEST: u16 = 10_000;

/// What keeps ports from others until this process ends.
static KEPT: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that nobody listens at, and that nobody else who asks here is given while this process lives.
///
/// It lies below the range the kernel hands out by itself: a listener that is stopped and started again must find its
/// port free, nobody else may answer there meanwhile, and a client that dials it must not meet itself (TCP connects a
/// port to itself where both ends are drawn from the same range).
pub fn free_port() -> Result<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768);
    let end = if end > LOWEST + 1000 { end } else { u16::MAX };
    let start = LOWEST + u16::try_from(random_u32()? % u32::from(end - LOWEST))?;
    (start..end)
        .chain(LOWEST..start)
        .find(|port| is_free(*port))
        .with_context(|| format!("no free port on 127.0.0.1 between {LOWEST} and {end}"))
}

fn is_free(port: u16) -> bool {
    // an abstract name is of one network, as the port is, and goes with the process: it leaves no file behind
    let name = SocketAddr::from_abstract_name(format!("external-ip-controller/port/{port}"));
    let Ok(kept) = name.and_then(|name| UnixDatagram::bind_addr(&name)) else { return false };
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    if free {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
    }
    free
}

fn random_u32() -> Result<u32> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 4];
    ring::rand::SystemRandom::new().fill(&mut bytes).ok().context("no random numbers from the system")?;
    Ok(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_and_given_once() {
        let port = free_port().unwrap();
        assert!(!is_free(port), "it is kept, though nobody listens there yet");
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(taken.local_addr().unwrap().port()));
    }
}
