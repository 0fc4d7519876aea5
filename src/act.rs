//! The only folder that changes anything at the API server, and the leadership that allows it.

pub mod configmaps;
pub mod handover;
pub mod lease;
pub mod registration;
pub mod writer;
