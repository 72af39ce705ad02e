//! Durations and instants of up to 2,000 years, as words of 62 bits.
//!
//! A word counts nanoseconds up to [`COARSE`], which is 144 years, and microseconds above it. A greater word is a later
//! instant or a longer duration, so words are compared as they are. The clock never reaches [`COARSE`], so the sum of
//! an instant that passed and any duration is after every instant that the clock shows, and is exact below [`COARSE`].

use std::time::Duration;

/// From here on a word counts microseconds.
pub(crate) const COARSE: u64 = (1 << 62) - (1 << 56);
const COARSE_NANOS: u128 = COARSE as u128;
const LAST: u128 = (1 << 62) - 1;
const NANOS_PER_MICRO: u128 = 1_000;

/// The word of so many nanoseconds; of more than has a word, the last word.
pub fn word_of_nanos(nanos: u128) -> u64 {
    let word =
        if nanos < COARSE_NANOS { nanos } else { COARSE_NANOS + (nanos - COARSE_NANOS) / NANOS_PER_MICRO };
    word.min(LAST) as u64
}

fn nanos_of_word(word: u64) -> u128 {
    let micros = u128::from(word.saturating_sub(COARSE));
    u128::from(word.min(COARSE)) + micros * NANOS_PER_MICRO
}

/// The instant at which a duration ends that begins now.
#[inline]
pub(crate) fn end_of(now: u64, duration: u64) -> u64 {
    let at = now.saturating_add(duration);
    if at < COARSE { at } else { coarse_end_of(now, duration) }
}

#[cold]
fn coarse_end_of(now: u64, duration: u64) -> u64 {
    word_of_nanos(nanos_of_word(now) + nanos_of_word(duration))
}

/// The time from an instant, which is before [`COARSE`], to the end of a duration that began at another; 0 after it.
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
    fn words_are_in_the_order_of_what_they_mean() {
        let edges = [
            0,
            1,
            1_000,
            COARSE_NANOS - 1,
            COARSE_NANOS,
            COARSE_NANOS + 1_000,
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
        assert_eq!(end_of(COARSE - 10, 9), COARSE - 1);
        let (now, duration) = (143 * YEAR + 7, 999 * YEAR + 1_234_567);
        let end = end_of(now as u64, word_of_nanos(duration));
        assert!((now + duration).abs_diff(nanos_of_word(end)) < 2_000);
    }

    #[test]
    fn what_is_left_of_a_duration_becomes_less() {
        let left = |now, began_at, duration| time_left_of(now, began_at, duration).as_nanos();
        assert_eq!(left(12, 10, 5), 3);
        assert_eq!((left(15, 10, 5), left(99, 10, 5)), (0, 0));
        let duration = 900 * YEAR;
        assert!((duration - 2_000 - left(2_010, 10, word_of_nanos(duration))) < NANOS_PER_MICRO);
    }
}
