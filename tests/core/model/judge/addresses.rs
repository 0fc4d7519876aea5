//! Static addresses: each is one Service's.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Verdict;
use super::truth::{Truth, annotation, label, texts};

const ASKED: &str = "external-ip.dev/asked-address";

/// Addresses a Service asks for or has.
fn held(service: &Value) -> impl Iterator<Item = &str> {
    let asked = annotation(service, ASKED).into_iter().flat_map(|list| list.split(','));
    asked.chain(texts(&service["status"]["loadBalancer"]["ingress"], "ip"))
}

impl Truth<'_> {
    /// How many of the class's static addresses Services ask for or have, of the family of which they are more.
    pub(super) fn held_of_pool(&self, pool: usize) -> usize {
        let pool = u32::try_from(pool).unwrap_or(u32::MAX);
        let of_pool = |ip: &&str| {
            let number = |prefix: &str, base: u32| u32::from_str_radix(ip.strip_prefix(prefix)?, base).ok();
            let is_in = |number: u32, first: u32| (first..first + pool).contains(&number);
            number("203.0.113.", 10).is_some_and(|n| is_in(n, 101))
                || number("2001:db8::", 16).is_some_and(|n| is_in(n, 0x101))
        };
        let held: BTreeSet<&str> = self.services.iter().flat_map(|s| held(s)).filter(of_pool).collect();
        let v6 = held.iter().filter(|ip| ip.contains(':')).count();
        v6.max(held.len() - v6)
    }

    /// A planned write asks for addresses: no other Service the replica had seen asks for them or has them, unless they
    /// were its own already.
    pub(crate) fn asks_for_what_is_free(&self, name: &str, asked: &str) -> Verdict {
        let (own, others): (Vec<&Value>, Vec<&Value>) =
            self.services.iter().partition(|s| s["metadata"]["name"] == *name);
        let is_in = |services: &[&Value], ip: &str| services.iter().any(|s| held(s).any(|h| h == ip));
        match asked.split(',').find(|ip| !is_in(&own, ip) && is_in(&others, ip)) {
            Some(ip) => {
                Err(format!("{name} is to ask for {ip}, which another Service asks for or has: {others:?}"))
            }
            None => Ok(()),
        }
    }

    /// When all is quiet: each static address is one slot's. A Service whose name and labels disagree is none, and is
    /// left alone.
    pub(crate) fn nobody_asks_for_anothers(&self) -> Verdict {
        let is_slot = |s: &Value| {
            let [cluster, slot] =
                ["external-ip.dev/cluster", "external-ip.dev/slot"].map(|key| label(s, key));
            let name = format!("{}-ext-{}", cluster.unwrap_or_default(), slot.unwrap_or_default());
            s["metadata"]["name"] == *name
                && annotation(s, "external-ip.dev/owner") == Some("external-ip-controller")
        };
        let slots = self.services.iter().filter(|s| is_slot(s));
        let asked = slots.filter_map(|s| annotation(s, ASKED)).flat_map(|list| list.split(','));
        let mut seen = BTreeSet::new();
        match asked.into_iter().find(|ip| !seen.insert(*ip)) {
            Some(ip) => Err(format!("two slots ask for {ip} in the end: {:?}", self.services)),
            None => Ok(()),
        }
    }
}
