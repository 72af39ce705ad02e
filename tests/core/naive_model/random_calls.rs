//! Comparisons of random calls, by seeds or by the bytes of a fuzzer.

use moka_py::{Config, Kind, Lifetime};

use super::{Comparison, Hashes, Op, Written};
use crate::support::{MICRO, MILLI, Random, SECOND, mix_hash, seed, sized};

/// Capacities to resize to.
pub const CAPACITIES: [u64; 8] = [0, 1, 2, 5, 8, 20, 100, 3_000];

/// A few durations, so that deadlines coincide. Some of them end within one tick.
pub const DURATIONS: [u64; 9] =
    [1, 700, 5 * MICRO, 70 * MICRO, MILLI, 3 * MILLI, 40 * MILLI, SECOND, 3600 * SECOND];

/// Upper bounds of the time that passes in a step.
pub const STEPS: [u64; 9] = [1, 300, MICRO, 30 * MICRO, 66 * MICRO, MILLI, 10 * MILLI, SECOND, 1800 * SECOND];

/// Chooses the calls of a comparison.
struct Chooser {
    random: Random,
    keys: u64,
    config: Config,
    /// Whether entries have their own durations, and time passes.
    has_deadlines: bool,
    /// Whether the capacity changes.
    can_resize: bool,
}

impl Chooser {
    fn duration(&mut self) -> u64 {
        if self.random.one_in(2) { 0 } else { self.random.pick(&DURATIONS) }
    }

    fn lifetime(&mut self) -> Lifetime {
        if !self.has_deadlines {
            return Lifetime::default();
        }
        match self.random.below(3) {
            0 => Lifetime { ttl: self.duration(), tti: self.duration() },
            _ => Lifetime::default(),
        }
    }

    fn op(&mut self) -> Op {
        let key = self.random.below(self.keys);
        let lifetime = self.lifetime();
        let heavy = self.random.one_in(40);
        let most = if heavy { self.config.capacity.saturating_add(3) } else { 4 };
        let weight = self.random.below(most);
        let is_kept = !self.random.one_in(16);
        let how = Written { weight, lifetime, is_kept };
        let user_eq = self.random.one_in(2);
        match self.random.below(24) {
            0..=6 => Op::Get { key, user_eq },
            7 => Op::Peek { key },
            8..=11 => Op::Set { key, user_eq, how },
            12 => Op::SetWith { key, how },
            13 => Op::Touch { key, lifetime },
            14 | 15 => Op::SetIfAbsent { key, how },
            16 => Op::GetWith { key, how },
            17 | 18 => Op::Remove { key },
            19 => Op::Pop,
            20 => Op::ExpiresIn { key },
            21 if self.can_resize && self.random.one_in(8) => {
                Op::Resize { capacity: self.random.pick(&CAPACITIES) }
            }
            21 => Op::Settle,
            22 if self.random.one_in(20) => Op::Clear,
            _ if !self.has_deadlines => Op::Settle,
            _ => {
                let most = self.random.pick(&STEPS);
                Op::Advance { by: self.random.below(most) + 1 }
            }
        }
    }
}

/// A fuzz target: a part of the cache, which the chosen calls and options exercise most, or the whole cache.
#[derive(Clone, Copy, Debug)]
pub enum FuzzTarget {
    /// Entries are removed by calls only, and hashes collide, so that the map grows, shrinks and probes.
    Map,
    /// The capacity is small, and entries have weights.
    Policy,
    /// The capacity is large, and entries have deadlines.
    Expiry,
    /// The whole cache.
    Cache,
}

