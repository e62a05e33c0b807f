"""Waiting for a limiter: in order, for as long as one has patience, and nothing is ever lost."""

from __future__ import annotations

import asyncio
import gc
from math import inf, nan
from typing import Any

import pytest

from cano import DefinitionError, RateLimitedError, RateLimiter, WindowedRateLimiter
from cano.policies.rate_limit import Limiter
from cano.testing import VirtualLoop, run


def now() -> float:
    return asyncio.get_running_loop().time()


class Line:
    """Calls that come to a limiter, and in which order they are let through."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.passed: list[tuple[str, float]] = []

    def come(self, name: str, cost: float = 1.0, **settings: Any) -> asyncio.Task[None]:
        return asyncio.ensure_future(self._call(name, cost, settings))

    async def _call(self, name: str, cost: float, settings: dict[str, Any]) -> None:
        await self.limiter.acquire(cost, **settings)
        self.passed.append((name, round(now(), 6)))

    @property
    def order(self) -> str:
        return "".join(name for name, _ in self.passed)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_comes_first_is_served_first() -> None:
    """Calls pass in the order of arrival, also when more come meanwhile."""

    async def main() -> None:
        line = Line(RateLimiter(1))
        calls = [line.come(name) for name in "abc"]
        await asyncio.sleep(1.5)
        calls += [line.come(name) for name in "de"]
        await asyncio.gather(*calls)
        assert list(zip("abcde", range(5), strict=True)) == line.passed

    run(main())


def test_an_expensive_call_is_not_starved() -> None:
    """Cheap calls that come later wait behind it, however many and though they would pass."""

    async def main() -> None:
        line = Line(RateLimiter(10))
        await line.limiter.acquire(10)
        calls = [line.come("H", 10)]
        for _ in range(9):
            await asyncio.sleep(0.1)
            calls.append(line.come("s"))
            assert not line.limiter.try_acquire()
            with pytest.raises(RateLimitedError):
                line.limiter.reserve()
        await asyncio.gather(*calls)
        assert "H" + "s" * 9 == line.order
        assert ("H", 1.0) == line.passed[0]

    run(main())


def test_ten_of_forty_racers_pass() -> None:
    """Exactly as many as the limit allows, whoever races."""

    async def main() -> None:
        for limiter in (RateLimiter(10), WindowedRateLimiter(10, 1)):
            racers = [asyncio.ensure_future(limiter.acquire(max_wait=0)) for _ in range(40)]
            ends = await asyncio.gather(*racers, return_exceptions=True)
            assert not any(isinstance(end, Exception) for end in ends[:10])
            assert 30 == sum(isinstance(end, RateLimitedError) for end in ends)

    run(main())


def test_a_wait_given_up_costs_nothing() -> None:
    """A cancelled call takes nothing, and the next in line has its turn when it is due."""

    async def main() -> None:
        line = Line(RateLimiter(1, burst=5))
        await line.limiter.acquire(5)
        heavy, light = line.come("H", 5), line.come("l")
        await asyncio.sleep(2)
        heavy.cancel()
        await light
        assert [("l", 2.0)] == line.passed  # at once: two tokens have dripped in meanwhile
        assert 1.0 == line.limiter.available

    run(main())


def test_a_cancellation_at_the_very_moment_of_the_turn() -> None:
    """What was handed over too late comes back, and goes to the next one in the same moment."""

    async def main() -> None:
        line = Line(RateLimiter(1))
        await line.limiter.acquire()
        first, second = line.come("a"), line.come("b")
        await settle()
        # In the same round of the loop, right after the turn was handed over.
        asyncio.get_running_loop().call_at(1.0 + 5e-10, first.cancel)
        await asyncio.gather(first, second, return_exceptions=True)
        assert first.cancelled()
        assert [("b", 1.0)] == line.passed
        assert 0.0 == line.limiter.available

    run(main())


@pytest.mark.parametrize("gone", ["a", "b", "c", "ab", "bc", "ac", "abc"])
def test_whoever_leaves_the_line_the_others_move_up(gone: str) -> None:
    """The first, the last or one in between: the others are let through a place earlier."""

    async def main() -> None:
        line = Line(RateLimiter(1))
        await line.limiter.acquire()
        calls = {name: line.come(name) for name in "abcd"}
        await asyncio.sleep(0.5)
        for name in gone:
            calls[name].cancel()
        await asyncio.gather(*calls.values(), return_exceptions=True)
        left = [name for name in "abcd" if name not in gone]
        assert [(name, float(n)) for n, name in enumerate(left, 1)] == line.passed
        assert 0 == line.limiter.snapshot().waiting

    run(main())


def test_a_newcomer_beside_a_call_that_is_being_cancelled() -> None:
    """Who was second while the first was on its way out does not wait for ever."""

    async def main() -> None:
        line = Line(RateLimiter(1))
        await line.limiter.acquire()
        first, second = line.come("a"), line.come("b")
        await settle()
        third = line.come("c")
        first.cancel()  # c finds a cancelled call at the head, which has not left yet
        await asyncio.gather(second, third)
        assert [("b", 1.0), ("c", 2.0)] == line.passed

    run(main())


def test_patience_is_a_limit() -> None:
    """Who would wait for longer fails at once; who would wait exactly as long waits."""

    async def main() -> None:
        limiter = RateLimiter(1, max_wait=2)
        calls = [asyncio.ensure_future(limiter.acquire()) for _ in range(5)]
        await settle()
        assert [True, False, False, True, True] == [call.done() for call in calls]
        errors = await asyncio.gather(*calls[3:], return_exceptions=True)
        assert [3.0, 3.0] == [getattr(error, "retry_after", None) for error in errors]
        await asyncio.gather(*calls[:3])
        assert 2.0 == now()
        await asyncio.gather(*(limiter.acquire(max_wait=inf) for _ in range(5)))
        assert 7.0 == now()

    run(main())


def test_no_patience_is_now_or_never() -> None:
    """`max_wait=0` lets through what passes at once, and refuses the rest."""

    async def main() -> None:
        limiter = RateLimiter(2, max_wait=0)
        await limiter.acquire(2)
        with pytest.raises(RateLimitedError):
            await limiter.acquire()
        assert 0.0 == now()

    run(main())


@pytest.mark.parametrize("bad", [-1, nan, "5"])
def test_patience_that_makes_no_sense(bad: Any) -> None:
    """The patience of a single call is checked like a setting."""
    with pytest.raises(DefinitionError, match="max_wait"):
        run(RateLimiter(1).acquire(max_wait=bad))


def test_patience_ends_even_where_the_wait_could_not_be_foreseen() -> None:
    """Calls of 2 waste a place of each window of 3, which is not foreseen: still no longer wait."""

    async def main() -> None:
        limiter = WindowedRateLimiter(3, 10, kind="fixed")
        line = Line(limiter)
        await limiter.acquire(2)
        calls = [line.come("a", 2), line.come("b", 2, max_wait=15), line.come("c", 2)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [None, "RateLimitedError", None] == [e and type(e).__name__ for e in ends]
        assert [("a", 10.0), ("c", 20.0)] == line.passed
        assert 20.0 == now()

    run(main())


def test_foresees_the_wait_from_who_is_in_line() -> None:
    """Those who have passed, or gone, are not waited for any more."""

    async def main() -> None:
        limiter = RateLimiter(1)
        await limiter.acquire()
        calls = [asyncio.ensure_future(limiter.acquire()) for _ in range(5)]
        await asyncio.sleep(2.5)
        assert 3.5 == limiter.time_until()
        calls[3].cancel()
        await settle()
        assert 2.5 == limiter.time_until()
        await asyncio.gather(*calls, return_exceptions=True)

    run(main())


def test_time_until_counts_who_is_about_to_pass() -> None:
    """While somebody's turn is due but not yet taken, nobody else is told that there is no wait."""

    async def main() -> None:
        seconds = 0.0
        limiter = RateLimiter(1, burst=5, clock=lambda: seconds)
        await limiter.acquire(5)
        waiting = asyncio.ensure_future(limiter.acquire())
        await settle()
        seconds = 5.0  # the loop has not noticed yet
        assert 0 < limiter.time_until() < 0.001
        assert not limiter.try_acquire()
        await waiting
        assert limiter.try_acquire()

    run(main())


