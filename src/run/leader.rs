//! What only a controller does: it stands for leadership, writes, dials and asks DNS.

use std::sync::Arc;

use external_ip_core::action::Action;
use external_ip_core::settings::CertificateSource;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::certificates::Certificates;
use super::state::Ends;
use super::tasks::{Stop, Tasks};
use crate::act::configmaps::{ConfigMaps, Source};
use crate::act::lease::{self, Leadership};
use crate::act::writer::Writer;
use crate::act::{handover, registration};
use crate::cli::{self, Role};
use crate::dial::Dialler;
use crate::resolve::{Resolver, Servers};
use crate::rounds::Rounds;

/// Where a pod finds its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Leadership, and the token that gives it up.
pub(super) type Candidacy = (Leadership, CancellationToken);

/// Carries out what is planned while it leads.
pub(super) fn act(
    shared: &Shared,
    args: &cli::Run,
    certificates: &Certificates,
    (leadership, released): Candidacy,
    ends: Ends,
    tasks: &mut Tasks,
    stop: &Stop,
) {
    let config_maps = config_maps(shared, certificates, leadership.clone(), ends.actions, stop);
    tasks.spawn("ConfigMaps", config_maps);
    let metrics = || Arc::clone(&shared.metrics);
    let rounds = Rounds { targets: ends.targets, role: leadership.changes(), results: ends.dialled };
    tasks.spawn("dialler", Dialler { rounds, metrics: metrics() }.run(stop.writing.clone()));
    let servers = match &args.name_servers[..] {
        [] => Servers::File(RESOLV_CONF.into()),
        given => Servers::Given(given.to_vec()),
    };
    let rounds = Rounds { targets: ends.names, role: leadership.changes(), results: ends.answers };
    tasks.spawn("resolver", Resolver { rounds, servers, metrics: metrics() }.run(stop.writing.clone()));

    let installation = &shared.settings.installation;
    let writer = Writer::new(shared.client.clone(), leadership.clone(), installation, metrics());
    let (planned, outcomes, drain) = (ends.planned, ends.outcomes, stop.writing.clone());
    // the lease is given up when nothing is written any more
    tasks.spawn("writers", async move {
        writer.run(planned, outcomes, drain).await;
        released.cancel();
    });
    hand_out(shared, args, certificates, leadership, tasks, stop);
}

/// Gives our certificates to those who need them: the registration, and map servers of their own.
fn hand_out(
    shared: &Shared,
    args: &cli::Run,
    certificates: &Certificates,
    leadership: Leadership,
    tasks: &mut Tasks,
    stop: &Stop,
) {
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

/// Stands for leadership.
pub(super) fn stand(shared: &Shared, args: &cli::Run, tasks: &mut Tasks) -> Candidacy {
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
