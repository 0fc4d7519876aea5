use std::fmt;
use std::str::FromStr;

/// Resource versions a snapshot was made from. Comparable within a kind only; clients treat the text as opaque.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Of pods.
    pub pods: u64,
    /// Of Services.
    pub services: u64,
    /// Of EndpointSlices.
    pub slices: u64,
    /// Of Namespaces.
    pub namespaces: u64,
}

impl Position {
    /// Whether this has seen less than `other` of any kind.
    pub fn is_behind(&self, other: &Self) -> bool {
        self.pods < other.pods
            || self.services < other.services
            || self.slices < other.slices
            || self.namespaces < other.namespaces
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}.s{}.e{}.n{}", self.pods, self.services, self.slices, self.namespaces)
    }
}

/// A text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a position: send back what the header Map-Position of the last answer held, unchanged")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;
    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let mut parts = text.split('.');
        let mut part = |letter| number(parts.next()?.strip_prefix(letter)?);
        let position = (|| {
            Some(Self { pods: part('p')?, services: part('s')?, slices: part('e')?, namespaces: part('n')? })
        })();
        position.filter(|_| parts.next().is_none()).ok_or(InvalidPosition)
    }
}

/// Digits only: `u64` alone would take `+1` as well.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_go_both_ways() {
        let position = Position { pods: 1, services: 22, slices: u64::MAX, namespaces: 0 };
        assert_eq!(position.to_string(), "p1.s22.e18446744073709551615.n0");
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in [
            "",
            "p1",
            "p1.s1.e1",
            "p1.s1.e1.n1.x1",
            "p1.s1.e1.n",
            "s1.p1.e1.n1",
            "p-1.s1.e1.n1",
            "p+1.s1.e1.n1",
        ] {
            assert_eq!(bad.parse::<Position>(), Err(InvalidPosition), "{bad}");
        }
    }

    #[test]
    fn behind_in_one_kind_is_behind() {
        let a = Position { pods: 5, services: 5, slices: 5, namespaces: 5 };
        assert!(!a.is_behind(&a));
        assert!(a.is_behind(&Position { namespaces: 6, ..a }));
        assert!(a.is_behind(&Position { pods: 0, services: 6, ..a }));
        assert!(!a.is_behind(&Position { pods: 4, ..a }));
    }
}
