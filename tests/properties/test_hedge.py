"""Whatever calls do, and whenever they are cancelled: the first success, and nothing left over."""

from __future__ import annotations

import asyncio
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from cano import Hedge
from cano.testing import run

Call = tuple[int, bool]

calls = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=5, max_size=5)


@given(calls, st.integers(1, 6), st.integers(2, 5))
def test_the_first_success_counts(script: list[Call], after: int, attempts: int) -> None:
    """The calls start when they should, and the first success is the answer, at its time."""
    # No two moments are the same, so that nothing has to be said of what comes in the same one.
    exact = [
        (3 * seconds + 2**number / 1000, good) for number, (seconds, good) in enumerate(script)
    ]
    started: list[float] = []

    @Hedge(3 * after - 1.5, attempts=attempts)
    async def call() -> int:
        number = len(started)
        started.append(round(asyncio.get_running_loop().time(), 6))
        seconds, good = exact[number]
        await asyncio.sleep(seconds)
        if not good:
            raise ValueError(number)
        return number

    async def main() -> tuple[int | None, float]:
        try:
            won: int | None = await call()
        except ValueError:
            won = None
        assert {asyncio.current_task()} == asyncio.all_tasks()
        return won, round(asyncio.get_running_loop().time(), 6)

    found = run(main())
    assert (started, *found) == simulated(exact, 3 * after - 1.5, attempts)


def simulated(
    script: list[tuple[float, bool]], after: float, attempts: int
) -> tuple[list[float], int | None, float]:
    """The same by events in order of time: ends of calls, and times to start the next."""
    starts: list[float] = [0.0]
    running: dict[int, float] = {0: script[0][0]}
    timer = after
    while True:
        number, end = min(running.items(), key=lambda item: item[1], default=(-1, inf))
        if len(starts) < attempts and timer < end:
            now, number = timer, -1
        else:
            now = end
            del running[number]
            if script[number][1]:
                return [round(start, 6) for start in starts], number, round(now, 6)
        if len(starts) < attempts:
            starts.append(now)
            running[len(starts) - 1] = now + script[len(starts) - 1][0]
            timer = now + after
        elif not running:
            return [round(start, 6) for start in starts], None, round(now, 6)


@given(calls, st.integers(0, 6), st.integers(2, 5), st.integers(0, 20), st.integers(0, 4))
def test_a_cancellation_at_any_time_leaves_nothing(
    script: list[Call], after: int, attempts: int, when: int, rounds: int
) -> None:
    """Cancelled at any time, in any round of it, the call ends, and all of its calls with it."""
    inside: set[int] = set()
    started: list[int] = []

    @Hedge(after, attempts=attempts)
    async def call() -> int:
        number = len(started)
        started.append(number)
        inside.add(number)
        seconds, good = script[number]
        try:
            await asyncio.sleep(seconds)
            if not good:
                raise ValueError(number)
            return number
        finally:
            inside.remove(number)

    async def main() -> None:
        task = asyncio.ensure_future(call())
        await asyncio.sleep(when)
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=1)
        assert task.done()
        assert set() == inside
        assert {asyncio.current_task()} == asyncio.all_tasks()
        assert len(started) <= attempts
        if not task.cancelled():
            task.exception()

    run(main())
