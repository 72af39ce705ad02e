//! The durations that an entry is written with.

/// The deadline of an entry that does not expire.
pub(crate) const NEVER: u64 = u64::MAX;

/// How long an entry may live after its last write (`ttl`), and after its last use (`tti`). Nanoseconds as
/// [`word_of_nanos`](crate::word_of_nanos) encodes them; 0 for no limit.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub ttl: u64,
    pub tti: u64,
}

impl Lifetime {
    /// Returns the shorter `ttl` and the shorter `tti` of both.
    pub fn min(self, other: Lifetime) -> Lifetime {
        let shorter = |a: u64, b: u64| if a == 0 || (b != 0 && b < a) { b } else { a };
        Lifetime { ttl: shorter(self.ttl, other.ttl), tti: shorter(self.tti, other.tti) }
    }

    /// Returns this `ttl` and this `tti`; where there is none, the one of `other`.
    pub(crate) fn or(self, other: Lifetime) -> Lifetime {
        let first = |a: u64, b: u64| if a == 0 { b } else { a };
        Lifetime { ttl: first(self.ttl, other.ttl), tti: first(self.tti, other.tti) }
    }

    #[inline(always)]
    pub fn is_endless(self) -> bool {
        self.ttl | self.tti == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_of_two_lifetimes_has_the_shorter_ttl_and_the_shorter_tti() {
        let lifetime = |ttl, tti| Lifetime { ttl, tti };
        assert_eq!(lifetime(5, 0).min(lifetime(3, 9)), lifetime(3, 9));
        assert_eq!(lifetime(0, 7).min(lifetime(4, 0)), lifetime(4, 7));
        assert_eq!(lifetime(2, 7).min(lifetime(4, 6)), lifetime(2, 6));
        assert!(lifetime(0, 0).min(lifetime(0, 0)).is_endless());
    }

    #[test]
    fn a_duration_that_is_missing_comes_from_the_other_lifetime() {
        let lifetime = |ttl, tti| Lifetime { ttl, tti };
        assert_eq!(lifetime(5, 0).or(lifetime(3, 9)), lifetime(5, 9));
        assert_eq!(lifetime(0, 7).or(lifetime(4, 2)), lifetime(4, 7));
    }
}
