//! Doubly linked lists of entries by their indices. Each index is in one list at most.
//!
//! # How it works
//! Each list is a ring through a node of its own, its anchor. So no operation has a special case for the ends of a
//! list. Nodes of entries are in one vector, and anchors in another. The top bit of a link says which of the two it
//! leads to.
//!
//! # Invariants
//! - `ring`: the links `next` of an anchor and of the nodes after it lead back to the anchor, and the links `prev`
//!   mirror them.
//! - `once`: the node of an index that is in no list links to [`NO_NODE`].
//!
//! # Why not a list of the standard library
//! It allocates a node for each entry, and cannot unlink an entry by its index.

use crate::collections::try_reserve::{self, NoMemory};
use crate::sync::prefetch_write;

/// The bit of a link that leads to an anchor. Indices are below it.
const ANCHOR_BIT: u32 = 1 << 31;
const NO_NODE: u32 = u32::MAX;

/// The neighbours of a node in its ring.
#[derive(Clone, Copy)]
struct Node {
    prev: u32,
    next: u32,
}

const UNLINKED: Node = Node { prev: NO_NODE, next: NO_NODE };

/// Lists of indices, which take 8 bytes for each index.
#[derive(Default)]
pub(crate) struct IndexLists {
    /// By index.
    nodes: Vec<Node>,
    /// By list.
    anchors: Vec<Node>,
}

impl IndexLists {
    pub fn with_lists(lists: usize) -> Self {
        let mut made = IndexLists::default();
        made.grow_to(lists);
        made
    }

    /// Adds lists until there are `lists` of them.
    pub fn grow_to(&mut self, lists: usize) {
        for list in self.anchors.len()..lists {
            let anchor = anchor_of(list);
            self.anchors.push(Node { prev: anchor, next: anchor });
        }
    }

    /// Reserves the memory that an index needs here. There is room for two billion indices.
    #[inline(always)]
    pub fn reserve(&mut self, index: u32) -> Result<(), NoMemory> {
        if index >= ANCHOR_BIT {
            return Err(NoMemory);
        }
        try_reserve::reserve(&mut self.nodes, index)
    }

    #[inline(always)]
    pub fn push_back(&mut self, list: usize, index: u32) {
        debug_assert!(!self.contains(index), "`once`");
        if self.nodes.len() <= index as usize {
            self.nodes.resize(index as usize + 1, UNLINKED);
        }
        self.append(list, index);
    }

    /// Moves an index from its list to the end of another, or of the same.
    #[inline(always)]
    pub fn move_back(&mut self, list: usize, index: u32) {
        debug_assert!(self.contains(index), "`once`");
        self.join_neighbours(self.nodes[index as usize]);
        self.append(list, index);
    }

    /// Prefetches the anchor of a list.
    #[inline]
    pub fn prefetch_anchor(&self, list: usize) {
        prefetch_write(&self.anchors[list]);
    }

    /// Prefetches the links of an index.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        self.nodes.get(index as usize).into_iter().for_each(prefetch_write);
    }

    /// Removes an index from its list. Returns false if it was in none.
    #[inline(always)]
    pub fn unlink(&mut self, index: u32) -> bool {
        let node = self.nodes.get_mut(index as usize).filter(|node| node.next != NO_NODE);
        let Some(node) = node.map(|node| std::mem::replace(node, UNLINKED)) else { return false };
        self.join_neighbours(node);
        true
    }

    #[inline(always)]
    pub fn front(&self, list: usize) -> Option<u32> {
        index_of(self.anchors[list].next)
    }

    /// Returns the index after another in its list; `None` at the end.
    pub fn after(&self, index: u32) -> Option<u32> {
        debug_assert!(self.contains(index), "`once`");
        index_of(self.nodes[index as usize].next)
    }

    pub fn contains(&self, index: u32) -> bool {
        self.nodes.get(index as usize).is_some_and(|node| node.next != NO_NODE)
    }

    pub fn is_empty(&self, list: usize) -> bool {
        self.front(list).is_none()
    }

    /// Releases the memory of the indices from `limit` up, which must be in no list.
    pub fn trim(&mut self, limit: u32) {
        self.nodes.truncate(limit as usize);
        self.nodes.shrink_to_fit();
    }

    /// Links the node of an index to the end of a list. Its old links are overwritten.
    #[inline(always)]
    fn append(&mut self, list: usize, index: u32) {
        let last = std::mem::replace(&mut self.anchors[list].prev, index);
        self.node_mut(last).next = index;
        self.nodes[index as usize] = Node { prev: last, next: anchor_of(list) };
    }

    /// Links the neighbours of a node that is unlinked to each other.
    #[inline(always)]
    fn join_neighbours(&mut self, Node { prev, next }: Node) {
        self.node_mut(prev).next = next;
        self.node_mut(next).prev = prev;
    }

    /// The node or anchor that a link leads to.
    #[inline(always)]
    fn node_mut(&mut self, link: u32) -> &mut Node {
        if link & ANCHOR_BIT == 0 {
            &mut self.nodes[link as usize]
        } else {
            &mut self.anchors[(link ^ ANCHOR_BIT) as usize]
        }
    }

    /// The indices of a list, front to back.
    #[cfg(any(test, debug_assertions))]
    pub fn iter(&self, list: usize) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.front(list), |&index| self.after(index))
    }
}

