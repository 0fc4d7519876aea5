//! `run`: everything put together as named tasks that live and end together.

mod tasks;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use external_ip_core::action::Action;
use external_ip_core::objects::Service;
use external_ip_core::settings::{self, CertificateSource, Settings};
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::act::configmaps::{ConfigMaps, Source};
use crate::act::lease::{self, Leadership};
use crate::act::registration;
use crate::act::writer::Writer;
use crate::cli;
use crate::client;
use crate::control::{Control, Inputs, Outputs};
use crate::map::{Current, Liveness, Refresh};
use crate::metrics::Metrics;
use crate::serve::access::{Access, ApiReviewer};
use crate::serve::admin::{self, Health};
use crate::serve::admission::{self, Admission};
use crate::serve::listener::Listener;
use crate::serve::mapping::{self, Mapping};
use crate::tls::files::Files;
use crate::tls::leaf::SelfManaged;
use crate::tls::{self, ServedKey, Trusted, Verifiers};
use crate::watch::{self as feeds, Watchers};
use tasks::{Stop, Tasks};

/// Updates on their way to the state loop. Bounds memory while the loop is busy; watches wait, the API server buffers.
const UPDATES: usize = 1024;

/// What all parts share.
struct Shared {
    settings: Arc<Settings>,
    client: Client,
    namespace: String,
    current: Arc<Current>,
    liveness: Arc<Liveness>,
    refresh: Arc<Refresh>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// Runs until SIGTERM or SIGINT, or until a task ends that should not.
///
/// # Errors
/// The configuration, an address to listen at, a certificate file, or the name of a task that ended.
pub async fn run(args: &cli::Run) -> Result<()> {
    let stop = Stop::on_signals()?;
    let settings = Arc::new(read_settings(args)?);
    let client = client::from_environment().await?;
    let (current, liveness) = (Arc::new(Current::new()), Arc::new(Liveness::new()));
    let shared = Shared {
        settings,
        client,
        namespace: args.namespace.clone(),
        metrics: Arc::new(Metrics::new(Arc::clone(&current), Arc::clone(&liveness))),
        health: Arc::new(Health::new(Arc::clone(&current), Arc::clone(&liveness))),
        current,
        liveness,
        refresh: Arc::default(),
    };
    let mut tasks = Tasks::new();
    let certificates = Certificates::start(&shared, args, &mut tasks, &stop).await?;
    listen(&shared, args, &certificates, &mut tasks, &stop)?;
    let service = feeds::mapping_service(tasks.set(), &shared.client, &shared.namespace, &stop.all);
    control(&shared, args, &certificates, service.clone(), &mut tasks, &stop);
    if let Some(own) = certificates.own.clone() {
        tasks.spawn("outside names", follow_service(own, service, stop.all.clone()));
    }
    tracing::info!(
        mapping = %args.listen_mapping, admission = %args.listen_admission, admin = %args.listen_admin,
        namespace = %shared.namespace, "running; /readyz says when everything has been listed"
    );
    tasks.until_stopped(&stop, &shared.health).await
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

/// The keys of the two TLS listeners.
struct Certificates {
    admission: Arc<ServedKey>,
    mapping: Arc<ServedKey>,
    /// Our CA, where a listener uses it.
    own: Option<Arc<SelfManaged>>,
    /// The registration trusts our CA.
    own_admission: bool,
    /// For readers of the map; `None` where nobody has said what it is.
    trusted: Option<Trusted>,
}

impl Certificates {
    async fn start(shared: &Shared, args: &cli::Run, tasks: &mut Tasks, stop: &Stop) -> Result<Self> {
        let sources = &shared.settings.tls;
        let own_admission = sources.admission == CertificateSource::SelfManaged;
        let own_mapping = sources.mapping == CertificateSource::SelfManaged;
        let own = (own_admission || own_mapping).then(|| {
            let (client, metrics) = (shared.client.clone(), Arc::clone(&shared.metrics));
            let config_maps = own_mapping.then(|| shared.settings.installation.clone());
            let verifiers = Verifiers { registration: own_admission, config_maps };
            let sans = args.sans.iter().cloned();
            let own = Arc::new(SelfManaged::new(client, &shared.namespace, sans, verifiers, metrics));
            let (running, stop) = (Arc::clone(&own), stop.all.clone());
            tasks.spawn("certificates", async move { running.run(stop).await });
            own
        });
        let (admission, _) =
            Self::source(shared, "admission", &sources.admission, own.as_ref(), tasks, stop).await?;
        let (mapping, trusted) =
            Self::source(shared, "mapping", &sources.mapping, own.as_ref(), tasks, stop).await?;
        shared.health.expect_key("admission", Arc::clone(&admission));
        shared.health.expect_key("mapping", Arc::clone(&mapping));
        Ok(Self { admission, mapping, own, own_admission, trusted })
    }

    async fn source(
        shared: &Shared,
        listener: &'static str,
        source: &CertificateSource,
        own: Option<&Arc<SelfManaged>>,
        tasks: &mut Tasks,
        stop: &Stop,
    ) -> Result<(Arc<ServedKey>, Option<Trusted>)> {
        match (source, own) {
            (CertificateSource::Files(files), _) => {
                let files = Arc::new(Files::new(listener, files.clone(), Arc::clone(&shared.metrics)));
                files.load().await.with_context(|| format!("certificate of the {listener} listener"))?;
                let found = (files.served(), files.trusted());
                let stop = stop.all.clone();
                tasks.spawn("certificate files", async move { files.run(stop).await });
                Ok(found)
            }
            (CertificateSource::SelfManaged, Some(own)) => Ok((own.served(), Some(own.trusted()))),
            (CertificateSource::SelfManaged, None) => Ok(Default::default()), // not reached: `own` is made for it
        }
    }
}

/// Binds all listeners before anything is served, so that a taken port is an error of the start.
fn listen(
    shared: &Shared,
    args: &cli::Run,
    certificates: &Certificates,
    tasks: &mut Tasks,
    stop: &Stop,
) -> Result<()> {
    let access = match shared.settings.access {
        settings::Access::Open => Access::Open,
        settings::Access::Token => Access::token(Arc::new(ApiReviewer::new(shared.client.clone()))),
    };
    let admission = admission::router(Admission {
        settings: Arc::clone(&shared.settings),
        current: Arc::clone(&shared.current),
        liveness: Arc::clone(&shared.liveness),
        metrics: Arc::clone(&shared.metrics),
    });
    let mapping = mapping::router(Mapping {
        current: Arc::clone(&shared.current),
        liveness: Arc::clone(&shared.liveness),
        refresh: Arc::clone(&shared.refresh),
        access,
        ca: certificates.trusted.clone(),
        metrics: Arc::clone(&shared.metrics),
    });
    let admin = admin::router(Arc::clone(&shared.health), Arc::clone(&shared.metrics));
    let served = [
        ("admission", args.listen_admission, admission, Some(&certificates.admission)),
        ("mapping", args.listen_mapping, mapping, Some(&certificates.mapping)),
        ("admin", args.listen_admin, admin, None),
    ];
    for (name, ..) in &served {
        shared.health.expect_listener(name);
    }
    for (name, address, router, key) in served {
        let mut listener = Listener::bind(name, address)?;
        if let Some(key) = key {
            listener = listener.tls(tls::server_config(Arc::clone(key))?);
        }
        shared.health.bound(name);
        let serving = listener.serve(router, Arc::clone(&shared.metrics), stop.serving.clone());
        tasks.spawn(name, serving);
    }
    Ok(())
}

/// Watches, state loop, lease and writers.
fn control(
    shared: &Shared,
    args: &cli::Run,
    certificates: &Certificates,
    service: watch::Receiver<Option<Arc<Service>>>,
    tasks: &mut Tasks,
    stop: &Stop,
) {
    let (updates_in, updates) = mpsc::channel(UPDATES);
    let watched = feeds::feeds(&shared.settings);
    let watchers = Watchers {
        liveness: Arc::clone(&shared.liveness),
        refresh: Arc::clone(&shared.refresh),
        metrics: Arc::clone(&shared.metrics),
    };
    feeds::spawn(tasks.set(), watched.clone(), &shared.client, &watchers, &updates_in, &stop.all);
    let (leadership, released) = lead(shared, args, tasks);
    let (actions, planned) = mpsc::unbounded_channel();
    let (reported, outcomes) = mpsc::unbounded_channel();
    let inputs = Inputs {
        updates,
        outcomes,
        role: leadership.changes(),
        mapping_service: service,
        liveness: Arc::clone(&shared.liveness),
    };
    let config_maps = config_maps(shared, certificates, leadership.clone(), actions.clone(), stop);
    tasks.spawn("ConfigMaps", config_maps);
    let outputs = Outputs { current: Arc::clone(&shared.current), actions };
    let control = Control::new(Arc::clone(&shared.settings), &watched, inputs, outputs);
    tasks.spawn("state", control.run(stop.all.clone()));

    let installation = &shared.settings.installation;
    let writer =
        Writer::new(shared.client.clone(), leadership.clone(), installation, Arc::clone(&shared.metrics));
    let own_ca = certificates.own.as_ref().filter(|_| certificates.own_admission).map(|own| own.trusted());
    let drain = stop.writing.clone();
    // the lease is given up when nothing is written any more
    tasks.spawn("writers", async move {
        writer.run(planned, reported, drain).await;
        released.cancel();
    });
    if let Some(ca) = own_ca {
        let keep = registration::keep_ca_bundle(shared.client.clone(), leadership, ca, stop.writing.clone());
        tasks.spawn("registration", keep);
    }
}

/// Writes the map into ConfigMaps; what is wrong with one becomes an Event on it.
fn config_maps(
    shared: &Shared,
    certificates: &Certificates,
    leadership: Leadership,
    actions: mpsc::UnboundedSender<Action>,
    stop: &Stop,
) -> impl Future<Output = ()> + Send + use<> {
    let (reports, mut told) = mpsc::unbounded_channel();
    let source = Source {
        current: Arc::clone(&shared.current),
        ca: certificates.trusted.clone(),
        namespace: shared.namespace.clone(),
    };
    let task = ConfigMaps {
        client: shared.client.clone(),
        leadership,
        installation: shared.settings.installation.clone(),
        source,
        reports,
        metrics: Arc::clone(&shared.metrics),
    };
    let stop = stop.writing.clone();
    async move {
        let tell = async {
            while let Some(report) = told.recv().await {
                if let Some(event) = report.event(jiff::Timestamp::now().as_microsecond()) {
                    // the writer ends only with the process
                    let _ = actions.send(Action::RecordEvent(event));
                }
            }
        };
        futures::future::join(task.run(stop), tell).await;
    }
}

/// Stands for leadership; the token gives it up.
fn lead(shared: &Shared, args: &cli::Run, tasks: &mut Tasks) -> (Leadership, CancellationToken) {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let name = args.name.clone().unwrap_or_else(host);
    let (candidate, leadership) = lease::candidate(&shared.client, &shared.namespace, &name);
    let released = CancellationToken::new();
    tasks.spawn("lease", candidate.run(released.clone()));
    let (mut role, metrics) = (leadership.changes(), Arc::clone(&shared.metrics));
    let ended = released.clone();
    tasks.spawn("role", async move {
        loop {
            let leading = matches!(*role.borrow_and_update(), lease::Role::Leading { .. });
            metrics.leader.set(i64::from(leading));
            tokio::select! {
                () = ended.cancelled() => return,
                changed = role.changed() => if changed.is_err() { return },
            }
        }
    });
    (leadership, released)
}

/// Keeps the names of our leafs in step with the mapping Service's load balancer.
async fn follow_service(
    own: Arc<SelfManaged>,
    mut service: watch::Receiver<Option<Arc<Service>>>,
    stop: CancellationToken,
) {
    loop {
        let names: BTreeSet<String> = service
            .borrow_and_update()
            .iter()
            .flat_map(|s| &s.ingress)
            .flat_map(|i| i.ip.map(|ip| ip.to_string()).into_iter().chain(i.hostname.clone()))
            .collect();
        own.set_outside_names(names);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = service.changed() => if changed.is_err() { return },
        }
    }
}
