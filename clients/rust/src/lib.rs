//! Follows the map that External IP Controller publishes and answers, from memory: which external address has this
//! internal one?
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use external_ip_client::{AddressMapper, Https};
//!
//! let source = Https::new("https://203.0.113.9:8888", "data", "infinispan", "/etc/external-ip/ca.crt")
//!     .token_file("/etc/external-ip/token");
//! let mapper = AddressMapper::https(source)?;
//! mapper.ready().await;
//! if let Some(external) = mapper.external("198.18.0.5".parse()?, 11222) {
//!     println!("{external}"); // 203.0.113.1:11222
//! }
//! # Ok(()) }
//! ```
//!
//! [`AddressMapper`] keeps the last good map while the controller is away, never goes back to an older one, and reads
//! its CA and token again as they change. Where the map is mounted as a ConfigMap, [`AddressMapper::file`] follows that.
//!
//! `document -> map` is pure; `known` decides what an answer means; `https` and `file` fetch; `mapper` holds and serves.

mod document;
mod file;
mod https;
mod known;
mod map;
mod mapper;

pub use https::Https;
pub use map::{External, Map};
pub use mapper::{AddressMapper, StartError};
