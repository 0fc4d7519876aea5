//! `run`: everything put together as named tasks that live and end together.

mod tasks;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use external_ip_core::action::Action;
use external_ip_core::objects::Service;
use external_ip_core::settings::{self, CertificateFiles, CertificateSource, Settings};
use external_ip_core::state::Update;
use kube::Client;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::act::configmaps::{ConfigMaps, Source};
use crate::act::handover;
use crate::act::lease::{self, Leadership};
use crate::act::registration;
use crate::act::writer::Writer;
use crate::cli::{self, Role};
use crate::client;
use crate::control::{Control, Inputs, Outputs};
use crate::dial::{Dialler, Targets};
use crate::map::{Current, Explainer, Liveness, PodQuestion, Refresh};
use crate::metrics::Metrics;
use crate::resolve::{Questions, Resolver, Servers};
use crate::rounds::Rounds;
use crate::serve::access::{Access, ApiReviewer};
use crate::serve::admin::{self, Health};
use crate::serve::admission::{self, Admission};
use crate::serve::listener::{Limits, Listener};
use crate::serve::mapping::{self, Mapping};
use crate::tls::files::Files;
use crate::tls::leaf::SelfManaged;
use crate::tls::{self, ServedKey, Trusted, Verifiers};
use crate::watch::{self as feeds, FeedSpec, Watchers};
use tasks::{Stop, Tasks};

/// Updates on their way to the state loop. Bounds memory while the loop is busy; watches wait, the API server buffers.
const UPDATES: usize = 1024;

/// Where a pod finds its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

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
    listen(&shared, args, &certificates, &mut tasks, &stop)?;
    let service = feeds::mapping_service(tasks.set(), &shared.client, &shared.namespace, &stop.all);
    if args.has(Role::Controller) {
        control(&shared, args, &certificates, service.clone(), questions, &mut tasks, &stop);
    } else {
        follow(&shared, service.clone(), questions, &mut tasks, &stop);
    }
    if let Some(own) = certificates.own.clone() {
        tasks.spawn("outside names", follow_service(own, service, stop.all.clone()));
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

/// The keys of the two TLS listeners.
struct Certificates {
    admission: Option<Arc<ServedKey>>,
    mapping: Option<Arc<ServedKey>>,
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
        let (controller, mapping) = (args.has(Role::Controller), args.has(Role::Mapping));
        let own_admission = controller && sources.admission == CertificateSource::SelfManaged;
        let own_mapping = controller && sources.mapping == CertificateSource::SelfManaged;
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
        let mut made = Self { admission: None, mapping: None, own, own_admission, trusted: None };
        if controller {
            let source =
                Self::source(shared, "admission", &sources.admission, made.own.as_ref(), tasks, stop);
            made.admission = Some(source.await?.0);
        }
        if mapping {
            let mounted = || {
                let (certificate, key) = (args.mapping_tls.join("tls.crt"), args.mapping_tls.join("tls.key"));
                CertificateSource::Files(CertificateFiles { certificate, key, ca: None })
            };
            let elsewhere = !controller && sources.mapping == CertificateSource::SelfManaged;
            let source = if elsewhere { mounted() } else { sources.mapping.clone() };
            let source = Self::source(shared, "mapping", &source, made.own.as_ref(), tasks, stop);
            let (key, trusted) = source.await?;
            (made.mapping, made.trusted) = (Some(key), trusted);
        } else if own_mapping {
            made.trusted = made.own.as_ref().map(|own| own.trusted());
        }
        Ok(made)
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
                shared.health.expect_key(listener, Arc::clone(&found.0));
                Ok(found)
            }
            (CertificateSource::SelfManaged, own) => {
                let served = own.map(|own| own.served()).unwrap_or_default(); // `own` is made for it
                shared.health.expect_key(listener, Arc::clone(&served));
                Ok((served, own.map(|own| own.trusted())))
            }
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
    let mut served = Vec::new();
    if let Some(key) = &certificates.admission {
        let admission = admission::router(Admission {
            settings: Arc::clone(&shared.settings),
            current: Arc::clone(&shared.current),
            liveness: Arc::clone(&shared.liveness),
            metrics: Arc::clone(&shared.metrics),
        });
        served.push(("admission", args.listen_admission, admission, Some(key)));
    }
    if let Some(key) = &certificates.mapping {
        let access = match shared.settings.access {
            settings::Access::Open => Access::Open,
            settings::Access::Token => Access::token(Arc::new(ApiReviewer::new(shared.client.clone()))),
        };
        let mapping = mapping::router(Mapping {
            current: Arc::clone(&shared.current),
            liveness: Arc::clone(&shared.liveness),
            refresh: Arc::clone(&shared.refresh),
            explainer: shared.explainer.clone(),
            access,
            ca: certificates.trusted.clone(),
            metrics: Arc::clone(&shared.metrics),
            stop: stop.serving.clone(),
        });
        served.push(("mapping", args.listen_mapping, mapping, Some(key)));
    }
    let admin = admin::router(Arc::clone(&shared.health), Arc::clone(&shared.metrics));
    served.push(("admin", args.listen_admin, admin, None));
    for (name, ..) in &served {
        shared.health.expect_listener(name);
    }
    for (name, address, router, key) in served {
        let mut listener = Listener::bind(name, address)?;
        if name == "mapping" {
            listener = listener.limits(Limits::of_readers());
        }
        if let Some(key) = key {
            listener = listener.tls(tls::server_config(Arc::clone(key))?);
        }
        shared.health.bound(name);
        let serving = listener.serve(router, Arc::clone(&shared.metrics), stop.serving.clone());
        tasks.spawn(name, serving);
    }
    Ok(())
}

