//! Says whether what threads saw of one key can have happened in some order: a search as by Wing and Gong, with the
//! memory of Lowe ("Testing for Linearizability", 2017).
//!
//! A step takes effect at one moment between its call and its return. So one that returned before another was called comes
//! before it, and those that overlap come in any order. The search puts one step after the other and goes back where
//! none can be next; it remembers how far each thread was in which state. A mere look that can be next and changes
//! nothing is taken at once. `stress/torture/history_checker.py` is the same for Python, and tells more.

use std::collections::HashSet;

/// What a step does or saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Read(Option<u64>),
    Write(u64),
    /// Writes since there was nothing.
    Put(u64),
    Take(Option<u64>),
    /// Takes what is there, if anything.
    Clear,
    /// Begins a computation: others may wait for it, and a write to the key overtakes it.
    Join(u64),
    /// Finds nothing, so that it must be computed.
    EntryView,
    /// Puts in what was computed, unless it was overtaken.
    Land(u64),
    /// Gives up.
    Fail(u64),
    /// Has a value that is there or that somebody else computes.
    Wait(u64),
    /// Has somebody else's failure.
    WaitFailed,
}

#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub call: u64,
    pub ret: u64,
    pub act: Act,
}

/// A computation whose value has this bit fails.
pub const FAILS: u64 = 1 << 63;

/// What the cache may do besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leave {
    /// Entries may be gone at any moment.
    pub evicts: bool,
    /// A write to another key of the same hash may overtake a computation.
    pub collides: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    value: Option<u64>,
    /// The computation that is under way and was not overtaken.
    flight: Option<u64>,
    /// Where entries may be gone: values whose computation has not returned yet, with the moment when it does.
    landed: Vec<(u64, u64)>,
}

impl State {
    fn of(value: u64) -> Self {
        State { value: Some(value), ..State::default() }
    }

    fn landing(mut self, step: &Step, value: u64, leave: Leave) -> Self {
        if leave.evicts && !self.landed.contains(&(value, step.ret)) {
            self.landed.push((value, step.ret));
            self.landed.sort_unstable();
        }
        self
    }

    /// The state in which a step finds nothing, if it can.
    fn absent(&self, leave: Leave) -> Option<Self> {
        (self.value.is_none() || leave.evicts).then(|| State { value: None, ..self.clone() })
    }

    /// What can come of a step; nothing, where it cannot be next.
    fn after(&self, step: &Step, leave: Leave) -> Vec<State> {
        let here = |is_so: bool| if is_so { vec![self.clone()] } else { Vec::new() };
        let unless_landed =
            |flight: u64| State { flight: self.flight.filter(|&other| other != flight), ..self.clone() };
        match step.act {
            Act::Read(None) | Act::EntryView => self.absent(leave).into_iter().collect(),
            Act::Read(some) => here(self.value == some),
            Act::Write(value) => vec![State::of(value)],
            Act::Put(value) => self.absent(leave).into_iter().map(|_| State::of(value)).collect(),
            Act::Take(None) => match self.absent(leave) {
                // It may have come before the computation that it would have overtaken.
                Some(absent) if leave.evicts => vec![State::default(), absent],
                Some(_) => vec![State::default()],
                None => Vec::new(),
            },
            Act::Take(some) if self.value == some => vec![State::default()],
            Act::Take(_) => Vec::new(),
            Act::Clear if self.value.is_none() => vec![State::default(), self.clone()],
            Act::Clear => vec![State::default()],
            Act::Join(value) if self.flight.is_none() || leave.collides => {
                vec![State { flight: Some(value), ..self.clone() }]
            }
            Act::Join(_) => Vec::new(),
            Act::Land(value) if self.flight == Some(value) => {
                let landed = State { landed: self.landed.clone(), ..State::of(value) };
                let kept = landed.landing(step, value, leave);
                if leave.collides { vec![kept, unless_landed(value)] } else { vec![kept] }
            }
            Act::Land(value) | Act::Fail(value) => vec![unless_landed(value)],
            Act::Wait(value) => {
                let mut after = Vec::new();
                if self.value == Some(value) {
                    after.push(self.clone().landing(step, value, leave));
                }
                let is_landed = self.landed.iter().any(|&(other, ret)| other == value && ret >= step.call);
                if self.flight == Some(value) || is_landed {
                    after.push(self.clone());
                }
                after
            }
            Act::WaitFailed => here(self.flight.is_some_and(|flight| flight & FAILS != 0)),
        }
    }
}

/// States that a search remembers, at most.
const MOST_STATES: usize = 200_000;

/// What a search came to.
#[derive(Debug)]
pub enum Verdict {
    Ordered,
    /// What could not be next, and in which state.
    Disordered(String),
    /// There were too many states. Where a thread is held up in a call, all that others do meanwhile overlaps with it,
    /// and the search could take all memory.
    Undecided,
}

