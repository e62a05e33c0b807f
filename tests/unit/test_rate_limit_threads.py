"""Limiters from several threads at once: nothing is taken twice, and nobody is forgotten."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Any

import pytest

from cano import MultiRateLimiter, RateLimitedError, RateLimiter, Tier, WindowedRateLimiter


@pytest.fixture(autouse=True)
def many_switches() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


MAKES: list[Any] = [
    lambda: RateLimiter(500, per=3600),
    lambda: WindowedRateLimiter(500, 3600),
    lambda: MultiRateLimiter(
        [Tier("a", RateLimiter(900, per=3600)), Tier("b", WindowedRateLimiter(500, 3600))]
    ),
]


@pytest.mark.parametrize("make", MAKES, ids=["bucket", "window", "multi"])
@pytest.mark.parametrize("returning", [False, True])
def test_threads_take_exactly_what_there_is(make: Any, returning: bool) -> None:
    """Eight threads that grab, and give back every third, end up with the limit, not more."""
    limiter = make()
    start = Barrier(8)

    def grab() -> int:
        start.wait()
        taken = 0
        for number in range(200):
            if returning and number % 3 == 0:
                with suppress(RateLimitedError), limiter.reserve():
                    assert limiter.time_until() >= 0
            taken += limiter.try_acquire()
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = sum(future.result() for future in [pool.submit(grab) for _ in range(8)])
    while limiter.try_acquire():  # what was on its way back when the others had given up
        taken += 1

    # A bucket takes back a little less than was taken: what has dripped in meanwhile.
    assert taken == 500 or (returning and isinstance(limiter, RateLimiter) and taken == 499)


def test_loops_in_several_threads_share_a_limit() -> None:
    """Each waiter is woken by its own loop, whichever loop served the one before it."""
    limiter = RateLimiter(2000, burst=1)

    async def several() -> int:
        await asyncio.gather(*(limiter.acquire() for _ in range(40)))
        return 40

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(asyncio.run, several()) for _ in range(3)]
        assert 120 == sum(future.result(timeout=20) for future in done)

    assert 0 == limiter.snapshot().waiting


def test_what_a_thread_gives_back_wakes_a_waiter_of_the_loop() -> None:
    """A reservation that comes back elsewhere lets the first in line through."""
    limiter = WindowedRateLimiter(1, 3600)

    async def main() -> None:
        reservation = limiter.reserve()
        waiting = asyncio.ensure_future(limiter.acquire())
        await asyncio.sleep(0)
        await asyncio.to_thread(reservation.give_back)
        await waiting

    asyncio.run(main())
