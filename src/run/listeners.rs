//! The TLS listeners for admission and the map, and the plain one for probes.

use std::sync::Arc;

use anyhow::Result;
use external_ip_core::settings;

use super::Shared;
use super::certificates::Certificates;
use super::tasks::{Stop, Tasks};
use crate::cli;
use crate::serve::access::{Access, ApiReviewer};
use crate::serve::admin;
use crate::serve::admission::{self, Admission};
use crate::serve::listener::{Limits, Listener};
use crate::serve::mapping::{self, Mapping};
use crate::tls;

/// Binds all listeners before anything is served, so that a taken port is an error of the start.
pub(super) fn listen(
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
        match name {
            "admission" => tasks.spawn_apart(name, serving)?,
            _ => tasks.spawn(name, serving),
        }
    }
    Ok(())
}
