//! What the API server accepts as names, labels and addresses: checked here, so that a mistake is found with its line
//! and not as a refused write an hour later.

use std::net::IpAddr;

fn is_alphanumeric(byte: Option<&u8>) -> bool {
    byte.is_some_and(u8::is_ascii_alphanumeric)
}

/// DNS-1123 label: names of namespaces, classes and installations.
pub(super) fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && is_alphanumeric(bytes.first())
        && is_alphanumeric(bytes.last())
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// DNS-1123 subdomain.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// The value of a label.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && is_alphanumeric(bytes.first())
        && is_alphanumeric(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The key of a label or annotation: a name with an optional DNS prefix.
pub(super) fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        None => is_name_part(text),
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_name_part(name),
    }
}

/// An address range as `198.18.0.0/15` or `2001:db8::/32`.
pub(super) fn is_cidr(text: &str) -> bool {
    let Some((ip, length)) = text.split_once('/') else { return false };
    let plain = length.bytes().all(|b| b.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    match (ip.parse::<IpAddr>(), length.parse::<u8>()) {
        (Ok(ip), Ok(length)) => plain && length <= if ip.is_ipv4() { 32 } else { 128 },
        _ => false,
    }
}

/// The word of `known` that `word` was probably meant to be.
pub(super) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |text: &str| -> Vec<char> {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(64).collect()
    };
    let word = plain(word);
    known
        .iter()
        .map(|candidate| (distance(&word, &plain(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_the_api_server_does() {
        assert!(["a", "a-1", "1a", &"a".repeat(63)].into_iter().all(is_dns_label));
        assert!(!["", "-a", "a-", "A", "a.b", &"a".repeat(64)].into_iter().any(is_dns_label));
        assert!(["app", "app.kubernetes.io/name", "A_b.c"].into_iter().all(is_qualified_name));
        assert!(!["", "/a", "a/", "a/b/c", "A/b", "-a", "ä"].into_iter().any(is_qualified_name));
        assert!(["", "Yes_1.0"].into_iter().all(is_label_value));
        assert!(!["a b", "-", "a/b"].into_iter().any(is_label_value));
    }

    #[test]
    fn ranges_have_an_address_and_a_length() {
        assert!(["198.18.0.0/15", "0.0.0.0/0", "2001:db8::/32", "::/128"].into_iter().all(is_cidr));
        let bad =
            ["198.18.0.0", "198.18.0.0/33", "::/129", "198.18.0.0/", "x/8", "198.18.0.0/+8", "1.2.3.4/08"];
        assert!(!bad.into_iter().any(is_cidr));
    }

    #[test]
    fn a_typing_mistake_finds_its_word() {
        let known = ["exposure", "retention", "reuseAfter", "service"];
        assert_eq!(closest("exposre", &known), Some("exposure"));
        assert_eq!(closest("reuse-after", &known), Some("reuseAfter"));
        assert_eq!(closest("Services", &known), Some("service"));
        assert_eq!(closest("colour", &known), None);
    }
}
