"""Groups of results: with `key=` the keys of `f.cache` are what the key function returned, so `remove_if` sees them."""

import asyncio

import pytest
from cached_helpers import both_wait_modes, run_async, run_ready_tasks
from helpers import Background, Gate

from moka_py import cached

KEYS = {
    "tuple": lambda user, page: (user, page),
    "int": lambda user, page: 10 * user + page,
    "str": lambda user, page: f"{user}:{page}",
    "frozenset": lambda user, page: frozenset({("user", user), ("page", page)}),
}


def is_of_user_7(key, value):
    return key[0] == 7


@both_wait_modes
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_keys_of_the_cache_are_what_the_key_function_returned(key, wait):
    made = []

    def recording_key(user, page):
        made.append(key(user, page))
        return made[-1]

    function = cached(key=recording_key, wait_concurrent=wait)(lambda user, page: object())
    function(7, 1)
    (stored,) = function.cache
    assert stored is made[0]
    assert function.cache.get(key(7, 1)) is function(7, 1)


@both_wait_modes
def test_keys_of_a_coroutine_functions_cache_are_what_the_key_function_returned(wait):
    @cached(key=lambda user, page: (user, page), wait_concurrent=wait)
    async def function(user, page):
        return object()

    assert asyncio.run(function(7, 1)) is function.cache.get((7, 1))
    function.cache_set("set", 8, 1)
    assert set(function.cache) == {(7, 1), (8, 1)}


def test_keys_of_a_method_are_what_the_key_function_returned():
    class Shop:
        @cached(key=lambda self, user: (user, "shop"))
        def orders(self, user):
            return [user]

    Shop().orders(7)
    assert list(Shop.orders.cache) == [(7, "shop")]


def test_weak_self_has_other_keys():
    class Shop:
        @cached(key=lambda self, user: (user, "shop"), weak_self=True)
        def orders(self, user):
            return [user]

    shop = Shop()
    shop.orders(7)
    assert list(Shop.orders.cache) != [(7, "shop")]


@both_wait_modes
def test_remove_if_forgets_a_group(wait):
    runs = []
    function = cached(maxsize=100, key=lambda user, page: (user, page), wait_concurrent=wait)(
        lambda user, page: runs.append((user, page))
    )
    calls = [(user, page) for user in (7, 8) for page in range(3)]
    for call in 2 * calls:
        function(*call)
    assert runs == calls
    assert function.cache.remove_if(is_of_user_7) == 3
    for call in calls:
        function(*call)
    assert runs == calls + calls[:3]


@both_wait_modes
def test_remove_if_of_a_group_keeps_out_a_run_in_flight(wait):
    gate, runs = Gate(), []

    def read(user, page):
        runs.append((user, page))
        gate.stop_here()
        return len(runs)

    function = cached(key=lambda user, page: (user, page), wait_concurrent=wait)(read)
    with Background(lambda: function(7, 1)) as run:
        gate.wait_until_reached()
        assert function.cache.remove_if(is_of_user_7) == 0
        gate.open()
    assert run.result == 1
    assert len(function.cache) == 0
    assert function(7, 1) == 2 == function(7, 1)


@both_wait_modes
def test_remove_if_of_a_group_keeps_out_the_run_of_a_coroutine_in_flight(wait):
    async def main():
        opened, runs = asyncio.Event(), []

        @cached(key=lambda user, page: (user, page), wait_concurrent=wait)
        async def function(user, page):
            runs.append((user, page))
            number = len(runs)
            await opened.wait()
            return number

        early = asyncio.create_task(function(7, 1))
        await run_ready_tasks()
        assert function.cache.remove_if(is_of_user_7) == 0
        late = asyncio.create_task(function(7, 1))
        await run_ready_tasks()
        opened.set()
        assert (await early, await late) == (1, 2)
        assert await function(7, 1) == 2

    run_async(main)
