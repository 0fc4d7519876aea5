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

/// The position after the last whole line. The file's length is none: while the API server writes a line, it may end
/// within it (Linux lets a file grow by the page).
pub(crate) fn end(path: &Path) -> Result<u64> {
    let mut file = open(path)?;
    let mut before = file.metadata()?.len();
    let mut piece = Vec::new();
    while before > 0 {
        let from = before.saturating_sub(64 << 10);
        file.seek(SeekFrom::Start(from))?;
        piece.clear();
        (&mut file).take(before - from).read_to_end(&mut piece)?;
        if let Some(whole) = whole_lines(&piece) {
            return Ok(from + whole as u64);
        }
        before = from;
    }
    Ok(0)
}

/// Finished requests logged after `position`, and the position after the last whole line.
pub(crate) fn read(path: &Path, position: u64) -> Result<(Vec<AuditEvent>, u64)> {
    let mut file = open(path)?;
    file.seek(SeekFrom::Start(position))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = whole_lines(&bytes).unwrap_or(0);
    let mut events = Vec::new();
    for line in bytes[..whole].split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let value: Value = serde_json::from_slice(line).context("a line of the audit log is not JSON")?;
        if value["stage"] == "ResponseComplete" {
            events.push(event(&value));
        }
    }
    Ok((events, position + whole as u64))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("no audit log at {}", path.display()))
}

/// How many of the bytes are whole lines, if any.
fn whole_lines(bytes: &[u8]) -> Option<usize> {
    bytes.iter().rposition(|b| *b == b'\n').map(|at| at + 1)
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

    fn line(verb: &str) -> String {
        format!(
            "{{\"stage\":\"ResponseComplete\",\"verb\":\"{verb}\",\"responseStatus\":{{\"code\":200}}}}\n"
        )
    }

    fn verbs(path: &Path, position: u64) -> Vec<String> {
        read(path, position).unwrap().0.into_iter().map(|event| event.verb).collect()
    }

    /// A log of its own for each test, gone with it.
    struct Log(std::path::PathBuf);

    impl Log {
        fn new(test: &str, content: &str) -> Self {
            let log = Self(std::env::temp_dir().join(format!("audit-{test}-{}", std::process::id())));
            log.write(content);
            log
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.0, text).unwrap();
        }
    }

    impl Drop for Log {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_half_written_line_is_read_the_next_time() {
        let log = Log::new("read", &format!("{}{{\"sta", line("create")));
        let (events, position) = read(&log.0, 0).unwrap();
        assert_eq!(events.len(), 1);
        assert!(events[0].is_write());
        assert_eq!(events[0].code, 200);
        log.write(&format!("{}{}", line("create"), line("get")));
        assert_eq!(verbs(&log.0, position), ["get"]);
    }

    #[test]
    fn the_end_is_before_a_half_written_line() {
        let log = Log::new("end", "");
        assert_eq!(end(&log.0).unwrap(), 0);
        log.write("{\"sta");
        assert_eq!(end(&log.0).unwrap(), 0);
        // as long as a line can be, and longer than the pieces it is looked for in
        let half = line(&"x".repeat(200_000));
        log.write(&format!("{}{}", line("create"), &half[..150_000]));
        let position = end(&log.0).unwrap();
        log.write(&format!("{}{half}{}", line("create"), line("get")));
        let read = verbs(&log.0, position);
        assert_eq!((read.len(), read[0].len(), read[1].as_str()), (2, 200_000, "get"));
        assert_eq!(end(&log.0).unwrap(), std::fs::metadata(&log.0).unwrap().len());
    }
}
