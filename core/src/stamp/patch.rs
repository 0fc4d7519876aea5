//! The JSON patch (RFC 6902) that gives a pod our metadata and takes forged metadata away.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::ports::{self, Named};
use super::review::{Entries, Metadata, PodObject};
use super::spec::{self, WantedSpec};

/// What most operations fit in: a patch that grows step by step is copied at each.
const OPERATION_BYTES: usize = 256;

/// Our keys as they shall be, sorted; every other key under the reserved prefix goes.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) labels: BTreeMap<Cow<'static, str>, String>,
    pub(super) annotations: BTreeMap<Cow<'static, str>, String>,
    /// Container ports under shared names.
    pub(super) ports: Vec<Named>,
    pub(super) spec: WantedSpec,
}

/// One operation. `add` replaces what is there, so no case needs `replace`.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Operation<'a> {
    Add { path: String, value: Added<'a> },
    Remove { path: String },
}

impl Operation<'_> {
    /// Adds what is written already.
    pub(super) fn add(path: String, value: Box<RawValue>) -> Self {
        Self::Add { path, value: Added::Written(value) }
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Added<'a> {
    One(&'a str),
    Map(&'a BTreeMap<Cow<'static, str>, String>),
    Written(Box<RawValue>),
}

/// `value` as JSON.
pub(super) fn written(value: &impl Serialize) -> Box<RawValue> {
    // structs, lists and strings always serialize
    to_raw_value(value).unwrap_or_default()
}

/// The patch from a pod to `wanted` as JSON; `None` where nothing is to be done. Without `pod` its spec is left alone.
pub(super) fn patch(
    metadata: &Metadata<'_>,
    pod: Option<&PodObject<'_>>,
    wanted: &Wanted,
) -> Option<Vec<u8>> {
    let mut operations = Vec::new();
    change_map("labels", metadata.labels.as_ref(), &wanted.labels, &mut operations);
    change_map("annotations", metadata.annotations.as_ref(), &wanted.annotations, &mut operations);
    if let Some(pod) = pod {
        let copied = metadata.label(crate::names::SHARED_LABEL).is_some();
        ports::change(pod, &wanted.ports, copied, &mut operations);
        spec::change(pod, &wanted.spec, &mut operations);
    }
    if operations.is_empty() {
        return None;
    }
    let mut patch = Vec::with_capacity(OPERATION_BYTES * operations.len());
    // strings and maps of strings always serialize
    serde_json::to_writer(&mut patch, &operations).ok()?;
    Some(patch)
}

fn change_map<'w, const ALL: bool>(
    map: &str,
    found: Option<&Entries<'_, ALL>>,
    wanted: &'w BTreeMap<Cow<'static, str>, String>,
    operations: &mut Vec<Operation<'w>>,
) {
    let Some(found) = found else {
        if !wanted.is_empty() {
            operations.push(Operation::Add { path: format!("/metadata/{map}"), value: Added::Map(wanted) });
        }
        return;
    };
    let path = |key: &str| format!("/metadata/{map}/{}", pointer_token(key));
    for (key, _) in found.reserved().filter(|(key, _)| !wanted.contains_key(*key)) {
        operations.push(Operation::Remove { path: path(key) });
    }
    for (key, value) in wanted {
        if !found.reserved().any(|(k, v)| k == key && v == value) {
            operations.push(Operation::Add { path: path(key), value: Added::One(value) });
        }
    }
}

/// A key as a token of a JSON pointer (RFC 6901, section 3).
fn pointer_token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
