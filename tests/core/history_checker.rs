//! Decides whether the history of one key is linearizable: the search of Wing and Gong, with the memory of visited
//! states by Lowe ("Testing for Linearizability", 2017).
//!
//! A step takes effect at one moment between its call and its return. If a step returned before another was called,
//! it comes first. Overlapping steps have any order. The search appends one step after the other, and backtracks if
//! no step can be next. It remembers the position of each thread together with the state. A read that can be next and
//! changes nothing is appended without alternatives. `stress/torture/history_checker.py` is the same for Python, with
//! a longer explanation.

use std::collections::HashSet;

/// The action of a step, with the value that it saw or wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Read(Option<u64>),
    Write(u64),
    /// Writes a value because the key was absent.
    SetIfAbsent(u64),
    /// Writes a value in place of the one that it saw, or because the key was absent.
    SetWith(Option<u64>, u64),
    /// Finds some value.
    Has,
    Remove(Option<u64>),
    /// Removes the value, if there is one.
    Clear,
    /// Begins a computation. Other calls may wait for it, and a write to the key supersedes it.
    BeginLoad(u64),
    /// Finds no value, so that the call must compute one.
    EntryView,
    /// Stores the computed value, unless the computation was superseded.
    CompleteLoad(u64),
    /// Ends the computation without a value.
    FailLoad(u64),
    /// Returns a value that is stored, or that another thread computes.
    Wait(u64),
    /// Returns the failure of another thread's computation.
    WaitFailed,
    /// May store a value if there is none and no computation is in flight.
    Offer(u64),
}

#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub call: u64,
    pub ret: u64,
    pub act: Action,
}

/// A computation whose value has this bit fails.
pub const FAILS: u64 = 1 << 63;

/// The other effects that the cache is allowed to have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// Entries may be evicted at any moment.
    pub evicts: bool,
    /// A write to another key of the same hash may supersede a computation.
    pub collides: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    value: Option<u64>,
    /// The computation that is in flight and was not superseded.
    flight: Option<u64>,
    /// Only if entries may be evicted: stored values whose computation has not returned, and the moment of that return.
    completed: Vec<(u64, u64)>,
}

impl State {
    fn of(value: u64) -> Self {
        State { value: Some(value), ..State::default() }
    }

    fn with_completed(mut self, step: &Step, value: u64, allowed: Allowed) -> Self {
        if allowed.evicts && !self.completed.contains(&(value, step.ret)) {
            self.completed.push((value, step.ret));
            self.completed.sort_unstable();
        }
        self
    }

    /// The state in which a step finds the key absent, if that is possible.
    fn absent(&self, allowed: Allowed) -> Option<Self> {
        (self.value.is_none() || allowed.evicts).then(|| State { value: None, ..self.clone() })
    }

    /// The possible states after a step. There are none if the step cannot be next.
    fn after(&self, step: &Step, allowed: Allowed) -> Vec<State> {
        let here = |is_so: bool| if is_so { vec![self.clone()] } else { Vec::new() };
        let without_flight =
            |flight: u64| State { flight: self.flight.filter(|&other| other != flight), ..self.clone() };
        match step.act {
            Action::Read(None) | Action::EntryView => self.absent(allowed).into_iter().collect(),
            Action::Read(some) => here(self.value == some),
            Action::Write(value) => vec![State::of(value)],
            Action::Has => here(self.value.is_some()),
            Action::SetWith(Some(seen), _) if self.value != Some(seen) => Vec::new(),
            Action::SetWith(Some(_), value) => vec![State::of(value)],
            Action::SetIfAbsent(value) | Action::SetWith(None, value) => {
                self.absent(allowed).into_iter().map(|_| State::of(value)).collect()
            }
            Action::Remove(None) => match self.absent(allowed) {
                // The removal may have come before the computation that it would have superseded.
                Some(absent) if allowed.evicts => vec![State::default(), absent],
                Some(_) => vec![State::default()],
                None => Vec::new(),
            },
            Action::Remove(some) if self.value == some => vec![State::default()],
            Action::Remove(_) => Vec::new(),
            Action::Clear if self.value.is_none() => vec![State::default(), self.clone()],
            Action::Clear => vec![State::default()],
            Action::BeginLoad(value) if self.flight.is_none() || allowed.collides => {
                vec![State { flight: Some(value), ..self.clone() }]
            }
            Action::BeginLoad(_) => Vec::new(),
            Action::CompleteLoad(value) if self.flight == Some(value) => {
                let completed = State { completed: self.completed.clone(), ..State::of(value) };
                let kept = completed.with_completed(step, value, allowed);
                if allowed.collides { vec![kept, without_flight(value)] } else { vec![kept] }
            }
            Action::CompleteLoad(value) | Action::FailLoad(value) => vec![without_flight(value)],
            Action::Wait(value) => {
                let mut after = Vec::new();
                if self.value == Some(value) {
                    after.push(self.clone().with_completed(step, value, allowed));
                }
                let is_completed =
                    self.completed.iter().any(|&(other, ret)| other == value && ret >= step.call);
                if self.flight == Some(value) || is_completed {
                    after.push(self.clone());
                }
                after
            }
            Action::Offer(value) => {
                // A computation that was superseded is still in flight, but the state does not have it.
                let absent = self.absent(allowed).filter(|_| self.flight.is_none() || allowed.collides);
                let stored = absent.map(|absent| State { value: Some(value), ..absent });
                [Some(self.clone()), stored].into_iter().flatten().collect()
            }
            Action::WaitFailed => here(self.flight.is_some_and(|flight| flight & FAILS != 0)),
        }
    }
}

