//! The hits of the optimal policy, which knows the future: the key that is needed last is evicted, or not admitted.
//! Belady, "A study of replacement algorithms for a virtual-storage computer" (1966).
//!
//! # How it works
//! A held key is identified by the access that needs it next. So a hit is an access that is marked as held, and the
//! victim is the greatest access in a heap. Hits stay in the heap, where they are the least, until it is swept.

use std::collections::BinaryHeap;

use super::ACCESSES_PER_PAUSE;

/// The next access of a key that is not accessed again.
const NEVER: u32 = u32::MAX;

/// For each access, the next access of the same key.
fn next_accesses(accesses: &[u32], keys: usize) -> Vec<u32> {
    let mut next_accesses = vec![NEVER; accesses.len()];
    let mut next_of_key = vec![NEVER; keys];
    for (at, &key) in accesses.iter().enumerate().rev() {
        next_accesses[at] = std::mem::replace(&mut next_of_key[key as usize], at as u32);
    }
    next_accesses
}

/// Counts the hits of a trace whose `keys` are numbered from 0 on.
pub(super) fn count_hits<E>(
    capacity: u64,
    accesses: &[u32],
    keys: usize,
    pause: &mut impl FnMut() -> Result<(), E>,
) -> Result<u64, E> {
    let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
    let next_accesses = next_accesses(accesses, keys);
    let mut held = BitSet::new(accesses.len());
    let (mut heap, mut live, mut hits) = (BinaryHeap::new(), 0, 0);
    for (index, chunk) in next_accesses.chunks(ACCESSES_PER_PAUSE).enumerate() {
        for (at, &next) in (index * ACCESSES_PER_PAUSE..).zip(chunk) {
            if held.remove(at) {
                hits += 1;
                live -= 1;
            }
            if next == NEVER {
                continue;
            }
            held.insert(next as usize);
            heap.push(next);
            live += 1;
            if live > capacity {
                let last: u32 = heap.pop().expect("`next` was just pushed");
                held.remove(last as usize);
                live -= 1;
            }
            if heap.len() / 2 > live.max(ACCESSES_PER_PAUSE) {
                heap.retain(|&next| next as usize > at);
            }
        }
        pause()?;
    }
    Ok(hits)
}

struct BitSet(Vec<u64>);

impl BitSet {
    fn new(len: usize) -> Self {
        BitSet(vec![0; len.div_ceil(64)])
    }

    fn insert(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    /// Returns whether it was in the set.
    fn remove(&mut self, at: usize) -> bool {
        let (word, bit) = (&mut self.0[at / 64], 1 << (at % 64));
        let was_in = *word & bit != 0;
        *word &= !bit;
        was_in
    }
}
