//! Deadlines: no call returns an expired entry, and all expired entries are removed.

use moka_py::{Cause, Config, Kind, Lifetime};

use crate::support::{MICRO, MILLI, SECOND, Subject, YEAR, event, sized};

fn living(ttl: u64, tti: u64) -> Subject {
    Subject::new(Config { lifetime: Lifetime { ttl, tti }, ..Config::new(1000, Kind::Lru) })
}

#[test]
fn a_get_after_the_deadline_is_a_miss() {
    let subject = living(10, 0);
    subject.set(1, 1);
    subject.advance(9);
    assert_eq!((subject.get(1), subject.peek(1), subject.expires_in(1)), (Some(1), Some(1), Some(1)));
    subject.advance(1);
    assert_eq!((subject.get(1), subject.peek(1), subject.expires_in(1)), (None, None, None));
    subject.validate();
}

#[test]
fn an_expired_entry_is_absent_for_every_call() {
    type Call = fn(&Subject);
    let calls: [(&str, Call); 5] = [
        ("remove", |subject| assert_eq!(subject.remove(1), None)),
        ("pop", |subject| assert_eq!(subject.pop_any(), None)),
        ("iteration", |subject| assert_eq!(subject.entries(), [])),
        ("count", |subject| assert_eq!(subject.count(), 0)),
        ("weight", |subject| assert_eq!(subject.weight(), 0)),
    ];
    for (name, call) in calls {
        let subject = living(10, 0);
        subject.set(1, 7);
        subject.advance(10);
        call(&subject);
        subject.count();
        assert_eq!(subject.events(), [event(1, 7, Cause::Expired)], "{name}");
        subject.validate();
    }
}

#[test]
fn a_write_over_an_expired_entry_reports_the_cause_expired() {
    let subject = living(10, 0);
    subject.set(1, 1);
    subject.advance(10);
    assert_eq!(subject.set_if_absent(1, 2), None);
    assert_eq!(subject.events(), [event(1, 1, Cause::Expired)]);
    subject.advance(10);
    subject.set(1, 3);
    assert_eq!(subject.events(), [event(1, 2, Cause::Expired)]);
    assert_eq!(subject.get(1), Some(3));
    subject.validate();
}

#[test]
fn a_deadline_is_exact_to_the_nanosecond() {
    let subject = living(0, 0);
    subject.set_with_lifetime(1, 1, 700, 0);
    subject.advance(500);
    // This call is in the same tick of the queue as the deadline.
    assert_eq!(subject.count(), 1);
    subject.advance(199);
    assert_eq!(subject.count(), 1);
    subject.advance(1);
    assert_eq!((subject.count(), subject.weight()), (0, 0));
    assert_eq!(subject.events(), [event(1, 1, Cause::Expired)]);
    subject.validate();
}

#[test]
fn an_access_restarts_the_time_to_idle_but_not_the_time_to_live() {
    let subject = living(100 * MILLI, 30 * MILLI);
    subject.set(1, 1);
    for _ in 0..4 {
        subject.advance(20 * MILLI);
        assert_eq!(subject.get(1), Some(1));
    }
    assert_eq!(subject.expires_in(1), Some(20 * MILLI));
    subject.advance(20 * MILLI);
    assert_eq!(subject.get(1), None);
    subject.validate();
}

#[test]
fn a_peek_does_not_restart_the_time_to_idle() {
    let subject = living(0, 30 * MILLI);
    subject.set(1, 1);
    subject.advance(20 * MILLI);
    assert_eq!((subject.peek(1), subject.entries()), (Some(1), vec![(1, 1)]));
    assert_eq!(subject.expires_in(1), Some(10 * MILLI));
    subject.advance(10 * MILLI);
    assert_eq!(subject.peek(1), None);
}

#[test]
fn set_if_absent_on_a_present_key_restarts_the_time_to_idle() {
    let subject = living(0, 30 * MILLI);
    subject.set(1, 1);
    subject.advance(20 * MILLI);
    assert_eq!(subject.set_if_absent(1, 2), Some(1));
    assert_eq!(subject.expires_in(1), Some(30 * MILLI));
    subject.validate();
}

#[test]
fn the_shorter_of_two_durations_holds() {
    let subject = living(50, 0);
    subject.set_with_lifetime(1, 1, 20, 0);
    subject.set_with_lifetime(2, 2, 90, 0);
    subject.set_with_lifetime(3, 3, 0, 10);
    assert_eq!([1, 2, 3].map(|id| subject.expires_in(id)), [Some(20), Some(50), Some(10)]);
    let endless = living(0, 0);
    endless.set_with_lifetime(1, 1, 20, 0);
    endless.set(2, 2);
    assert_eq!([1, 2].map(|id| endless.expires_in(id)), [Some(20), None]);
    endless.validate();
}

#[test]
fn a_set_restarts_the_deadlines_and_forgets_the_old_ones() {
    let subject = living(0, 0);
    subject.set_with_lifetime(1, 1, 10 * MILLI, 0);
    subject.advance(5 * MILLI);
    subject.set_with_lifetime(1, 2, 20 * MILLI, 0);
    subject.advance(15 * MILLI);
    assert_eq!(subject.get(1), Some(2));
    subject.set(1, 3);
    subject.advance(SECOND);
    assert_eq!((subject.get(1), subject.expires_in(1), subject.count()), (Some(3), None, 1));
    subject.set_with_lifetime(1, 4, 0, MILLI);
    subject.set_with_lifetime(1, 5, MICRO, 0);
    assert_eq!(subject.expires_in(1), Some(MICRO));
    subject.advance(MICRO);
    assert_eq!((subject.get(1), subject.count()), (None, 0));
    subject.validate();
}

