//! Load balancers that are known by name: what the leader asks DNS and when, and what a Service says the answer was.
//!
//! The answers stand in an annotation of the Service together with the name each is about, so that every replica shows
//! the same and nobody takes a former name's addresses for the present one's. Where the load balancer gives addresses,
//! nobody asks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use crate::addresses::in_order;
use crate::names::{self, Key};
use crate::objects::Service;
use crate::settings::Settings;
use crate::state::State;

/// Most addresses of one name that are believed: load balancers have one for each zone or a few more, and the map is not
/// for whoever answers with thousands.
pub const ADDRESSES_MAX: usize = 16;
/// Most names of one Service that are asked for.
const NAMES_MAX: usize = 4;
/// However short its time to live, an answer is not asked for again sooner: a write to the API server may follow each.
const AGAIN_MIN: Duration = Duration::from_secs(5);
/// However long its time to live, an answer is asked for again after this: a load balancer whose addresses change
/// against its own word is followed within minutes.
const AGAIN_MAX: Duration = Duration::from_secs(300);
/// The same while the name leads nowhere: somebody waits for it.
const AGAIN_NOTHING_MAX: Duration = Duration::from_secs(30);
/// After a question without an answer.
const AGAIN_FAILED: Duration = Duration::from_secs(10);

/// A name to be asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// The Service whose load balancer has it.
    pub service: Key,
    /// Its cluster.
    pub cluster: Key,
    /// The name, as the status has it: absolute, without a dot at the end.
    pub host: String,
}

/// What DNS says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has these addresses, in any order.
    Addresses {
        /// Of both families.
        ips: Vec<IpAddr>,
        /// How long they may be believed; the shortest of all records.
        ttl: Duration,
    },
    /// There is no such name, or it has no address.
    Nothing {
        /// How long that may be believed.
        ttl: Duration,
    },
    /// Nobody knows: no answer in time, or a server's error. What was known stays.
    Failed,
}

impl Answer {
    /// After how long to ask again.
    pub fn again_after(&self) -> Duration {
        match self {
            Self::Addresses { ttl, .. } => (*ttl).clamp(AGAIN_MIN, AGAIN_MAX),
            Self::Nothing { ttl } => (*ttl).clamp(AGAIN_MIN, AGAIN_NOTHING_MAX),
            Self::Failed => AGAIN_FAILED,
        }
    }

    /// What is recorded: sorted, IPv4 first, each once, and nothing that is no single host's address. `None` = what was
    /// recorded before stays.
    pub fn addresses(&self) -> Option<Vec<IpAddr>> {
        match self {
            Self::Addresses { ips, .. } => {
                let ips = ips.iter().map(IpAddr::to_canonical).filter(is_unicast);
                Some(in_order(ips).into_iter().take(ADDRESSES_MAX).collect())
            }
            Self::Nothing { .. } => Some(Vec::new()),
            Self::Failed => None,
        }
    }
}

fn is_unicast(ip: &IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// Addresses by name.
pub(crate) type Records = BTreeMap<String, Vec<IpAddr>>;

/// What to ask for a cluster.
pub fn questions(state: &State, cluster: &Key) -> Vec<Question> {
    let settings = state.settings();
    let ours = state.services_of(cluster).into_iter().filter(|s| s.owned_by(&settings.installation));
    let question = |service: &Service, host: &str| Question {
        service: service.key.clone(),
        cluster: cluster.clone(),
        host: host.to_owned(),
    };
    ours.flat_map(|s| asked(settings, s).map(move |host| question(s, host))).collect()
}

/// The names of a Service that its class wants to be asked for.
pub(crate) fn asked<'s>(settings: &Settings, service: &'s Service) -> impl Iterator<Item = &'s str> {
    let asks = is_asked(settings, service) && !service.terminating;
    bare_names(service).filter(move |_| asks).take(NAMES_MAX)
}

/// Whether a load balancer's names are asked for. A class that is not there any more has had the default.
pub(crate) fn is_asked(settings: &Settings, service: &Service) -> bool {
    service.class().and_then(|class| settings.class(class)).is_none_or(|class| class.resolve_names)
}

/// Names without an address beside them.
fn bare_names(service: &Service) -> impl Iterator<Item = &str> {
    let named = service.ingress.iter().filter(|i| i.ip.is_none()).filter_map(|i| i.hostname.as_deref());
    named.filter(|host| is_host_name(host))
}

fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The addresses of a Service: those its load balancer gives, and those recorded for its names. IPv4 first, each once.
pub(crate) fn addresses(service: &Service) -> Vec<IpAddr> {
    let given = service.ingress.iter().filter_map(|i| i.ip);
    let records = recorded(service);
    let found = bare_names(service).filter_map(|host| records.get(host)).flatten().copied();
    in_order(given.chain(found))
}

/// What a Service says of names, present and former ones.
fn recorded(service: &Service) -> Records {
    annotation(service).map(read).unwrap_or_default()
}

/// As it is written.
pub(crate) fn annotation(service: &Service) -> Option<&str> {
    service.annotations.get(names::RESOLVED_ANNOTATION)
}

/// Leaves the answers that a Service's annotation does not show; whether there are any.
pub(crate) fn are_news(answers: &mut Records, annotation: Option<&str>) -> bool {
    let shown = annotation.map(read).unwrap_or_default();
    answers.retain(|host, ips| shown.get(host) != Some(ips));
    !answers.is_empty()
}

/// The annotation a Service shall have: of each name that is asked for the last answer there is. `None` = none.
pub(crate) fn record(settings: &Settings, service: &Service, answers: Option<&Records>) -> Option<String> {
    let before = recorded(service);
    let answer = |host: &str| answers.and_then(|a| a.get(host)).or_else(|| before.get(host)).cloned();
    let records: Records =
        asked(settings, service).filter_map(|host| Some((host.to_owned(), answer(host)?))).collect();
    (!records.is_empty()).then(|| write(&records))
}

/// `lb.example=203.0.113.1,2001:db8::1 other.example=`: by name, IPv4 first; nothing behind a name that leads nowhere.
fn write(records: &Records) -> String {
    let mut text = String::new();
    for (host, ips) in records {
        let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
        let gap = if text.is_empty() { "" } else { " " };
        // a String takes everything
        let _ = write!(text, "{gap}{host}={}", ips.join(","));
    }
    text
}

/// What cannot be read is not there.
fn read(text: &str) -> Records {
    let record = |part: &str| {
        let (host, ips) = part.split_once('=')?;
        let ips: Result<Vec<IpAddr>, _> =
            ips.split(',').filter(|ip| !ip.is_empty()).map(str::parse).collect();
        Some((host.to_owned(), ips.ok()?))
    };
    text.split(' ').filter_map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn records_are_read_as_they_are_written_and_nothing_else_is_believed() {
        let records = Records::from([
            ("a.example".to_owned(), ips(&["203.0.113.1", "2001:db8::1"])),
            ("b.example".to_owned(), vec![]),
        ]);
        assert_eq!(write(&records), "a.example=203.0.113.1,2001:db8::1 b.example=");
        assert_eq!(read(&write(&records)), records);
        for bent in ["", " ", "a.example", "a.example=203.0.113.1,x", "a.example=203.0.113.256"] {
            assert!(read(bent).is_empty(), "{bent}");
        }
    }

    #[test]
    fn what_is_recorded_is_sorted_bounded_and_somebodys_address() {
        let answer = |texts: &[&str]| Answer::Addresses { ips: ips(texts), ttl: Duration::ZERO };
        let mixed = answer(&["2001:db8::1", "203.0.113.9", "203.0.113.1", "::ffff:203.0.113.9"]);
        assert_eq!(mixed.addresses().unwrap(), ips(&["203.0.113.1", "203.0.113.9", "2001:db8::1"]));
        let nobodys = answer(&["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"]);
        assert_eq!(nobodys.addresses(), Some(vec![]));
        let many: Vec<IpAddr> = (0..1000_u32).map(|n| IpAddr::V4((0xcb00_7100 + n).into())).collect();
        let many = Answer::Addresses { ips: many, ttl: Duration::ZERO };
        assert_eq!(many.addresses().unwrap().len(), ADDRESSES_MAX);
        assert_eq!(Answer::Nothing { ttl: Duration::ZERO }.addresses(), Some(vec![]));
        assert_eq!(Answer::Failed.addresses(), None);
    }

    #[test]
    fn a_time_to_live_is_kept_to_within_bounds() {
        let seconds = Duration::from_secs;
        let found = |ttl| Answer::Addresses { ips: vec![], ttl: seconds(ttl) }.again_after();
        assert_eq!([found(0), found(60), found(86_400)], [seconds(5), seconds(60), seconds(300)]);
        let nothing = |ttl| Answer::Nothing { ttl: seconds(ttl) }.again_after();
        assert_eq!([nothing(0), nothing(900)], [seconds(5), seconds(30)]);
    }
}
