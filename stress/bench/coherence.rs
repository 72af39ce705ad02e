//! Runs operations of two threads, one at a time and in a random order. `coherence.py` traces them with Valgrind's
//! lackey.
//!
//! Usage: `coherence OPERATION POLICY ENTRIES OPERATIONS`, where `OPERATION` is a name of [`Operation`]. Both threads
//! fill the cache first. Each operation lies between two stores: to the thread's line in `BEGIN`, and to `END`. The
//! code that takes turns is outside, and keys and values are words. So only code of the core runs between the stores.
//! Without arguments, the program prints the addresses of these lines.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::{env, process, thread};

use moka_py::{Cache, Clock, Config, Handle, KeyQuery, Kind, NewValue, Removals};

/// A key or a value without a reference count, like an immortal object.
#[derive(Clone)]
struct Word(NonZeroUsize);

impl Word {
    fn new(id: usize) -> Self {
        Word(NonZeroUsize::new(id + 1).expect("ids are small"))
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
fn mix(word: u64) -> u64 {
    let mixed = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Returns the random number at `index` of a sequence, below `end`.
fn draw(sequence: u64, index: usize, end: usize) -> usize {
    (mix(mix(sequence) ^ index as u64) % end as u64) as usize
}

#[derive(Clone, Copy)]
enum Operation {
    Hit,
    HitOfOne,
    Miss,
    Replace,
    ReplaceBySame,
    HalfAndHalf,
    Evict,
    RemoveAndSet,
}

impl Operation {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "hit" => Operation::Hit,
            "hit-of-one" => Operation::HitOfOne,
            "miss" => Operation::Miss,
            "replace" => Operation::Replace,
            "replace-by-same" => Operation::ReplaceBySame,
            "half-and-half" => Operation::HalfAndHalf,
            "evict" => Operation::Evict,
            "remove-and-set" => Operation::RemoveAndSet,
            _ => return None,
        })
    }

    fn capacity(self, entries: usize) -> u64 {
        // Twice the entries, because some shards get more than their share.
        entries as u64 * if matches!(self, Operation::Evict) { 1 } else { 2 }
    }

    fn run(self, cache: &Words, entries: usize, index: usize) {
        let random = draw(1, index, entries);
        match self {
            Operation::Hit => get(cache, random),
            Operation::HitOfOne => get(cache, 0),
            Operation::Miss => get(cache, entries + random),
            Operation::Replace => set(cache, random, index),
            Operation::ReplaceBySame => set(cache, random, random),
            Operation::HalfAndHalf if draw(2, index, 2) == 0 => get(cache, random),
            Operation::HalfAndHalf => set(cache, random, index),
            Operation::Evict => set(cache, entries + index, index),
            Operation::RemoveAndSet => {
                remove(cache, random);
                set(cache, random, index);
            }
        }
    }
}

fn get(cache: &Words, key: usize) {
    let mut removed = Removals::new();
    let _ = black_box(cache.get(&Word::new(key), &mut removed));
    cache.release(&mut removed);
}

fn set(cache: &Words, key: usize, value: usize) {
    let mut removed = Removals::new();
    let _ = black_box(cache.set(&Word::new(key), NewValue::plain(Word::new(value)), &mut removed));
    cache.release(&mut removed);
}

fn remove(cache: &Words, key: usize) {
    let mut removed = Removals::new();
    let _ = black_box(cache.remove(&Word::new(key), &mut removed));
    cache.release(&mut removed);
}

/// A counter on a cache line of its own.
#[repr(align(64))]
struct Line(AtomicUsize);

static BEGIN: [Line; 2] = [const { Line(AtomicUsize::new(0)) }; 2];
static END: Line = Line(AtomicUsize::new(0));
/// How many operations are complete.
static DONE: Line = Line(AtomicUsize::new(0));

fn parse(arguments: &[String]) -> Option<(Operation, Kind, usize, usize)> {
    let [operation, policy, entries, operations] = arguments else { return None };
    let kind = match policy.as_str() {
        "tiny_lfu" => Kind::TinyLfu,
        "lru" => Kind::Lru,
        _ => return None,
    };
    let entries: NonZeroUsize = entries.parse().ok()?;
    Some((Operation::from_name(operation)?, kind, entries.get(), operations.parse().ok()?))
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.is_empty() {
        for line in [&BEGIN[0], &BEGIN[1], &END] {
            println!("{:x}", &raw const *line as usize);
        }
        return;
    }
    let Some((operation, kind, entries, operations)) = parse(&arguments) else {
        eprintln!("usage: coherence OPERATION POLICY ENTRIES OPERATIONS");
        process::exit(2);
    };
    let cache = Words::new(Config::new(operation.capacity(entries), kind), Clock::Process);
    thread::scope(|scope| {
        for (thread, begin) in BEGIN.iter().enumerate() {
            let cache = &cache;
            scope.spawn(move || {
                for index in (0..entries + operations).filter(|&index| draw(3, index, 2) == thread) {
                    while DONE.0.load(SeqCst) != index {
                        thread::yield_now();
                    }
                    begin.0.store(index, SeqCst);
                    if index < entries {
                        set(cache, index, index);
                    } else {
                        operation.run(cache, entries, index);
                    }
                    END.0.store(index, SeqCst);
                    DONE.0.store(index + 1, SeqCst);
                }
            });
        }
    });
}