#[test]
fn a_deadline_can_be_moved_forward() {
    let subject = living(0, 0);
    subject.set_with_lifetime(1, 1, 3_600 * SECOND, 0);
    subject.set_with_lifetime(1, 2, SECOND, 0);
    subject.advance(SECOND);
    assert_eq!(subject.count(), 0);
    assert_eq!(subject.events(), [event(1, 1, Cause::Replaced), event(1, 2, Cause::Expired)]);
    subject.validate();
}

#[test]
fn any_call_removes_expired_entries_of_any_shard() {
    const ENTRIES: usize = sized(2_000, 80);
    let subject = Subject::new(Config::new(100_000, Kind::TinyLfu));
    for id in 0..ENTRIES as u64 {
        subject.set_with_lifetime(id, id, SECOND, 0);
    }
    subject.set(5_000, 1);
    subject.advance(2 * SECOND);
    let mut calls = 0;
    let mut expired = 0;
    while expired < ENTRIES {
        let found = subject.get(if calls % 2 == 0 { 5_000 } else { 6_000 });
        assert_eq!(found.is_some(), calls % 2 == 0);
        let events = subject.removed_keys(Cause::Expired).len();
        assert!(events <= 64, "{events} in one call");
        expired += events;
        calls += 1;
        assert!(calls < 1_000, "only {expired} have left");
    }
    assert_eq!((expired, subject.count()), (ENTRIES, 1));
    subject.validate();
}

#[test]
fn count_is_exact_while_maintenance_is_behind() {
    // Deadlines lie close together, so bounded maintenance steps stop in the middle of the expired ones.
    let subject = Subject::new(Config::new(10_000, Kind::TinyLfu));
    const ENTRIES: u64 = sized(1_000, 20);
    let due_at = |id: u64| SECOND + id % 100 * MILLI;
    for id in 0..ENTRIES {
        subject.set_with_lifetime(id, id, due_at(id), 0);
    }
    let mut now = 0;
    for at in (900..1_200).step_by(sized(1, 70)).map(|millis| millis * MILLI) {
        subject.advance(at - now);
        now = at;
        subject.get(9_999);
        let alive = (0..ENTRIES).filter(|&id| due_at(id) > now).count();
        assert_eq!(subject.entries().len(), alive);
        assert_eq!(subject.count(), alive, "at {now}");
        subject.validate();
    }
}

#[test]
fn expired_entries_are_removed_before_live_ones_are_evicted() {
    let subject = Subject::lru(3);
    subject.set(1, 1);
    subject.set_with_lifetime(2, 2, SECOND, 0);
    subject.set(3, 3);
    subject.advance(SECOND);
    subject.set(4, 4);
    assert_eq!(subject.events(), [event(2, 2, Cause::Expired)]);
    assert_eq!(subject.held_keys(), [1, 3, 4]);
    subject.validate();
}

#[test]
fn idle_entries_expire_while_others_are_accessed() {
    let subject = Subject::new(Config {
        lifetime: Lifetime { ttl: 0, tti: SECOND },
        ..Config::new(10_000, Kind::TinyLfu)
    });
    const ENTRIES: u64 = sized(500, 8);
    (0..ENTRIES).for_each(|id| subject.set(id, id));
    for _ in 0..sized(50, 12) {
        subject.advance(SECOND / 10);
        (0..ENTRIES / 2).for_each(|id| assert_eq!(subject.get(id), Some(id)));
        subject.validate();
    }
    assert_eq!(subject.count() as u64, ENTRIES / 2);
    let mut expired = subject.removed_keys(Cause::Expired);
    expired.sort_unstable();
    assert_eq!(expired, (ENTRIES / 2..ENTRIES).collect::<Vec<_>>());
}

#[test]
fn an_infinite_duration_never_expires() {
    let subject = living(0, 0);
    subject.set_with_lifetime(1, 1, u64::MAX, u64::MAX);
    subject.set_with_lifetime(2, 2, 73 * YEAR, 0);
    subject.advance(73 * YEAR - 1);
    assert_eq!((subject.get(1), subject.get(2)), (Some(1), Some(2)));
    subject.advance(1);
    assert_eq!((subject.get(1), subject.get(2), subject.count()), (Some(1), None, 1));
    subject.validate();
}

#[test]
fn the_remaining_time_of_a_very_long_duration_is_exact() {
    let millennium = moka_py::word_of_nanos(1_000 * u128::from(YEAR));
    let years = |seconds_left: Option<std::time::Duration>| {
        seconds_left.map(|seconds_left| seconds_left.as_secs_f64() / (YEAR as f64 / 1e9))
    };
    let subject = living(0, millennium);
    subject.set_with_lifetime(1, 1, millennium, 0);
    subject.set_with_lifetime(2, 2, 73 * YEAR, 0);
    subject.advance(YEAR);
    let seconds_left = [1, 2].map(|id| years(subject.remaining_time(id)).expect("there is a deadline"));
    assert!(
        (seconds_left[0] - 999.0).abs() < 1e-9 && (seconds_left[1] - 72.0).abs() < 1e-9,
        "{seconds_left:?}"
    );
    // An access restarts the time to idle, but not the time to live.
    assert_eq!((subject.get(1), subject.get(3)), (Some(1), None));
    subject.set(3, 3);
    subject.advance(YEAR);
    assert_eq!(subject.get(3), Some(3));
    let seconds_left = [1, 3].map(|id| years(subject.remaining_time(id)).expect("there is a deadline"));
    assert!(
        (seconds_left[0] - 998.0).abs() < 1e-9 && (seconds_left[1] - 1_000.0).abs() < 1e-9,
        "{seconds_left:?}"
    );
    subject.advance(100 * YEAR);
    assert_eq!((subject.get(1), subject.get(2), subject.get(3)), (Some(1), None, Some(3)));
    subject.validate();
}
