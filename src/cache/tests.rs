use std::sync::Arc;

use super::*;
use crate::policy::Kind;
use crate::sync::{Ordering, sized_for_miri};

struct Query(u64);

impl KeyQuery<Arc<u64>> for Query {
    type Error = std::convert::Infallible;

    fn hash(&self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).swap_bytes()
    }

    fn key(&self) -> Arc<u64> {
        Arc::new(self.0)
    }

    fn eq_builtin(&self, key: &Arc<u64>) -> Option<bool> {
        Some(self.0 == **key)
    }

    fn eq_slow(&self, _: &Arc<u64>) -> Result<bool, Self::Error> {
        unreachable!("numbers need no user's code")
    }

    fn ptr_eq(a: &Arc<u64>, b: &Arc<u64>) -> bool {
        Arc::ptr_eq(a, b)
    }
}

#[test]
fn a_cache_has_no_shards_before_the_first_write() {
    type Small = Cache<Arc<u64>, Arc<u64>>;
    let cache = Small::new(Config::new(1 << 40, Kind::TinyLfu), Clock::Manual(Arc::default()));
    let mut removed = Removals::new();
    assert_eq!(cache.try_get_fast(&Query(1)), Some(None));
    assert_eq!(
        (cache.get(&Query(1), &mut removed), cache.peek(&Query(1), &mut removed)),
        (Ok(None), Ok(None))
    );
    assert_eq!(
        (cache.remove(&Query(1), &mut removed), cache.expires_in(&Query(1), &mut removed)),
        (Ok(None), Ok(None))
    );
    assert!(cache.pop_any(&mut removed).is_none());
    assert!(cache.next_entry(&mut Cursor::default()).is_none());
    assert!(!cache.clear_batch(&mut Cursor::default(), &mut removed));
    assert_eq!(cache.totals(&mut removed), (0, 0));
    cache.flush();
    assert!(cache.shards.all().is_empty() && removed.is_untouched());
    assert!(size_of::<Small>() <= 1024);
}

#[test]
fn the_clock_is_read_only_while_something_can_expire() {
    let time = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let cache: Cache<Arc<u64>, Arc<u64>> =
        Cache::new(Config::new(10_000, Kind::TinyLfu), Clock::Manual(Arc::clone(&time)));
    let set = |id: u64, ttl: u64| {
        let new = NewValue { lifetime: Lifetime { ttl, tti: 0 }, ..NewValue::plain(Arc::new(id)) };
        let mut removed = Removals::new();
        cache.set(&Query(id), new, &mut removed).expect("numbers do not fail");
        cache.release(&mut removed);
    };
    const MANY: u64 = sized_for_miri(100, 10);
    (0..MANY).for_each(|id| set(id, 0));
    assert_eq!(cache.now(), 0);
    (0..MANY).for_each(|id| set(id, 1_000));
    assert_ne!(cache.now(), 0);
    time.store(1_000_000, Ordering::Relaxed);
    assert_eq!(cache.totals_with_due(), (MANY as usize, MANY), "it removes nothing");
    (MANY..2 * MANY).for_each(|id| set(id, 0));
    let mut removed = Removals::new();
    assert_eq!(cache.count(&mut removed) as u64, MANY);
    cache.release(&mut removed);
    (2 * MANY..3 * MANY).for_each(|id| set(id, 0));
    assert_eq!(cache.now(), 0, "no entry has a deadline");
}
