//! Slices of zeroed memory: small ones come from the allocator, large ones are pages of the system.
//!
//! Neither source touches the memory, so unused parts take none. Pages return to the system when they are freed. In
//! the allocator's heap each outgrown table would leave a hole, and after the first such hole glibc puts ever
//! larger pieces there.
//!
//! # Invariants
//! - `items`: the pointer points to a slice of valid `T`, either in a box or in pages that are large enough and
//!   aligned.

use std::alloc::{Layout, alloc_zeroed};
use std::mem::needs_drop;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use memmap2::{MmapMut, MmapOptions};

/// From this size on a slice has pages of its own, as in glibc. Each such slice costs system calls and a mapping, and
/// a process may have about 65,000 mappings.
const MIN_MAPPED_BYTES: usize = 128 * 1024;
/// From this size on a slice has huge pages where the system has them. A look-up in a large cache then waits less for the
/// translation of addresses. Up to 2 MiB of the slice take memory before they are used.
const MIN_HUGE_BYTES: usize = 4 << 20;

pub(crate) struct Zeroed<T> {
    items: NonNull<[T]>,
    /// The pages, if the slice is not in a box. They are unmapped after the items are dropped.
    pages: Option<MmapMut>,
}

// SAFETY: by `items` it owns a slice of `T`, as a box does.
unsafe impl<T: Send> Send for Zeroed<T> {}
// SAFETY: by `items` it lends a slice of `T`, as a box does.
unsafe impl<T: Sync> Sync for Zeroed<T> {}

impl<T> Deref for Zeroed<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: by `items` the pointer points to a valid slice.
        unsafe { self.items.as_ref() }
    }
}

impl<T> DerefMut for Zeroed<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: by `items` the pointer points to a valid slice, and `&mut self` excludes other references.
        unsafe { self.items.as_mut() }
    }
}

/// A reference to a slice of atomics takes Miri a step for each of them. So it refers to one at a time.
#[cfg(miri)]
impl std::ops::Index<usize> for Zeroed<super::AtomicU64> {
    type Output = super::AtomicU64;

    fn index(&self, index: usize) -> &super::AtomicU64 {
        assert!(index < self.items.len(), "an index of the slice");
        // SAFETY: the index was checked.
        let item = unsafe { self.items.cast::<super::AtomicU64>().add(index) };
        // SAFETY: by `items` each item is valid.
        unsafe { item.as_ref() }
    }
}

#[cfg(miri)]
impl<T> Zeroed<T> {
    pub fn len(&self) -> usize {
        self.items.len()
    }
}

impl<T> Drop for Zeroed<T> {
    fn drop(&mut self) {
        if self.pages.is_none() {
            // SAFETY: by `items` it came from a box, and `&mut self` excludes other references.
            drop(unsafe { Box::from_raw(self.items.as_ptr()) });
        } else if needs_drop::<T>() {
            // SAFETY: by `items` they are valid, and they are dropped once.
            unsafe { ptr::drop_in_place(self.items.as_ptr()) };
        }
    }
}

/// Returns a slice of zeroed memory, or `None` if there is no memory.
///
/// # Safety
/// - All bits zero are a valid `T`, namely the default. The size of `T` and `len` are not 0.
pub(crate) unsafe fn zeroed<T: Default>(len: usize) -> Option<Zeroed<T>> {
    let layout = Layout::array::<T>(len).ok()?;
    debug_assert!(layout.size() > 0, "the size is not 0");
    let mut pages = None;
    let memory = if layout.size() < MIN_MAPPED_BYTES {
        // SAFETY: the caller promises a size that is not 0.
        unsafe { alloc_zeroed(layout) }
    } else {
        let pages = pages.insert(MmapOptions::new().len(layout.size()).map_anon().ok()?);
        if layout.size() >= MIN_HUGE_BYTES {
            ask_for_huge_pages(pages);
        }
        pages.as_mut_ptr()
    };
    debug_assert!(memory.cast::<T>().is_aligned(), "pages are aligned to more than any item");
    // The memory was allocated by the layout of the slice, or is as large, and the caller promises that all bits zero
    // are valid.
    let items = NonNull::new(ptr::slice_from_raw_parts_mut(memory.cast::<T>(), len))?;
    Some(Zeroed { items, pages })
}

/// A system that refuses them provides small pages, as usual.
fn ask_for_huge_pages(_pages: &MmapMut) {
    #[cfg(all(target_os = "linux", not(miri)))]
    drop(_pages.advise(memmap2::Advice::HugePage));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::sized_for_miri;

    fn zeroed_of<T: Default>(len: usize) -> Zeroed<Option<T>> {
        // SAFETY: for boxes and the like, all bits zero are `None`.
        unsafe { zeroed::<Option<T>>(len) }.expect("there is memory")
    }

    #[test]
    fn items_are_default_in_a_box_and_in_pages() {
        const MIN_MAPPED: usize = MIN_MAPPED_BYTES / size_of::<usize>();
        for len in [1, 1000, MIN_MAPPED - 1, MIN_MAPPED, sized_for_miri(24, 2) * MIN_MAPPED] {
            let slice = zeroed_of::<Box<u8>>(len);
            assert_eq!(slice.pages.is_some(), len >= MIN_MAPPED);
            assert!(
                slice.len() == len && slice.iter().step_by(sized_for_miri(1, 9_999)).all(Option::is_none)
            );
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    #[cfg_attr(miri, ignore = "it reads a file")]
    fn only_a_large_slice_may_have_huge_pages() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return; // This system has none.
        }
        for (bytes, is_large) in [(MIN_HUGE_BYTES - 4096, false), (MIN_HUGE_BYTES, true)] {
            let slice = zeroed_of::<Box<u8>>(bytes / size_of::<usize>());
            let mappings = std::fs::read_to_string("/proc/self/smaps").expect("Linux describes the mappings");
            let start = format!("{:x}-", slice.as_ptr().addr());
            let Some((_, mapping)) = mappings.split_once(&start) else {
                assert!(!is_large, "only a mapping of the same kind can begin before it");
                continue;
            };
            let flags =
                mapping.lines().find(|line| line.starts_with("VmFlags:")).expect("a mapping has flags");
            assert_eq!(flags.contains(" hg"), is_large, "{bytes}: {flags}");
        }
    }

    #[test]
    fn items_are_dropped_once() {
        let item = Arc::new(());
        for len in [10, MIN_MAPPED_BYTES / size_of::<usize>()] {
            let mut slice = zeroed_of::<Arc<()>>(len);
            slice[len - 1] = Some(Arc::clone(&item));
            assert_eq!(Arc::strong_count(&item), 2);
            drop(slice);
            assert_eq!(Arc::strong_count(&item), 1);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri ends the program in place of a refusal")]
    fn more_memory_than_the_system_has_is_none() {
        for len in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 8] {
            // SAFETY: for boxes, all bits zero are `None`.
            assert!(unsafe { zeroed::<Option<Box<u8>>>(len) }.is_none());
        }
    }
}
