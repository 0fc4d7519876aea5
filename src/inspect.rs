//! What people ask at a terminal: `explain`, `map`, `classes`, `plan`, `recreate`. Answered from the API server with the caller's own rights
//! and the controller's own functions, so that they work while no controller does.

mod classes;
mod configuration;
mod explain;
mod map;
mod plan;
mod recreate;
mod seen;
mod table;

use std::io::Write;

use anyhow::{Result, bail};
use kube::Client;

use crate::cli::{Form, Source};
use crate::client;
use configuration::Configuration;

pub use classes::run as classes;
pub use explain::run as explain;
pub use map::run as map;
pub use plan::run as plan;
pub use recreate::run as recreate;

/// A caller's way to the cluster.
struct Caller {
    client: Client,
    /// Where nothing else is said.
    namespace: String,
    configuration: Configuration,
}

impl Caller {
    async fn new(source: &Source) -> Result<Self> {
        let named = source.namespace.iter().chain([&source.controller_namespace]);
        named.into_iter().try_for_each(|name| check_name("namespace", name))?;
        let client = client::of_user(source.context.as_deref()).await?;
        let configuration = configuration::read(&client, source).await?;
        let namespace = source.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        Ok(Self { client, namespace, configuration })
    }
}

/// Refuses what cannot be the name of anything, before it becomes part of a path.
fn check_name(what: &str, text: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if text.is_empty() || text.starts_with('.') || !text.bytes().all(fits) {
        bail!("'{text}' is not the name of a {what}");
    }
    Ok(())
}

/// Something to keep in mind about the answer, apart from the answer.
fn note(text: &str) {
    eprintln!("note: {text}");
}

/// Prints the form asked for.
fn print(
    form: Form,
    text: impl FnOnce() -> String,
    json: impl FnOnce() -> String,
    yaml: impl FnOnce() -> String,
) {
    let answer = match form {
        Form::Text => text(),
        Form::Json => json(),
        Form::Yaml => yaml(),
    };
    // who reads it may have seen enough: `| head`
    let _ = writeln!(std::io::stdout(), "{}", answer.trim_end());
}
