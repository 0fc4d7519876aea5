//! A real Kubernetes on one machine, without internet after the first build: for the tests and the demo.
//!
//! Two levels: the control plane alone (pods are pretended, any user), or one whole node (pods run, root). Every process
//! carries its cluster's directory in its environment; network and mount namespaces are held open by processes only.
//! So a cluster is found and removed completely, whatever moment its `up` was killed at. `README.md` beside this crate
//! tells the rest.
//!
//! ```no_run
//! use local_cluster::{Cluster, Component, Level};
//!
//! # fn main() -> anyhow::Result<()> {
//! let cluster = Cluster::for_tests("api", Level::ControlPlane)?; // or the one KUBECONFIG names
//! cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: a}}")?;
//! let seen = cluster.audit_position()?;
//! let as_me = cluster.user_kubeconfig("system:serviceaccount:a:me", &[])?;
//! // ... run what is tested with `as_me` ...
//! let (events, _) = cluster.audit_events_since(seen)?;
//! let writes = events.iter().filter(|event| event.user.ends_with(":me") && event.is_write()).count();
//! # let _ = (as_me, writes);
//! cluster.pause(Component::ApiServer)?; // silence
//! cluster.resume(Component::ApiServer)?;
//! # Ok(())
//! # } // dropped: stopped and removed, also by a panic
//! ```

mod audit;
mod cache;
mod cluster;
mod component;
mod debian;
pub mod dockerfile;
mod door;
mod down;
mod go;
mod guard;
pub mod image;
mod launch;
mod marked;
mod member;
mod node;
mod options;
mod pki;
mod ports;
mod progress;
mod site;
mod tools;
mod up;

pub use audit::AuditEvent;
pub use cluster::Cluster;
pub use component::Component;
pub use door::Door;
pub use down::{all, down};
pub use marked::{Marked, find as marked_processes};
pub use member::MEMBER_IMAGE;
pub use options::{Level, Lifetime, Options};
pub use ports::free_port;
pub use progress::Progress;

/// Makes everything a level needs, so that `up` starts at once.
pub fn build(level: Level) -> anyhow::Result<()> {
    let maker = tools::Maker { owner: None, progress: &Progress::new() };
    tools::Tools::ensure(level, &maker).map(drop)
}
