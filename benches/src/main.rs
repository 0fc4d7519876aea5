//! `make bench`: the product measured from outside, beside what it is compared with. In the product's own profile, so
//! that it is not the client that is measured.

mod admission;
mod api;
mod bare;
mod burst;
mod certificate;
mod client;
mod installation;
mod pretended;
mod process;
mod product;
mod reviews;
mod table;
mod world;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::{Value, json};

/// What to do.
#[derive(Parser)]
enum Command {
    /// Measure: tables on the screen, everything as JSON beside.
    Run {
        /// The product's program.
        #[arg(long)]
        binary: PathBuf,
        /// The Go webhook to compare with; without it that column is missing.
        #[arg(long)]
        agnhost: Option<PathBuf>,
        /// Where the JSON goes.
        #[arg(long)]
        json: PathBuf,
        /// Instead of the usual bursts one of so many pods, twice in turn.
        #[arg(long)]
        pods: Option<usize>,
        /// What to measure; all of it where nothing is named.
        parts: Vec<Part>,
    },
    /// Answers every request with the same admission response, having read its body.
    Bare {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
        /// Where `tls.crt` and `tls.key` lie.
        #[arg(long)]
        tls: PathBuf,
    },
    /// Sends one review again and again over one HTTP/2 connection; prints what it saw as JSON.
    Load(client::Load),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The webhook.
    Admission,
    /// Start and memory without pods.
    Idle,
    /// Memory, processor time and delay with up to 10 000 pods.
    Steady,
    /// 200, 1 000 and 5 000 new pods at once on a real API server.
    Burst,
    /// The same without 5 000.
    SmallBurst,
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Bare { listen, tls } => bare::run(listen, &tls),
        Command::Load(load) => client::run(&load),
        Command::Run { binary, agnhost, json, pods, parts } => {
            let directory = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
            std::fs::create_dir(&directory)?;
            let measured = measure(&binary, agnhost.as_deref(), &directory, pods, &parts);
            std::fs::remove_dir_all(&directory)?;
            let text = serde_json::to_string_pretty(&measured?)?;
            std::fs::write(&json, text).with_context(|| json.display().to_string())
        }
    }
}

fn measure(
    binary: &Path,
    agnhost: Option<&Path>,
    directory: &Path,
    pods: Option<usize>,
    parts: &[Part],
) -> Result<Value> {
    let wanted = |part: Part| parts.is_empty() || parts.contains(&part);
    certificate::write(directory)?;
    let mut found = json!({"machine": machine(), "program_bytes": std::fs::metadata(binary)?.len()});
    if wanted(Part::Admission) {
        found["admission"] = admission::run(binary, agnhost, directory)?;
    }
    if wanted(Part::Idle) {
        found["idle"] = installation::idle(binary, directory)?;
    }
    if wanted(Part::Steady) {
        found["steady"] = installation::steady(binary, directory)?;
    }
    if wanted(Part::Burst) || wanted(Part::SmallBurst) {
        let largest = if wanted(Part::Burst) { 5_000 } else { 1_000 };
        let usual = || burst::BURSTS.into_iter().filter(|(pods, ..)| *pods <= largest).collect();
        let bursts = pods.map_or_else(usual, |pods| vec![burst::alone(pods)]);
        found["burst"] = burst::run(binary, directory, &bursts)?;
    }
    Ok(found)
}

fn machine() -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({"processor": model.trim_start_matches([' ', '\t', ':']), "cores": cores, "kernel": kernel.trim()})
}
