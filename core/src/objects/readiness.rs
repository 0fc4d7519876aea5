//! Our readiness gate on a pod.

use serde::Deserialize;

use crate::names;

/// How our condition stands on a pod that has our readiness gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The pod has no conditions yet: nobody has begun to start it.
    NotBegun,
    /// Other conditions are there, ours is not.
    Missing,
    /// Ours has this place among the conditions, and is not True.
    Unmet(usize),
    /// True.
    Met,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawGate {
    condition_type: String,
}

#[derive(Deserialize)]
pub(super) struct RawCondition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    #[serde(rename = "lastTransitionTime", default)]
    pub(super) changed: Option<jiff::Timestamp>,
}

impl Readiness {
    pub(super) fn read(gates: &[RawGate], conditions: &[RawCondition]) -> Option<Self> {
        gates.iter().find(|gate| gate.condition_type == names::ROUTED_CONDITION)?;
        let ours = |c: &RawCondition| c.kind == names::ROUTED_CONDITION;
        Some(match conditions.iter().position(ours) {
            Some(place) if conditions[place].status == "True" => Self::Met,
            Some(place) => Self::Unmet(place),
            None if conditions.is_empty() => Self::NotBegun,
            None => Self::Missing,
        })
    }
}
