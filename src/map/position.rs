use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Resource versions, one per feed, by the feed's mark (see `watch::feed`). Comparable within a feed only; clients treat
/// the text as opaque.
///
/// A map is marked with the versions of the last changes behind it; a replica that has reached them shows nothing older.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position(BTreeMap<Arc<str>, u64>);

impl Position {
    /// The feeds in which this has not come as far as `wanted`. A feed that is not ours has no say in our map: replicas
    /// differ in feeds while a new configuration is rolled out.
    pub fn behind<'a>(&self, wanted: &'a Self) -> impl Iterator<Item = &'a Arc<str>> {
        let behind =
            |(mark, version): &(&Arc<str>, &u64)| self.0.get(*mark).is_some_and(|own| own < *version);
        wanted.0.iter().filter(behind).map(|(mark, _)| mark)
    }

    /// Whether there is such a feed.
    pub fn is_behind(&self, wanted: &Self) -> bool {
        self.behind(wanted).next().is_some()
    }

    /// The further of both in each of our feeds: a reader keeps what others have shown it.
    #[must_use]
    pub fn keeping(&self, shown: &Self) -> Self {
        let further = |(mark, own): (&Arc<str>, &u64)| {
            (Arc::clone(mark), shown.version(mark).map_or(*own, |shown| shown.max(*own)))
        };
        Self(self.0.iter().map(further).collect())
    }

    /// Of one feed.
    pub fn version(&self, mark: &str) -> Option<u64> {
        self.0.get(mark).copied()
    }
}

impl FromIterator<(Arc<str>, u64)> for Position {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, u64)>>(feeds: I) -> Self {
        Self(feeds.into_iter().collect())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (mark, version)) in self.0.iter().enumerate() {
            let dot = if n == 0 { "" } else { "." };
            write!(f, "{dot}{mark}{version}")?;
        }
        Ok(())
    }
}

/// A text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a position: send back what the header Map-Position of the last answer held, unchanged")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;
    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let part = |part: &str| {
            // a mark ends in something that is no digit
            let mark = part.trim_end_matches(|c: char| c.is_ascii_digit());
            let version = part[mark.len()..].parse().map_err(|_| InvalidPosition)?;
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            let valid = !mark.is_empty() && mark.bytes().all(fits);
            if valid { Ok((Arc::from(mark), version)) } else { Err(InvalidPosition) }
        };
        text.split('.').map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(feeds: &[(&str, u64)]) -> Position {
        feeds.iter().map(|(mark, version)| (Arc::from(*mark), *version)).collect()
    }

    #[test]
    fn positions_go_both_ways() {
        let all = position(&[("p", 1), ("s", 22), ("e", u64::MAX), ("n", 0), ("cab2c7de-", 3)]);
        assert_eq!(all.to_string(), "cab2c7de-3.e18446744073709551615.n0.p1.s22");
        assert_eq!(all.to_string().parse(), Ok(all));
        for bad in [
            "",
            "p",
            "1",
            "p1.",
            ".p1",
            "p1..s1",
            "p-",
            "p+1.s1",
            "P1",
            "p1 .s1",
            "pé1",
            "p18446744073709551616",
        ] {
            assert_eq!(bad.parse::<Position>(), Err(InvalidPosition), "{bad}");
        }
    }

    #[test]
    fn behind_in_one_feed_is_behind() {
        let own = position(&[("p", 5), ("s", 5)]);
        assert!(!own.is_behind(&own));
        let wanted = position(&[("p", 4), ("s", 6)]);
        assert_eq!(own.behind(&wanted).map(|m| &**m).collect::<Vec<_>>(), ["s"]);
    }

    #[test]
    fn a_feed_of_another_configuration_is_neither_waited_for_nor_kept() {
        let own = position(&[("p", 5)]);
        let wanted = position(&[("p", 4), ("cab2c7de-", 9)]);
        assert!(!own.is_behind(&wanted));
        assert_eq!(own.keeping(&wanted), own);
    }

    #[test]
    fn what_others_have_shown_is_kept() {
        let own = position(&[("p", 5), ("s", 5)]);
        assert_eq!(own.keeping(&position(&[("p", 4), ("s", 6)])), position(&[("p", 5), ("s", 6)]));
    }
}
