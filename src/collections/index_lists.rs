//! Doubly linked lists of entries by their indices. Each index is in one list at most.
//!
//! # How it works
//! Each list is a ring through a node of its own, its anchor. So no operation has a special case for the ends of a list.
//! There are three kinds of anchors:
//! - `IndexLists<0>` has as many lists as [`grow_to`](IndexLists::grow_to) made. Their anchors are in a vector of their own,
//!   and the top bit of a link says that it leads to an anchor.
//! - `IndexLists<2>` has two lists. Their anchors come before the nodes of the entries, so that all nodes are found in
//!   one way.
//! - With `FIXED` lists, four or more, a node also tells which list it is in: one of the first three, or another. That is in
//!   the top two bits of `prev`.
//!
//! # Invariants
//! - `ring`: the links `next` of an anchor and of the nodes after it lead back to the anchor, and the links `prev` mirror them.
//! - `once`: the node of an index that is in no list links to [`NO_NODE`].
//!
//! # Why not a list of the standard library
//! It allocates a node for each entry, and cannot unlink an entry by its index.

use crate::collections::try_reserve::{self, NoMemory};
use crate::sync::prefetch_write;

/// The bit of a link that leads to an anchor, where anchors have a vector of their own.
const ANCHOR_BIT: u32 = 1 << 31;
const NO_NODE: u32 = u32::MAX;
/// The kinds of lists that a node tells apart: the first three, and all others.
const KINDS: usize = 4;
const KIND_SHIFT: u32 = u32::BITS - 2;
const LINK_MASK: u32 = (1 << KIND_SHIFT) - 1;

/// The neighbours of a node in its ring.
#[derive(Clone, Copy)]
struct Node {
    /// If there are kinds, the kind of its list is in the top bits.
    prev: u32,
    next: u32,
}

impl Node {
    fn kind(self) -> usize {
        (self.prev >> KIND_SHIFT) as usize
    }
}

const UNLINKED: Node = Node { prev: NO_NODE, next: NO_NODE };

/// `FIXED` lists of indices, or as many as are asked for if `FIXED` is 0. They take 8 bytes for each index.
pub(crate) struct IndexLists<const FIXED: usize> {
    /// The `FIXED` anchors, then a node for each index.
    nodes: Vec<Node>,
    /// The anchors, if `FIXED` is 0.
    anchors: Vec<Node>,
}

impl<const FIXED: usize> Default for IndexLists<FIXED> {
    fn default() -> Self {
        let nodes = (0..FIXED as u32).map(|anchor| Node { prev: anchor, next: anchor }).collect();
        IndexLists { nodes, anchors: Vec::new() }
    }
}

impl IndexLists<0> {
    /// Adds lists until there are `lists` of them.
    pub fn grow_to(&mut self, lists: usize) {
        for list in self.anchors.len()..lists {
            let anchor = Self::anchor_of(list);
            self.anchors.push(Node { prev: anchor, next: anchor });
        }
    }
}

impl<const FIXED: usize> IndexLists<FIXED> {
    const HAS_KINDS: bool = FIXED >= KINDS;

    /// Reserves the memory that an index needs here. With kinds there is room for a billion indices.
    #[inline(always)]
    pub fn reserve(&mut self, index: u32) -> Result<(), NoMemory> {
        let link = Self::link_of(index);
        if Self::HAS_KINDS && link > LINK_MASK {
            return Err(NoMemory);
        }
        try_reserve::reserve(&mut self.nodes, link)
    }

    #[inline(always)]
    pub fn push_back(&mut self, list: usize, index: u32) {
        debug_assert!(!self.contains(index), "`once`");
        let link = Self::link_of(index);
        if self.nodes.len() <= link as usize {
            self.nodes.resize(link as usize + 1, UNLINKED);
        }
        self.append(list, link);
    }

    /// Moves an index from its list to the end of another, or of the same.
    #[inline(always)]
    pub fn move_back(&mut self, list: usize, index: u32) {
        debug_assert!(self.contains(index), "`once`");
        let link = Self::link_of(index);
        self.join_neighbours(self.nodes[link as usize]);
        self.append(list, link);
    }

    /// Returns which of the first three lists an index is in; 3 if it is in another.
    #[inline(always)]
    pub fn kind(&self, index: u32) -> usize {
        const { assert!(Self::HAS_KINDS) };
        debug_assert!(self.contains(index), "`once`");
        self.nodes[Self::link_of(index) as usize].kind()
    }

    /// Prefetches the anchors, which are fixed.
    #[inline]
    pub fn prefetch_ends(&self) {
        for anchor in [0, FIXED - 1] {
            prefetch_write(&self.nodes[anchor]);
        }
    }

