//! Many new pods at once, on a real API server: until each has its Service and is routed and published, beside a bare
//! loop that makes the same Services with the same connections. Pods are pretended (kwok), everything else is
//! Kubernetes'.
//!
//! ```text
//! pods that run, stamped, in a namespace that takes no part
//!   bare:     their Services as the core plans them, 16 POSTs at once      } until all are made, and until
//!   product:  the namespace takes part from now on                         } addresses and endpoints are there
//! ```

mod ground;
mod seen;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::product::Product;
use crate::table::Table;
use ground::{Ground, Town};
use seen::Seen;

/// Pods, how often, who gives addresses.
pub(crate) type Burst = (usize, usize, &'static str);
/// What is measured. The largest last: nothing is cleared after it.
pub(crate) const BURSTS: [Burst; 4] = [
    (200, 3, ground::AT_ONCE),
    (200, 1, ground::METALLB),
    (1_000, 2, ground::AT_ONCE),
    (5_000, 1, ground::AT_ONCE),
];
/// Writes at once, as many as the product's.
const IN_FLIGHT: usize = 16;
/// What comes after the last pod is routed, such as ConfigMaps, belongs to the burst.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// One run, of either.
#[derive(Debug, Clone)]
struct Run {
    /// From the start until the last Service was there, and until the last pod was routed.
    made: Duration,
    routed: Duration,
    /// Processor time of Kubernetes' programs and of this one.
    others: BTreeMap<String, Duration>,
    /// Of the product only.
    costs: Option<Costs>,
}

#[derive(Debug, Clone)]
struct Costs {
    cpu: Duration,
    resident_kb: u64,
    /// By what was written.
    writes: Vec<(String, usize)>,
}

/// One size, in both orders: for who looks where the time goes.
pub(crate) fn alone(pods: usize) -> Burst {
    (pods, 2, ground::AT_ONCE)
}

pub(crate) fn run(binary: &Path, directory: &Path, bursts: &[Burst]) -> Result<Value> {
    let ground = Ground::prepare()?;
    let columns = [
        "pods",
        "addresses",
        "bare: made",
        "routed",
        "product: made",
        "of bare",
        "routed",
        "of bare",
        "writes/pod",
        "CPU/pod",
        "API server's: bare",
        "product",
        "resident",
    ];
    let mut table = Table::new(&columns);
    let mut found = Vec::new();
    for (index, (pods, rounds, class)) in bursts.iter().copied().enumerate() {
        let town = ground.town(pods, class)?;
        let (mut bare, mut product) = (Vec::new(), Vec::new());
        for turn in 0..2 * rounds {
            // who comes first changes from round to round, for an API server grows slower or quicker with time
            if (turn / 2 + turn) % 2 == 0 {
                bare.push(bare_loop(&ground, &town)?);
            } else {
                product.push(subject(&ground, &town, binary, directory)?);
            }
            // what is left at the very end goes with the cluster
            if (index, turn) != (bursts.len() - 1, 2 * rounds - 1) {
                ground.clear(&town)?;
            }
        }
        if index + 1 < bursts.len() {
            ground.leave(&town)?;
        }
        table.row(&row(&town, &bare, &product));
        found.push(
            json!({"pods": pods, "addresses": class, "bare": bare.iter().map(told).collect::<Vec<_>>(),
            "product": product.iter().map(told).collect::<Vec<_>>()}),
        );
    }
    table.print(
        "Burst: new pods at once; until all Services are made, and until all are routed and published",
    );
    Ok(json!(found))
}

/// Makes the Services, and nothing else.
fn bare_loop(ground: &Ground, town: &Town) -> Result<Run> {
    let seen = Seen::begin(ground, town)?;
    let calls = ground.services(town)?;
    let (others, begun) = (ground.cpu()?, Instant::now());
    ground.runtime.block_on(ground.account.all(calls, IN_FLIGHT))?;
    let (made, routed) = seen.complete()?;
    std::thread::sleep(AFTERWARDS);
    let others = since(&others, ground.cpu()?);
    Ok(Run { made: made - begun, routed: routed - begun, others, costs: None })
}

fn subject(ground: &Ground, town: &Town, binary: &Path, directory: &Path) -> Result<Run> {
    ground.forget_lease()?;
    let mut product = Product::beside(binary, &ground.kubeconfig, ground::CLASSES, directory)?;
    product.ready()?;
    product.leading()?;
    let seen = Seen::begin(ground, town)?;
    let position = ground.cluster.audit_position()?;
    let (others, before) = (ground.cpu()?, product.process.cpu()?);
    let begun = Instant::now();
    ground.enable(town, true)?;
    let (made, _) = seen.complete()?;
    product.routed(town.pods)?;
    let routed = begun.elapsed();
    std::thread::sleep(AFTERWARDS);
    let cpu = product.process.cpu()?.saturating_sub(before);
    let others = since(&others, ground.cpu()?);
    let resident_kb = product.process.resident()?;
    drop(product);
    let writes = ground.writes(town, position)?;
    ground.enable(town, false)?;
    let services = writes.iter().find(|(what, _)| what == "create services").map_or(0, |(_, n)| *n);
    ensure!(services == town.pods, "{services} Services were written for {} pods: {writes:?}", town.pods);
    Ok(Run { made: made - begun, routed, others, costs: Some(Costs { cpu, resident_kb, writes }) })
}

fn since(
    before: &BTreeMap<String, Duration>,
    mut now: BTreeMap<String, Duration>,
) -> BTreeMap<String, Duration> {
    for (name, time) in &mut now {
        *time = time.saturating_sub(before.get(name).copied().unwrap_or_default());
    }
    now
}

fn told(run: &Run) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let mut told = json!({"made_ms": ms(run.made), "routed_ms": ms(run.routed),
        "others_cpu_ms": run.others.iter().map(|(name, time)| (name.clone(), json!(ms(*time)))).collect::<serde_json::Map<_, _>>()});
    if let Some(Costs { cpu, resident_kb, writes }) = &run.costs {
        let writes: serde_json::Map<String, Value> =
            writes.iter().map(|(w, n)| (w.clone(), json!(n))).collect();
        told["cpu_ms"] = json!(ms(*cpu));
        told["resident_kb"] = json!(resident_kb);
        told["writes"] = Value::Object(writes);
    }
    told
}

