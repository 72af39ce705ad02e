"""`add` of the backends is atomic: another thread may write at any instant of it."""

import pytest

from moka_py import Moka
from moka_py.integrations._store import add


class Name(str):
    """A key that calls the next of its hooks whenever it is hashed."""

    def __new__(cls, text, hooks):
        name = super().__new__(cls, text)
        name.hooks = hooks
        return name

    def __hash__(self):
        if self.hooks:
            self.hooks.pop(0)()
        return super().__hash__()


def test_add_stores_only_if_the_key_has_no_value():
    cache = Moka(10)
    assert add(cache, "a", 1, None) and not add(cache, "a", 2, None)
    assert cache["a"] == 1
    assert add(cache, "b", None, 5) and not add(cache, "b", 1, 5)
    assert 0 < cache.expires_in("b") <= 5


@pytest.mark.parametrize("step", range(3))
def test_one_of_two_that_add_a_key_at_the_same_time_succeeds(step):
    cache = Moka(10)
    others = []
    hooks = [lambda: None] * step + [lambda: others.append(add(cache, "a", "other", None))]
    name = Name("a", hooks)
    succeeded = add(cache, name, "own", None)
    if others:
        assert [succeeded, *others] == [False, True] and cache["a"] == "other"
    else:
        assert step == 2 and succeeded