    /// Prefetches the links of an index.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        self.nodes.get(Self::link_of(index) as usize).into_iter().for_each(prefetch_write);
    }

    /// Removes an index from its list. Returns false if it was in none.
    #[inline(always)]
    pub fn unlink(&mut self, index: u32) -> bool {
        self.unlink_node(index).is_some()
    }

    /// Does the same, and returns the [`kind`](Self::kind) of the list; `None` if the index was in none.
    #[inline(always)]
    pub fn unlink_kind(&mut self, index: u32) -> Option<usize> {
        const { assert!(Self::HAS_KINDS) };
        self.unlink_node(index).map(Node::kind)
    }

    #[inline(always)]
    fn unlink_node(&mut self, index: u32) -> Option<Node> {
        let node = self.nodes.get_mut(Self::link_of(index) as usize).filter(|node| node.next != NO_NODE)?;
        let node = std::mem::replace(node, UNLINKED);
        self.join_neighbours(node);
        Some(node)
    }

    #[inline(always)]
    pub fn front(&self, list: usize) -> Option<u32> {
        Self::index_at(self.node(Self::anchor_of(list)).next)
    }

    /// Returns the index after another in its list; `None` at the end.
    pub fn after(&self, index: u32) -> Option<u32> {
        debug_assert!(self.contains(index), "`once`");
        Self::index_at(self.node(Self::link_of(index)).next)
    }

    pub fn contains(&self, index: u32) -> bool {
        self.nodes.get(Self::link_of(index) as usize).is_some_and(|node| node.next != NO_NODE)
    }

    pub fn is_empty(&self, list: usize) -> bool {
        self.front(list).is_none()
    }

    /// Releases the memory of the indices from `limit` up, which must be in no list.
    pub fn trim(&mut self, limit: u32) {
        self.nodes.truncate(Self::link_of(limit) as usize);
        self.nodes.shrink_to_fit();
    }

    /// The link to the node of an index.
    #[inline(always)]
    fn link_of(index: u32) -> u32 {
        index + FIXED as u32
    }

    /// The link to the anchor of a list.
    #[inline(always)]
    fn anchor_of(list: usize) -> u32 {
        if FIXED > 0 { list as u32 } else { ANCHOR_BIT | list as u32 }
    }

    /// The index of the node that a link leads to, if that is no anchor.
    #[inline(always)]
    fn index_at(link: u32) -> Option<u32> {
        let is_anchor = if FIXED > 0 { link < FIXED as u32 } else { link & ANCHOR_BIT != 0 };
        (!is_anchor).then(|| link - FIXED as u32)
    }

    /// Links a node to the end of a list. Its old links are overwritten.
    #[inline(always)]
    fn append(&mut self, list: usize, link: u32) {
        let anchor = Self::anchor_of(list);
        let last = std::mem::replace(&mut self.node_mut(anchor).prev, link);
        self.node_mut(last).next = link;
        let kind = if Self::HAS_KINDS { (list.min(KINDS - 1) as u32) << KIND_SHIFT } else { 0 };
        self.nodes[link as usize] = Node { prev: last | kind, next: anchor };
    }

    /// Links the neighbours of a node that is unlinked to each other.
    #[inline(always)]
    fn join_neighbours(&mut self, Node { prev, next }: Node) {
        let (prev, kind) = if Self::HAS_KINDS { (prev & LINK_MASK, !LINK_MASK) } else { (prev, 0) };
        self.node_mut(prev).next = next;
        let next = self.node_mut(next);
        next.prev = next.prev & kind | prev;
    }

    #[inline(always)]
    fn node(&self, link: u32) -> Node {
        if FIXED == 0 && link & ANCHOR_BIT != 0 {
            self.anchors[(link ^ ANCHOR_BIT) as usize]
        } else {
            self.nodes[link as usize]
        }
    }

    #[inline(always)]
    fn node_mut(&mut self, link: u32) -> &mut Node {
        if FIXED == 0 && link & ANCHOR_BIT != 0 {
            &mut self.anchors[(link ^ ANCHOR_BIT) as usize]
        } else {
            &mut self.nodes[link as usize]
        }
    }

    /// The indices of a list, front to back.
    #[cfg(any(test, debug_assertions))]
    pub fn iter(&self, list: usize) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.front(list), |&index| self.after(index))
    }
}

