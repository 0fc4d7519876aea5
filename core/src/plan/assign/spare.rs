//! Slots made ahead of the pods: they have their address when the pod comes.

use std::collections::BTreeMap;

use super::search::suits;
use super::{Desk, Slot, Spare};
use crate::claim::Claim;
use crate::demand::Demand;
use crate::names;
use crate::settings::{Class, Exposure};

/// A slot that shall be there: like which claim, and for which pod name.
type Wish = (usize, Option<String>);

impl Desk<'_, '_> {
    /// Keeps free slots that are wanted, and wishes for those that are missing while there is room for them.
    pub(super) fn look_ahead(&mut self, claims: &[Claim<'_>]) {
        for (like, name) in wishes(claims) {
            let Ok(demand) = &claims[like].demand else { continue };
            let found = match &name {
                Some(name) => {
                    self.slots.values().find(|s| s.kept_for.as_deref() == Some(name)).map(|s| s.number)
                }
                None => self.unclaimed(demand.class),
            };
            if let Some(number) = found {
                if self.result.free.contains(&number) && !self.result.surplus.contains(&number) {
                    self.result.ready.insert(number);
                }
                continue;
            }
            self.result.wishes = true;
            if !self.may_go_ahead(demand) || !self.result.refused.is_empty() || self.is_full(demand) {
                continue;
            }
            let (pod, anonymous) = (name.as_deref().unwrap_or_default(), name.is_none());
            // who has to wait for an address is told so; here nobody waits
            let Ok(asked) = self.address_for(pod, demand.class, Exposure::Dedicated) else { continue };
            let Some(number) = self.number_for(pod, anonymous) else { continue };
            self.planned.insert(number);
            self.result.asked.insert(number, asked);
            self.result.spare.push(Spare { like, name, number });
        }
    }

    fn may_go_ahead(&self, demand: &Demand<'_>) -> bool {
        let others = self.turn.ahead;
        others.is_some_and(|others| !others.wants(self.state.settings(), self.cluster, demand))
    }

    fn is_full(&self, demand: &Demand<'_>) -> bool {
        self.limit(demand.class_name, demand.class, Exposure::Dedicated, true).is_some()
    }

    /// A free slot that the next pod of a class may have at once and no other wish has taken.
    fn unclaimed(&self, class: &Class) -> Option<u32> {
        let rested =
            |s: &Slot<'_>| s.is_up_for_grabs() && self.rested_at(s).is_some_and(|at| at <= self.turn.now);
        // one that is being made will be
        let of_use = |s: &Slot<'_>| s.service.is_none() || suits(self.state, s, class);
        let fits = |s: &&Slot<'_>| (s.is_spare() || rested(s)) && of_use(s);
        let free = self.slots.values().filter(|s| self.result.free.contains(&s.number));
        free.filter(|s| !self.result.ready.contains(&s.number)).find(fits).map(|s| s.number)
    }
}

/// What a cluster's pods want ahead of the next ones: for a StatefulSet under the names that come next, so that the
/// webhook finds the address; else for whoever comes. As many as the class says, and as many as its pods wait for.
fn wishes(claims: &[Claim<'_>]) -> Vec<Wish> {
    let mut sets: BTreeMap<&str, (u32, usize)> = BTreeMap::new();
    let mut others = None;
    let granted = claims.iter().enumerate().filter(|(_, claim)| claim.granted().is_some());
    let mut pods = 0;
    for (index, claim) in granted {
        pods += 1;
        match set_and_ordinal(claim) {
            Some((set, ordinal)) => {
                let highest = sets.entry(set).or_insert((ordinal, index));
                *highest = (*highest).max((ordinal, index));
            }
            None => others = Some(index),
        }
    }
    let mut wishes: Vec<Wish> = Vec::new();
    let class = |index: usize| claims[index].demand.as_ref().map(|demand| (demand.class, demand.waits));
    let spares = |index: usize| class(index).map_or(0, |(class, _)| class.spare_slots);
    for (set, (highest, like)) in &sets {
        let next = (1..=spares(*like)).map(|n| (*like, Some(format!("{set}-{}", highest.saturating_add(n)))));
        wishes.extend(next);
    }
    wishes.extend(others.into_iter().flat_map(|like| (0..spares(like)).map(move |_| (like, None))));
    // those that pods wait for come to the first set's names, beyond its spare ones
    let first = sets.iter().next().map(|(set, (highest, like))| (Some((*set, *highest)), *like));
    let Some((set, like)) = first.or(others.map(|like| (None, like))) else { return wishes };
    let members = class(like).map_or(0, |(class, waits)| if waits { class.await_address.members } else { 0 });
    let mut next = spares(like);
    while pods + wishes.len() < members as usize {
        next += 1;
        let name = set.map(|(set, highest)| format!("{set}-{}", highest.saturating_add(next)));
        wishes.push((like, name));
    }
    wishes
}

/// The StatefulSet of a pod and the pod's number in it.
fn set_and_ordinal<'a>(claim: &Claim<'a>) -> Option<(&'a str, u32)> {
    let pod = claim.pod;
    let set = pod.owner.as_ref().filter(|owner| owner.kind == "StatefulSet")?;
    let ordinal = names::ordinal(&pod.key.name)?;
    (*pod.key.name == *format!("{}-{ordinal}", set.name)).then_some((set.name.as_str(), ordinal))
}
