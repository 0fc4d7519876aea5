//! The `external-ip-controller` program.

use std::process::ExitCode;

use external_ip_controller::cli::{Cli, Command, LogFormat};
use external_ip_controller::{check, cleanup, client, inspect, run, tls};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    let cli = Cli::from_process();
    log(cli.log_format);
    tls::install_provider();
    let result = match &cli.command {
        Command::Check(args) => return check::run(args),
        Command::Run(args) => block_on(run::run(args)),
        Command::Explain(args) => block_on(inspect::explain(args)),
        Command::Map(args) => block_on(inspect::map(args)),
        Command::Plan(args) => block_on(inspect::plan(args)),
        Command::Classes(args) => block_on(inspect::classes(args)),
        Command::Recreate(args) => block_on(inspect::recreate(args)),
        Command::Cleanup(args) => {
            block_on(async { cleanup::run(&client::from_environment().await?, args).await })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // one line per cause: the first names what failed, the last why
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?.block_on(future)
}

/// `RUST_LOG` as `level` or `target=level,...`: not `EnvFilter`, whose regular expressions nobody needs here.
fn log(format: LogFormat) {
    let wished = std::env::var("RUST_LOG").unwrap_or_default();
    let info = || Targets::new().with_default(LevelFilter::INFO);
    let (filter, invalid) = match wished.parse::<Targets>() {
        Ok(_) if wished.is_empty() => (info(), None),
        Ok(filter) => (filter, None),
        Err(error) => (info(), Some(error)),
    };
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_target(false).with_ansi(false).finish().with(filter).init(),
        LogFormat::Json => lines.json().finish().with(filter).init(),
    }
    if let Some(error) = invalid {
        tracing::warn!(%error, "RUST_LOG={wished} is not LEVEL or TARGET=LEVEL,...: logging at info");
    }
}