#[allow(clippy::cast_precision_loss)] // thousands
fn row(town: &Town, bare: &[Run], product: &[Run]) -> Vec<String> {
    let median = |runs: &[Run], of: &dyn Fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (made, routed) = (|r: &Run| r.made.as_secs_f64(), |r: &Run| r.routed.as_secs_f64());
    let costs = |of: fn(&Costs) -> f64| median(product, &|r| r.costs.as_ref().map_or(0.0, of));
    let pods = town.pods as f64;
    let server = |run: &Run| run.others.get("kube-apiserver").map_or(0.0, |t| t.as_secs_f64() * 1e3);
    let times =
        [(median(bare, &made), median(product, &made)), (median(bare, &routed), median(product, &routed))];
    vec![
        town.pods.to_string(),
        town.class.to_owned(),
        format!("{:.2} s", times[0].0),
        format!("{:.2} s", times[1].0),
        format!("{:.2} s", times[0].1),
        format!("{:.2}", times[0].1 / times[0].0),
        format!("{:.2} s", times[1].1),
        format!("{:.2}", times[1].1 / times[1].0),
        format!("{:.2}", costs(|c| c.writes.iter().map(|(_, n)| *n).sum::<usize>() as f64) / pods),
        format!("{:.2} ms", costs(|c| c.cpu.as_secs_f64() * 1e3) / pods),
        format!("{:.2} ms", median(bare, &server) / pods),
        format!("{:.2} ms", median(product, &server) / pods),
        format!("{:.1} MB", costs(|c| c.resident_kb as f64 / 1e3)),
    ]
}
