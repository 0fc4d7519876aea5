//! Names of Services that somebody else has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::action::Outcome;
use crate::names::Key;
use crate::settings::Class;
use crate::state::State;

/// A name found taken is tried again after this long.
const TAKEN_RETRY: Duration = Duration::from_secs(60);

/// The Service that has a name, as it was found.
#[derive(Debug, Clone)]
struct Taken {
    uid: String,
    version: u64,
    adoptable: bool,
    selector: Vec<String>,
    addresses: Vec<IpAddr>,
    until: Duration,
}

/// By the name.
#[derive(Debug, Default)]
pub(super) struct TakenNames(HashMap<Key, Taken>);

impl TakenNames {
    /// Takes what the writer found under a name: see [`Outcome::NameTaken`].
    pub(super) fn note(&mut self, name: Option<&Key>, found: &Outcome, now: Duration) {
        let (Some(name), Outcome::NameTaken { uid, version, adoptable, selector, addresses, .. }) =
            (name, found)
        else {
            return;
        };
        let taken = Taken {
            uid: uid.clone(),
            version: *version,
            adoptable: *adoptable,
            selector: selector.clone(),
            addresses: addresses.clone(),
            until: now + TAKEN_RETRY,
        };
        self.0.insert(name.clone(), taken);
    }

    /// What was found is not so any more.
    pub(super) fn forget(&mut self, name: Option<&Key>) {
        name.map(|name| self.0.remove(name));
    }

    /// What was found long ago is looked at again.
    pub(super) fn forget_old(&mut self, now: Duration) {
        self.0.retain(|_, taken| taken.until > now);
    }

    /// Whether somebody else has a name, handed over or not.
    pub(super) fn contains(&self, name: &Key) -> bool {
        self.0.contains_key(name)
    }

    /// Whether a name belongs to somebody who does not hand it over.
    pub(super) fn is_taken(&self, service: &Key) -> bool {
        self.0.get(service).is_some_and(|t| !t.adoptable)
    }

    /// UID, resource version and selector keys of a foreign Service that is handed over.
    pub(super) fn handed_over(&self, service: &Key) -> Option<(String, u64, Vec<String>)> {
        let taken = self.0.get(service).filter(|t| t.adoptable)?;
        Some((taken.uid.clone(), taken.version, taken.selector.clone()))
    }

    /// What a slot asks for that is about to be made: a Service that is handed over keeps the address it has, and asks for
    /// it where it is nobody else's.
    pub(super) fn keeps(&self, state: &State, service: &Key, class: &Class, asked: &[IpAddr]) -> Vec<IpAddr> {
        let taken = self.0.get(service).filter(|t| t.adoptable && !t.addresses.is_empty());
        let Some(taken) = taken.filter(|_| class.service.asks_for_address()) else { return asked.to_vec() };
        let may_ask = |ip: &&IpAddr| class.addresses.is_empty() || class.addresses.contains(ip);
        let is_anothers = |ip: &IpAddr| state.holders(ip).any(|other| other.key != *service);
        taken.addresses.iter().filter(may_ask).filter(|ip| !is_anothers(ip)).copied().collect()
    }

    /// Names of a cluster's slots that somebody else has.
    pub(super) fn of<'m>(&'m self, namespace: &'m str) -> impl Iterator<Item = &'m Key> {
        self.0.iter().filter(move |(k, t)| &*k.namespace == namespace && !t.adoptable).map(|(k, _)| k)
    }
}
