//! The three listeners and what they answer.
//!
//! ```text
//! 8443 TLS    admission  the API server's reviews of new pods
//! 8888 TLS    mapping    the map, for clients outside and inside; access decides who may read
//! 8080 plain  admin      probes and metrics, inside the Kubernetes cluster
//! ```

pub mod listener;
mod problem;
