//! The keys of the TLS listeners: from our own CA or from files.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use external_ip_core::objects::Service;
use external_ip_core::settings::{CertificateFiles, CertificateSource};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::tasks::{Stop, Tasks};
use crate::cli::{self, Role};
use crate::tls::files::Files;
use crate::tls::leaf::SelfManaged;
use crate::tls::{ServedKey, Trusted, Verifiers};

/// The keys of the two TLS listeners.
pub(super) struct Certificates {
    pub(super) admission: Option<Arc<ServedKey>>,
    pub(super) mapping: Option<Arc<ServedKey>>,
    /// Our CA, where a listener uses it.
    pub(super) own: Option<Arc<SelfManaged>>,
    /// The registration trusts our CA.
    pub(super) own_admission: bool,
    /// For readers of the map; `None` where nobody has said what it is.
    pub(super) trusted: Option<Trusted>,
}

impl Certificates {
    pub(super) async fn start(
        shared: &Shared,
        args: &cli::Run,
        tasks: &mut Tasks,
        stop: &Stop,
    ) -> Result<Self> {
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

    /// Our leafs carry every name that the mapping Service's load balancer has.
    pub(super) fn follow(
        &self,
        service: watch::Receiver<Option<Arc<Service>>>,
        tasks: &mut Tasks,
        stop: &Stop,
    ) {
        if let Some(own) = self.own.clone() {
            tasks.spawn("outside names", follow_names(own, service, stop.all.clone()));
        }
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

/// Keeps the names of our leafs in step with the mapping Service's load balancer.
async fn follow_names(
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
