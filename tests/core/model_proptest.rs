//! Compares a cache with the [naive model](crate::naive_model), in sequences of calls that proptest chooses and
//! shrinks.
//!
//! A failure is printed as the shortest failing sequence, ready to become a test. `PROPTEST_CASES` sets the number of
//! sequences.

use moka_py::{Config, Kind, Lifetime};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config as Settings;

use crate::naive_model::{CAPACITIES, Comparison, DURATIONS, Hashes, Op, STEPS, Written};
use crate::support::sized;

/// So few keys that calls often meet on one key.
const KEYS: u64 = 12;

fn lifetimes() -> impl Strategy<Value = Lifetime> {
    let duration = || prop_oneof![2 => Just(0), 1 => select(&DURATIONS[..])];
    (duration(), duration()).prop_map(|(ttl, tti)| Lifetime { ttl, tti })
}

fn ops() -> impl Strategy<Value = Op> {
    let (key, user_eq, weight) = (0..KEYS, any::<bool>(), prop_oneof![9 => 0..4_u64, 1 => 0..20_u64]);
    let how = (weight, lifetimes(), prop::bool::weighted(0.9))
        .prop_map(|(weight, lifetime, is_kept)| Written { weight, lifetime, is_kept });
    let write = (key.clone(), user_eq, how).boxed();
    prop_oneof![
        6 => (key.clone(), user_eq).prop_map(|(key, user_eq)| Op::Get { key, user_eq }),
        1 => key.clone().prop_map(|key| Op::Peek { key }),
        8 => write.clone().prop_map(|(key, user_eq, how)| Op::Set { key, user_eq, how }),
        2 => write.clone().prop_map(|(key, _, how)| Op::SetIfAbsent { key, how }),
        3 => write.clone().prop_map(|(key, _, how)| Op::SetWith { key, how }),
        3 => (key.clone(), lifetimes()).prop_map(|(key, lifetime)| Op::Touch { key, lifetime }),
        2 => write.prop_map(|(key, _, how)| Op::GetWith { key, how }),
        3 => key.clone().prop_map(|key| Op::Remove { key }),
        1 => Just(Op::Pop),
        1 => key.prop_map(|key| Op::ExpiresIn { key }),
        1 => Just(Op::Settle),
        1 => Just(Op::Clear),
        1 => select(&CAPACITIES[..]).prop_map(|capacity| Op::Resize { capacity }),
        4 => (select(&STEPS[..]), 1..=4_u64).prop_map(|(most, part)| Op::Advance { by: most.div_ceil(part) }),
    ]
}

fn configs() -> impl Strategy<Value = Config> {
    let capacity = select(&[0, 1, 2, 3, 5, 8, 13, 40][..]);
    (capacity, select(&[Kind::Lru, Kind::TinyLfu][..]), any::<bool>(), lifetimes(), any::<bool>()).prop_map(
        |(capacity, kind, weighted, lifetime, has_ttl_function)| Config {
            lifetime,
            has_ttl_function,
            weighted,
            ..Config::new(capacity, kind)
        },
    )
}

proptest! {
    // No file of failures is kept, because a failing sequence becomes a test.
    #![proptest_config(Settings {
        cases: sized(Settings::default().cases, 2),
        failure_persistence: None,
        ..Settings::default()
    })]

    #[test]
    fn each_sequence_of_calls_agrees_with_the_model(
        config in configs(),
        hashes in select(&[Hashes::Spread, Hashes::Few, Hashes::Narrow][..]),
        ops in prop::collection::vec(ops(), 1..sized(80, 25)),
    ) {
        let mut run = Comparison::new(config, hashes);
        for op in ops {
            run.step(op);
            run.check();
        }
        run.settle();
    }
}
