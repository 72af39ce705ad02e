//! What the policies cost by themselves, without the map: `cargo bench --bench policy`.
//!
//! A cache of 100,000 entries of weight 1 is full. Keys are drawn by Zipf's law (exponent 0.9) from a million. An
//! access is a hit, which the policy's recorder records, or an insert, for which the policy takes a victim. The cost
//! of the loop is measured without a policy and subtracted. Beside a hit stands what it would cost if it only counted
//! in the stamp up to 15, without the ticks and the samples that the tuning of the window needs.
//!
//! Medians of 15 rounds, all in one process, in turns.

#![allow(dead_code, unused_imports, unused_macros)]

#[path = "../../src/collections/mod.rs"]
mod collections;
#[path = "../../src/policy/mod.rs"]
mod policy;
#[path = "../../src/sync/mod.rs"]
mod sync;

use std::hint::black_box;
use std::time::Instant;

use policy::{AccessRecorder, EntryView, EntryViews, Kind, Policy};
use sync::{AtomicU64, Ordering::Relaxed};

const ENTRIES: usize = 100_000;
const KEYS: usize = 1_000_000;
const ACCESSES_PER_ROUND: usize = 1_000_000;
const ROUNDS: usize = 15;
/// The first rounds fill the caches.
const WARM_UP_ROUNDS: usize = 3;
const MAX_COUNT: u64 = 15;
const ABSENT: u32 = u32::MAX;

/// As large as an entry of the cache, so that as few fit into the processor's caches.
#[derive(Default)]
struct Entry {
    hash: u64,
    key: u64,
    stamp: AtomicU64,
    value: u64,
}

struct Entries(Vec<Entry>);

impl EntryViews for Entries {
    fn entry(&self, index: u32) -> EntryView<'_> {
        let entry = &self.0[index as usize];
        EntryView { hash: entry.hash, stamp: &entry.stamp }
    }

    fn weight(&self, _index: u32) -> u64 {
        1
    }

    fn is_weighted(&self) -> bool {
        false
    }
}

struct Subject {
    entries: Entries,
    /// The index of the entry of each key, or `ABSENT`.
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
    /// Without a policy, the entry that was inserted first is evicted.
    fn new(kind: Option<Kind>) -> Self {
        let policy = kind.and_then(|kind| policy::for_shards(kind, ENTRIES as u64, 1).next());
        let entries = Entries((0..=ENTRIES).map(|_| Entry::default()).collect());
        Subject { entries, map: vec![ABSENT; KEYS], free: 0, live: 0, policy }
    }

    fn hit(&self, index: u32) {
        let stamp = black_box(&self.entries.0[index as usize].stamp);
        if let Some((recorder, _)) = black_box(&self.policy) {
            recorder.record(stamp);
        }
    }

    /// Inserts a key, and evicts a victim if the cache is full.
    fn insert(&mut self, key: usize) {
        let index = self.free;
        let entry = &mut self.entries.0[index as usize];
        (entry.hash, entry.key) = (hash(key as u64), key as u64);
        self.map[key] = index;
        self.live += 1;
        if let Some((recorder, policy)) = &mut self.policy {
            policy.insert(index, self.entries.entry(index), self.live, &self.entries, recorder);
        }
        self.free = self.live as u32;
        if self.live > ENTRIES {
            let victim = match &mut self.policy {
                Some((_, policy)) => {
                    policy.take_victim(Some(index), &self.entries).expect("there are others")
                }
                None => (index + 1) % (ENTRIES as u32 + 1),
            };
            self.map[self.entries.0[victim as usize].key as usize] = ABSENT;
            self.free = victim;
            self.live -= 1;
        }
        if let Some((_, policy)) = &mut self.policy {
            policy.demote_window_overflow(&self.entries);
        }
    }
}

/// Draws keys by Zipf's law, by inversion of its sums.
fn zipf_keys(count: usize, seed: u64) -> Vec<usize> {
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

/// The median of the rounds after the warm-up.
fn median(times: &mut Vec<f64>) -> f64 {
    let mut times = times.split_off(WARM_UP_ROUNDS);
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Runs `each` for all items and returns the nanoseconds for one of them.
fn nanos_per_item<T>(items: &[T], each: impl FnMut(&T)) -> f64 {
    let start = Instant::now();
    items.iter().for_each(each);
    start.elapsed().as_nanos() as f64 / items.len() as f64
}

fn main() {
    let mut subjects = [Some(Kind::TinyLfu), Some(Kind::Lru), None].map(Subject::new);
    let counts: Vec<Entry> = (0..=ENTRIES).map(|_| Entry::default()).collect();
    let mut hits = [const { Vec::new() }; 4];
    let mut inserts = [const { Vec::new() }; 3];
    for round in 0..ROUNDS + WARM_UP_ROUNDS {
        let keys = zipf_keys(ACCESSES_PER_ROUND, round as u64 + 1);
        for (subject_index, subject) in subjects.iter_mut().enumerate() {
            let mut found: Vec<u32> = keys.iter().map(|&key| subject.map[key]).collect();
            found.retain(|&index| index != ABSENT);
            if subject_index == 0 {
                // The same stamps and hits.
                for (count, entry) in counts.iter().zip(&subject.entries.0) {
                    count.stamp.store(entry.stamp.load(Relaxed) & MAX_COUNT, Relaxed);
                }
                hits[3].push(nanos_per_item(&found, |&index| {
                    let stamp = black_box(&counts[index as usize].stamp);
                    if let Some((AccessRecorder::TinyLfu(_), _)) = black_box(&subject.policy) {
                        let old = stamp.load(Relaxed);
                        if old < MAX_COUNT {
                            stamp.store(old + 1, Relaxed);
                        }
                    }
                }));
            }
            hits[subject_index].push(nanos_per_item(&found, |&index| subject.hit(index)));
            let mut absent = keys.clone();
            absent.retain(|&key| subject.map[key] == ABSENT);
            absent.sort_unstable();
            absent.dedup();
            // Not in the order of the keys.
            absent.sort_unstable_by_key(|&key| hash(key as u64));
            inserts[subject_index].push(nanos_per_item(&absent, |&key| subject.insert(key)));
        }
    }
    let [tiny_lfu, lru, none, counting] = hits.each_mut().map(median);
    let [tiny_lfu, lru, counting] = [tiny_lfu, lru, counting].map(|time| time - none);
    println!(
        "hit             tiny_lfu {tiny_lfu:5.1} ns   lru {lru:5.1} ns   only counting {counting:5.1} ns"
    );
    let [tiny_lfu, lru, none] = inserts.each_mut().map(median);
    let [tiny_lfu, lru] = [tiny_lfu, lru].map(|time| time - none);
    println!("evicting insert tiny_lfu {tiny_lfu:5.1} ns   lru {lru:5.1} ns   (the loop {none:.1} ns)");
}
