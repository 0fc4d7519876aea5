//! The `external-ip-controller` program.

use std::process::ExitCode;

use clap::Parser;
use external_ip_controller::cli::{Cli, Command, LogFormat};
use external_ip_controller::{check, cleanup, client, run, tls};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.log_format);
    tls::install_provider();
    let result = match &cli.command {
        Command::Check(args) => return check::run(args),
        Command::Run(args) => block_on(run::run(args)),
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

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_target(false).with_ansi(false).init(),
        LogFormat::Json => lines.json().init(),
    }
}
