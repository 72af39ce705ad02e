//! Instants and durations of up to 2,000 years, in words of 62 bits.
//!
//! # How it works
//! A word below [`FIRST_COARSE`], which is 144 years, is a number of nanoseconds. Each step above it is a
//! microsecond. A larger word is a later instant or a longer duration, so words are compared as they are.
//!
//! # Invariants
//! - `before-coarse`: no clock reaches [`FIRST_COARSE`]. So the sum of a past instant and any duration is later than
//!   every instant that the clock shows, or it is exact.
//!
//! # Why not plain nanoseconds
//! [`DeadlineTable`](super::deadlines::DeadlineTable) needs two bits of a word, and 62 bits of nanoseconds end after
//! 146 years. A thousand years, which some callers pass to mean "for ever", would not fit.

use std::time::Duration;

/// The first word whose last digit is a microsecond.
pub(crate) const FIRST_COARSE: u64 = (1 << 62) - (1 << 56);
const FIRST_COARSE_NANOS: u128 = FIRST_COARSE as u128;
const MAX_WORD: u128 = (1 << 62) - 1;
const NANOS_PER_MICRO: u128 = 1_000;

/// Returns the word of a number of nanoseconds; the last word if there are too many.
pub fn word_of_nanos(nanos: u128) -> u64 {
    let word = if nanos < FIRST_COARSE_NANOS {
        nanos
    } else {
        FIRST_COARSE_NANOS + (nanos - FIRST_COARSE_NANOS) / NANOS_PER_MICRO
    };
    word.min(MAX_WORD) as u64
}

fn nanos_of_word(word: u64) -> u128 {
    let micros = u128::from(word.saturating_sub(FIRST_COARSE));
    u128::from(word.min(FIRST_COARSE)) + micros * NANOS_PER_MICRO
}

/// Returns the instant at which a duration ends that begins now.
#[inline]
pub(crate) fn end_of(now: u64, duration: u64) -> u64 {
    let end = now.saturating_add(duration);
    if end < FIRST_COARSE { end } else { coarse_end_of(now, duration) }
}

#[cold]
fn coarse_end_of(now: u64, duration: u64) -> u64 {
    word_of_nanos(nanos_of_word(now) + nanos_of_word(duration))
}

/// Returns a tenth of a duration, and at least a nanosecond.
pub(crate) fn tenth_of(duration: u64) -> u64 {
    word_of_nanos(nanos_of_word(duration) / 10).max(1)
}

/// Returns the time from `now`, which is before [`FIRST_COARSE`], to the end of a duration that began at `began_at`;
/// 0 after that end.
pub(crate) fn time_left_of(now: u64, began_at: u64, duration: u64) -> Duration {
    let nanos = (nanos_of_word(began_at) + nanos_of_word(duration)).saturating_sub(u128::from(now));
    let seconds = nanos / 1_000_000_000;
    Duration::new(seconds as u64, (nanos % 1_000_000_000) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u128 = 31_557_600 * 1_000_000_000;

    #[test]
    fn words_have_the_order_of_their_nanoseconds() {
        let edges = [
            0,
            1,
            1_000,
            FIRST_COARSE_NANOS - 1,
            FIRST_COARSE_NANOS,
            FIRST_COARSE_NANOS + 1_000,
            145 * YEAR,
            1_000 * YEAR,
            1_999 * YEAR,
        ];
        assert!(edges.map(word_of_nanos).is_sorted_by(|a, b| a < b));
        let lost = edges.map(|nanos| nanos - nanos_of_word(word_of_nanos(nanos)));
        assert_eq!(lost[..6], [0; 6]);
        assert!(lost.iter().all(|&lost| lost < NANOS_PER_MICRO));
    }

    #[test]
    fn an_end_is_exact_below_coarse_and_to_the_microsecond_above() {
        assert_eq!(end_of(10, 5), 15);
        assert_eq!(end_of(FIRST_COARSE - 10, 9), FIRST_COARSE - 1);
        let (now, duration) = (143 * YEAR + 7, 999 * YEAR + 1_234_567);
        let end = end_of(now as u64, word_of_nanos(duration));
        assert!((now + duration).abs_diff(nanos_of_word(end)) < 2_000);
    }

    #[test]
    fn a_tenth_is_exact_below_coarse_and_never_0() {
        assert_eq!([1, 9, 10, 12_345].map(tenth_of), [1, 1, 1, 1_234]);
        let tenth = u128::from(tenth_of(word_of_nanos(1_000 * YEAR)));
        assert!((100 * YEAR).abs_diff(tenth) < NANOS_PER_MICRO);
    }

    #[test]
    fn the_time_left_falls_to_0() {
        let time_left = |now, began_at, duration| time_left_of(now, began_at, duration).as_nanos();
        assert_eq!(time_left(12, 10, 5), 3);
        assert_eq!((time_left(15, 10, 5), time_left(99, 10, 5)), (0, 0));
        let duration = 900 * YEAR;
        assert!((duration - 2_000 - time_left(2_010, 10, word_of_nanos(duration))) < NANOS_PER_MICRO);
    }
}
