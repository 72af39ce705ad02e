//! Deadlines: no call returns what is past its own, and all that is due leaves.

use moka_py::{Cause, Config, Kind, Lifetime};

use crate::support::{MICRO, MILLI, SECOND, Subject, YEAR, gone};

fn living(ttl: u64, tti: u64) -> Subject {
    Subject::new(Config { lifetime: Lifetime { ttl, tti }, ..Config::new(1000, Kind::Lru) })
}

#[test]
fn get_after_deadline_is_a_miss() {
    let subject = living(10, 0);
    subject.set(1, 1);
    subject.advance(9);
    assert_eq!((subject.get(1), subject.peek(1), subject.expires_in(1)), (Some(1), Some(1), Some(1)));
    subject.advance(1);
    assert_eq!((subject.get(1), subject.peek(1), subject.expires_in(1)), (None, None, None));
    subject.validate();
}

#[test]
fn an_entry_that_is_due_is_absent_for_every_call() {
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
        assert_eq!(subject.told(), [gone(1, 7, Cause::Expired)], "{name}");
        subject.validate();
    }
}

#[test]
fn a_write_over_an_entry_that_is_due_tells_that_it_expired() {
    let subject = living(10, 0);
    subject.set(1, 1);
    subject.advance(10);
    assert_eq!(subject.set_if_absent(1, 2), None);
    assert_eq!(subject.told(), [gone(1, 1, Cause::Expired)]);
    subject.advance(10);
    subject.set(1, 3);
    assert_eq!(subject.told(), [gone(1, 2, Cause::Expired)]);
    assert_eq!(subject.get(1), Some(3));
    subject.validate();
}

#[test]
fn every_nanosecond_counts() {
    let subject = living(0, 0);
    subject.set_for(1, 1, 700, 0);
    subject.advance(500);
    // This look is in the same tick of the queue as the deadline.
    assert_eq!(subject.count(), 1);
    subject.advance(199);
    assert_eq!(subject.count(), 1);
    subject.advance(1);
    assert_eq!((subject.count(), subject.weight()), (0, 0));
    assert_eq!(subject.told(), [gone(1, 1, Cause::Expired)]);
    subject.validate();
}

