//! What a pod of a cluster is entitled to: shared by the plan (which acts on it) and the mapping (which shows it).

use std::collections::{BTreeSet, HashMap};

use crate::demand::{self, Ask, Demand, Membership};
use crate::mapping;
use crate::names::{self, Key};
use crate::objects::{Pod, Service, ServicePort};
use crate::reason::{Code, Reason};
use crate::settings::{Class, Exposure, Settings};
use crate::shared::{self, Offered, SharedSlot};
use crate::state::State;

/// A pod and what it asks for.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What it asks for, or why it gets nothing.
    pub demand: Result<Demand<'a>, Reason>,
    /// The identity that is rightfully its own, where it carries it.
    pub pod_id: Option<&'a str>,
    /// Other pods that have not ended carry the same identity.
    pub contested: bool,
    /// Its ports under shared names, where it has them all.
    pub share: Option<Share>,
}

/// How a pod can be reached by a shared Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// What the names of its ports begin with.
    pub token: String,
    /// What it exposes, with the indexes of the names.
    pub offered: Vec<Offered>,
    /// Other pods that have not ended carry the same names.
    pub contested: bool,
}

impl Share {
    /// Whether an empty shared Service of a class has room for its ports.
    pub fn fits(&self, class: &Class) -> bool {
        self.fits_beside(&BTreeSet::new(), class)
    }

    /// Whether a shared Service of a class has room for its ports besides those taken.
    pub(crate) fn fits_beside(&self, taken: &BTreeSet<u16>, class: &Class) -> bool {
        shared::place(&self.offered, &[], taken, &class.shared.range()).is_some()
    }
}

impl<'a> Claim<'a> {
    /// The identity to label the pod with, where it carries none or one that is not its own.
    pub fn missing_id(&self, cluster: &str) -> Option<String> {
        let pod = self.pod;
        // one that goes needs an identity only in place of a copied one, which is in its owner's way
        if self.pod_id.is_some() || self.demand.is_err() || (pod.terminating && pod.pod_id.is_none()) {
            return None;
        }
        Some(if pod.is_anonymous() {
            names::pod_id_of_seed(cluster, &pod.uid)
        } else {
            names::pod_id_of_name(cluster, &pod.key.name)
        })
    }

    /// Whether its slot shall lead to nobody, because it would lead to several.
    pub fn is_contested(&self, exposure: Exposure) -> bool {
        self.contested || exposure == Exposure::Shared && self.share.as_ref().is_some_and(|s| s.contested)
    }

    /// What a slot that leads to this pod is bound to: its identity, or the token of its shared names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let token = self.share.as_ref().map(|s| s.token.as_str());
        self.pod_id.into_iter().chain(token)
    }

    /// What a slot is kept for that waits for this pod: its name, or the token.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let token = self.share.as_ref().map(|s| s.token.as_str());
        [&*self.pod.key.name].into_iter().chain(token)
    }

    /// What it asks for, where it may have it.
    pub fn granted(&self) -> Option<(&Demand<'a>, &'a str)> {
        Some((self.demand.as_ref().ok()?, self.pod_id?))
    }
}

/// The claims of a cluster's pods, oldest pod first.
pub fn claims<'a>(state: &'a State, cluster: &Key) -> Vec<Claim<'a>> {
    state.pods_of(cluster).into_iter().map(|pod| claim(state, cluster, pod)).collect()
}

/// The claim of one pod of a cluster.
pub(crate) fn claim<'a>(state: &'a State, cluster: &Key, pod: &'a Pod) -> Claim<'a> {
    let claimants = |id: &str| state.claimants(&cluster.namespace, id).filter(|p| p.uid != pod.uid).count();
    let pod_id = pod.pod_id.as_deref().filter(|id| is_rightful(state, id, cluster, pod));
    let demand = demand_of(state, cluster, pod);
    Claim {
        pod,
        share: demand.as_ref().ok().and_then(|demand| share_of(state, cluster, pod, demand, pod_id?)),
        demand,
        contested: pod_id.is_some_and(|id| claimants(id) > 0),
        pod_id,
    }
}

