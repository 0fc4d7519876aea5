//! The three listeners and what they answer.
//!
//! ```text
//! 8443 TLS    admission  the API server's reviews of new pods
//! 8888 TLS    mapping    the map, for clients outside and inside; access decides who may read
//! 8080 plain  admin      probes and metrics, inside the Kubernetes cluster
//! ```

pub mod access;
pub mod admin;
pub mod admission;
pub mod listener;
pub mod mapping;
mod problem;

use std::any::Any;

/// The words of a panic, where it has any.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
