//! Slices of memory that comes zeroed: small ones from the allocator, large ones from the system, in pages of their own.
//!
//! Neither touches them, so what is not used takes no memory. The system's pages go back whole when they are freed; in
//! the allocator's heap each table that was outgrown would leave a hole, and after the first such hole glibc puts larger
//! and larger pieces there.
//!
//! # Invariants
//! - `items`: the pointer is that of a slice of valid `T`, in a box, or in pages that are large enough and aligned.

use std::alloc::{Layout, alloc_zeroed};
use std::mem::needs_drop;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use memmap2::{MmapMut, MmapOptions};

/// From here on a slice has pages of its own. Each such is a mapping, of which a process may have some ten thousand, and
/// takes calls of the system: glibc begins at the same size.
const LEAST_PAGES: usize = 128 * 1024;

pub(crate) struct Zeroed<T> {
    items: NonNull<[T]>,
    /// The pages, where it is not a box. They are unmapped after the items are dropped.
    pages: Option<MmapMut>,
}

// SAFETY: `items`; it owns them as a box does.
unsafe impl<T: Send> Send for Zeroed<T> {}
// SAFETY: likewise.
unsafe impl<T: Sync> Sync for Zeroed<T> {}

impl<T> Deref for Zeroed<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `items`.
        unsafe { self.items.as_ref() }
    }
}

impl<T> DerefMut for Zeroed<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `items`, which `&mut self` says that nobody else has.
        unsafe { self.items.as_mut() }
    }
}

impl<T> Drop for Zeroed<T> {
    fn drop(&mut self) {
        if self.pages.is_none() {
            // SAFETY: `items`; a box, which nobody uses any more.
            drop(unsafe { Box::from_raw(self.items.as_ptr()) });
        } else if needs_drop::<T>() {
            // SAFETY: `items`; they are dropped this once.
            unsafe { ptr::drop_in_place(self.items.as_ptr()) };
        }
    }
}

/// A slice of zeroed memory, or `None` if there is none.
///
/// # Safety
/// - All zero is a valid `T`, and the default. A `T` has a size, and `len` is not 0.
pub(crate) unsafe fn zeroed<T: Default>(len: usize) -> Option<Zeroed<T>> {
    let layout = Layout::array::<T>(len).ok()?;
    debug_assert!(layout.size() > 0, "something is asked for");
    let mut pages = None;
    let memory = if layout.size() < LEAST_PAGES {
        // SAFETY: the caller's: the size is not zero.
        unsafe { alloc_zeroed(layout) }
    } else {
        pages.insert(MmapOptions::new().len(layout.size()).map_anon().ok()?).as_mut_ptr()
    };
    debug_assert!(memory.cast::<T>().is_aligned(), "pages are aligned to more than any item");
    // The caller's: all zero is valid. The memory was just allocated by the layout of the slice, or is as large.
    let items = NonNull::new(ptr::slice_from_raw_parts_mut(memory.cast::<T>(), len))?;
    Some(Zeroed { items, pages })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn zeroed_of<T: Default>(len: usize) -> Zeroed<Option<T>> {
        // SAFETY: called for boxes and the like, of which all zero is none.
        unsafe { zeroed::<Option<T>>(len) }.expect("there is memory")
    }

    #[test]
    fn it_is_all_default_in_a_box_and_in_pages() {
        for len in [1, 1000, LEAST_PAGES / 8 - 1, LEAST_PAGES / 8, 3 * LEAST_PAGES] {
            let slice = zeroed_of::<Box<u8>>(len);
            assert_eq!(slice.pages.is_some(), len * 8 >= LEAST_PAGES);
            assert!(slice.len() == len && slice.iter().all(Option::is_none));
        }
    }

    #[test]
    fn its_items_are_dropped_once() {
        let item = Arc::new(());
        for len in [10, LEAST_PAGES] {
            let mut slice = zeroed_of::<Arc<()>>(len);
            slice[len - 1] = Some(Arc::clone(&item));
            assert_eq!(Arc::strong_count(&item), 2);
            drop(slice);
            assert_eq!(Arc::strong_count(&item), 1);
        }
    }

    #[test]
    fn more_than_there_is_is_none() {
        for len in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 8] {
            // SAFETY: as above.
            assert!(unsafe { zeroed::<Option<Box<u8>>>(len) }.is_none());
        }
    }
}
