//! The pure decisions of the External IP Controller.
//!
//! ```text
//! API server --watch--> state --+--> plan ----> actions --> (shell writes them)
//!                               +--> mapping -> formats --> (shell publishes them)
//! admission review -----------------> stamp --> patch ----> (shell answers)
//! ```
//!
//! A **cluster** is the pods exposed together (namespace + name). A **slot** is one external address of a cluster; it
//! outlives the pod that uses it. A **binding** says which pod holds which slot: it lives in the slot's Service's
//! selector and nowhere else. A **stamp** is what the webhook writes on a pod. The **mapping** is the published
//! document; an **entry** is one pod's internal address, external address and ports.
//!
//! Nothing here is async, reads a clock, talks to anything or draws random numbers: time and identities come in as
//! arguments, decisions go out as data.

pub mod action;
pub mod addresses;
pub mod claim;
pub mod cost;
pub mod demand;
pub mod explain;
pub mod formats;
pub mod limits;
pub mod mapping;
pub mod milestones;
pub mod names;
pub mod objects;
pub mod plan;
pub mod reach;
pub mod reason;
pub mod recreate;
pub mod resolve;
pub mod service;
pub mod settings;
pub mod shared;
pub mod stamp;
pub mod state;
pub mod told;
