//! The API server's audit log as data: who did what.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// One finished request (a watch: one that has ended).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuditEvent {
    /// `admin`, `system:serviceaccount:NAMESPACE:NAME`, ...
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// Plural: `services`.
    pub resource: String,
    /// `status`, `binding`, ...; empty for the object itself.
    pub subresource: String,
    /// Empty for cluster-wide objects.
    pub namespace: String,
    /// Empty where the request names none (a list, a create with `generateName`).
    pub name: String,
    /// HTTP status; 0 where the connection ended without one.
    pub code: u16,
    /// The client's User-Agent.
    pub user_agent: String,
    /// Path and query as sent.
    pub uri: String,
    /// When the request arrived, RFC 3339 with microseconds: text order is time order.
    pub received: String,
}

impl AuditEvent {
    /// Whether the request may have changed something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// Finished requests logged after `position`, and the position after the last whole line.
pub(crate) fn read(path: &Path, position: u64) -> Result<(Vec<AuditEvent>, u64)> {
    let mut file = File::open(path).with_context(|| format!("no audit log at {}", path.display()))?;
    file.seek(SeekFrom::Start(position))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let mut events = Vec::new();
    for line in bytes[..whole].split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let value: Value = serde_json::from_slice(line).context("a line of the audit log is not JSON")?;
        if value["stage"] == "ResponseComplete" {
            events.push(event(&value));
        }
    }
    Ok((events, position + whole as u64))
}

fn event(value: &Value) -> AuditEvent {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &value["objectRef"];
    AuditEvent {
        user: text(&value["user"]["username"]),
        verb: text(&value["verb"]),
        resource: text(&object["resource"]),
        subresource: text(&object["subresource"]),
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        code: value["responseStatus"]["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
        user_agent: text(&value["userAgent"]),
        uri: text(&value["requestURI"]),
        received: text(&value["requestReceivedTimestamp"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_line_is_read_the_next_time() {
        let path = std::env::temp_dir().join(format!("audit-{}", std::process::id()));
        let line = |verb: &str| {
            format!(
                "{{\"stage\":\"ResponseComplete\",\"verb\":\"{verb}\",\"responseStatus\":{{\"code\":200}}}}\n"
            )
        };
        std::fs::write(&path, format!("{}{{\"sta", line("create"))).unwrap();
        let (events, position) = read(&path, 0).unwrap();
        assert_eq!(events.len(), 1);
        assert!(events[0].is_write());
        assert_eq!(events[0].code, 200);
        std::fs::write(&path, format!("{}{}", line("create"), line("get"))).unwrap();
        let (events, _) = read(&path, position).unwrap();
        assert_eq!(events.iter().map(|e| e.verb.as_str()).collect::<Vec<_>>(), ["get"]);
        std::fs::remove_file(&path).unwrap();
    }
}
