//! The oracle against forgeries of its own record: one that cannot say no proves nothing.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::report::Run;

/// Names a complaint and how to deserve it.
type Forgery = (&'static str, fn(Vec<Value>) -> Option<Vec<Value>>);

const FORGERIES: [(&str, Forgery); 6] = [
    ("two entries with their external addresses exchanged", ("wrong", exchanged)),
    ("an entry that is shown after its pod had gone", ("wrong", kept)),
    ("an entry of a pod that never was", ("wrong", invented)),
    ("one external address shown twice", ("duplicates", doubled)),
    ("an entry left out", ("lost", left_out)),
    ("a position that goes back", ("went back", back)),
];

/// Forges the record in each way and demands the complaint. The record itself must be free of it.
pub(crate) fn test(run: &mut Run) -> Result<()> {
    let honest = run.documents.clone();
    let before = run.judged()?;
    for (name, (complaint, forge)) in FORGERIES {
        ensure!(before.count(complaint) == 0, "the honest record has complaints: {complaint}");
        run.documents =
            forge(honest.clone()).with_context(|| format!("no place in the record for: {name}"))?;
        let found = run.judged()?.count(complaint);
        ensure!(found > 0, "not noticed: {name}");
        println!("noticed as {complaint} ({found}): {name}");
    }
    run.documents = honest;
    Ok(())
}

/// The entry with a number of a reader.
fn entry(lines: &[Value], reader: &Value, number: &Value) -> Option<Value> {
    let told =
        |line: &&Value| line["reader"] == *reader && line["number"] == *number && line["of"].is_object();
    lines.iter().find(told).map(|line| line["of"].clone())
}

/// A map near the middle of the record, by its line, with the numbers of two Routed entries.
fn middle(lines: &[Value]) -> Option<(usize, Value, Value)> {
    let candidates = (lines.len() / 2)..lines.len();
    candidates.into_iter().find_map(|index| {
        let line = &lines[index];
        let routed = |number: &&Value| {
            entry(lines, &line["reader"], number).is_some_and(|of| of["entry"]["state"] == "Routed")
        };
        let mut two = line["entries"].as_array()?.iter().filter(routed);
        Some((index, two.next()?.clone(), two.next()?.clone()))
    })
}

/// Puts a changed entry in place of `number` in the map at `index`.
fn replace(mut lines: Vec<Value>, index: usize, number: &Value, of: &Value) -> Option<Vec<Value>> {
    const FORGED: u64 = 1 << 40;
    let fresh = json!(FORGED + lines.len() as u64);
    let reader = lines[index]["reader"].clone();
    let place = lines[index]["entries"].as_array_mut()?.iter_mut().find(|n| *n == number)?;
    *place = fresh.clone();
    lines.insert(index, json!({"reader": reader, "number": fresh, "of": of}));
    Some(lines)
}

fn exchanged(lines: Vec<Value>) -> Option<Vec<Value>> {
    let (index, first, second) = middle(&lines)?;
    let reader = lines[index]["reader"].clone();
    let (mut one, mut other) = (entry(&lines, &reader, &first)?, entry(&lines, &reader, &second)?);
    let address = one["entry"]["external"].take();
    one["entry"]["external"] = other["entry"]["external"].take();
    other["entry"]["external"] = address;
    let lines = replace(lines, index, &first, &one)?;
    replace(lines, index + 1, &second, &other)
}

fn kept(mut lines: Vec<Value>) -> Option<Vec<Value>> {
    let (early, number, _) = middle(&lines)?;
    let reader = lines[early]["reader"].clone();
    let own = |line: &&mut Value| line["reader"] == reader && line["entries"].is_array();
    let without = |line: &&mut Value| line["entries"].as_array().is_some_and(|all| !all.contains(&number));
    let later = lines[early..].iter_mut().rev().filter(own).find(without)?;
    later["entries"].as_array_mut()?.push(number);
    Some(lines)
}

fn invented(lines: Vec<Value>) -> Option<Vec<Value>> {
    let (index, number, _) = middle(&lines)?;
    let mut of = entry(&lines, &lines[index]["reader"], &number)?;
    of["entry"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    replace(lines, index, &number, &of)
}

fn doubled(lines: Vec<Value>) -> Option<Vec<Value>> {
    let (index, first, second) = middle(&lines)?;
    let reader = lines[index]["reader"].clone();
    let mut of = entry(&lines, &reader, &first)?;
    of["entry"]["external"] = entry(&lines, &reader, &second)?["entry"]["external"].clone();
    replace(lines, index, &first, &of)
}

fn left_out(mut lines: Vec<Value>) -> Option<Vec<Value>> {
    // the last map is one of a quiet moment: everything in it had to be there
    let last =
        lines.iter_mut().rev().find(|line| line["entries"].as_array().is_some_and(|e| !e.is_empty()))?;
    last["entries"].as_array_mut()?.remove(0);
    Some(lines)
}

fn back(mut lines: Vec<Value>) -> Option<Vec<Value>> {
    let (index, ..) = middle(&lines)?;
    let reader = lines[index]["reader"].clone();
    let own = |line: &&Value| line["reader"] == reader && line["entries"].is_array();
    let position = lines.iter().find(own)?["position"].clone();
    (lines[index]["position"] != position).then_some(())?;
    lines[index]["position"] = position;
    Some(lines)
}