def test_a_clock_that_jumps_back_under_those_who_wait() -> None:
    """What passed since it was last looked at does not count; nobody is lost or let through early."""

    async def main() -> None:
        jump = 0.0
        line = Line(RateLimiter(1, clock=lambda: now() - jump))
        await line.limiter.acquire()
        calls = [line.come(name) for name in "abc"]
        await asyncio.sleep(2.5)
        jump = 1000.0
        await asyncio.gather(*calls)
        assert [("a", 1.0), ("b", 2.0), ("c", 4.0)] == line.passed

    run(main())


def test_calls_dropped_with_their_loop_leave_the_line() -> None:
    """The next loop finds the limiter as if those calls had never come."""
    limiter = RateLimiter(1, 10)
    loop = VirtualLoop()

    async def start() -> list[asyncio.Task[Any]]:
        calls = [asyncio.ensure_future(limiter.acquire()) for _ in range(3)]
        await settle()
        return calls

    calls = loop.run_until_complete(start())
    for call in calls:
        call._log_destroy_pending = False  # type: ignore[attr-defined]  # dropping them is the point
    loop.close()
    assert not limiter.try_acquire()

    async def later() -> float:
        await limiter.acquire()
        return now()

    assert 10.0 == pytest.approx(run(later()))
    del calls, call
    gc.collect()
    assert 0 == limiter.snapshot().waiting


def test_a_storm_of_cancellations_costs_nothing() -> None:
    """A thousand who give up leave the line as short, and the limit as full, as it was."""

    async def main() -> None:
        limiter = RateLimiter(1)
        await limiter.acquire()
        calls = [asyncio.ensure_future(limiter.acquire()) for _ in range(1000)]
        await settle()
        for call in calls[::2] + calls[1:-1:2]:
            call.cancel()
        await calls[-1]
        assert 1.0 == now()
        assert 0 == limiter.snapshot().waiting

    run(main())
