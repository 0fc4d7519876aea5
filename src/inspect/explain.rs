//! `explain NAMESPACE/POD`.

use anyhow::{Result, bail};
use external_ip_core::explain;
use external_ip_core::names::Key;
use external_ip_core::state::{Change, PodFeed, Update};

use super::seen::Reader;
use super::{Caller, check_name, print};
use crate::cli;

/// Prints why a pod stands where it stands.
///
/// # Errors
/// There is no such pod, or the caller may not read what decides.
pub async fn run(args: &cli::Explain) -> Result<()> {
    let caller = Caller::new(&args.source).await?;
    let (namespace, pod) = match args.pod.split_once('/') {
        Some((namespace, pod)) => (namespace, pod),
        None => (caller.namespace.as_str(), args.pod.as_str()),
    };
    check_name("namespace", namespace)?;
    check_name("pod", pod)?;
    let key = Key::new(namespace, pod);
    let mut reader = Reader::new(&caller.client, namespace);
    let mut state = reader.state(&caller.configuration.settings).await?;
    if state.pod(&key).is_none() {
        // one that takes no part is in none of the lists
        let Some(found) = reader.pod(&key).await? else {
            bail!("there is no pod {key}: kubectl -n {namespace} get pods shows those there are")
        };
        state.apply(Update::Pods(PodFeed::Labelled, Change::Applied(found)));
    }
    let Some(explanation) = explain::pod(&state, &key) else { bail!("there is no pod {key}") };
    let (text, json, yaml) =
        (|| explain::text(&explanation), || explain::json(&explanation), || explain::yaml(&explanation));
    print(args.output, text, json, yaml);
    Ok(())
}
