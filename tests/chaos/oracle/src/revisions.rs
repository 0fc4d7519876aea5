//! Sets of etcd revisions.

/// Sorted, disjoint, half-open ranges; `u64::MAX` as an end means "still".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Revisions(Vec<(u64, u64)>);

impl Revisions {
    /// Adds `[from, to)`, which begins at or after the end of the last range.
    pub(crate) fn append(&mut self, from: u64, to: u64) {
        match self.0.last_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ if from < to => self.0.push((from, to)),
            _ => {}
        }
    }

    pub(crate) fn intersect(&self, other: &Self) -> Self {
        let mut both = Self::default();
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            let (from, to) = (x.0.max(y.0), x.1.min(y.1));
            if from < to {
                both.0.push((from, to));
            }
            if x.1 < y.1 {
                a.next();
            } else {
                b.next();
            }
        }
        both
    }

    /// Whether one between `from` and `to`, both included, is in it.
    pub(crate) fn touches(&self, from: u64, to: u64) -> bool {
        self.0.iter().any(|(a, b)| *a <= to && from < *b)
    }

    /// Whether all from `from` to `to`, both included, are in it.
    pub(crate) fn covers(&self, from: u64, to: u64) -> bool {
        self.0.iter().any(|(a, b)| *a <= from && to < *b)
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.0.first().map(|range| range.0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u64, u64)]) -> Revisions {
        let mut set = Revisions::default();
        for (from, to) in ranges {
            set.append(*from, *to);
        }
        set
    }

    #[test]
    fn ranges_that_touch_become_one_and_empty_ones_none() {
        assert_eq!(set(&[(1, 3), (3, 5), (7, 7)]).ranges(), [(1, 5)]);
    }

    #[test]
    fn an_intersection_has_what_both_have() {
        let both = set(&[(1, 5), (8, 20)]).intersect(&set(&[(3, 9), (12, 13), (19, u64::MAX)]));
        assert_eq!(both.ranges(), [(3, 5), (8, 9), (12, 13), (19, 20)]);
    }

    #[test]
    fn bounds_are_included() {
        let set = set(&[(3, 5)]);
        assert!(set.covers(3, 4) && !set.covers(3, 5) && !set.covers(2, 4));
        assert!(set.touches(4, 9) && set.touches(1, 3) && !set.touches(5, 9) && !set.touches(1, 2));
    }
}
