//! The whole product: at rest without pods, and with many of them while they change.

mod readers;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::pretended::Server;
use crate::product::Product;
use crate::reviews::SHAPES;
use crate::table::Table;
use crate::world::{MEMBERS, Objects, World};
use readers::Readers;

/// Starts of an idle product.
const STARTS: usize = 7;
/// What is watched long enough for memory to be what it stays.
const SETTLED: Duration = Duration::from_secs(3);
/// Sizes of installations, in pods.
const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// How long changes go on, and how many there are in a second.
const CHANGING: Duration = Duration::from_secs(10);
const CHANGES_PER_SECOND: u32 = 50;
/// Clusters that change, as many as the smallest installation has: what a change costs more in a larger one is due to
/// those that do not. After that all of them change in turn, and hardly two changes of a cluster share a ConfigMap write.
const FEW: usize = 5;
/// How long nothing happens, to know what that costs.
const RESTING: Duration = Duration::from_secs(5);
/// Clusters that somebody reads, each over a connection of its own.
const READ: usize = 250;

/// From the start of the program to `/readyz`, and memory.
pub(crate) fn idle(binary: &Path, directory: &Path) -> Result<Value> {
    let api = Server::start(Objects::default())?;
    let (mut starts, mut resident) = (Vec::new(), 0);
    for _ in 0..STARTS {
        let begun = Instant::now();
        let mut product = Product::start(binary, api.address, directory)?;
        product.ready()?;
        starts.push(begun.elapsed());
        std::thread::sleep(SETTLED);
        resident = resident.max(product.process.resident()?);
    }
    starts.sort_unstable();
    let bytes = std::fs::metadata(binary)?.len();
    let mut table = Table::new(&["start to /readyz, median", "resident", "program"]);
    table.row(&[
        format!("{:.0?}", starts[STARTS / 2]),
        format!("{:.1} MB", kb(resident)),
        format!("{:.2} MB", kb(bytes / 1000)),
    ]);
    table.print("Idle: no pods");
    let starts: Vec<f64> = starts.iter().map(|s| s.as_secs_f64() * 1e3).collect();
    Ok(json!({"start_ms": starts, "resident_kb": resident, "program_bytes": bytes}))
}

#[allow(clippy::cast_precision_loss)] // thousands
fn kb(kb: u64) -> f64 {
    kb as f64 / 1000.0
}

/// Every pod has its address; pods become ready and unready.
pub(crate) fn steady(binary: &Path, directory: &Path) -> Result<Value> {
    let columns = [
        "pods",
        "ready after",
        "resident",
        "while changing",
        "after a list",
        "at rest",
        "changing",
        "a change",
        "anywhere",
        "p50",
        "p99",
    ];
    let mut table = Table::new(&columns);
    let mut found = Vec::new();
    for pods in SIZES {
        let seen = at_size(pods, binary, directory)?;
        let number = |name: &str| seen[name].as_f64().unwrap_or_default();
        table.row(&[
            pods.to_string(),
            format!("{:.0} ms", number("ready_ms")),
            format!("{:.1} MB", number("resident_kb") / 1e3),
            format!("{:.1} MB", number("changing_kb") / 1e3),
            format!("{:.1} MB", number("relisted_kb") / 1e3),
            format!("{:.1} %", number("rest_cpu") * 100.0),
            format!("{:.1} %", number("changing_cpu") * 100.0),
            format!("{:.0} us", number("change_us")),
            format!("{:.0} us", number("anywhere_us")),
            format!("{:.1} ms", number("p50_us") / 1e3),
            format!("{:.1} ms", number("p99_us") / 1e3),
        ]);
        found.push(seen);
    }
    table.print(&format!(
        "Steady: {CHANGES_PER_SECOND} changes a second, of {FEW} clusters and of pods anywhere; processor time of one core; \
         delay from watch event to server-sent event"
    ));
    Ok(json!(found))
}

fn at_size(pods: usize, binary: &Path, directory: &Path) -> Result<Value> {
    let objects =
        as_large_as_real(World::converged(pods, Some(Objects::default())).objects.unwrap_or_default());
    let mut shown = objects.pods.clone();
    let api = Server::start(objects)?;
    let begun = Instant::now();
    let mut product = Product::start(binary, api.address, directory)?;
    product.ready()?;
    let ready = begun.elapsed();
    std::thread::sleep(SETTLED);
    let resident = product.process.resident()?;

    let clusters = pods / MEMBERS;
    let readers = Readers::start(product.mapping, &directory.join("ca.crt"), clusters.min(READ))?;
    let rest = cpu_during(&product, || {
        std::thread::sleep(RESTING);
        Ok(())
    })?;
    let changes = usize::try_from(CHANGING.as_secs())? * CHANGES_PER_SECOND as usize;
    let mut change = |clusters: usize| {
        cpu_during(&product, || {
            let begun = Instant::now();
            for n in 0..changes {
                let due = begun + Duration::from_secs(1) * u32::try_from(n)? / CHANGES_PER_SECOND;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // clusters in turn, and in each one pod after the other
                let (cluster, member) = (n % clusters, n / clusters % MEMBERS);
                let place = cluster * MEMBERS + member;
                let ready = shown[place]["status"]["conditions"][0]["status"] == "True";
                shown[place]["status"]["conditions"][0]["status"] =
                    json!(if ready { "False" } else { "True" });
                readers.expect(cluster, || api.change_pod(place, shown[place].clone()));
            }
            Ok(())
        })
    };
    let (few, changing) = (change(FEW)?, change(clusters)?);
    let changing_kb = product.process.resident()?;
    let delays = readers.delays()?;
    let lists = api.lists();
    api.expire();
    product.process.until("everything is listed anew", || api.lists() >= lists + 4)?;
    std::thread::sleep(SETTLED);
    ensure!(api.writes() == 0, "{} writes: the world was not what the product wants", api.writes());
    #[allow(clippy::cast_precision_loss)] // thousands
    let cost_us = |cpu: f64| (cpu - rest) * CHANGING.as_secs_f64() * 1e6 / changes as f64;
    let quantile = |share: usize| delays[(delays.len() * share / 100).min(delays.len() - 1)].as_micros();
    Ok(
        json!({"pods": pods, "clusters": clusters, "ready_ms": ready.as_secs_f64() * 1e3, "resident_kb": resident,
        "changing_kb": changing_kb, "relisted_kb": product.process.resident()?, "rest_cpu": rest,
        "changing_cpu": changing, "change_us": cost_us(few), "anywhere_us": cost_us(changing), "delays": delays.len(),
        "p50_us": u64::try_from(quantile(50))?, "p99_us": u64::try_from(quantile(99))?}),
    )
}

/// Cores the product has used meanwhile.
fn cpu_during(product: &Product, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (before, begun) = (product.process.cpu()?, Instant::now());
    work()?;
    Ok(product.process.cpu()?.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64())
}

/// With what a pod carries besides: 8 kB of it.
fn as_large_as_real(mut objects: Objects) -> Objects {
    let real = SHAPES[2].pod();
    for pod in &mut objects.pods {
        pod["metadata"]["managedFields"] = real["metadata"]["managedFields"].clone();
        for field in ["env", "livenessProbe", "readinessProbe", "resources", "volumeMounts"] {
            pod["spec"]["containers"][0][field] = real["spec"]["containers"][0][field].clone();
        }
        for field in ["volumes", "affinity", "tolerations"] {
            pod["spec"][field] = real["spec"][field].clone();
        }
    }
    objects
}
