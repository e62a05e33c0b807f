"""`RateLimiter`: a token bucket that starts full, and tells how much it has left."""

from __future__ import annotations

import asyncio
import copy
from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest

from cano import CostError, DefinitionError, RateLimitedError, RateLimiter
from cano.policies.rate_limit import Limiter, Usage
from cano.testing import VirtualLoop, run


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def now() -> float:
    return asyncio.get_running_loop().time()


async def times(limiter: Limiter, calls: int, cost: float = 1.0) -> list[float]:
    """When each of so many calls that come at once is let through."""

    async def call() -> float:
        await limiter.acquire(cost)
        return round(now(), 6)

    return await asyncio.gather(*(call() for _ in range(calls)))


def test_starts_full_and_drips() -> None:
    """The first calls pass at once, then one each time a token has dripped in."""

    async def main() -> None:
        assert [0, 0, 0, 0, 0, 0.2, 0.4, 0.6] == await times(RateLimiter(5), 8)

    run(main())


def test_burst_is_what_passes_at_once() -> None:
    """The burst sets how much is kept, and leaves the rate alone."""

    async def main() -> None:
        assert [0, *(n / 5 for n in range(1, 10))] == await times(RateLimiter(5, burst=1), 10)
        assert [1.8] * 7 + [2.8] == await times(RateLimiter(1, burst=7), 8)

    run(main())


def test_less_than_one_per_period_still_passes_one() -> None:
    """A limit below 1 keeps 1, or no call of cost 1 could ever pass."""

    async def main() -> None:
        assert [0, 4, 8] == await times(RateLimiter(0.5, 2), 3)

    run(main())


def test_never_holds_more_than_the_burst() -> None:
    """However long it is quiet, no more than the burst is there afterwards."""
    clock = Clock()
    limiter = RateLimiter(10, burst=5, clock=clock)
    for _ in range(3):
        assert [True] * 5 + [False] == [limiter.try_acquire() for _ in range(6)]
        clock.seconds += 1e6

    assert 5.0 == limiter.available


def test_takes_the_cost_or_nothing() -> None:
    """A call that costs more than is left takes nothing of it."""
    limiter = RateLimiter(10, clock=Clock())

    assert limiter.try_acquire(3)
    assert not limiter.try_acquire(8)
    assert 7.0 == limiter.available
    assert limiter.try_acquire(7)
    assert not limiter.try_acquire(0.5)


def test_costing_nothing_is_free() -> None:
    """A call of cost 0 passes, takes nothing, and waits for nobody."""

    async def main() -> None:
        limiter = RateLimiter(1)
        assert all(limiter.try_acquire(0) for _ in range(100))
        assert 1.0 == limiter.available
        await limiter.acquire()
        waiting = asyncio.ensure_future(limiter.acquire())
        await asyncio.sleep(0)
        await limiter.acquire(0)
        assert limiter.try_acquire(0)
        assert 0.0 == limiter.time_until(0) == now()
        await waiting

    run(main())


@pytest.mark.parametrize(
    "cost", [5.000001, 6, 2**64, 1e300, 10**400, inf, nan, -1, -0.001, "7", None]
)
def test_an_impossible_cost_is_refused_at_once(cost: Any) -> None:
    """What can never be taken, or is no cost, is an error, and takes nothing."""
    limiter = RateLimiter(5, name="search")
    for attempt in (limiter.try_acquire, limiter.reserve, lambda cost: run(limiter.acquire(cost))):
        with pytest.raises(CostError, match="search"):
            attempt(cost)

    assert 5.0 == limiter.available
    assert isinstance(CostError(""), ValueError)


def test_the_error_of_an_impossible_cost_says_what_to_do() -> None:
    """The message has the cost, the most there can be, and a way out."""
    with pytest.raises(CostError) as caught:
        RateLimiter(5).try_acquire(6)

    assert str(caught.value) == (
        "RateLimiter can never let a call through that costs 6: it has 5 at most; "
        "split the call up, or raise the limit"
    )


def test_tells_how_long_to_wait() -> None:
    """`time_until` is 0 for what is there, then what is missing over the rate, never for too much."""
    clock = Clock()
    limiter = RateLimiter(2, burst=5, clock=clock)
    assert limiter.try_acquire(4)

    assert [0, 0.5, 2, inf] == [limiter.time_until(cost) for cost in (1, 2, 5, 6)]
    clock.seconds += 0.25
    assert [0, 0.25, 1.75, inf] == [limiter.time_until(cost) for cost in (1, 2, 5, 6)]
    for bad in (nan, -1, "1"):
        with pytest.raises(CostError, match="no cost"):
            limiter.time_until(bad)  # type: ignore[arg-type]


def test_shows_people_how_it_stands() -> None:
    """The snapshot has what is used and left; a bucket has no moment when all is there again."""
    limiter = RateLimiter(10, 5, burst=4, clock=Clock())
    limiter.try_acquire(3.5)

    expected = Usage(limit=4, used=3.5, available=0.5, available_in=0.25, resets_in=None)
    assert expected == limiter.snapshot()
    assert 4.0 == limiter.capacity
    assert "<RateLimiter 10 per 5 s, 4 at once, 0.5 left>" == repr(limiter)


