//! The JSON patch (RFC 6902) that gives a pod our metadata and takes forged metadata away.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::review::{Entries, Metadata};

/// Our keys as they shall be, sorted; every other key under the reserved prefix goes.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) labels: BTreeMap<Cow<'static, str>, String>,
    pub(super) annotations: BTreeMap<Cow<'static, str>, String>,
}

/// One operation. `add` replaces what is there, so no case needs `replace`.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation<'a> {
    Add { path: String, value: Added<'a> },
    Remove { path: String },
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Added<'a> {
    One(&'a str),
    Map(&'a BTreeMap<Cow<'static, str>, String>),
}

/// The patch from `metadata` to `wanted` as JSON; `None` where nothing is to be done.
pub(super) fn patch(metadata: &Metadata<'_>, wanted: &Wanted) -> Option<Vec<u8>> {
    let mut operations = Vec::new();
    change_map("labels", metadata.labels.as_ref(), &wanted.labels, &mut operations);
    change_map("annotations", metadata.annotations.as_ref(), &wanted.annotations, &mut operations);
    if operations.is_empty() {
        return None;
    }
    // strings and maps of strings always serialize
    serde_json::to_vec(&operations).ok()
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