/// Whether the steps of these threads have an order.
pub fn explain(threads: &[Vec<Step>], leave: Leave) -> Verdict {
    let begin = (vec![0; threads.len()], State::default());
    let mut tried = HashSet::from([begin.clone()]);
    let mut todo = vec![begin];
    let (mut furthest, mut stuck) = (0, String::new());
    while let Some((at, state)) = todo.pop() {
        let next = |thread: usize| threads[thread].get(at[thread]);
        let coming: Vec<(usize, &Step)> =
            (0..threads.len()).filter_map(|thread| Some((thread, next(thread)?))).collect();
        let Some(first_return) = coming.iter().map(|(_, step)| step.ret).min() else {
            return Verdict::Ordered;
        };
        if tried.len() > MOST_STATES {
            return Verdict::Undecided;
        }
        let first_call = coming.iter().map(|(_, step)| step.call).min().unwrap_or(0);
        let depth: usize = at.iter().sum();
        if depth >= furthest {
            furthest = depth;
            stuck = format!("no order explains these steps, at {at:?} in {state:?}: {coming:#?}");
        }
        let mut moves = Vec::new();
        for &(thread, step) in coming.iter().filter(|(_, step)| step.call <= first_return) {
            let after = state.after(step, leave);
            if matches!(step.act, Act::Read(_) | Act::EntryView) && after.first() == Some(&state) {
                moves = vec![(thread, state.clone())];
                break;
            }
            moves.extend(after.into_iter().map(|after| (thread, after)));
        }
        for (thread, mut after) in moves {
            after.landed.retain(|&(_, ret)| ret >= first_call);
            let mut place = at.clone();
            place[thread] += 1;
            let there = (place, after);
            if tried.insert(there.clone()) {
                todo.push(there);
            }
        }
    }
    Verdict::Disordered(stuck)
}

/// Steps of one thread from calls, returns and acts.
fn steps<const N: usize>(of: [(u64, u64, Act); N]) -> Vec<Step> {
    of.into_iter().map(|(call, ret, act)| Step { call, ret, act }).collect()
}

fn has_order(threads: &[Vec<Step>], evicts: bool) -> bool {
    matches!(explain(threads, Leave { evicts, collides: false }), Verdict::Ordered)
}

#[test]
fn what_overlaps_has_any_order() {
    let reader = |value| steps([(0, 9, Act::Write(1)), (10, 11, Act::Read(Some(value)))]);
    let writer = steps([(0, 9, Act::Write(2))]);
    assert!(has_order(&[reader(1), writer.clone()], false));
    assert!(has_order(&[reader(2), writer.clone()], false));
    assert!(!has_order(&[reader(3), writer], false));
}

#[test]
fn what_returned_before_comes_before() {
    let writer = steps([(0, 1, Act::Write(1)), (2, 3, Act::Write(2))]);
    assert!(!has_order(&[writer.clone(), steps([(4, 5, Act::Read(Some(1)))])], true));
    assert!(has_order(&[writer.clone(), steps([(3, 5, Act::Read(Some(1)))])], false));
    assert!(!has_order(&[writer.clone(), steps([(4, 5, Act::Read(None))])], false));
    assert!(has_order(&[writer, steps([(4, 5, Act::Read(None))])], true));
}

#[test]
fn one_of_two_takes_what_is_there() {
    let writer = steps([(0, 1, Act::Write(1)), (2, 9, Act::Take(Some(1)))]);
    assert!(has_order(&[writer.clone(), steps([(2, 9, Act::Take(None))])], false));
    assert!(!has_order(&[writer, steps([(2, 9, Act::Take(Some(1)))])], true));
}

#[test]
fn a_computation_is_kept_unless_it_is_overtaken() {
    let leader = |then| {
        steps([(0, 1, Act::Join(1)), (0, 1, Act::EntryView), (6, 7, Act::Land(1)), (8, 9, Act::Read(then))])
    };
    let waiter = steps([(2, 5, Act::Wait(1))]);
    assert!(has_order(&[leader(Some(1)), waiter.clone()], false));
    assert!(!has_order(&[leader(None), waiter.clone()], false));
    assert!(has_order(&[leader(None), waiter.clone(), steps([(3, 4, Act::Take(None))])], false));
    assert!(has_order(&[leader(Some(2)), waiter.clone(), steps([(3, 4, Act::Write(2))])], false));
    assert!(!has_order(&[leader(Some(1)), waiter.clone(), steps([(3, 4, Act::Write(2))])], true));
    assert!(!has_order(&[leader(Some(2)), waiter, steps([(0, 1, Act::Write(2))])], true));
    let second = steps([(2, 3, Act::Join(2)), (2, 3, Act::EntryView), (4, 5, Act::Land(2))]);
    assert!(!has_order(&[leader(Some(2)), second], true), "two computations at once");
}

#[test]
fn a_search_of_too_many_states_ends_undecided() {
    // All writes overlap, and what one more thread saw is none of them.
    let writer =
        |thread: u64| (0..40).map(|n| Step { call: 0, ret: 9, act: Act::Write(thread << 32 | n) }).collect();
    let mut threads: Vec<Vec<Step>> = (1..6).map(writer).collect();
    threads.push(steps([(0, 9, Act::Read(Some(7)))]));
    assert!(matches!(explain(&threads, Leave::default()), Verdict::Undecided));
}