/// An identity made from a name belongs to the pod of that name; an anonymous one to the pod whose UID it was made from,
/// else to the oldest pod that carries it.
fn is_rightful(state: &State, id: &str, cluster: &Key, pod: &Pod) -> bool {
    if id == names::pod_id_of_name(&cluster.name, &pod.key.name) {
        return true;
    }
    let of_cluster = id.strip_prefix(&*cluster.name).is_some_and(|rest| rest.starts_with('.'));
    let members = || {
        let claimants = state.claimants(&cluster.namespace, id);
        claimants.filter(|p| state.cluster_of(p).as_ref() == Some(cluster))
    };
    // labelling the one it was made from would give it the same identity again
    let rank = |p: &Pod| (id != names::pod_id_of_seed(&cluster.name, &p.uid), p.created, p.uid.clone());
    let owner = || members().min_by(|a, b| rank(a).cmp(&rank(b)));
    of_cluster && names::is_anonymous(id) && owner().is_some_and(|p| p.uid == pod.uid)
}

fn share_of(state: &State, cluster: &Key, pod: &Pod, demand: &Demand<'_>, pod_id: &str) -> Option<Share> {
    if pod.labels.get(names::SHARED_LABEL).is_none_or(|c| c != &*cluster.name) {
        return None;
    }
    let token = names::share_token(pod_id);
    let index = |p: &ServicePort| {
        let own = pod.shared_ports.iter().filter(|s| (s.number, s.protocol) == (p.target, p.protocol));
        own.filter_map(|s| shared::token_of(&s.name))
            .find(|(found, _)| *found == token)
            .map(|(_, index)| index)
    };
    let offered: Option<Vec<Offered>> =
        demand.ports.iter().map(|p| Some((p.target, p.protocol, index(p)?))).collect();
    let contested = state.sharers(cluster, &token).any(|other| other.uid != pod.uid);
    Some(Share { offered: offered?, contested, token })
}

fn demand_of<'a>(state: &'a State, cluster: &Key, pod: &'a Pod) -> Result<Demand<'a>, Reason> {
    let settings: &Settings = state.settings();
    if pod.finished {
        return Err(Code::Finished.into());
    }
    if state.namespace(&cluster.namespace).is_none() {
        return Err(Reason::new(Code::NamespaceNotEnabled, &*cluster.namespace));
    }
    let labels = |key: &str| pod.labels.get(key);
    let configured = match demand::cluster_of(labels, &cluster.namespace, settings) {
        Membership::Cluster { configured, .. } => configured,
        Membership::Ambiguous { names } => return Err(Reason::new(Code::AmbiguousCluster, names.join(", "))),
        Membership::None => None,
    };
    demand::demand(&Ask::of_pod(pod, &cluster.name, configured), settings)
}

/// How well a slot serves a pod that has several: the least counts. Plan and mapping go by the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// How far it has come. First, for the plan knows slots that are being made and the map does not: both go by one that leads to
    /// the pod until then.
    pub stage: Stage,
    /// It is kept for another pod's name.
    pub other_name: bool,
    /// Its number.
    pub number: u32,
}

/// How far a slot has come, from best to worst. While a pod moves, an address that leads to it goes before one that is to.
/// A slot is to go because the class does not know its exposure any more, or another Service is asked for in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It leads to the pod.
    Arrived,
    /// It leads to the pod, and is to go.
    Former,
    /// It has an address, which does not lead to the pod yet, or must not be shown.
    Arriving,
    /// The same, and it is to go.
    Left,
    /// It waits for its address.
    Waiting,
    /// It has waited too long for its address, or is to go without having had one.
    Overdue,
}

