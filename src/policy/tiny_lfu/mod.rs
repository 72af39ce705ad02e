//! TinyLFU with a window that adapts to the workload.
//!
//! The [`Segments`] decide who leaves, for a window of a given size. In one shard of each cache, the leader, a
//! [`WindowTuner`] watches and sets the [`Window`] for all.

pub(super) mod access_stamps;
mod ghost_cache;
mod segments;
mod sketch;
pub(super) mod window;

use crate::collections::try_reserve::NoMemory;

use self::access_stamps::AccessStamps;
use self::segments::Segments;
use self::window::{Window, WindowTuner};
use crate::policy::{EntryView, View};

#[repr(C, align(64))]
pub(crate) struct TinyLfu {
    regions: Segments,
    window: Window,
    steering: Option<WindowTuner>,
}

impl TinyLfu {
    /// The leader knows how many shards it leads.
    pub fn new(share: u64, window: Window, leads: Option<usize>) -> Self {
        TinyLfu { regions: Segments::new(share, window.get()), window, steering: leads.map(WindowTuner::new) }
    }

    pub fn insert(
        &mut self,
        number: u32,
        look: EntryView<'_>,
        live: usize,
        view: &impl View,
        uses: &AccessStamps,
    ) {
        let mut is_followed = false;
        if let Some(steering) = &mut self.steering {
            steering.learn_uses(&mut self.regions, view, uses);
            is_followed = steering.learn_birth(look.hash);
        }
        self.regions.insert(number, look, live, is_followed, view, uses);
    }

    #[inline]
    pub fn prefetch(&self, view: &impl View) {
        self.regions.prefetch(view);
    }

    pub fn reserve(&mut self, number: u32) -> Result<(), NoMemory> {
        self.regions.reserve(number)
    }

    pub fn remove(&mut self, number: u32, view: &impl View) {
        self.regions.remove(number, view);
    }

    pub fn reweigh(&mut self, number: u32, before: u64, view: &impl View) {
        self.regions.reweigh(number, before, view);
    }

    pub fn victim(&mut self, keep: Option<u32>, view: &impl View) -> Option<u32> {
        if let Some(steering) = &mut self.steering {
            let live = self.regions.live();
            steering.steer(&mut self.regions, live, &self.window);
        }
        let window = self.window.get();
        if window != self.regions.window() {
            self.regions.set_window(window);
        }
        self.regions.victim(keep, view)
    }

    pub fn settle(&mut self, view: &impl View) {
        self.regions.settle(view);
    }

    pub fn any(&mut self) -> Option<u32> {
        self.regions.any()
    }

    pub fn trim(&mut self, limit: u32, live: usize) {
        self.regions.trim(limit, live);
    }

    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self, view: &impl View) -> Vec<u32> {
        self.regions.validate(view)
    }
}