/// A search that remembers more states than this gives up.
const MAX_STATES: usize = 200_000;

/// The result of a search.
#[derive(Debug)]
pub enum Verdict {
    Ordered,
    /// No order exists. The text names the steps that cannot be next, and the state.
    Disordered(String),
    /// There were too many states. If a thread is delayed inside a call, that call overlaps with many steps of the
    /// other threads, and the search could take all memory.
    Undecided,
}

/// Searches for an order of the steps of these threads.
pub fn explain(threads: &[Vec<Step>], allowed: Allowed) -> Verdict {
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
        if tried.len() > MAX_STATES {
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
            let after = state.after(step, allowed);
            if matches!(step.act, Action::Read(_) | Action::EntryView) && after.first() == Some(&state) {
                moves = vec![(thread, state.clone())];
                break;
            }
            moves.extend(after.into_iter().map(|after| (thread, after)));
        }
        for (thread, mut after) in moves {
            after.completed.retain(|&(_, ret)| ret >= first_call);
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

/// Makes the steps of one thread from calls, returns and actions.
fn steps<const N: usize>(of: [(u64, u64, Action); N]) -> Vec<Step> {
    of.into_iter().map(|(call, ret, act)| Step { call, ret, act }).collect()
}

fn has_order(threads: &[Vec<Step>], evicts: bool) -> bool {
    matches!(explain(threads, Allowed { evicts, collides: false }), Verdict::Ordered)
}

#[test]
#[cfg_attr(miri, ignore = "slow, and about the checker alone")]
fn overlapping_steps_can_have_any_order() {
    let reader = |value| steps([(0, 9, Action::Write(1)), (10, 11, Action::Read(Some(value)))]);
    let writer = steps([(0, 9, Action::Write(2))]);
    assert!(has_order(&[reader(1), writer.clone()], false));
    assert!(has_order(&[reader(2), writer.clone()], false));
    assert!(!has_order(&[reader(3), writer], false));
}

#[test]
#[cfg_attr(miri, ignore = "slow, and about the checker alone")]
fn a_step_that_returned_first_comes_first() {
    let writer = steps([(0, 1, Action::Write(1)), (2, 3, Action::Write(2))]);
    assert!(!has_order(&[writer.clone(), steps([(4, 5, Action::Read(Some(1)))])], true));
    assert!(has_order(&[writer.clone(), steps([(3, 5, Action::Read(Some(1)))])], false));
    assert!(!has_order(&[writer.clone(), steps([(4, 5, Action::Read(None))])], false));
    assert!(has_order(&[writer, steps([(4, 5, Action::Read(None))])], true));
}

#[test]
#[cfg_attr(miri, ignore = "slow, and about the checker alone")]
fn only_one_of_two_removals_gets_the_value() {
    let writer = steps([(0, 1, Action::Write(1)), (2, 9, Action::Remove(Some(1)))]);
    assert!(has_order(&[writer.clone(), steps([(2, 9, Action::Remove(None))])], false));
    assert!(!has_order(&[writer, steps([(2, 9, Action::Remove(Some(1)))])], true));
}

#[test]
#[cfg_attr(miri, ignore = "slow, and about the checker alone")]
fn a_computed_value_is_stored_unless_it_was_superseded() {
    let leader = |then| {
        steps([
            (0, 1, Action::BeginLoad(1)),
            (0, 1, Action::EntryView),
            (6, 7, Action::CompleteLoad(1)),
            (8, 9, Action::Read(then)),
        ])
    };
    let waiter = steps([(2, 5, Action::Wait(1))]);
    assert!(has_order(&[leader(Some(1)), waiter.clone()], false));
    assert!(!has_order(&[leader(None), waiter.clone()], false));
    assert!(has_order(&[leader(None), waiter.clone(), steps([(3, 4, Action::Remove(None))])], false));
    assert!(has_order(&[leader(Some(2)), waiter.clone(), steps([(3, 4, Action::Write(2))])], false));
    assert!(!has_order(&[leader(Some(1)), waiter.clone(), steps([(3, 4, Action::Write(2))])], true));
    assert!(!has_order(&[leader(Some(2)), waiter, steps([(0, 1, Action::Write(2))])], true));
    let second =
        steps([(2, 3, Action::BeginLoad(2)), (2, 3, Action::EntryView), (4, 5, Action::CompleteLoad(2))]);
    assert!(!has_order(&[leader(Some(2)), second], true), "two computations at once");
}

#[test]
#[cfg_attr(miri, ignore = "slow, and about the checker alone")]
fn a_search_of_too_many_states_ends_undecided() {
    // All writes overlap, and another thread read a value that none of them wrote.
    let writer = |thread: u64| {
        (0..40).map(|n| Step { call: 0, ret: 9, act: Action::Write(thread << 32 | n) }).collect()
    };
    let mut threads: Vec<Vec<Step>> = (1..6).map(writer).collect();
    threads.push(steps([(0, 9, Action::Read(Some(7)))]));
    assert!(matches!(explain(&threads, Allowed::default()), Verdict::Undecided));
}
