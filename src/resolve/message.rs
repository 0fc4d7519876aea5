//! Questions and answers of DNS as bytes. What is read comes from the network: sizes are bounded, and only records of the
//! name that was asked for, or of names it is an alias of, are believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE, header_buffer};

/// Records of one section that are read: more than fit into a datagram.
const RECORDS_MAX: u16 = 256;
/// Aliases of aliases that are followed.
const ALIASES_MAX: usize = 8;
/// How long a name is believed to lead nowhere where the answer does not say.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// A question for addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Query<'q> {
    /// Nobody else's guess: an answer carries it.
    pub(super) id: u16,
    /// Absolute, without a dot at the end.
    pub(super) host: &'q str,
    /// `AAAA`, else `A`.
    pub(super) v6: bool,
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// It is no answer to the question.
    Foreign,
    /// The rest comes over TCP.
    CutOff,
    /// The server cannot say.
    Failed,
    /// The addresses of the family there are, none perhaps, and how long that holds.
    Found(Vec<IpAddr>, Duration),
}

impl Query<'_> {
    fn kind(&self) -> QTYPE {
        QTYPE::TYPE(if self.v6 { TYPE::AAAA } else { TYPE::A })
    }

    /// The question; `None` where it is no name.
    pub(super) fn message(&self) -> Option<Vec<u8>> {
        let mut packet = Packet::new_query(self.id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(self.host).ok()?;
        packet.questions.push(Question::new(name, self.kind(), CLASS::IN.into(), false));
        packet.build_bytes_vec().ok()
    }

    /// What `bytes` say of it.
    pub(super) fn read(&self, bytes: &[u8]) -> Read {
        let is_answer = header_buffer::id(bytes).is_ok_and(|id| id == self.id)
            && header_buffer::has_flags(bytes, PacketFlag::RESPONSE).unwrap_or(false);
        if !is_answer {
            return Read::Foreign;
        }
        if header_buffer::has_flags(bytes, PacketFlag::TRUNCATION).unwrap_or(false) {
            return Read::CutOff;
        }
        let counts = [
            header_buffer::questions,
            header_buffer::answers,
            header_buffer::name_servers,
            header_buffer::additional_records,
        ];
        if counts.into_iter().any(|count| count(bytes).is_ok_and(|n| n > RECORDS_MAX)) {
            return Read::Failed;
        }
        match Packet::parse(bytes) {
            Ok(packet) if self.is_asked_in(&packet) => self.found(&packet),
            Ok(_) => Read::Foreign,
            Err(_) => Read::Failed,
        }
    }

    fn is_asked_in(&self, packet: &Packet<'_>) -> bool {
        let same = |q: &Question<'_>| q.qtype == self.kind() && same_name(&q.qname, self.host);
        matches!(&packet.questions[..], [only] if same(only))
    }

    fn found(&self, packet: &Packet<'_>) -> Read {
        if !matches!(packet.rcode(), RCODE::NoError | RCODE::NameError) {
            return Read::Failed;
        }
        let (owner, mut ttl) = self.owner(packet);
        let mut ips = Vec::new();
        for record in packet.answers.iter().filter(|r| r.class == CLASS::IN && same_name(&r.name, &owner)) {
            let ip = match &record.rdata {
                RData::A(a) if !self.v6 => IpAddr::V4(Ipv4Addr::from(a.address)),
                RData::AAAA(a) if self.v6 => IpAddr::V6(Ipv6Addr::from(a.address)),
                _ => continue,
            };
            ips.push(ip);
            ttl = ttl.min(record.ttl);
        }
        let ttl = if ips.is_empty() { negative_ttl(packet) } else { Duration::from_secs(ttl.into()) };
        Read::Found(ips, ttl)
    }

    /// The name whose addresses are meant: the last alias, and the shortest time to live on the way.
    fn owner(&self, packet: &Packet<'_>) -> (String, u32) {
        let (mut owner, mut ttl) = (self.host.to_owned(), u32::MAX);
        for _ in 0..ALIASES_MAX {
            let alias = packet.answers.iter().find_map(|record| match &record.rdata {
                RData::CNAME(next) if same_name(&record.name, &owner) => {
                    Some((next.0.to_string(), record.ttl))
                }
                _ => None,
            });
            let Some((next, seconds)) = alias else { break };
            (owner, ttl) = (next, ttl.min(seconds));
        }
        (owner, ttl)
    }
}

fn same_name(name: &Name<'_>, text: &str) -> bool {
    name.to_string().eq_ignore_ascii_case(text)
}

/// RFC 2308: the lesser of the zone's minimum and its record's own time.
fn negative_ttl(packet: &Packet<'_>) -> Duration {
    let of_zone = packet.name_servers.iter().find_map(|record| match &record.rdata {
        RData::SOA(zone) => Some(record.ttl.min(zone.minimum)),
        _ => None,
    });
    of_zone.map_or(NEGATIVE_TTL, |seconds| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests;
