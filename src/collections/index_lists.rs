//! Doubly linked lists of entries by number: each number is in one list at most.
//!
//! # How it works
//! Every list is a ring that starts and ends at a node of its own, its anchor. Entries and anchors share the links, so no
//! operation has a special case for an end. Where the number of lists is fixed, their anchors come before the nodes of the
//! entries, and all nodes are found in one way; else anchors are apart, and addressed by the top bit. Where so many are
//! fixed that it matters, a node also tells which list it is in: one of the first three, or another.
//!
//! # Invariants
//! - `ring`: following `next` from an anchor comes back to it; `prev` is its mirror.
//! - `once`: the node of a number that is in no list links to [`NOWHERE`].

use crate::collections::try_reserve::{self, NoMemory};
use crate::sync::prefetch_write;

const APART: u32 = 1 << 31;
const NOWHERE: u32 = u32::MAX;
/// The first lists that are told apart, and one for all others.
const KINDS: usize = 4;
const KIND_SHIFT: u32 = u32::BITS - 2;
const PLACE: u32 = (1 << KIND_SHIFT) - 1;

/// Links by the place of a node.
#[derive(Clone, Copy)]
struct Node {
    /// With the kind of its list in the uppermost bits, if there are kinds.
    prev: u32,
    next: u32,
}

impl Node {
    fn kind(self) -> usize {
        (self.prev >> KIND_SHIFT) as usize
    }
}

const LOOSE: Node = Node { prev: NOWHERE, next: NOWHERE };

/// Lists over entry numbers, 8 bytes a number: so many, or as many as are asked for if `FIXED` is 0.
pub(crate) struct IndexLists<const FIXED: usize> {
    /// The nodes of `FIXED` anchors, then that of each number.
    nodes: Vec<Node>,
    /// Where their number is not fixed.
    anchors: Vec<Node>,
}

impl<const FIXED: usize> Default for IndexLists<FIXED> {
    fn default() -> Self {
        let nodes = (0..FIXED as u32).map(|anchor| Node { prev: anchor, next: anchor }).collect();
        IndexLists { nodes, anchors: Vec::new() }
    }
}

impl IndexLists<0> {
    /// Makes sure that there are this many lists.
    pub fn grow_to(&mut self, lists: usize) {
        for list in self.anchors.len()..lists {
            let anchor = Self::anchor(list);
            self.anchors.push(Node { prev: anchor, next: anchor });
        }
    }
}

impl<const FIXED: usize> IndexLists<FIXED> {
    const HAS_KINDS: bool = FIXED >= KINDS;

    /// Makes sure that a number can be pushed. With kinds there is room for a billion of them.
    #[inline(always)]
    pub fn reserve(&mut self, number: u32) -> Result<(), NoMemory> {
        let place = Self::place(number);
        if Self::HAS_KINDS && place > PLACE {
            return Err(NoMemory);
        }
        try_reserve::reserve(&mut self.nodes, place)
    }

    #[inline(always)]
    pub fn push_back(&mut self, list: usize, number: u32) {
        debug_assert!(!self.contains(number), "`once`");
        let place = Self::place(number);
        if self.nodes.len() <= place as usize {
            self.nodes.resize(place as usize + 1, LOOSE);
        }
        self.append(list, place);
    }

    /// Takes a number from its list to the end of another, or of the same.
    #[inline(always)]
    pub fn move_back(&mut self, list: usize, number: u32) {
        debug_assert!(self.contains(number), "`once`");
        let place = Self::place(number);
        self.close(self.nodes[place as usize]);
        self.append(list, place);
    }

    /// Which of the first three lists a number is in; 3 if it is in another.
    #[inline(always)]
    pub fn kind(&self, number: u32) -> usize {
        const { assert!(Self::HAS_KINDS) };
        debug_assert!(self.contains(number), "`once`");
        self.nodes[Self::place(number) as usize].kind()
    }

    /// Asks ahead for the ends of all lists, which are fixed.
    #[inline]
    pub fn prefetch_ends(&self) {
        for anchor in [0, FIXED - 1] {
            prefetch_write(&self.nodes[anchor]);
        }
    }

    /// Asks ahead for the links of a number.
    #[inline]
    pub fn prefetch(&self, number: u32) {
        self.nodes.get(Self::place(number) as usize).into_iter().for_each(prefetch_write);
    }

    /// Takes a number out of its list. False if it was in none.
    #[inline(always)]
    pub fn unlink(&mut self, number: u32) -> bool {
        self.unlink_node(number).is_some()
    }

    /// The same. Tells the kind of the list as [`kind`](Self::kind) does; `None` if the number was in none.
    #[inline(always)]
    pub fn unlink_kind(&mut self, number: u32) -> Option<usize> {
        const { assert!(Self::HAS_KINDS) };
        self.unlink_node(number).map(Node::kind)
    }

    #[inline(always)]
    fn unlink_node(&mut self, number: u32) -> Option<Node> {
        let node = self.nodes.get_mut(Self::place(number) as usize).filter(|node| node.next != NOWHERE)?;
        let node = std::mem::replace(node, LOOSE);
        self.close(node);
        Some(node)
    }

    #[inline(always)]
    pub fn front(&self, list: usize) -> Option<u32> {
        Self::number(self.node(Self::anchor(list)).next)
    }

    /// The one after a number in its list; `None` at the end.
    pub fn after(&self, number: u32) -> Option<u32> {
        debug_assert!(self.contains(number), "`once`");
        Self::number(self.node(Self::place(number)).next)
    }

    pub fn contains(&self, number: u32) -> bool {
        self.nodes.get(Self::place(number) as usize).is_some_and(|node| node.next != NOWHERE)
    }

