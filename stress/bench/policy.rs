//! What the policies cost by themselves, without the map: `cargo bench --bench policy`.
//!
//! A cache of 100,000 entries of weight 1 is full. Keys are drawn by Zipf's law (exponent 0.9) from a million;
//! each access is a hit, which the policy's recorder notes, or a newcomer, for which the policy names a
//! victim. What the loop around costs is measured without a policy and subtracted. Beside a hit stands what it
//! would cost if it only counted in the stamp up to 15, without the ticks and the following that the
//! adapting window needs. Medians of 15 rounds, all in one process, in turns.

#![allow(dead_code, unused_imports, unused_macros)]

#[path = "../../src/collections/mod.rs"]
mod collections;
#[path = "../../src/policy/mod.rs"]
mod policy;
#[path = "../../src/sync/mod.rs"]
mod sync;

use std::hint::black_box;
use std::time::Instant;

use policy::{AccessRecorder, EntryView, Kind, Policy, View};
use sync::{AtomicU64, Ordering::Relaxed};

const ENTRIES: usize = 100_000;
const KEYS: usize = 1_000_000;
const ACCESSES: usize = 1_000_000;
const ROUNDS: usize = 15;
const NONE: u32 = u32::MAX;

/// As large as an entry of the cache, so that as few fit into the processor's caches.
#[derive(Default)]
struct Entry {
    hash: u64,
    key: u64,
    stamp: AtomicU64,
    value: u64,
}

struct Entries(Vec<Entry>);

impl View for Entries {
    fn look(&self, number: u32) -> EntryView<'_> {
        let entry = &self.0[number as usize];
        EntryView { hash: entry.hash, stamp: &entry.stamp }
    }

    fn weight(&self, _number: u32) -> u64 {
        1
    }
}

struct Subject {
    entries: Entries,
    /// The entry of each key.
    map: Vec<u32>,
    free: u32,
    live: usize,
    policy: Option<(AccessRecorder, Policy)>,
}

fn hash(key: u64) -> u64 {
    let mixed = (key + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb)
}

impl Subject {
    /// `None` is no policy: the entry that came first leaves.
    fn new(kind: Option<Kind>) -> Self {
        let policy = kind.and_then(|kind| policy::for_shards(kind, ENTRIES as u64, 1).next());
        let entries = Entries((0..=ENTRIES).map(|_| Entry::default()).collect());
        Subject { entries, map: vec![NONE; KEYS], free: 0, live: 0, policy }
    }

    fn hit(&self, number: u32) {
        let stamp = black_box(&self.entries.0[number as usize].stamp);
        if let Some((recorder, _)) = black_box(&self.policy) {
            recorder.record(stamp);
        }
    }

    fn set(&mut self, key: usize) {
        let number = self.free;
        let entry = &mut self.entries.0[number as usize];
        (entry.hash, entry.key) = (hash(key as u64), key as u64);
        self.map[key] = number;
        self.live += 1;
        if let Some((recorder, policy)) = &mut self.policy {
            policy.insert(number, self.entries.look(number), self.live, &self.entries, recorder);
        }
        self.free = self.live as u32;
        if self.live > ENTRIES {
            let victim = match &mut self.policy {
                Some((_, policy)) => policy.victim(Some(number), &self.entries).expect("there are others"),
                None => (number + 1) % (ENTRIES as u32 + 1),
            };
            self.map[self.entries.0[victim as usize].key as usize] = NONE;
            self.free = victim;
            self.live -= 1;
        }
        if let Some((_, policy)) = &mut self.policy {
            policy.settle(&self.entries);
        }
    }
}

/// Keys by Zipf's law, by inversion of its sums.
fn keys(count: usize, seed: u64) -> Vec<usize> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=KEYS)
        .map(|rank| {
            sum += (rank as f64).powf(-0.9);
            sum
        })
        .collect();
    let mut random = seed;
    let mut draw = || {
        random = hash(random);
        let at = (random >> 11) as f64 / (1u64 << 53) as f64 * sum;
        sums.partition_point(|&end| end < at).min(KEYS - 1)
    };
    (0..count).map(|_| draw()).collect()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Runs it and returns the nanoseconds.
fn time(body: impl FnOnce()) -> f64 {
    let began = Instant::now();
    body();
    began.elapsed().as_nanos() as f64
}

fn count(stamp: &AtomicU64) {
    let old = stamp.load(Relaxed);
    if old < 15 {
        stamp.store(old + 1, Relaxed);
    }
}

/// The nanoseconds that one of `items` took.
fn a_piece<T>(items: &[T], each: impl FnMut(&T)) -> f64 {
    let began = Instant::now();
    items.iter().for_each(each);
    began.elapsed().as_nanos() as f64 / items.len() as f64
}

fn main() {
    let mut subjects = [Some(Kind::TinyLfu), Some(Kind::Lru), None].map(Subject::new);
    let counts: Vec<Entry> = (0..=ENTRIES).map(|_| Entry::default()).collect();
    let mut hits = [const { Vec::new() }; 4];
    let mut sets = [const { Vec::new() }; 3];
    for round in 0..ROUNDS + 3 {
        let keys = keys(ACCESSES, round as u64 + 1);
        for (index, subject) in subjects.iter_mut().enumerate() {
            let mut found: Vec<u32> = keys.iter().map(|&key| subject.map[key]).collect();
            found.retain(|&number| number != NONE);
            if index == 0 {
                // The same stamps and uses.
                for (count, entry) in counts.iter().zip(&subject.entries.0) {
                    count.stamp.store(entry.stamp.load(Relaxed) & 15, Relaxed);
                }
                hits[3].push(a_piece(&found, |&number| {
                    let stamp = black_box(&counts[number as usize].stamp);
                    if let Some((AccessRecorder::TinyLfu(_), _)) = black_box(&subject.policy) {
                        let old = stamp.load(Relaxed);
                        if old < 15 {
                            stamp.store(old + 1, Relaxed);
                        }
                    }
                }));
            }
            hits[index].push(a_piece(&found, |&number| subject.hit(number)));
            let mut newcomers = keys.clone();
            newcomers.retain(|&key| subject.map[key] == NONE);
            newcomers.sort_unstable();
            newcomers.dedup();
            // Not in the order of the keys.
            newcomers.sort_unstable_by_key(|&key| hash(key as u64));
            sets[index].push(a_piece(&newcomers, |&key| subject.set(key)));
        }
    }
    // The first rounds filled the caches.
    let median = |times: &mut Vec<f64>| median(times.split_off(3));
    let [tiny, lru, none, counting] = hits.each_mut().map(median);
    let [tiny, lru, counting] = [tiny, lru, counting].map(|time| time - none);
    println!("hit             tiny_lfu {tiny:5.1} ns   lru {lru:5.1} ns   only counting {counting:5.1} ns");
    let [tiny, lru, none] = sets.each_mut().map(median);
    let [tiny, lru] = [tiny, lru].map(|time| time - none);
    println!("evicting insert tiny_lfu {tiny:5.1} ns   lru {lru:5.1} ns   (the loop {none:.1} ns)");
}
