//! `run`: everything put together as named tasks that live and end together.

mod certificates;
mod leader;
mod listeners;
mod state;
mod tasks;

use std::sync::Arc;

use anyhow::{Context, Result};
use external_ip_core::settings::{self, Settings};
use kube::Client;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;

use crate::act::lease;
use crate::cli::{self, Role};
use crate::client;
use crate::map::{Current, Explainer, Liveness, Refresh};
use crate::metrics::Metrics;
use crate::serve::admin::Health;
use crate::watch::mapping_service;
use certificates::Certificates;
use state::Told;
use tasks::{Stop, Tasks};

/// What all parts share.
struct Shared {
    settings: Arc<Settings>,
    client: Client,
    namespace: String,
    current: Arc<Current>,
    liveness: Arc<Liveness>,
    refresh: Arc<Refresh>,
    explainer: Explainer,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// Runs until SIGTERM or SIGINT, or until a task ends that should not.
///
/// # Errors
/// The configuration, an address to listen at, a certificate file, or the name of a task that ended.
pub async fn run(args: &cli::Run) -> Result<()> {
    raise_open_files();
    let stop = Stop::on_signals()?;
    let settings = Arc::new(read_settings(args)?);
    let client = client::from_environment().await?;
    let (current, liveness) = (Arc::new(Current::new()), Arc::new(Liveness::new()));
    let (explainer, questions) = Explainer::new();
    let shared = Shared {
        settings,
        client,
        namespace: args.namespace.clone(),
        metrics: Arc::new(Metrics::new(Arc::clone(&current), Arc::clone(&liveness))),
        health: Arc::new(Health::new(Arc::clone(&current), Arc::clone(&liveness))),
        current,
        liveness,
        refresh: Arc::default(),
        explainer,
    };
    let mut tasks = Tasks::new();
    let certificates = Certificates::start(&shared, args, &mut tasks, &stop).await?;
    listeners::listen(&shared, args, &certificates, &mut tasks, &stop)?;
    let service = mapping_service(tasks.set(), &shared.client, &shared.namespace, &stop.all);
    certificates.follow(service.clone(), &mut tasks, &stop);
    if args.has(Role::Controller) {
        let candidacy = leader::stand(&shared, args, &mut tasks);
        let told = Told { role: candidacy.0.changes(), service, questions };
        let ends = state::keep(&shared, told, &mut tasks, &stop);
        leader::act(&shared, args, &certificates, candidacy, ends, &mut tasks, &stop);
    } else {
        // it follows for ever: nothing is ever planned, and there is nobody to carry it out
        let (_, role) = watch::channel(lease::Role::Following);
        state::keep(&shared, Told { role, service, questions }, &mut tasks, &stop);
    }
    tracing::info!(
        mapping = %args.listen_mapping, admission = %args.listen_admission, admin = %args.listen_admin,
        namespace = %shared.namespace, "running; /readyz says when everything has been listed"
    );
    tasks.until_stopped(&stop, &shared.health).await
}

/// Each connection is an open file. Container runtimes leave a process 1 024 of them as long as it asks for no more, which
/// a thousand readers use up.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "no more than {:?} open files: connections beyond are not accepted", limit.current);
    }
}

fn read_settings(args: &cli::Run) -> Result<Settings> {
    let file = args.config.display();
    let text = std::fs::read_to_string(&args.config)
        .with_context(|| format!("configuration {file}: give the file's place with --config"))?;
    let parsed = settings::parse(&text).map_err(|error| anyhow::anyhow!("configuration {file}: {error}"))?;
    if parsed.origin_translation.is_some() {
        tracing::info!("{file} is a configuration of external-ip-proxy: `check` shows what it means here");
    }
    for note in parsed.settings.notes() {
        tracing::warn!("configuration {file}: {note}");
    }
    Ok(parsed.settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_the_system_allows() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        // not by much: other tests have files, too
        let fewer = Rlimit { current: maximum.map(|most| most - 1), maximum };
        setrlimit(Resource::Nofile, fewer).unwrap();
        raise_open_files();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
