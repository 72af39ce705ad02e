"""The beginning of scripts that fork."""

# A child that does not end is killed, and that is an error.
FORK = """
import faulthandler, gc, os, random, signal, sys, threading, time, weakref
from moka_py import Moka

# The watchdog of `dump_traceback_later` is a thread, so the child has none.
faulthandler.register(signal.SIGALRM, chain=True)

def in_child(work, seconds=30):
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    # A child that hangs uses no processor, one in an endless loop all of it.
    assert status == 0, f"the child ended with {status} after {used.ru_utime + used.ru_stime:.1f} s of processor time"

def thread(target):
    it = threading.Thread(target=target, daemon=True)
    it.start()
    return it

children = []

# Forks inside a call, so that parent and child both go on with it.
def fork_here():
    children.append(os.fork())
    if children[0] == 0:
        signal.alarm(30)

# Ends the child of `fork_here`, where the argument says whether it failed. The parent waits for it, and checks that.
def end_child(has_failed=False):
    if children[0] == 0:
        os._exit(has_failed)
    _, status = os.waitpid(children[0], 0)
    assert status == 0, f"the child ended with {status}"
"""


IN_FLIGHT = (
    FORK
    + """
cache = Moka(10)
inside, go_on = threading.Event(), threading.Event()
def compute():
    inside.set()
    go_on.wait(60)
    return "parent"
results = []
leader = thread(lambda: results.append(cache.get_with("a", compute)))
inside.wait(60)
"""
)
