"""`WindowedRateLimiter`: so many in any window, or in each of the windows of a grid."""

from __future__ import annotations

import asyncio
from math import inf, nan
from typing import Any

import pytest

from cano import (
    CostError,
    DefinitionError,
    MultiRateLimiter,
    RateLimitedError,
    RateLimiter,
    Tier,
    WindowedRateLimiter,
)
from cano.policies._meters import SlidingWindow
from cano.policies.rate_limit import Usage
from cano.testing import run

kinds = pytest.mark.parametrize("kind", ["sliding", "fixed"])


class Clock:
    """A clock that is moved by hand."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def now() -> float:
    return asyncio.get_running_loop().time()


async def times(limiter: WindowedRateLimiter, starts: list[float]) -> list[float]:
    """When calls that come at these moments are let through."""

    async def call(start: float) -> float:
        await asyncio.sleep(start)
        await limiter.acquire()
        return round(now(), 6)

    return await asyncio.gather(*map(call, starts))


@kinds
def test_weighs_calls(kind: Any) -> None:
    """Costs are added up; what does not fit takes nothing, and leaves its place to others."""
    limiter = WindowedRateLimiter(1000, 60, kind=kind, clock=Clock())

    assert [True, False, True, False] == [limiter.try_acquire(n) for n in (600, 600, 400, 1)]
    assert limiter.try_acquire(0)
    assert 0.0 == limiter.available


def test_a_sliding_window_looks_back_from_every_moment() -> None:
    """Each call counts for one window from when it was let through, and not a moment longer."""

    async def main() -> None:
        limiter = WindowedRateLimiter(3, 10)
        assert [0, 9, 9.5, 10, 19, 19.5] == await times(limiter, [0, 9, 9.5, 9.7, 9.8, 9.9])

    run(main())


def test_a_fixed_window_starts_afresh_at_each_boundary() -> None:
    """Windows follow each other from the first call on; around a boundary twice as many may come."""

    async def main() -> None:
        limiter = WindowedRateLimiter(3, 10, kind="fixed")
        starts = [0, 9, 9.5, 9.7, 9.8, 9.9, 9.95]
        assert [0, 9, 9.5, 10, 10, 10, 20] == await times(limiter, starts)

    run(main())


def test_looking_moves_no_boundary() -> None:
    """The grid stays where the first call laid it, whoever looks, and however long it is quiet."""
    clock = Clock(3)
    limiter = WindowedRateLimiter(2, 10, kind="fixed", clock=clock)
    assert Usage(2, 0, 2, 0, None) == limiter.snapshot()  # no window has begun
    clock.seconds = 5
    assert limiter.try_acquire()
    for seconds, ends in ((14, 1), (15, 10), (16, 9), (1234, 1), (1235.5, 9.5)):
        clock.seconds = seconds
        assert ends == limiter.snapshot().resets_in
        assert limiter.time_until() == 0
    assert limiter.try_acquire(2)
    clock.seconds = 1240
    assert [5, 5] == [limiter.time_until(), limiter.snapshot().available_in]
    clock.seconds = 1245
    assert limiter.try_acquire(2)


def test_windows_may_be_laid_by_the_calendar() -> None:
    """With an anchor, windows begin there and at whole windows from there, before it too."""
    clock = Clock(86_400 * 20_000 - 60)
    for anchor in (0, 86_400 * 20_001):
        daily = WindowedRateLimiter(5, 86_400, kind="fixed", anchor=anchor, clock=clock)
        assert daily.try_acquire(5)
        assert 60.0 == daily.time_until() == daily.snapshot().resets_in


@kinds
def test_tells_how_long_to_wait(kind: Any) -> None:
    """0 for what fits, then until there is room, never for more than the limit."""
    clock = Clock()
    limiter = WindowedRateLimiter(3, 10, kind=kind, clock=clock)
    assert limiter.try_acquire(2)
    clock.seconds = 4

    assert [0, 0, 6, 6, inf] == [limiter.time_until(cost) for cost in (0, 1, 2, 3, 4)]
    with pytest.raises(CostError):
        limiter.try_acquire(4)


@kinds
def test_foresees_the_wait_behind_others(kind: Any) -> None:
    """Who would stand in line for too long is refused at once, and told for how long."""

    async def main() -> None:
        limiter = WindowedRateLimiter(2, 10, kind=kind)
        calls = [asyncio.ensure_future(limiter.acquire()) for _ in range(7)]
        await asyncio.sleep(1)
        for patience in (0, 10, 28.9):
            with pytest.raises(RateLimitedError) as caught:
                await limiter.acquire(max_wait=patience)
            assert pytest.approx(29) == caught.value.retry_after
        await limiter.acquire(max_wait=29.1)
        assert 30.0 == now()
        await asyncio.gather(*calls)

    run(main())


@kinds
def test_foresees_the_wait_behind_who_takes_what_is_left(kind: Any) -> None:
    """What those ahead take of what is there now is not there for a window from now."""

    async def main() -> None:
        limiter, slow = WindowedRateLimiter(5, 10, kind=kind), RateLimiter(1, per=3)
        both = MultiRateLimiter([Tier("a", limiter, 4), Tier("b", slow)])
        assert slow.try_acquire()
        waiting = asyncio.ensure_future(both.acquire())
        await asyncio.sleep(1)
        assert 10 >= limiter.time_until(4) >= 9
        await waiting
        assert 3.0 == now()

    run(main())


def test_snapshots_tell_the_kinds_apart() -> None:
    """A fixed window is there again all at once, a sliding one bit by bit."""
    clock = Clock()
    limiters = [WindowedRateLimiter(4, 10, kind=kind, clock=clock) for kind in ("sliding", "fixed")]
    for limiter in limiters:
        limiter.try_acquire(4)
    clock.seconds = 3

    assert [Usage(4, 4, 0, 7, None), Usage(4, 4, 0, 7, 7)] == [x.snapshot() for x in limiters]
    assert [
        "<WindowedRateLimiter 4 in any 10 s, 0 left>",
        "<WindowedRateLimiter 4 in each 10 s, 0 left>",
    ] == [repr(limiter) for limiter in limiters]


@kinds
def test_time_stands_still_when_the_clock_goes_back(kind: Any) -> None:
    """A clock that jumps back neither frees what is taken nor locks it up for longer."""
    clock = Clock(1000)
    limiter = WindowedRateLimiter(1, 10, kind=kind, clock=clock)
    assert limiter.try_acquire()
    clock.seconds = 1004
    assert 6.0 == limiter.time_until()
    clock.seconds = 500
    assert 6.0 == limiter.time_until()
    clock.seconds = 506
    assert limiter.try_acquire()


def test_fractions_add_up() -> None:
    """A limit of 1 has room for ten tenths, although floats see it otherwise."""
    limiter = WindowedRateLimiter(0.3, 60, clock=Clock())

    assert [True, True, True, False] == [limiter.try_acquire(0.1) for _ in range(4)]


def test_remembers_a_bounded_number_of_moments() -> None:
    """Beyond a thousand moments, those close together count as the latest of them."""
    window = SlidingWindow(10**9, 1.0)
    for step in range(100_000):
        window.take(1, step / 10_000)
        assert len(window._log) <= 2 * window.EXACT + 2
    spans = [ended - began for began, ended, _ in window._log]

    assert max(spans) <= 1 / 1000
    held = sum(cost for _, _, cost in window._log)
    assert 10_000 <= held <= 10_000 * 1.01


def test_many_moments_stay_within_the_limit() -> None:
    """Counting close ones as one moment errs on the safe side, and by a thousandth at most."""
    window = SlidingWindow(5_000, 1.0)
    taken = [step / 20_000 for step in range(60_000) if window.take(1, step / 20_000) is not None]
    latest = 0
    for number, when in enumerate(taken):
        while taken[latest] <= when - 1.0 + 1e-9:
            latest += 1
        assert number - latest + 1 <= 5_000

    assert 14_900 <= len(taken) <= 15_000


@pytest.mark.parametrize("settings", [
    {"limit": bad, "window": 1} for bad in (0, -1, inf, nan, "5", None)
] + [
    {"limit": 1, "window": bad} for bad in (0, -1, inf, nan, "5", None)
] + [
    {"limit": 1, "window": 1, "kind": "tumbling"},
    {"limit": 1, "window": 1, "anchor": 0},
    {"limit": 1, "window": 1, "kind": "fixed", "anchor": nan},
    {"limit": 1, "window": 1, "kind": "fixed", "anchor": inf},
    {"limit": 1, "window": 1, "kind": "fixed", "anchor": "midnight"},
    {"limit": 1, "window": 1, "max_wait": -1},
])  # fmt: skip
def test_settings_that_make_no_sense(settings: Any) -> None:
    """A limiter that cannot work is refused when it is made, naming the setting."""
    with pytest.raises(DefinitionError, match="limit|window|kind|anchor|max_wait"):
        WindowedRateLimiter(**settings)
