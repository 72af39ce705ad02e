"""Says whether what threads saw of one key can have happened in some order: a search as by Wing and Gong, with the
memory of Lowe ("Testing for Linearizability", 2017).

How it works: a history is a list of steps for each thread, each with the moments before its call and after its return.
A step takes effect at one moment between the two; so one that returned before another was called comes before it, and
those that overlap may come in any order. The search puts one step after the other: of each thread the next one, if no
step that is still to come returned before it was called. Each changes the state as its act says, or cannot be next.
Where nothing can be next it goes back. What it has tried is remembered: how far each thread was, in which state. A mere
look that can be next and changes nothing is taken at once, since it would spoil nothing.

A cache may be larger than its keys, or it may evict; then an entry may be gone at any moment (`evicts`). Where keys
have one hash, a write to one may overtake the computation of another (`collides`): its result is then not kept.

Computations are three steps: `join`, from where on others may wait for it, and a write to the key overtakes it, as does
`overtake`, with which a removal by a predicate begins; `look`, which finds no value; `land`, which puts the value in
unless it was overtaken, or `fail`. Two that were not overtaken are never under way at once.
"""

from typing import Any, NamedTuple

ABSENT = "absent"
# For `take`: there was some value; there was one or none.
SOME, UNKNOWN = "some", "unknown"
# What changes nothing wherever it is put, but that an entry may have gone before it.
LOOKS = frozenset(["read", "has", "look"])


class Step(NamedTuple):
    call: int
    ret: int
    act: str
    value: Any = ABSENT


class State(NamedTuple):
    value: Any = ABSENT
    # What the computation that is under way and was not overtaken will come to.
    flight: Any = None
    # Where entries may be gone at any moment: values of computations that return in a moment and may still be joined.
    landed: frozenset = frozenset()


class Order:
    """What each act does to the state: the states that can come of it, none where it cannot be next."""

    def __init__(self, evicts, collides):
        self.evicts, self.collides = evicts, collides

    def after(self, step, state):
        return getattr(self, step.act)(step, state)

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

    def put(self, step, state):
        """A value is put in because there was none."""
        return [State(step.value) for _ in self.absent(state)]

    def take(self, step, state):
        if step.value is SOME:
            return [] if state.value is ABSENT else [State()]
        if step.value is UNKNOWN:
            return [State(), state] if state.value is ABSENT else [State()]
        if step.value is not ABSENT:
            return [State()] if state.value == step.value else []
        # A removal that finds nothing may have come before the computation that it would have overtaken.
        return [each for was in self.absent(state) for each in ([State(), was] if self.evicts else [State()])]

    def overtake(self, _, state):
        """The result of the computation under way is not kept, and no later call waits for it."""
        return [state._replace(flight=None)]

    def join(self, step, state):
        return [state._replace(flight=step.value)] if state.flight is None or self.collides else []

    def look(self, _, state):
        return self.absent(state)

    def land(self, step, state):
        if state.flight != step.value:
            return [state]
        landed = state.landed | {(step.value, step.ret)} if self.evicts else state.landed
        kept = State(step.value, None, landed)
        return [kept, state._replace(flight=None)] if self.collides else [kept]

    def fail(self, step, state):
        return [state._replace(flight=None)] if state.flight == step.value else [state]

    def wait(self, step, state):
        """A value that somebody else computes, computed or set."""
        after = []
        if state.value == step.value:
            landed = state.landed | {(step.value, step.ret)} if self.evicts else state.landed
            after.append(state._replace(landed=landed))
        if state.flight == step.value or any(value == step.value and ret >= step.call for value, ret in state.landed):
            after.append(state)
        return after


# Where a thread is held up, a state has hundreds of values that landed meanwhile: so many of such take half a minute.
MOST_STATES = 50_000


def explain(threads, evicts=False, collides=False):
    """None if the steps of these threads have an order; else where the search came to its end, in words.

    A history for which more than MOST_STATES are tried passes as well: few are such, and their search could take hours.
    """
    order = Order(evicts, collides)
    threads = [steps for steps in threads if steps]
    ends = tuple(map(len, threads))
    begin = ((0,) * len(threads), State())
    tried, todo, furthest = {begin}, [begin], []
    while todo:
        here = todo.pop()
        at, state = here
        if len(tried) > MOST_STATES:
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
            if step.act in LOOKS and after == [state]:
                moves = [(thread, state)]
                break
            moves += [(thread, each) for each in after]
        for thread, after in moves:
            if after.landed:
                still = frozenset(each for each in after.landed if each[1] >= min(step.call for _, step in coming))
                after = after._replace(landed=still)
            there = (*at[:thread], at[thread] + 1, *at[thread + 1 :]), after
            if there not in tried:
                tried.add(there)
                todo.append(there)
    return describe(threads, furthest)


def describe(threads, furthest):
    """The steps that cannot be next, and what came before them; moments are counted from the first that is shown."""
    at = furthest[0][0]
    states = {state for place, state in furthest if place == at}
    shown = [(thread, number) for thread, number in enumerate(at) for number in range(number - 4, number + 1)]
    shown = [(thread, n) for thread, n in shown if 0 <= n < len(threads[thread])]
    zero = min(threads[thread][n].call for thread, n in shown)
    lines = [f"no order explains these steps; it could be {', '.join(map(str, states))} before those marked ?"]
    for thread, n in sorted(shown, key=lambda place: threads[place[0]][place[1]].call):
        step = threads[thread][n]
        mark = "?" if n == at[thread] else " "
        lines.append(
            f"{mark} thread {thread}, {step.call - zero:>9} to {step.ret - zero:>9} ns: {step.act} {step.value}"
        )
    return "\n".join(lines)