#[test]
fn a_use_prolongs_the_time_to_idle_and_not_the_time_to_live() {
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
fn a_look_without_a_trace_does_not_prolong_the_time_to_idle() {
    let subject = living(0, 30 * MILLI);
    subject.set(1, 1);
    subject.advance(20 * MILLI);
    assert_eq!((subject.peek(1), subject.entries()), (Some(1), vec![(1, 1)]));
    assert_eq!(subject.expires_in(1), Some(10 * MILLI));
    subject.advance(10 * MILLI);
    assert_eq!(subject.peek(1), None);
}

#[test]
fn a_value_that_is_kept_by_set_if_absent_is_used() {
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
    subject.set_for(1, 1, 20, 0);
    subject.set_for(2, 2, 90, 0);
    subject.set_for(3, 3, 0, 10);
    assert_eq!([1, 2, 3].map(|id| subject.expires_in(id)), [Some(20), Some(50), Some(10)]);
    let endless = living(0, 0);
    endless.set_for(1, 1, 20, 0);
    endless.set(2, 2);
    assert_eq!([1, 2].map(|id| endless.expires_in(id)), [Some(20), None]);
    endless.validate();
}

#[test]
fn setting_again_restarts_the_deadlines_and_forgets_the_old_ones() {
    let subject = living(0, 0);
    subject.set_for(1, 1, 10 * MILLI, 0);
    subject.advance(5 * MILLI);
    subject.set_for(1, 2, 20 * MILLI, 0);
    subject.advance(15 * MILLI);
    assert_eq!(subject.get(1), Some(2));
    subject.set(1, 3);
    subject.advance(SECOND);
    assert_eq!((subject.get(1), subject.expires_in(1), subject.count()), (Some(3), None, 1));
    subject.set_for(1, 4, 0, MILLI);
    subject.set_for(1, 5, MICRO, 0);
    assert_eq!(subject.expires_in(1), Some(MICRO));
    subject.advance(MICRO);
    assert_eq!((subject.get(1), subject.count()), (None, 0));
    subject.validate();
}

#[test]
fn a_deadline_that_is_drawn_nearer_is_kept() {
    let subject = living(0, 0);
    subject.set_for(1, 1, 3_600 * SECOND, 0);
    subject.set_for(1, 2, SECOND, 0);
    subject.advance(SECOND);
    assert_eq!(subject.count(), 0);
    assert_eq!(subject.told(), [gone(1, 1, Cause::Replaced), gone(1, 2, Cause::Expired)]);
    subject.validate();
}

#[test]
fn any_call_drives_out_what_is_due_in_any_shard() {
    let subject = Subject::new(Config::new(100_000, Kind::TinyLfu));
    for id in 0..2_000 {
        subject.set_for(id, id, SECOND, 0);
    }
    subject.set(5_000, 1);
    subject.advance(2 * SECOND);
    let mut calls = 0;
    let mut expired = 0;
    while expired < 2_000 {
        let found = subject.get(if calls % 2 == 0 { 5_000 } else { 6_000 });
        assert_eq!(found.is_some(), calls % 2 == 0);
        let told = subject.told_keys(Cause::Expired).len();
        assert!(told <= 64, "{told} in one call");
        expired += told;
        calls += 1;
        assert!(calls < 1_000, "only {expired} have left");
    }
    assert_eq!((expired, subject.count()), (2_000, 1));
    subject.validate();
}

#[test]
fn count_is_exact_while_maintenance_is_behind() {
    // Deadlines close together, of which some are due: bounded steps stop in the middle of them.
    let subject = Subject::new(Config::new(10_000, Kind::TinyLfu));
    let due_at = |id: u64| SECOND + id % 100 * MILLI;
    for id in 0..1_000 {
        subject.set_for(id, id, due_at(id), 0);
    }
    let mut now = 0;
    for at in (900..1_200).map(|millis| millis * MILLI) {
        subject.advance(at - now);
        now = at;
        subject.get(9_999);
        let alive = (0..1_000).filter(|&id| due_at(id) > now).count();
        assert_eq!(subject.entries().len(), alive);
        assert_eq!(subject.count(), alive, "at {now}");
        subject.validate();
    }
}

#[test]
fn what_is_due_leaves_before_what_is_not() {
    let subject = Subject::lru(3);
    subject.set(1, 1);
    subject.set_for(2, 2, SECOND, 0);
    subject.set(3, 3);
    subject.advance(SECOND);
    subject.set(4, 4);
    assert_eq!(subject.told(), [gone(2, 2, Cause::Expired)]);
    assert_eq!(subject.keys_held(), [1, 3, 4]);
    subject.validate();
}

#[test]
fn idle_entries_leave_one_by_one_in_a_busy_cache() {
    let subject = Subject::new(Config {
        lifetime: Lifetime { ttl: 0, tti: SECOND },
        ..Config::new(10_000, Kind::TinyLfu)
    });
    (0..500).for_each(|id| subject.set(id, id));
    for _ in 0..50 {
        subject.advance(SECOND / 10);
        (0..250).for_each(|id| assert_eq!(subject.get(id), Some(id)));
        subject.validate();
    }
    assert_eq!(subject.count(), 250);
    let mut expired = subject.told_keys(Cause::Expired);
    expired.sort_unstable();
    assert_eq!(expired, (250..500).collect::<Vec<_>>());
}

#[test]
fn durations_without_end_end_nothing() {
    let subject = living(0, 0);
    subject.set_for(1, 1, u64::MAX, u64::MAX);
    subject.set_for(2, 2, 73 * YEAR, 0);
    subject.advance(73 * YEAR - 1);
    assert_eq!((subject.get(1), subject.get(2)), (Some(1), Some(2)));
    subject.advance(1);
    assert_eq!((subject.get(1), subject.get(2), subject.count()), (Some(1), None, 1));
    subject.validate();
}

#[test]
fn what_outlives_the_clock_says_how_long_it_has_left() {
    let millennium = moka_py::word_of_nanos(1_000 * u128::from(YEAR));
    let years = |seconds_left: Option<std::time::Duration>| {
        seconds_left.map(|seconds_left| seconds_left.as_secs_f64() / (YEAR as f64 / 1e9))
    };
    let subject = living(0, millennium);
    subject.set_for(1, 1, millennium, 0);
    subject.set_for(2, 2, 73 * YEAR, 0);
    subject.advance(YEAR);
    let seconds_left = [1, 2].map(|id| years(subject.time_left(id)).expect("there is a deadline"));
    assert!(
        (seconds_left[0] - 999.0).abs() < 1e-9 && (seconds_left[1] - 72.0).abs() < 1e-9,
        "{seconds_left:?}"
    );
    // A use restarts the idle time, and the age goes on.
    assert_eq!((subject.get(1), subject.get(3)), (Some(1), None));
    subject.set(3, 3);
    subject.advance(YEAR);
    assert_eq!(subject.get(3), Some(3));
    let seconds_left = [1, 3].map(|id| years(subject.time_left(id)).expect("there is a deadline"));
    assert!(
        (seconds_left[0] - 998.0).abs() < 1e-9 && (seconds_left[1] - 1_000.0).abs() < 1e-9,
        "{seconds_left:?}"
    );
    subject.advance(100 * YEAR);
    assert_eq!((subject.get(1), subject.get(2), subject.get(3)), (Some(1), None, Some(3)));
    subject.validate();
}
