//! Stands in for the crate of this name. kube reads one thing by it: token and expiry in what the `cmd-path` of a
//! kubeconfig's old auth provider prints, by paths such as `$.credential.access_token`. The original is a parser with
//! regular expressions, 1.3 MB of the program.

use serde_json::Value;

/// A path this does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("only paths of members such as $.credential.access_token are supported")]
pub struct Unsupported;

/// Queries on a document.
pub trait JsonPath {
    /// The value at a path of members, `$.a.b`; none where it is not there.
    ///
    /// # Errors
    /// It is another path.
    fn query(&self, path: &str) -> Result<Vec<&Value>, Unsupported>;
}

impl JsonPath for Value {
    fn query(&self, path: &str) -> Result<Vec<&Value>, Unsupported> {
        let members = path.strip_prefix("$.").ok_or(Unsupported)?;
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        };
        if !members.split('.').all(is_name) {
            return Err(Unsupported);
        }
        Ok(members.split('.').try_fold(self, |value, name| value.get(name)).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_kubeconfigs_are_followed_and_others_refused() {
        let printed =
            serde_json::json!({"credential": {"access_token": "t", "token_expiry": "2026-01-01T00:00:00Z"}});
        assert_eq!(
            printed.query("$.credential.access_token"),
            Ok(vec![&printed["credential"]["access_token"]])
        );
        assert_eq!(printed.query("$.credential.id_token"), Ok(vec![]));
        for other in ["$", "credential", "$..access_token", "$.credential[0]", "$.credential[?(@.a)]"] {
            assert_eq!(printed.query(other), Err(Unsupported), "{other}");
        }
    }
}