/// Starts every watch: what is watched, and what is seen.
fn watch_all(shared: &Shared, tasks: &mut Tasks, stop: &Stop) -> (Vec<FeedSpec>, mpsc::Receiver<Update>) {
    let (updates_in, updates) = mpsc::channel(UPDATES);
    let watched = feeds::feeds(&shared.settings);
    let watchers = Watchers {
        liveness: Arc::clone(&shared.liveness),
        refresh: Arc::clone(&shared.refresh),
        metrics: Arc::clone(&shared.metrics),
    };
    feeds::spawn(tasks.set(), watched.clone(), &shared.client, &watchers, &updates_in, &stop.all);
    (watched, updates)
}

/// Watches and state loop of a process that only reads.
fn follow(
    shared: &Shared,
    mapping_service: watch::Receiver<Option<Arc<Service>>>,
    questions: mpsc::Receiver<PodQuestion>,
    tasks: &mut Tasks,
    stop: &Stop,
) {
    let (watched, updates) = watch_all(shared, tasks, stop);
    // it follows for ever, so nothing is ever planned, and there is nobody to carry it out
    let (_, role) = watch::channel(lease::Role::Following);
    let (actions, _) = mpsc::unbounded_channel();
    let (_, outcomes) = mpsc::unbounded_channel();
    let liveness = Arc::clone(&shared.liveness);
    let (_, dialled) = mpsc::channel(1);
    let (_, answers) = mpsc::channel(1);
    let (targets, _) = watch::channel(Targets::default());
    let inputs = Inputs { updates, outcomes, role, mapping_service, questions, dialled, answers, liveness };
    let (questions, _) = watch::channel(Questions::default());
    let metrics = Arc::clone(&shared.metrics);
    let outputs = Outputs { current: Arc::clone(&shared.current), actions, targets, questions, metrics };
    let control = Control::new(Arc::clone(&shared.settings), &watched, inputs, outputs);
    tasks.spawn("state", control.run(stop.all.clone()));
}

/// Watches, state loop, lease and writers.
fn control(
    shared: &Shared,
    args: &cli::Run,
    certificates: &Certificates,
    service: watch::Receiver<Option<Arc<Service>>>,
    questions: mpsc::Receiver<PodQuestion>,
    tasks: &mut Tasks,
    stop: &Stop,
) {
    let (watched, updates) = watch_all(shared, tasks, stop);
    let (leadership, released) = lead(shared, args, tasks);
    let (actions, planned) = mpsc::unbounded_channel();
    let (reported, outcomes) = mpsc::unbounded_channel();
    let (results, dialled) = mpsc::channel(UPDATES);
    let (targets, aimed) = watch::channel(Targets::default());
    let (resolved, answers) = mpsc::channel(UPDATES);
    let (names, asked) = watch::channel(Questions::default());
    let inputs = Inputs {
        updates,
        outcomes,
        role: leadership.changes(),
        mapping_service: service,
        questions,
        dialled,
        answers,
        liveness: Arc::clone(&shared.liveness),
    };
    let config_maps = config_maps(shared, certificates, leadership.clone(), actions.clone(), stop);
    tasks.spawn("ConfigMaps", config_maps);
    let metrics = Arc::clone(&shared.metrics);
    let current = Arc::clone(&shared.current);
    let outputs = Outputs { current, actions, targets, questions: names, metrics };
    let control = Control::new(Arc::clone(&shared.settings), &watched, inputs, outputs);
    tasks.spawn("state", control.run(stop.all.clone()));
    let metrics = || Arc::clone(&shared.metrics);
    let rounds = Rounds { targets: aimed, role: leadership.changes(), results };
    tasks.spawn("dialler", Dialler { rounds, metrics: metrics() }.run(stop.writing.clone()));
    let servers = match &args.name_servers[..] {
        [] => Servers::File(RESOLV_CONF.into()),
        given => Servers::Given(given.to_vec()),
    };
    let rounds = Rounds { targets: asked, role: leadership.changes(), results: resolved };
    tasks.spawn("resolver", Resolver { rounds, servers, metrics: metrics() }.run(stop.writing.clone()));

    let installation = &shared.settings.installation;
    let writer =
        Writer::new(shared.client.clone(), leadership.clone(), installation, Arc::clone(&shared.metrics));
    let drain = stop.writing.clone();
    // the lease is given up when nothing is written any more
    tasks.spawn("writers", async move {
        writer.run(planned, reported, drain).await;
        released.cancel();
    });
    let Some(own) = &certificates.own else { return };
    let (client, stop) = (shared.client.clone(), stop.writing.clone());
    if certificates.own_admission {
        let keep =
            registration::keep_ca_bundle(client.clone(), leadership.clone(), own.trusted(), stop.clone());
        tasks.spawn("registration", keep);
    }
    if !args.has(Role::Mapping) && shared.settings.tls.mapping == CertificateSource::SelfManaged {
        let (namespace, own) = (shared.namespace.clone(), Arc::clone(own));
        let keep = handover::keep_mapping_leaf(client, namespace, leadership, own, stop);
        tasks.spawn("mapping certificate", keep);
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
