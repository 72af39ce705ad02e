"""Decides whether the history of one key is linearizable: the search of Wing and Gong, with the memory of visited
states by Lowe ("Testing for Linearizability", 2017).

A history is a list of steps for each thread. Each step has the moments before its call and after its return, and takes
effect at one moment between the two. If a step returned before another was called, it comes first. Overlapping steps
have any order.

The search appends one step after the other. The candidates are the next steps of each thread, if no remaining step
returned before they were called. A step changes the state as its action says, or cannot be next. If no step can be
next, the search backtracks. It remembers each visited state together with the position of each thread. A read that
can be next and changes nothing is appended without alternatives, because it cannot make a later step impossible.

If the cache may evict, an entry can be absent at any moment (`evicts`). If keys share a hash, a write to one key may
supersede the computation of another, whose result is then not stored (`collides`).

A computation is three steps. From `begin` on, other calls may wait for it, and a write to the key supersedes it.
`supersede` does the same: `remove_if` begins with it. `miss` finds no value. `complete` stores the value unless the
computation was superseded, and `fail` ends the computation without a value. There are never two computations in flight
that were not superseded. `offer` may store a value, if there is none and no computation is in flight.
"""

from typing import Any, NamedTuple

ABSENT = "absent"
# The values of `remove`: some unknown value; a value or none.
SOME, UNKNOWN = "some", "unknown"
# Actions that change nothing, except that an entry may have been evicted before them.
READS = frozenset(["read", "has", "miss"])


class Step(NamedTuple):
    call: int
    ret: int
    action: str
    value: Any = ABSENT


class State(NamedTuple):
    value: Any = ABSENT
    # The result of the computation that is in flight and was not superseded.
    flight: Any = None
    # Only with `evicts`: stored values whose computation has not returned, so that calls may still wait for it.
    completed: frozenset = frozenset()


class Order:
    """The effects of actions: each method returns the possible states after a step, or none if it cannot be next."""

    def __init__(self, evicts, collides):
        self.evicts, self.collides = evicts, collides

    def after(self, step, state):
        return getattr(self, step.action)(step, state)

    def absent(self, state):
        if state.value is ABSENT:
            return [state]
        return [state._replace(value=ABSENT)] if self.evicts else []

    def read(self, step, state):
        if step.value is ABSENT:
            return self.absent(state)
        return [state] if state.value == step.value else []

    def has(self, _, state):
        return [] if state.value is ABSENT else [state]

    def write(self, step, _):
        return [State(step.value)]

    def insert(self, step, state):
        """A value is stored because there was none."""
        return [State(step.value) for _ in self.absent(state)]

    def update(self, step, state):
        """A value is stored in place of the one that was seen."""
        seen, value = step.value
        return [State(value)] if state.value == seen else []

    def remove(self, step, state):
        if step.value is SOME:
            return [] if state.value is ABSENT else [State()]
        if step.value is UNKNOWN:
            return [State(), state] if state.value is ABSENT else [State()]
        if step.value is not ABSENT:
            return [State()] if state.value == step.value else []
        # A removal that finds nothing may have come before the computation that it would have superseded.
        return [each for was in self.absent(state) for each in ([State(), was] if self.evicts else [State()])]

    def supersede(self, _, state):
        """The result of the computation in flight is not stored, and no later call waits for it."""
        return [state._replace(flight=None)]

    def begin(self, step, state):
        return [state._replace(flight=step.value)] if state.flight is None or self.collides else []

    def miss(self, _, state):
        return self.absent(state)

    def complete(self, step, state):
        if state.flight != step.value:
            return [state]
        completed = state.completed | {(step.value, step.ret)} if self.evicts else state.completed
        kept = State(step.value, None, completed)
        return [kept, state._replace(flight=None)] if self.collides else [kept]

    def fail(self, step, state):
        return [state._replace(flight=None)] if state.flight == step.value else [state]

    def offer(self, step, state):
        """A value is stored if there is none and no computation is in flight, of which a superseded one is not seen."""
        after = [state]
        if state.flight is None or self.collides:
            after += [each._replace(value=step.value) for each in self.absent(state)]
        return after

    def wait(self, step, state):
        """Returns a value that another thread computes, or that is stored."""
        after = []
        if state.value == step.value:
            completed = state.completed | {(step.value, step.ret)} if self.evicts else state.completed
            after.append(state._replace(completed=completed))
        if state.flight == step.value or any(
            value == step.value and ret >= step.call for value, ret in state.completed
        ):
            after.append(state)
        return after


# If a thread is delayed, a state can have hundreds of completed values. Then this many states take half a minute.
MAX_STATES = 50_000


def explain(threads, evicts=False, collides=False):
    """Returns None if the steps of these threads have an order, or else a text that shows where the search got stuck.

    A history with more than MAX_STATES visited states passes, too. Such histories are few, and their search could take
    hours.
    """
    order = Order(evicts, collides)
    threads = [steps for steps in threads if steps]
    ends = tuple(map(len, threads))
    begin = ((0,) * len(threads), State())
    tried, todo, furthest = {begin}, [begin], []
    while todo:
        here = todo.pop()
        at, state = here
        if len(tried) > MAX_STATES:
            return None
        if at == ends:
            return None
        if not furthest or sum(at) >= sum(furthest[0][0]):
            furthest = [*(each for each in furthest if sum(each[0]) == sum(at)), here]
        coming = [
            (thread, steps[number])
            for thread, (steps, number) in enumerate(zip(threads, at, strict=True))
            if number < len(steps)
        ]
        first_return = min(step.ret for _, step in coming)
        moves = []
        for thread, step in coming:
            if step.call > first_return:
                continue
            after = order.after(step, state)
            if step.action in READS and after == [state]:
                moves = [(thread, state)]
                break
            moves += [(thread, each) for each in after]
        for thread, after in moves:
            if after.completed:
                still = frozenset(each for each in after.completed if each[1] >= min(step.call for _, step in coming))
                after = after._replace(completed=still)
            there = (*at[:thread], at[thread] + 1, *at[thread + 1 :]), after
            if there not in tried:
                tried.add(there)
                todo.append(there)
    return describe(threads, furthest)


def describe(threads, furthest):
    """Describes the steps that cannot be next, and the steps before them. Times count from the first step shown."""
    at = furthest[0][0]
    states = {state for place, state in furthest if place == at}
    shown = [(thread, number) for thread, number in enumerate(at) for number in range(number - 4, number + 1)]
    shown = [(thread, n) for thread, n in shown if 0 <= n < len(threads[thread])]
    zero = min(threads[thread][n].call for thread, n in shown)
    lines = [f"no order explains these steps; the state before those marked ? could be {', '.join(map(str, states))}"]
    for thread, n in sorted(shown, key=lambda place: threads[place[0]][place[1]].call):
        step = threads[thread][n]
        mark = "?" if n == at[thread] else " "
        lines.append(
            f"{mark} thread {thread}, {step.call - zero:>9} to {step.ret - zero:>9} ns: {step.action} {step.value}"
        )
    return "\n".join(lines)