/// The link to the anchor of a list.
#[inline(always)]
fn anchor_of(list: usize) -> u32 {
    ANCHOR_BIT | list as u32
}

/// The index of the node that a link leads to, unless that is an anchor.
#[inline(always)]
fn index_of(link: u32) -> Option<u32> {
    (link & ANCHOR_BIT == 0).then_some(link)
}

#[cfg(test)]
impl IndexLists {
    pub fn heap_bytes(&self) -> usize {
        (self.anchors.capacity() + self.nodes.capacity()) * size_of::<Node>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices_of(lists: &IndexLists, list: usize) -> Vec<u32> {
        // A broken ring may have no end.
        lists.iter(list).take(100).collect()
    }

    #[test]
    fn a_list_keeps_the_order_of_pushes() {
        let mut lists = IndexLists::with_lists(2);
        for index in [5, 0, 9] {
            lists.push_back(0, index);
        }
        lists.push_back(1, 3);
        assert_eq!((indices_of(&lists, 0), indices_of(&lists, 1)), (vec![5, 0, 9], vec![3]));
        assert_eq!((lists.front(0), lists.front(1)), (Some(5), Some(3)));
        assert_eq!((lists.after(0), lists.after(9)), (Some(9), None));
    }

    #[test]
    fn an_index_is_unlinked_from_any_position() {
        let mut lists = IndexLists::with_lists(2);
        (0..5).for_each(|index| lists.push_back(0, index));
        for (index, rest) in [(2, vec![0, 1, 3, 4]), (0, vec![1, 3, 4]), (4, vec![1, 3])] {
            assert!(lists.unlink(index));
            assert_eq!(indices_of(&lists, 0), rest);
        }
        assert!(lists.unlink(1) && lists.unlink(3));
        assert!(lists.is_empty(0) && lists.is_empty(1));
        lists.push_back(0, 2);
        assert_eq!((indices_of(&lists, 0), indices_of(&lists, 1)), (vec![2], vec![]));
    }

    #[test]
    fn an_index_moves_to_the_end_of_any_list() {
        let mut lists = IndexLists::with_lists(2);
        (0..4).for_each(|index| lists.push_back(0, index));
        for (list, index, first, second) in [
            (0, 1, vec![0, 2, 3, 1], vec![]),
            (0, 1, vec![0, 2, 3, 1], vec![]),
            (1, 0, vec![2, 3, 1], vec![0]),
            (1, 0, vec![2, 3, 1], vec![0]),
            (1, 3, vec![2, 1], vec![0, 3]),
            (0, 0, vec![2, 1, 0], vec![3]),
        ] {
            lists.move_back(list, index);
            assert_eq!((indices_of(&lists, 0), indices_of(&lists, 1)), (first, second));
        }
        assert!((0..4).all(|index| lists.unlink(index)));
        assert!(lists.is_empty(0) && lists.is_empty(1));
    }

    #[test]
    fn an_index_that_is_in_no_list_is_not_unlinked() {
        let mut lists = IndexLists::with_lists(2);
        assert!(!lists.unlink(7) && !lists.contains(7));
        lists.push_back(0, 7);
        assert!(lists.contains(7) && !lists.contains(6));
        assert!(lists.unlink(7) && !lists.unlink(7));
    }

    #[test]
    fn lists_added_later_leave_the_others_as_they_are() {
        let mut lists = IndexLists::with_lists(2);
        lists.push_back(0, 1);
        lists.grow_to(3);
        lists.grow_to(2);
        lists.push_back(2, 4);
        let all = [0, 1, 2].map(|list| indices_of(&lists, list));
        assert_eq!(all, [vec![1], vec![], vec![4]]);
    }

    #[test]
    fn an_index_that_would_be_taken_for_an_anchor_is_refused() {
        let mut lists = IndexLists::with_lists(2);
        assert_eq!((lists.reserve(1 << 31), lists.reserve(8)), (Err(NoMemory), Ok(())));
    }

    #[test]
    fn a_trim_keeps_the_indices_below() {
        let mut lists = IndexLists::with_lists(2);
        [1, 100, 3].into_iter().for_each(|index| lists.push_back(0, index));
        lists.unlink(100);
        lists.trim(4);
        assert_eq!(indices_of(&lists, 0), [1, 3]);
        lists.push_back(0, 100);
        assert_eq!(indices_of(&lists, 0), [1, 3, 100]);
    }
}
