//! Doubly linked lists of entries by number: each number is in one list at most.
//!
//! # How it works
//! Every list is a ring that starts and ends at a node of its own, its anchor. Anchors are addressed by the
//! top bit, so entries and anchors share the links and no operation has a special case for an end.
//!
//! # Invariants
//! - `ring`: following `next` from an anchor comes back to it; `prev` is its mirror.
//! - `once`: the node of a number that is in no list links to [`NOWHERE`].

use crate::memory::{self, NoMemory};

const ANCHOR: u32 = 1 << 31;
const NOWHERE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    prev: u32,
    next: u32,
}

const LOOSE: Node = Node { prev: NOWHERE, next: NOWHERE };

/// Lists over entry numbers, 8 bytes a number.
#[derive(Default)]
pub(crate) struct Lists {
    anchors: Vec<Node>,
    nodes: Vec<Node>,
}

impl Lists {
    pub fn new(lists: usize) -> Self {
        let mut made = Lists::default();
        made.grow_to(lists);
        made
    }

    /// Makes sure that there are this many lists.
    pub fn grow_to(&mut self, lists: usize) {
        for list in self.anchors.len() as u32..lists as u32 {
            self.anchors.push(Node { prev: ANCHOR | list, next: ANCHOR | list });
        }
    }

    /// Makes sure that a number can be pushed.
    #[inline(always)]
    pub fn reserve(&mut self, number: u32) -> Result<(), NoMemory> {
        memory::reserve(&mut self.nodes, number)
    }

    #[inline(always)]
    pub fn push_back(&mut self, list: usize, number: u32) {
        debug_assert!(!self.contains(number), "`once`");
        if self.nodes.len() <= number as usize {
            self.nodes.resize(number as usize + 1, LOOSE);
        }
        let anchor = ANCHOR | list as u32;
        let last = self.node(anchor).prev;
        *self.node_mut(number) = Node { prev: last, next: anchor };
        self.node_mut(last).next = number;
        self.node_mut(anchor).prev = number;
    }

    /// Takes a number out of its list. False if it was in none.
    #[inline(always)]
    pub fn unlink(&mut self, number: u32) -> bool {
        if !self.contains(number) {
            return false;
        }
        let Node { prev, next } = std::mem::replace(self.node_mut(number), LOOSE);
        self.node_mut(prev).next = next;
        self.node_mut(next).prev = prev;
        true
    }

    pub fn front(&self, list: usize) -> Option<u32> {
        let first = self.anchors[list].next;
        (first & ANCHOR == 0).then_some(first)
    }

    /// The one after a number in its list; `None` at the end.
    pub fn after(&self, number: u32) -> Option<u32> {
        debug_assert!(self.contains(number), "`once`");
        let next = self.nodes[number as usize].next;
        (next & ANCHOR == 0).then_some(next)
    }

    pub fn contains(&self, number: u32) -> bool {
        self.nodes.get(number as usize).is_some_and(|node| node.next != NOWHERE)
    }

    pub fn is_empty(&self, list: usize) -> bool {
        self.front(list).is_none()
    }

    /// Gives back the memory of numbers from `limit` up, which are in no list.
    pub fn trim(&mut self, limit: u32) {
        self.nodes.truncate(limit as usize);
        self.nodes.shrink_to_fit();
    }

    fn node(&self, at: u32) -> Node {
        if at & ANCHOR == 0 { self.nodes[at as usize] } else { self.anchors[(at ^ ANCHOR) as usize] }
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        if at & ANCHOR == 0 {
            &mut self.nodes[at as usize]
        } else {
            &mut self.anchors[(at ^ ANCHOR) as usize]
        }
    }

    /// The numbers of a list, front to back.
    #[cfg(any(test, debug_assertions))]
    pub fn iter(&self, list: usize) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.front(list), |&at| {
            let next = self.nodes[at as usize].next;
            (next & ANCHOR == 0).then_some(next)
        })
    }
}

#[cfg(test)]
impl Lists {
    pub fn heap_bytes(&self) -> usize {
        (self.anchors.capacity() + self.nodes.capacity()) * size_of::<Node>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lists: &Lists, list: usize) -> Vec<u32> {
        lists.iter(list).collect()
    }

    #[test]
    fn a_list_keeps_the_order_of_pushes() {
        let mut lists = Lists::new(2);
        for number in [5, 0, 9] {
            lists.push_back(0, number);
        }
        lists.push_back(1, 3);
        assert_eq!((all(&lists, 0), all(&lists, 1)), (vec![5, 0, 9], vec![3]));
        assert_eq!((lists.front(0), lists.front(1)), (Some(5), Some(3)));
        assert_eq!((lists.after(0), lists.after(9)), (Some(9), None));
    }

    #[test]
    fn a_number_leaves_from_any_place() {
        let mut lists = Lists::new(1);
        (0..5).for_each(|number| lists.push_back(0, number));
        for (number, rest) in [(2, vec![0, 1, 3, 4]), (0, vec![1, 3, 4]), (4, vec![1, 3])] {
            assert!(lists.unlink(number));
            assert_eq!(all(&lists, 0), rest);
        }
        assert!(lists.unlink(1) && lists.unlink(3));
        assert!(lists.is_empty(0));
        lists.push_back(0, 2);
        assert_eq!(all(&lists, 0), [2]);
    }

    #[test]
    fn what_is_in_no_list_is_not_taken_out() {
        let mut lists = Lists::new(1);
        assert!(!lists.unlink(7) && !lists.contains(7));
        lists.push_back(0, 7);
        assert!(lists.contains(7) && !lists.contains(6));
        assert!(lists.unlink(7) && !lists.unlink(7));
    }

    #[test]
    fn lists_added_later_leave_the_others_as_they_are() {
        let mut lists = Lists::new(1);
        lists.push_back(0, 1);
        lists.grow_to(3);
        lists.grow_to(2);
        lists.push_back(2, 4);
        assert_eq!((all(&lists, 0), all(&lists, 1), all(&lists, 2)), (vec![1], vec![], vec![4]));
    }

    #[test]
    fn a_trim_keeps_the_numbers_below() {
        let mut lists = Lists::new(1);
        [1, 100, 3].into_iter().for_each(|number| lists.push_back(0, number));
        lists.unlink(100);
        lists.trim(4);
        assert_eq!(all(&lists, 0), [1, 3]);
        lists.push_back(0, 100);
        assert_eq!(all(&lists, 0), [1, 3, 100]);
    }
}
