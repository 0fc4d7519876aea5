//! Admission over TLS and HTTP/2: the product, the least server there can be, and a webhook in Go.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::pretended::Server;
use crate::process::{Process, free_address};
use crate::product::Product;
use crate::reviews::SHAPES;
use crate::table::Table;
use crate::world::Objects;

/// Times each measurement is made; the subjects take turns, each for a third of a second or so: a machine that becomes
/// slower meanwhile is slower for all of them.
const ROUNDS: usize = 12;
/// Requests of a measurement of throughput and cost, and how many at once.
const MANY: (usize, usize) = (6_000, 16);
/// The same for the slow one, of which a tenth is exact enough.
const FEW: (usize, usize) = (600, 16);
/// Requests of a measurement of latency, one at a time.
const SINGLE: (usize, usize) = (600, 1);

struct Subject {
    name: &'static str,
    process: Process,
    at: SocketAddr,
    path: &'static str,
    many: (usize, usize),
}

/// What the load generator tells.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Seen {
    requests: u32,
    per_second: f64,
    bytes: usize,
    p50_us: u64,
    p99_us: u64,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    seen: Seen,
    /// Processor time of the server for each request.
    cpu_us: f64,
    alone: Seen,
}

pub(crate) fn run(binary: &Path, agnhost: Option<&Path>, directory: &Path) -> Result<Value> {
    let api = Server::start(Objects::default())?;
    let mut product = Product::start(binary, api.address, directory)?;
    product.ready()?;
    let mut subjects = vec![bare(directory)?];
    subjects.push(Subject {
        name: "product",
        at: product.admission,
        process: product.process,
        path: "/mutate",
        many: MANY,
    });
    subjects.extend(agnhost.map(|program| go(program, directory)).transpose()?);
    let mut table = Table::new(&["review", "server", "requests/s", "CPU us", "of bare", "p50 us", "p99 us"]);
    let mut found = Vec::new();
    for (number, shape) in SHAPES.iter().enumerate() {
        let runs = rounds(&subjects, number, directory)?;
        let of_bare = mean(&runs[0]);
        for (subject, runs) in subjects.iter().zip(&runs) {
            let cpu = mean(runs);
            let (p50, p99) =
                (median(runs, |r| to_f64(r.alone.p50_us)), median(runs, |r| to_f64(r.alone.p99_us)));
            let per_second = median(runs, |r| r.seen.per_second);
            table.row(&[
                format!("{} ({} bytes)", shape.name, runs[0].seen.bytes),
                subject.name.to_owned(),
                format!("{per_second:.0}"),
                format!("{cpu:.1}"),
                format!("{:.2}", cpu / of_bare),
                format!("{p50:.0}"),
                format!("{p99:.0}"),
            ]);
            let all: Vec<Value> = runs
                .iter()
                .map(|r| {
                    json!({"cpu_us": r.cpu_us, "per_second": r.seen.per_second,
                "p50_us": r.alone.p50_us, "p99_us": r.alone.p99_us})
                })
                .collect();
            found.push(json!({"review": shape.name, "bytes": runs[0].seen.bytes, "server": subject.name,
                "cpu_us": cpu, "of_bare": cpu / of_bare, "per_second": per_second, "p50_us": p50, "p99_us": p99, "runs": all}));
        }
    }
    table.print("Admission: one connection, 16 requests in flight; latency with one in flight");
    Ok(json!(found))
}

/// Every subject's runs, by subject.
fn rounds(subjects: &[Subject], review: usize, directory: &Path) -> Result<Vec<Vec<Run>>> {
    let mut runs = vec![Vec::new(); subjects.len()];
    for _ in 0..ROUNDS {
        for (subject, runs) in subjects.iter().zip(&mut runs) {
            let alone = load(subject, review, SINGLE, directory)?;
            let before = subject.process.cpu()?;
            let seen = load(subject, review, subject.many, directory)?;
            let used = subject.process.cpu()?.saturating_sub(before);
            let cpu_us = used.as_secs_f64() * 1e6 / f64::from(seen.requests);
            runs.push(Run { seen, cpu_us, alone });
        }
    }
    Ok(runs)
}

#[allow(clippy::cast_precision_loss)] // microseconds, far below 2^52
fn to_f64(number: u64) -> f64 {
    number as f64
}

/// Processor time for each request over all runs: of one alone the kernel's clock, which ticks every 10 ms, knows too
/// little.
fn mean(runs: &[Run]) -> f64 {
    let (used, requests) = runs.iter().fold((0.0, 0.0), |(used, requests), run| {
        let count = f64::from(run.seen.requests);
        (used + run.cpu_us * count, requests + count)
    });
    used / requests
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// In a process of its own, so that its time is not the server's.
fn load(
    subject: &Subject,
    review: usize,
    (requests, at_once): (usize, usize),
    directory: &Path,
) -> Result<Seen> {
    let output = Command::new(std::env::current_exe()?)
        .arg("load")
        .args(["--to", &subject.at.to_string(), "--path", subject.path])
        .arg("--ca")
        .arg(directory.join("ca.crt"))
        .args(["--review", &review.to_string()])
        .args(["--requests", &requests.to_string(), "--in-flight", &at_once.to_string()])
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "load on {}: {told}", subject.name);
    serde_json::from_slice(&output.stdout).context("what the load generator printed")
}

fn bare(directory: &Path) -> Result<Subject> {
    let at = free_address()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare", "--listen", &at.to_string(), "--tls"]).arg(directory);
    let mut process = Process::start(&mut command)?;
    process.listening(at)?;
    Ok(Subject { name: "bare", process, at, path: "/", many: MANY })
}

fn go(program: &Path, directory: &Path) -> Result<Subject> {
    let at = free_address()?;
    let file = |name: &str| -> PathBuf { directory.join(name) };
    let mut command = Command::new(program);
    command.args(["webhook", "--port", &at.port().to_string()]);
    command.arg("--tls-cert-file").arg(file("tls.crt")).arg("--tls-private-key-file").arg(file("tls.key"));
    let mut process = Process::start(&mut command)?;
    process.listening(at)?;
    Ok(Subject { name: "agnhost (Go)", process, at, path: "/mutating-pods", many: FEW })
}
