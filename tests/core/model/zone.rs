//! The names of load balancers in DNS, and everything DNS has ever said of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use external_ip_core::resolve::Answer;

#[derive(Default)]
pub(crate) struct Zone {
    names: BTreeMap<String, Vec<IpAddr>>,
    /// As records stand on Services.
    said: BTreeSet<String>,
}

impl Zone {
    /// A name leads to these addresses from now on, or nowhere; answers whether that is new.
    pub(crate) fn lead(&mut self, host: &str, ips: Vec<IpAddr>) -> bool {
        self.names.insert(host.to_owned(), ips.clone()) != Some(ips)
    }

    pub(crate) fn answer(&mut self, host: &str) -> Answer {
        let ips = self.names.get(host).cloned().unwrap_or_default();
        let record: Vec<String> = ips.iter().map(ToString::to_string).collect();
        self.said.insert(format!("{host}={}", record.join(",")));
        let ttl = Duration::from_secs(60);
        if ips.is_empty() { Answer::Nothing { ttl } } else { Answer::Addresses { ips, ttl } }
    }

    /// Whether all of a Service's records are what DNS has said at some time.
    pub(crate) fn has_said(&self, records: &str) -> bool {
        records.split(' ').all(|record| self.said.contains(record))
    }
}
