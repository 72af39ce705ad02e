//! Keys and values that are counted, and queries for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use moka_py::{Handle, KeyQuery};

use super::Error;

/// Counts the living objects of a test.
#[derive(Clone, Default)]
pub struct LiveCount(Arc<AtomicUsize>);

impl LiveCount {
    pub fn alive(&self) -> usize {
        self.0.load(SeqCst)
    }
}

struct Token(LiveCount);

impl Token {
    fn of(tally: &LiveCount) -> Self {
        tally.0.fetch_add(1, SeqCst);
        Token(tally.clone())
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let before = self.0.0.fetch_sub(1, SeqCst);
        assert!(before > 0, "something was dropped twice");
    }
}

struct Body {
    word: u64,
    let_go: AtomicUsize,
    _token: Token,
}

impl Body {
    fn new(word: u64, tally: &LiveCount) -> Arc<Self> {
        Arc::new(Body { word, let_go: AtomicUsize::new(0), _token: Token::of(tally) })
    }

    /// Orders the last drop after all other uses for ThreadSanitizer, which does not see the fence of `Arc`.
    fn let_go(&self) {
        if cfg!(moka_sanitize_thread) {
            self.let_go.fetch_add(1, SeqCst);
        }
    }
}

#[derive(Clone)]
pub struct Key(Arc<Body>);

#[derive(Clone)]
pub struct Value(Arc<Body>);

impl Handle for Key {}

impl Handle for Value {}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl Key {
    pub fn new(id: u64, tally: &LiveCount) -> Self {
        Key(Body::new(id, tally))
    }

    pub fn id(&self) -> u64 {
        self.0.word
    }

    pub fn is(&self, other: &Key) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Value {
    pub fn new(word: u64, tally: &LiveCount) -> Self {
        Value(Body::new(word, tally))
    }

    pub fn word(&self) -> u64 {
        self.0.word
    }

    pub fn is(&self, other: &Value) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Whether both are the same object, or both are absent.
pub fn is_same_value(seen: Option<&Value>, present: Option<&Value>) -> bool {
    match (seen, present) {
        (Some(seen), Some(present)) => seen.is(present),
        (None, None) => true,
        _ => false,
    }
}

/// Returns a hash that depends on every bit of the key.
pub fn mix_hash(id: u64) -> u64 {
    let x = id.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A query whose comparison runs no code of a user.
pub struct BuiltinEqQuery {
    pub key: Key,
    pub hash: u64,
}

impl BuiltinEqQuery {
    pub fn new(id: u64, tally: &LiveCount) -> Self {
        BuiltinEqQuery { key: Key::new(id, tally), hash: mix_hash(id) }
    }
}

impl KeyQuery<Key> for BuiltinEqQuery {
    type Error = Error;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> Key {
        self.key.clone()
    }

    fn eq_builtin(&self, key: &Key) -> Option<bool> {
        Some(self.key.id() == key.id())
    }

    fn eq_slow(&self, _: &Key) -> Result<bool, Error> {
        unreachable!("a plain key is compared quickly")
    }

    fn ptr_eq(a: &Key, b: &Key) -> bool {
        Arc::ptr_eq(&a.0, &b.0)
    }
}

/// A query whose comparison runs code of a user, unless both keys are the same object.
pub struct UserEqQuery<F> {
    pub key: Key,
    pub hash: u64,
    pub eq_slow: F,
}

impl<F: Fn(&Key) -> Result<bool, Error>> KeyQuery<Key> for UserEqQuery<F> {
    type Error = Error;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> Key {
        self.key.clone()
    }

    fn eq_builtin(&self, key: &Key) -> Option<bool> {
        Arc::ptr_eq(&self.key.0, &key.0).then_some(true)
    }

    fn eq_slow(&self, key: &Key) -> Result<bool, Error> {
        (self.eq_slow)(key)
    }

    fn ptr_eq(a: &Key, b: &Key) -> bool {
        Arc::ptr_eq(&a.0, &b.0)
    }
}
