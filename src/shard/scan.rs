//! The entries of a shard one after the other, by their numbers: an iteration, and removals that name no key.

use crate::expiry::Clock;
use crate::expiry::NEVER;
use crate::map::removal::{Cause, Removals};
use crate::reclaim::Handle;
use crate::sync::Ordering;

use super::{Budget, Shard};

impl<K: Handle, V: Handle> Shard<K, V> {
    /// A number above those of all entries now here.
    pub fn limit(&self) -> u32 {
        self.map.lock().parts().0.limit()
    }

    /// The next entry from a number on, below a limit, that is not due; with its number.
    pub fn next_entry(&self, mut from: u32, limit: u32, clock: &Clock) -> Option<(u32, K, V)> {
        let mut held = self.map.lock();
        let (locked, guard) = held.parts();
        loop {
            let number = locked.next_live(from, &guard).filter(|&number| number < limit)?;
            let deadline = self.map.deadline(number, &guard);
            if deadline == NEVER || deadline > clock.now() {
                let entry = self.map.entry(number, &guard);
                let key = entry.key.read(&guard).clone();
                let value = entry.value(&guard.pinned()).clone();
                if let Some((key, value)) = key.zip(value) {
                    return Some((number, key, value));
                }
            }
            from = number + 1;
        }
    }

    /// Shows every key and value, to the collector, which calls while nobody is inside.
    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    pub fn each(&self, mut visit: impl FnMut(&K, &V)) {
        let Some(mut held) = self.map.try_lock() else { return };
        let (locked, guard) = held.parts();
        let pin = guard.pinned();
        let mut from = 0;
        while let Some(number) = locked.next_live(from, &guard) {
            let entry = self.map.entry(number, &guard);
            if let (Some(key), Some(value)) = (entry.key.read(&guard).as_ref(), entry.value(&pin).as_ref()) {
                visit(key, value);
            }
            from = number + 1;
        }
    }

    /// Takes an entry out by its number, if `is_meant` says so of the key and the value that it has now. That, `now`
    /// and, with the hash, `at_lock` are asked under the lock. Returns whether an entry left that was not due.
    pub fn remove_if(
        &self,
        number: u32,
        is_meant: impl Fn(&K, &V) -> bool,
        now: impl Fn() -> u64,
        budget: &Budget,
        at_lock: impl Fn(u64),
        removed: &mut Removals<K, V>,
    ) -> bool {
        let mut held = self.map.lock();
        let (mut locked, mut guard) = held.parts();
        if locked.next_live(number, &guard) != Some(number) {
            return false;
        }
        let mut change = self.change(&mut locked, budget, now(), removed);
        let pin = guard.pinned();
        let entry = self.map.entry(number, &guard);
        let was_due = loop {
            let seen = entry.value(&pin);
            let is_it = match (entry.key.read(&guard).as_ref(), seen.as_ref()) {
                (Some(key), Some(value)) => is_meant(key, value),
                _ => false,
            };
            if !is_it {
                return false;
            }
            at_lock(entry.hash.load(Ordering::Relaxed));
            // Else another value came meanwhile.
            if let Some(was_due) = change.unlink_seen(number, &seen, Cause::Explicit, &guard) {
                break was_due;
            }
        };
        drop(pin);
        change.tell();
        locked.shrink(&mut guard);
        !was_due
    }

    /// Takes out some entry that is not due, the colder the better. `at_lock` is asked under the lock, with its hash.
    pub fn pop_any(
        &self,
        now: u64,
        budget: &Budget,
        at_lock: impl Fn(u64),
        removed: &mut Removals<K, V>,
    ) -> Option<(K, V)> {
        let mut held = self.map.lock();
        let (mut locked, mut guard) = held.parts();
        let mut change = self.change(&mut locked, budget, now, removed);
        let mut popped = None;
        while popped.is_none()
            && let Some(number) = change.locked.state().policy.any()
        {
            at_lock(self.map.entry(number, &guard).hash.load(Ordering::Relaxed));
            let was_due = change.take_out(number, Cause::Explicit, &mut guard);
            let last = change.removed.last().filter(|_| !was_due);
            popped = last.and_then(|last| Some((last.key()?.clone(), last.value().clone())));
        }
        change.tell();
        popped
    }

    /// Takes out a batch of the entries from a number on. Returns where to go on; `None` at the end.
    pub fn clear_batch(
        &self,
        from: u32,
        now: u64,
        budget: &Budget,
        at_lock: impl Fn(),
        removed: &mut Removals<K, V>,
    ) -> Option<u32> {
        const BATCH: usize = 256;
        let mut held = self.map.lock();
        let (mut locked, mut guard) = held.parts();
        at_lock();
        let mut change = self.change(&mut locked, budget, now, removed);
        let mut next = Some(from);
        for _ in 0..BATCH {
            next = next.and_then(|from| change.locked.next_live(from, &guard));
            let Some(number) = next else { break };
            if !change.removed.has_room(1) {
                break;
            }
            change.unlink(number, Cause::Explicit, &guard);
            // They lie anywhere, and are all dropped soon: their lines come while the next entries leave.
            if let Some(last) = change.removed.last() {
                last.key().into_iter().for_each(Handle::prefetch);
                last.value().prefetch();
            }
            next = Some(number + 1);
        }
        change.tell();
        if next.is_none() {
            locked.shrink(&mut guard);
        }
        next
    }
}
