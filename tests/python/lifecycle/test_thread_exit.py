"""Threads that end after they used a cache."""

from helpers import run_script


def test_values_of_ended_threads_are_released():
    run_script(
        """
import gc, threading, weakref
from moka_py import Moka
class Value: pass
cache, references = Moka(20), []
def work():
    for number in range(200):
        value = Value()
        references.append(weakref.ref(value))
        cache.set(number % 40, value)
        cache.get(number % 7)
    if len(references) % 3 == 0:
        cache.clear()
for _ in range(30):
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
cache.run_pending_tasks()
gc.collect()
alive = sum(reference() is not None for reference in references)
assert alive == len(cache) <= 20, (alive, len(cache))
cache.clear()
cache.run_pending_tasks()
gc.collect()
assert not any(reference() for reference in references)
"""
    )


def test_finalizer_of_thread_local_data_can_make_a_cached_call():
    """Thread-local objects are finalized late in their thread, and may use a cache."""
    run_script(
        """
import threading
from moka_py import Moka, cached
cache, local = Moka(5), threading.local()
function = cached()(lambda x: [x])
class Late:
    def __init__(self, number): self.number = number
    def __del__(self):
        cache.set(self.number, [1]); cache.get_with(self.number + 1, list); function(self.number); cache.remove(1)
def work(number):
    local.late = Late(number)
    cache.set(("held", number), Late(number + 100))
for number in range(200):
    thread = threading.Thread(target=work, args=(number,))
    thread.start()
    thread.join()
assert len(cache) == 5 == cache.weighted_size()
cache.clear()
"""
    )
