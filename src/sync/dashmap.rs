//! As much of a `DashMap` as is used, under one lock of loom's.

use std::collections::{HashMap, hash_map};
use std::hash::{BuildHasher, Hash};
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use loom::sync::{Mutex, MutexGuard};

type Locked<'a, K, V, S> = MutexGuard<'a, HashMap<K, V, S>>;

pub(crate) struct DashMap<K, V, S>(Mutex<HashMap<K, V, S>>);

impl<K, V, S: Default> Default for DashMap<K, V, S> {
    fn default() -> Self {
        DashMap(Mutex::new(HashMap::default()))
    }
}

impl<K: Copy + Eq + Hash, V, S: BuildHasher> DashMap<K, V, S> {
    fn lock(&self) -> Locked<'_, K, V, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &K) -> Option<Ref<'_, K, V, S>> {
        let map = self.lock();
        map.contains_key(key).then_some(Ref { map, key: *key })
    }

    pub fn entry(&self, key: K) -> Entry<'_, K, V, S> {
        let found = Ref { map: self.lock(), key };
        if found.map.contains_key(&key) { Entry::Occupied(found) } else { Entry::Vacant(found) }
    }
}

/// A value, or its place, with the lock held.
pub(crate) struct Ref<'a, K, V, S> {
    map: Locked<'a, K, V, S>,
    key: K,
}

impl<K: Eq + Hash, V, S: BuildHasher> Ref<'_, K, V, S> {
    pub fn get(&self) -> &V {
        &self.map[&self.key]
    }

    pub fn get_mut(&mut self) -> &mut V {
        self.map.get_mut(&self.key).expect("its place is taken")
    }

    pub fn remove(mut self) {
        self.map.remove(&self.key);
    }

    pub fn into_ref(self) -> Self {
        self
    }
}

impl<K: Copy + Eq + Hash, V, S: BuildHasher> Ref<'_, K, V, S> {
    pub fn insert(mut self, value: V) -> Self {
        self.map.insert(self.key, value);
        self
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Deref for Ref<'_, K, V, S> {
    type Target = V;

    fn deref(&self) -> &V {
        self.get()
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> DerefMut for Ref<'_, K, V, S> {
    fn deref_mut(&mut self) -> &mut V {
        self.get_mut()
    }
}

pub(crate) enum Entry<'a, K, V, S> {
    Occupied(Ref<'a, K, V, S>),
    Vacant(Ref<'a, K, V, S>),
}

/// A copy of an entry. The real one holds a lock as well.
pub(crate) struct Each<K, V>(K, V);

impl<K, V> Each<K, V> {
    pub fn key(&self) -> &K {
        &self.0
    }
}

impl<K, V> Deref for Each<K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.1
    }
}

impl<K: Copy + Eq + Hash, V: Clone, S: BuildHasher> IntoIterator for &DashMap<K, V, S> {
    type Item = Each<K, V>;
    type IntoIter = std::vec::IntoIter<Each<K, V>>;

    fn into_iter(self) -> Self::IntoIter {
        let map = self.lock();
        let each = |(key, value): (&K, &V)| Each(*key, value.clone());
        let all: hash_map::Iter<'_, K, V> = map.iter();
        all.map(each).collect::<Vec<_>>().into_iter()
    }
}
