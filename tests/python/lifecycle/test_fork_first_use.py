"""A fork while another thread makes a first call leaves the child able to make that call, too."""

import os

import pytest
from fork_helpers import FORK
from helpers import run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# Calls that make something at their first use.
CALLS = {
    "class alias": "partial(Moka.__class_getitem__, int)",
    "items": "cache.items",
    "stats": "cache.stats",
    "wrong capacity": "partial(pytest.raises, ValueError, Moka, -1)",
}


# The thread sums, and then makes the call with no bytecode in between. So the main thread waits for the GIL during the
# sum. A call that detaches gives it the GIL, and has time to begin to make something before the fork.
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_child_of_a_fork_beside_a_first_call_can_make_that_call(call):
    run_script(
        FORK
        + f"""
import operator
from functools import partial
import pytest
cache, begun = Moka(10), threading.Event()
call = {call}
calls = [partial(sum, range(30_000_000)), call]
def first_call():
    begun.set()
    list(map(operator.call, calls))
sys.setswitchinterval(0.2)
first = thread(first_call)
begun.wait(50)
sum(range(500_000))
in_child(call, 10)
sys.setswitchinterval(0.005)
first.join()
"""
    )
