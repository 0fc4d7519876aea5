//! `classes`: what can be asked for.

use anyhow::Result;
use external_ip_core::settings::{self, Class, Settings, duration};

use super::table::table;
use super::{Caller, configuration, print};
use crate::cli;

/// Prints the classes of the configuration.
///
/// # Errors
/// The configuration is not valid, or there is no cluster to ask.
pub async fn run(args: &cli::Classes) -> Result<()> {
    let settings = match &args.source.config {
        Some(file) => configuration::from_file(file)?.settings,
        None => Caller::new(&args.source).await?.configuration.settings,
    };
    let yaml = || settings::render(&settings);
    print(args.output, || text(&settings), || settings::render_json(&settings), yaml);
    Ok(())
}

fn text(settings: &Settings) -> String {
    table(
        ["CLASS", "EXPOSURE", "NAMESPACES", "ADDRESSES", "RETENTION", "LOAD BALANCER CLASS"],
        settings.classes.iter().map(|(name, class)| row(name, class)),
    )
}

fn row(name: &str, class: &Class) -> [String; 6] {
    let namespaces = if class.namespaces.is_empty() { "*".to_owned() } else { class.namespaces.join(",") };
    let retention = match class.retention {
        settings::Retention::For(time) => duration::render(time),
        settings::Retention::Forever => "forever".to_owned(),
    };
    let exposure: Vec<&str> = class.exposure.iter().map(|e| e.as_str()).collect();
    let addresses =
        if class.addresses.is_empty() { "dynamic".to_owned() } else { class.addresses.len().to_string() };
    [
        name.to_owned(),
        exposure.join(","),
        namespaces,
        addresses,
        retention,
        class.service.load_balancer_class.clone().unwrap_or_default(),
    ]
}