impl Stage {
    /// Of a slot for a pod.
    pub fn of(state: &State, claim: &Claim<'_>, slot: &Slot<'_>) -> Self {
        let Slot { service, .. } = slot;
        let known = claim.demand.as_ref().is_ok_and(|d| d.class.exposure.contains(&service.exposure()));
        let stays = known && !service.gives_way();
        if !service.has_address() {
            return if stays && !service.is_overdue() { Self::Waiting } else { Self::Overdue };
        }
        match (mapping::leads(state, claim, slot), stays) {
            (true, true) => Self::Arrived,
            (true, false) => Self::Former,
            (false, true) => Self::Arriving,
            (false, false) => Self::Left,
        }
    }
}

/// The one of the least rank. Most pods have one slot, and ranking it costs as much as its entry.
pub(crate) fn best<T>(slots: impl Iterator<Item = T>, rank: impl Fn(&T) -> Rank) -> Option<T> {
    let mut slots = slots.peekable();
    let first = slots.next()?;
    if slots.peek().is_none() { Some(first) } else { std::iter::once(first).chain(slots).min_by_key(rank) }
}

/// A slot as the API shows it.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a> {
    /// Its number.
    pub number: u32,
    /// Its Service, or the one it shares.
    pub service: &'a Service,
    /// Its ports on a shared Service.
    pub share: Option<&'a SharedSlot>,
}

impl<'a> Slot<'a> {
    /// What it leads to: an identity, or a token of shared names; `None` = nobody, or what is none of ours.
    pub fn bound_to(&self) -> Option<&'a str> {
        let Some(share) = self.share else { return self.service.bound_to() };
        let selects = self.service.selects_sharers();
        (!share.blocked && selects).then_some(share.token.as_str())
    }

    /// What it is kept for: a pod's name, or a token.
    pub fn kept_for(&self) -> Option<&'a str> {
        self.share.map_or(self.service.kept_for(), |share| Some(share.token.as_str()))
    }
}

/// The slots of a cluster: Services that are ours, by number, and what they share.
#[derive(Debug)]
pub struct Slots<'a> {
    list: Vec<Slot<'a>>,
    by_key: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Slots<'a> {
    /// As the state shows them.
    pub fn of(state: &'a State, cluster: &Key) -> Self {
        let installation = &state.settings().installation;
        let mut list = Vec::new();
        for service in state.services_of(cluster).into_iter().filter(|s| s.owned_by(installation)) {
            list.extend(service.slot().map(|number| Slot { number, service, share: None }));
            list.extend(service.shares.iter().map(|s| Slot { number: s.number, service, share: Some(s) }));
        }
        // of a number that is there twice the one with a Service of its own counts
        list.sort_by_key(|s| (s.number, s.share.is_some()));
        list.dedup_by_key(|s| s.number);
        let mut by_key: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, slot) in list.iter().enumerate() {
            if let Some(key) = slot.bound_to() {
                by_key.entry(key).or_default().push(index);
            }
        }
        Self { list, by_key }
    }

    /// All of them.
    pub fn all(&self) -> &[Slot<'a>] {
        &self.list
    }

    /// The one of a number.
    pub fn get(&self, number: u32) -> Option<Slot<'a>> {
        let index = self.list.binary_search_by_key(&number, |s| s.number).ok()?;
        Some(self.list[index])
    }

    /// Number and Service of each.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &'a Service)> {
        self.list.iter().map(|s| (s.number, s.service))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Which of several slots bound to a pod's identity counts: see [`Rank`]. The others are surplus.
    pub fn bound_to(&self, state: &State, claim: &Claim<'_>) -> Option<Slot<'a>> {
        claim.granted()?;
        let bound =
            claim.keys().filter_map(|key| self.by_key.get(key)).flatten().map(|index| self.list[*index]);
        best(bound, |slot| Rank {
            stage: Stage::of(state, claim, slot),
            other_name: claim.names().all(|name| slot.kept_for() != Some(name)),
            number: slot.number,
        })
    }

    /// Slots with an exposure.
    pub fn count(&self, exposure: Exposure) -> usize {
        self.list.iter().filter(|s| s.service.exposure() == exposure).count()
    }
}