/// Makes the calls that the bytes of a fuzzer encode, and compares each with the model.
pub fn check_input(target: FuzzTarget, bytes: &[u8]) {
    let mut random = Random::tape(bytes);
    let kind = random.pick(&[Kind::Lru, Kind::TinyLfu]);
    let hashes = random.pick(&[Hashes::Spread, Hashes::Few, Hashes::Narrow]);
    let sizes = [0, 1, 2, 3, 7, 8, 9, 20, 60, 300];
    let capacity = match target {
        FuzzTarget::Map | FuzzTarget::Expiry => random.pick(&[10_000, u64::MAX]),
        FuzzTarget::Policy | FuzzTarget::Cache => random.pick(&sizes),
    };
    let weighted = matches!(target, FuzzTarget::Policy | FuzzTarget::Cache) && random.one_in(2);
    let lifetime = match target {
        FuzzTarget::Map | FuzzTarget::Policy => Lifetime::default(),
        FuzzTarget::Expiry | FuzzTarget::Cache => {
            Lifetime { ttl: random.pick(&[0, 50 * MILLI, SECOND]), tti: random.pick(&[0, 20 * MILLI]) }
        }
    };
    let keys = 1 + random.below(256);
    let config = Config { lifetime, weighted, ..Config::new(capacity, kind) };
    let mut chooser = Chooser {
        random,
        keys,
        config,
        has_deadlines: matches!(target, FuzzTarget::Expiry | FuzzTarget::Cache),
        can_resize: matches!(target, FuzzTarget::Policy | FuzzTarget::Cache),
    };
    let mut run = Comparison::new(config, hashes);
    let mut steps = 0_u64;
    while !chooser.random.is_over() {
        run.step(chooser.op());
        steps += 1;
        if steps.is_multiple_of(16) {
            run.check();
        }
    }
    run.check();
    run.settle();
}

fn compare_random_calls(
    name: &str,
    seed: u64,
    steps: u64,
    every: u64,
    keys: u64,
    hashes: Hashes,
    config: Config,
) {
    println!("{name}: seed {seed}, {keys} keys, {hashes:?}, {config:?}");
    let mut chooser =
        Chooser { random: Random::new(seed), keys, config, has_deadlines: true, can_resize: true };
    let mut run = Comparison::new(config, hashes);
    for step in 0..steps {
        run.step(chooser.op());
        if step % every == 0 {
            run.check();
        }
    }
    run.check();
    run.settle();
}

/// Compares random calls with the model over many configurations.
fn compare_configs(name: &str, kind: Kind, capacities: &[u64], steps: u64, every: u64) {
    let seed = seed();
    let mut random = Random::new(seed ^ mix_hash(name.len() as u64));
    for &capacity in capacities {
        for weighted in [false, true] {
            for lifetime in [(0, 0), (50 * MILLI, 0), (0, 20 * MILLI), (SECOND, 5 * MILLI)] {
                let (ttl, tti) = lifetime;
                let config = Config {
                    lifetime: Lifetime { ttl, tti },
                    has_ttl_function: random.one_in(2),
                    weighted,
                    ..Config::new(capacity, kind)
                };
                let hashes = random.pick(&[Hashes::Spread, Hashes::Few, Hashes::Narrow]);
                let keys = 1 + random.below(2 * capacity.min(5_000) + 4);
                compare_random_calls(name, random.next(), steps, every, keys, hashes, config);
            }
        }
    }
}

#[test]
fn lru_agrees_with_the_model_after_every_call() {
    let capacities = sized(&[0, 1, 2, 3, 7, 16, 40][..], &[0, 2][..]);
    compare_configs("lru", Kind::Lru, capacities, sized(1_000, 4), 1);
}

#[test]
fn tiny_lfu_agrees_with_the_model_after_every_call() {
    let capacities = sized(&[0, 1, 2, 7, 8, 9, 16, 60][..], &[9][..]);
    compare_configs("tiny_lfu", Kind::TinyLfu, capacities, sized(1_000, 4), 1);
}

#[test]
fn large_caches_agree_with_the_model() {
    for kind in [Kind::Lru, Kind::TinyLfu] {
        compare_configs("large", kind, sized(&[300, 2_048][..], &[128][..]), sized(4_000, 3), 100);
    }
}