#[cfg(test)]
impl<const FIXED: usize> IndexLists<FIXED> {
    pub fn heap_bytes(&self) -> usize {
        (self.anchors.capacity() + self.nodes.capacity()) * size_of::<Node>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<const FIXED: usize>(lists: &IndexLists<FIXED>, list: usize) -> Vec<u32> {
        // A ring that is broken may have no end.
        lists.iter(list).take(100).collect()
    }

    /// Two lists whose anchors are apart.
    fn apart() -> IndexLists<0> {
        let mut lists = IndexLists::default();
        lists.grow_to(2);
        lists
    }

    #[test]
    fn a_list_keeps_the_order_of_pushes() {
        fn check<const FIXED: usize>(mut lists: IndexLists<FIXED>) {
            for index in [5, 0, 9] {
                lists.push_back(0, index);
            }
            lists.push_back(1, 3);
            assert_eq!((all(&lists, 0), all(&lists, 1)), (vec![5, 0, 9], vec![3]));
            assert_eq!((lists.front(0), lists.front(1)), (Some(5), Some(3)));
            assert_eq!((lists.after(0), lists.after(9)), (Some(9), None));
        }
        check(IndexLists::<2>::default());
        check(apart());
    }

    #[test]
    fn an_index_is_unlinked_from_any_position() {
        fn check<const FIXED: usize>(mut lists: IndexLists<FIXED>) {
            (0..5).for_each(|index| lists.push_back(0, index));
            for (index, rest) in [(2, vec![0, 1, 3, 4]), (0, vec![1, 3, 4]), (4, vec![1, 3])] {
                assert!(lists.unlink(index));
                assert_eq!(all(&lists, 0), rest);
            }
            assert!(lists.unlink(1) && lists.unlink(3));
            assert!(lists.is_empty(0) && lists.is_empty(1));
            lists.push_back(0, 2);
            assert_eq!((all(&lists, 0), all(&lists, 1)), (vec![2], vec![]));
        }
        check(IndexLists::<2>::default());
        check(apart());
    }

    #[test]
    fn an_index_moves_to_the_end_of_any_list() {
        fn check<const FIXED: usize>(mut lists: IndexLists<FIXED>) {
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
                assert_eq!((all(&lists, 0), all(&lists, 1)), (first, second));
            }
            assert!((0..4).all(|index| lists.unlink(index)));
            assert!(lists.is_empty(0) && lists.is_empty(1));
        }
        check(IndexLists::<2>::default());
        check(IndexLists::<5>::default());
        check(apart());
    }

    #[test]
    fn an_index_that_is_in_no_list_is_not_unlinked() {
        fn check<const FIXED: usize>(mut lists: IndexLists<FIXED>) {
            assert!(!lists.unlink(7) && !lists.contains(7));
            lists.push_back(0, 7);
            assert!(lists.contains(7) && !lists.contains(6));
            assert!(lists.unlink(7) && !lists.unlink(7));
        }
        check(IndexLists::<2>::default());
        check(apart());
    }

    #[test]
    fn lists_added_later_leave_the_others_as_they_are() {
        let mut lists = apart();
        lists.push_back(0, 1);
        lists.grow_to(3);
        lists.grow_to(2);
        lists.push_back(2, 4);
        assert_eq!((all(&lists, 0), all(&lists, 1), all(&lists, 2)), (vec![1], vec![], vec![4]));
    }

    #[test]
    fn of_many_lists_an_index_tells_which_it_is_in() {
        let mut lists = IndexLists::<6>::default();
        let kinds = |lists: &IndexLists<6>| (0..7).map(|index| lists.kind(index)).collect::<Vec<_>>();
        for (index, list) in [0, 5, 2, 2, 3, 1, 2].into_iter().enumerate() {
            lists.push_back(list, index as u32);
        }
        assert_eq!(kinds(&lists), [0, 3, 2, 2, 3, 1, 2]);
        for (index, list) in [(3, 1), (2, 4), (0, 2)] {
            lists.move_back(list, index);
        }
        assert_eq!(kinds(&lists), [2, 3, 3, 1, 3, 1, 2]);
        assert_eq!((all(&lists, 2), all(&lists, 1)), (vec![6, 0], vec![5, 3]));
        assert_eq!((lists.reserve(1 << 30), lists.reserve(8)), (Err(NoMemory), Ok(())));
    }

    #[test]
    fn a_trim_keeps_the_indices_below() {
        fn check<const FIXED: usize>(mut lists: IndexLists<FIXED>) {
            [1, 100, 3].into_iter().for_each(|index| lists.push_back(0, index));
            lists.unlink(100);
            lists.trim(4);
            assert_eq!(all(&lists, 0), [1, 3]);
            lists.push_back(0, 100);
            assert_eq!(all(&lists, 0), [1, 3, 100]);
        }
        check(IndexLists::<2>::default());
        check(apart());
    }
}
