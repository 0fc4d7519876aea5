//! The judge of the chaos tests. It shares no code with the product: it reads etcd, asks the replicas as any client would,
//! and compares.
//!
//! ```text
//! record  etcd -> history.jsonl      replicas -> documents.jsonl
//! judge   both, with the audit log and the driver's notes -> report.json and a table
//! ```

mod counts;
mod etcd;
mod forge;
mod history;
mod http;
mod judge;
mod readings;
mod record;
mod report;
mod revisions;
mod timing;
mod truth;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::report::Run;

#[derive(Debug, Parser)]
#[command(about = "Judges what replicas published by the history in etcd")]
enum Command {
    /// Record until standard input ends.
    Record(record::Record),
    /// Judge a recorded run.
    Judge { directory: PathBuf },
    /// Forge a recorded run in several ways; each forgery must be noticed.
    SelfTest { directory: PathBuf },
}

fn main() -> Result<ExitCode> {
    match Command::parse() {
        Command::Record(args) => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(record::run(args))?;
        }
        Command::Judge { directory } => {
            let report = Run::read(&directory)?.judged()?;
            std::fs::write(directory.join("report.json"), format!("{:#}\n", report.json()))?;
            println!("{}", report.table());
            return Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::SelfTest { directory } => forge::test(&mut Run::read(&directory)?)?,
    }
    Ok(ExitCode::SUCCESS)
}
