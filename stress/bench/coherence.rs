//! Operations of two threads, one at a time and in an order drawn at random, for `coherence.py` to follow with lackey.
//!
//! `coherence OPERATION POLICY ENTRIES OPERATIONS`, where `OPERATION` is one of `Work`. First both threads fill the cache. What each
//! does to the cache lies between two stores: to its line in `BEGIN`, and to `END`. What it does to take turns is outside, and keys and
//! values are words, so that between the stores there is only the core. Without arguments the addresses of these lines are printed.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::{env, process, thread};

use moka_py::{Cache, Clock, Config, Handle, KeyQuery, Kind, NewValue, Removals};

/// A key or a value that nobody counts, as an immortal object.
#[derive(Clone)]
struct Word(NonZeroUsize);

impl Word {
    fn new(number: usize) -> Self {
        Word(NonZeroUsize::new(number + 1).expect("one more than a number that is small"))
    }
}

impl Handle for Word {
    fn is_immortal(&self) -> bool {
        true
    }
}

impl KeyQuery<Word> for Word {
    type Error = ();

    fn hash(&self) -> u64 {
        mix(self.0.get() as u64)
    }

    fn key(&self) -> Word {
        self.clone()
    }

    fn eq_builtin(&self, key: &Word) -> Option<bool> {
        Some(self.0 == key.0)
    }

    fn eq_slow(&self, key: &Word) -> Result<bool, ()> {
        Ok(self.0 == key.0)
    }

    fn ptr_eq(a: &Word, b: &Word) -> bool {
        a.0 == b.0
    }
}

type Words = Cache<Word, Word, ()>;

/// The finalizer of splitmix64.
fn mix(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// A number below `end` for each `index` of a sequence.
fn draw(sequence: u64, index: usize, end: usize) -> usize {
    (mix(mix(sequence) ^ index as u64) % end as u64) as usize
}

#[derive(Clone, Copy)]
enum Work {
    Hit,
    HitOfOne,
    Miss,
    Replace,
    ReplaceBySame,
    HalfAndHalf,
    Evict,
    RemoveAndSet,
}

impl Work {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "hit" => Work::Hit,
            "hit-of-one" => Work::HitOfOne,
            "miss" => Work::Miss,
            "replace" => Work::Replace,
            "replace-by-same" => Work::ReplaceBySame,
            "half-and-half" => Work::HalfAndHalf,
            "evict" => Work::Evict,
            "remove-and-set" => Work::RemoveAndSet,
            _ => return None,
        })
    }

    fn capacity(self, entries: usize) -> u64 {
        // Shards are not filled alike.
        entries as u64 * if matches!(self, Work::Evict) { 1 } else { 2 }
    }

    fn run(self, cache: &Words, entries: usize, index: usize) {
        let some = draw(1, index, entries);
        match self {
            Work::Hit => get(cache, some),
            Work::HitOfOne => get(cache, 0),
            Work::Miss => get(cache, entries + some),
            Work::Replace => set(cache, some, index),
            Work::ReplaceBySame => set(cache, some, some),
            Work::HalfAndHalf if draw(2, index, 2) == 0 => get(cache, some),
            Work::HalfAndHalf => set(cache, some, index),
            Work::Evict => set(cache, entries + index, index),
            Work::RemoveAndSet => {
                remove(cache, some);
                set(cache, some, index);
            }
        }
    }
}

fn get(cache: &Words, key: usize) {
    let mut left = Removals::new();
    let _ = black_box(cache.get(&Word::new(key), &mut left));
    cache.release(&mut left);
}

fn set(cache: &Words, key: usize, value: usize) {
    let mut left = Removals::new();
    let _ = black_box(cache.set(&Word::new(key), NewValue::plain(Word::new(value)), &mut left));
    cache.release(&mut left);
}

fn remove(cache: &Words, key: usize) {
    let mut left = Removals::new();
    let _ = black_box(cache.remove(&Word::new(key), &mut left));
    cache.release(&mut left);
}

/// A line of its own.
#[repr(align(64))]
struct Mark(AtomicUsize);

static BEGIN: [Mark; 2] = [const { Mark(AtomicUsize::new(0)) }; 2];
static END: Mark = Mark(AtomicUsize::new(0));
/// How many operations are done.
static DONE: Mark = Mark(AtomicUsize::new(0));

fn parse(arguments: &[String]) -> Option<(Work, Kind, usize, usize)> {
    let [work, policy, entries, operations] = arguments else { return None };
    let kind = match policy.as_str() {
        "tiny_lfu" => Kind::TinyLfu,
        "lru" => Kind::Lru,
        _ => return None,
    };
    let entries: NonZeroUsize = entries.parse().ok()?;
    Some((Work::named(work)?, kind, entries.get(), operations.parse().ok()?))
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.is_empty() {
        for mark in [&BEGIN[0], &BEGIN[1], &END] {
            println!("{:x}", &raw const *mark as usize);
        }
        return;
    }
    let Some((work, kind, entries, operations)) = parse(&arguments) else {
        eprintln!("usage: coherence OPERATION POLICY ENTRIES OPERATIONS");
        process::exit(2);
    };
    let cache = Words::new(Config::new(work.capacity(entries), kind), Clock::Process);
    thread::scope(|scope| {
        for (me, begin) in BEGIN.iter().enumerate() {
            let cache = &cache;
            scope.spawn(move || {
                for index in (0..entries + operations).filter(|&index| draw(3, index, 2) == me) {
                    while DONE.0.load(SeqCst) != index {
                        thread::yield_now();
                    }
                    begin.0.store(index, SeqCst);
                    if index < entries {
                        set(cache, index, index);
                    } else {
                        work.run(cache, entries, index);
                    }
                    END.0.store(index, SeqCst);
                    DONE.0.store(index + 1, SeqCst);
                }
            });
        }
    });
}
