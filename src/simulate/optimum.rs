//! What knowing the future would give: who is needed last leaves, or does not enter. Belady, "A study of replacement
//! algorithms for a virtual-storage computer" (1966).
//!
//! # How it works
//! A held key is known by the access at which it is needed next. So a hit is an access that is marked, and who leaves
//! is the greatest in a heap. Hits stay behind in the heap, as the least of it, until it is swept.

use std::collections::BinaryHeap;

use super::STRIDE;

/// Of a key that is not needed again.
const NEVER: u32 = u32::MAX;

/// For each access, which one is the next of its key.
fn needed_next(accesses: &[u32], keys: usize) -> Vec<u32> {
    let mut needed = vec![NEVER; accesses.len()];
    let mut upcoming = vec![NEVER; keys];
    for (at, &key) in accesses.iter().enumerate().rev() {
        needed[at] = std::mem::replace(&mut upcoming[key as usize], at as u32);
    }
    needed
}

/// The hits of so many keys, numbered from 0 on.
pub(super) fn hits<E>(
    capacity: u64,
    accesses: &[u32],
    keys: usize,
    pause: &mut impl FnMut() -> Result<(), E>,
) -> Result<u64, E> {
    let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
    let needed_next = needed_next(accesses, keys);
    let mut held = Marks::new(accesses.len());
    let (mut heap, mut live, mut hits) = (BinaryHeap::new(), 0, 0);
    for (stride, chunk) in needed_next.chunks(STRIDE).enumerate() {
        for (at, &needed) in (stride * STRIDE..).zip(chunk) {
            if held.take(at) {
                hits += 1;
                live -= 1;
            }
            if needed == NEVER {
                continue;
            }
            held.set(needed as usize);
            heap.push(needed);
            live += 1;
            if live > capacity {
                let last: u32 = heap.pop().expect("it was just filed");
                held.take(last as usize);
                live -= 1;
            }
            if heap.len() / 2 > live.max(STRIDE) {
                heap.retain(|&needed| needed as usize > at);
            }
        }
        pause()?;
    }
    Ok(hits)
}

/// A bit for each access.
struct Marks(Vec<u64>);

impl Marks {
    fn new(count: usize) -> Self {
        Marks(vec![0; count.div_ceil(64)])
    }

    fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    /// Takes a mark away; whether it was there.
    fn take(&mut self, at: usize) -> bool {
        let (word, bit) = (&mut self.0[at / 64], 1 << (at % 64));
        let was_set = *word & bit != 0;
        *word &= !bit;
        was_set
    }
}