def test_shows_its_name_and_who_waits() -> None:
    """Whoever prints a limiter sees which it is, and how long the line is."""

    async def main() -> None:
        limiter = RateLimiter(1, name="search")
        waiting = asyncio.gather(*(limiter.acquire() for _ in range(3)))
        await asyncio.sleep(0)
        assert "<RateLimiter 'search' 1 per 1 s, 0 left, 2 waiting>" == repr(limiter)
        assert 2 == limiter.snapshot().waiting
        await waiting

    run(main())


def test_time_stands_still_when_the_clock_goes_back() -> None:
    """A clock that jumps back costs nothing that was there, and gives nothing away."""
    clock = Clock()
    limiter = RateLimiter(2, clock=clock)
    assert limiter.try_acquire(2)
    clock.seconds += 0.5
    assert 1.0 == limiter.available
    clock.seconds -= 50
    assert 1.0 == limiter.available
    clock.seconds += 0.25
    assert 1.5 == limiter.available


def test_another_loop_starts_where_the_last_one_ended() -> None:
    """Between two event loops whose clocks differ, no time passes and nothing is lost."""
    limiter = RateLimiter(1, 10, burst=2)

    async def use() -> float:
        await asyncio.sleep(1000)
        await limiter.acquire()
        start = now()
        await asyncio.sleep(5)
        assert start + 5 == now()
        return limiter.available

    assert [1.5, 1.0, 0.5] == [pytest.approx(run(use())) for _ in range(3)]
    assert not limiter.try_acquire()  # without a loop it goes by the latest one's time


def test_a_loop_goes_on_where_use_without_one_ended() -> None:
    """What was taken outside of any loop stays taken in the first one, and drips in there."""
    limiter = RateLimiter(1, per=10)
    assert limiter.try_acquire()

    async def use() -> float:
        assert not limiter.try_acquire()
        await asyncio.sleep(5)
        return limiter.available

    assert 0.5 == pytest.approx(run(use()), abs=0.3)


def test_works_without_a_loop() -> None:
    """Outside of any event loop it goes by the machine's time."""
    limiter = RateLimiter(3, per=3600)

    assert [True, True, True, False] == [limiter.try_acquire() for _ in range(4)]
    assert 1199 < limiter.time_until() <= 1200


@pytest.mark.parametrize("settings", [
    {"limit": bad} for bad in (0, -1, 10**400, inf, nan, "5", None, True, Decimal(5))
] + [
    {"limit": 5, name: bad} for name in ("per", "burst") for bad in (0, -1, inf, nan, "5")
] + [
    {"limit": 5, "max_wait": bad} for bad in (-1, nan, "5", None)
] + [{"limit": 1e308, "per": 1e-300}])  # fmt: skip
def test_settings_that_make_no_sense(settings: Any) -> None:
    """A limiter that cannot work is refused when it is made, naming the setting."""
    with pytest.raises(DefinitionError) as caught:
        RateLimiter(**settings)

    assert list(settings)[-1].split("_")[0] in str(caught.value)


def test_huge_and_tiny_limits_work() -> None:
    """Extreme rates neither overflow nor stall."""
    fast, slow = RateLimiter(1e15), RateLimiter(1, per=1e15)

    assert fast.try_acquire(1e15)
    assert slow.try_acquire()
    assert 1e15 == pytest.approx(slow.time_until())


def test_a_very_long_wait_parks() -> None:
    """A wait of millions of years is a wait like any other, until it is cancelled."""

    async def main() -> None:
        limiter = RateLimiter(1, per=1e15)
        await limiter.acquire()
        waiting = asyncio.ensure_future(limiter.acquire())
        await asyncio.sleep(1000)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert 0 == limiter.snapshot().waiting

    run(main())


def test_copies_share_what_is_left() -> None:
    """A copy of a limiter is the same limit."""
    limiter = RateLimiter(3, per=3600)

    assert copy.copy(limiter).try_acquire()
    assert 2.0 == pytest.approx(limiter.available, abs=1e-3)


def test_a_context_manager_takes_one() -> None:
    """`async with` waits in line, and leaving gives nothing back."""

    async def main() -> None:
        limiter = RateLimiter(1, 2)
        for expected in (0, 2, 4):
            async with limiter:
                assert expected == now()

    run(main())


@pytest.mark.parametrize("loop", [VirtualLoop, asyncio.new_event_loop])
def test_never_spins(loop: Any) -> None:
    """A wait takes one turn of the loop's timers, not many short ones."""
    reads = 0

    async def main() -> None:
        def clock() -> float:
            nonlocal reads
            reads += 1
            return now()

        limiter = RateLimiter(1000, 3, burst=1, clock=clock)
        await asyncio.gather(*(limiter.acquire() for _ in range(11)))

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())

    assert reads < 11 * 5


def test_refusals_say_when_to_come_back() -> None:
    """`RateLimitedError` carries the seconds, a thousandth at least."""

    async def main() -> None:
        limiter = RateLimiter(4, name="search")
        await limiter.acquire(4)
        with pytest.raises(RateLimitedError) as caught:
            await limiter.acquire(2, max_wait=0.1)
        assert 0.5 == pytest.approx(caught.value.retry_after)
        assert (
            "search: too many calls; try again in 0.5 s, which is longer than the 0.1 s it may wait"
            == str(caught.value)
        )
        await asyncio.sleep(0.4999999)
        with pytest.raises(RateLimitedError) as caught:
            limiter.reserve(2)
        assert 0.001 == caught.value.retry_after

    run(main())
