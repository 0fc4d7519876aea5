//! A name server on loopback, for load balancers that are known by name.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Packet, RCODE, ResourceRecord, TYPE};

/// Seconds an answer may be believed.
const TTL: u32 = 1;
/// How often the server looks whether it shall end.
const LOOK: Duration = Duration::from_millis(200);

type Zone = Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>;

/// Ends when dropped.
pub(crate) struct Dns {
    address: SocketAddr,
    zone: Zone,
    served: Option<JoinHandle<()>>,
    alive: Arc<()>,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let (address, zone) = (socket.local_addr().unwrap(), Zone::default());
        let (alive, names) = (Arc::new(()), Arc::clone(&zone));
        let wanted = Arc::downgrade(&alive);
        let serve = move || {
            let mut question = [0; 512];
            while wanted.strong_count() > 0 {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                if let Some(answer) = answer(&question[..length], &names) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        };
        Self { address, zone, served: Some(std::thread::spawn(serve)), alive }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on a name has these addresses; it had none before.
    pub(crate) fn lead(&self, host: &str, ips: &[&str]) {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        self.zone.lock().unwrap().insert(host.to_owned(), ips);
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.alive = Arc::new(());
        let _ = self.served.take().map(JoinHandle::join);
    }
}

fn answer(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let mut packet = Packet::parse(question).ok()?.into_reply();
    let asked = packet.questions.first()?.clone();
    let Some(ips) = zone.lock().unwrap().get(&asked.qname.to_string()).cloned() else {
        *packet.rcode_mut() = RCODE::NameError;
        return packet.build_bytes_vec().ok();
    };
    for ip in ips {
        let data = match ip {
            IpAddr::V4(ip) if asked.qtype == TYPE::A.into() => RData::A(A { address: ip.into() }),
            IpAddr::V6(ip) if asked.qtype == TYPE::AAAA.into() => RData::AAAA(AAAA { address: ip.into() }),
            _ => continue,
        };
        packet.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, TTL, data));
    }
    packet.build_bytes_vec().ok()
}