    pub fn is_empty(&self, list: usize) -> bool {
        self.front(list).is_none()
    }

    /// Gives back the memory of numbers from `limit` up, which are in no list.
    pub fn trim(&mut self, limit: u32) {
        self.nodes.truncate(Self::place(limit) as usize);
        self.nodes.shrink_to_fit();
    }

    /// Where the node of a number is.
    #[inline(always)]
    fn place(number: u32) -> u32 {
        number + FIXED as u32
    }

    /// Where the anchor of a list is.
    #[inline(always)]
    fn anchor(list: usize) -> u32 {
        if FIXED > 0 { list as u32 } else { APART | list as u32 }
    }

    /// The number of the node at a place, if it is no anchor.
    #[inline(always)]
    fn number(place: u32) -> Option<u32> {
        let is_anchor = if FIXED > 0 { place < FIXED as u32 } else { place & APART != 0 };
        (!is_anchor).then(|| place - FIXED as u32)
    }

    /// Links a node to the end of a list, whatever it linked to.
    #[inline(always)]
    fn append(&mut self, list: usize, place: u32) {
        let anchor = Self::anchor(list);
        let last = std::mem::replace(&mut self.node_mut(anchor).prev, place);
        self.node_mut(last).next = place;
        let kind = if Self::HAS_KINDS { (list.min(KINDS - 1) as u32) << KIND_SHIFT } else { 0 };
        self.nodes[place as usize] = Node { prev: last | kind, next: anchor };
    }

    /// Links the neighbours of a node that goes to each other.
    #[inline(always)]
    fn close(&mut self, Node { prev, next }: Node) {
        let (prev, kind) = if Self::HAS_KINDS { (prev & PLACE, !PLACE) } else { (prev, 0) };
        self.node_mut(prev).next = next;
        let next = self.node_mut(next);
        next.prev = next.prev & kind | prev;
    }

    #[inline(always)]
    fn node(&self, place: u32) -> Node {
        if FIXED == 0 && place & APART != 0 {
            self.anchors[(place ^ APART) as usize]
        } else {
            self.nodes[place as usize]
        }
    }

    #[inline(always)]
    fn node_mut(&mut self, place: u32) -> &mut Node {
        if FIXED == 0 && place & APART != 0 {
            &mut self.anchors[(place ^ APART) as usize]
        } else {
            &mut self.nodes[place as usize]
        }
    }

    /// The numbers of a list, front to back.
    #[cfg(any(test, debug_assertions))]
    pub fn iter(&self, list: usize) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.front(list), |&number| self.after(number))
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

    /// Two lists, of a number that is not fixed.
    fn apart() -> IndexLists<0> {
        let mut lists = IndexLists::default();
        lists.grow_to(2);
        lists
    }

    #[test]
    fn a_list_keeps_the_order_of_pushes() {
        fn check<const FIXED: usize>(mut lists: IndexLists<FIXED>) {
            for number in [5, 0, 9] {
                lists.push_back(0, number);
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
    fn a_number_leaves_from_any_place() {
        fn check<const FIXED: usize>(mut lists: IndexLists<FIXED>) {
            (0..5).for_each(|number| lists.push_back(0, number));
            for (number, rest) in [(2, vec![0, 1, 3, 4]), (0, vec![1, 3, 4]), (4, vec![1, 3])] {
                assert!(lists.unlink(number));
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
    fn a_number_moves_to_the_end_of_any_list() {
        fn check<const FIXED: usize>(mut lists: IndexLists<FIXED>) {
            (0..4).for_each(|number| lists.push_back(0, number));
            for (list, number, first, second) in [
                (0, 1, vec![0, 2, 3, 1], vec![]),
                (0, 1, vec![0, 2, 3, 1], vec![]),
                (1, 0, vec![2, 3, 1], vec![0]),
                (1, 0, vec![2, 3, 1], vec![0]),
                (1, 3, vec![2, 1], vec![0, 3]),
                (0, 0, vec![2, 1, 0], vec![3]),
            ] {
                lists.move_back(list, number);
                assert_eq!((all(&lists, 0), all(&lists, 1)), (first, second));
            }
            assert!((0..4).all(|number| lists.unlink(number)));
            assert!(lists.is_empty(0) && lists.is_empty(1));
        }
        check(IndexLists::<2>::default());
        check(IndexLists::<5>::default());
        check(apart());
    }

    #[test]
    fn what_is_in_no_list_is_not_taken_out() {
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
    fn of_many_lists_a_number_tells_which_it_is_in() {
        let mut lists = IndexLists::<6>::default();
        let kinds = |lists: &IndexLists<6>| (0..7).map(|number| lists.kind(number)).collect::<Vec<_>>();
        for (number, list) in [0, 5, 2, 2, 3, 1, 2].into_iter().enumerate() {
            lists.push_back(list, number as u32);
        }
        assert_eq!(kinds(&lists), [0, 3, 2, 2, 3, 1, 2]);
        for (number, list) in [(3, 1), (2, 4), (0, 2)] {
            lists.move_back(list, number);
        }
        assert_eq!(kinds(&lists), [2, 3, 3, 1, 3, 1, 2]);
        assert_eq!((all(&lists, 2), all(&lists, 1)), (vec![6, 0], vec![5, 3]));
        assert_eq!((lists.reserve(1 << 30), lists.reserve(8)), (Err(NoMemory), Ok(())));
    }

    #[test]
    fn a_trim_keeps_the_numbers_below() {
        fn check<const FIXED: usize>(mut lists: IndexLists<FIXED>) {
            [1, 100, 3].into_iter().for_each(|number| lists.push_back(0, number));
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
