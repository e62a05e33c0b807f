"""`Bulkhead`: so many at once, first come, first served, and no place is ever lost."""

from __future__ import annotations

import asyncio
import gc
import re
from enum import StrEnum, auto
from math import inf, nan
from typing import Any, Literal

import pytest

from cano import Bulkhead, Context, Split, Workflow
from cano.errors import DefinitionError
from cano.testing import VirtualLoop, run


class Step(StrEnum):
    WORK = auto()
    NEXT = auto()
    DONE = auto()


class Crowd:
    """Calls that each take ten seconds, and who was inside when."""

    def __init__(self) -> None:
        self.inside = 0
        self.peak = 0
        self.order: list[str] = []

    async def call(self, name: str) -> None:
        self.order.append(name)
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        try:
            await asyncio.sleep(10)
        finally:
            self.inside -= 1


def enter(narrow: Bulkhead, crowd: Crowd, name: str) -> asyncio.Task[None]:
    """Start a call through *narrow*."""
    return asyncio.ensure_future(narrow(crowd.call)(name))


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(("limit", "seconds"), [(1, 60), (2, 30), (5, 20), (6, 10), (99, 10)])
def test_never_lets_more_through(limit: int, seconds: float) -> None:
    """At most so many calls are made at once, and no fewer."""

    async def main() -> None:
        narrow, crowd = Bulkhead(limit), Crowd()
        await asyncio.gather(*(enter(narrow, crowd, name) for name in "abcdef"))
        assert min(limit, 6) == crowd.peak
        assert seconds == now()

    run(main())


def test_serves_who_comes_first() -> None:
    """Who waits is let through in the order of arrival, and nobody overtakes."""

    async def main() -> None:
        narrow, crowd = Bulkhead(1), Crowd()
        tasks = [enter(narrow, crowd, name) for name in "abc"]
        await asyncio.sleep(10)  # a has just left, b has been let in
        tasks += [enter(narrow, crowd, name) for name in "de"]
        await asyncio.gather(*tasks)
        assert list("abcde") == crowd.order

    run(main())


def test_frees_the_place_of_a_call_that_fails() -> None:
    """However a call ends, its place is free again."""

    async def main() -> None:
        narrow = Bulkhead(1)

        @narrow
        async def fail() -> None:
            raise ValueError

        for _ in range(3):
            with pytest.raises(ValueError):
                await fail()
        assert "<Bulkhead 0/1, 0 waiting>" == repr(narrow)

    run(main())


def test_frees_the_place_of_a_call_that_is_cancelled() -> None:
    """Who is cancelled inside makes room for the next."""

    async def main() -> None:
        narrow, crowd = Bulkhead(1), Crowd()
        first, second = enter(narrow, crowd, "a"), enter(narrow, crowd, "b")
        await asyncio.sleep(3)
        first.cancel()
        await second
        assert 13 == now()

    run(main())


def test_who_is_cancelled_in_line_leaves_it() -> None:
    """Who no longer waits is forgotten, at once."""

    async def main() -> None:
        narrow, crowd = Bulkhead(1), Crowd()
        tasks = [enter(narrow, crowd, name) for name in "abcd"]
        await asyncio.sleep(3)
        tasks[1].cancel()
        tasks[2].cancel()
        await asyncio.sleep(0.001)
        assert "<Bulkhead 1/1, 1 waiting>" == repr(narrow)
        await asyncio.wait(tasks)
        assert list("ad") == crowd.order
        assert "<Bulkhead 0/1, 0 waiting>" == repr(narrow)

    run(main())


@pytest.mark.parametrize("leaves_first", [True, False])
def test_a_place_given_to_who_is_cancelled_in_that_moment_goes_on(*, leaves_first: bool) -> None:
    """A place handed over in the very round of a cancellation goes to the next in line."""

    async def main() -> None:
        narrow, crowd = Bulkhead(1), Crowd()
        first, second, third = (enter(narrow, crowd, name) for name in "abc")
        await asyncio.sleep(3)
        for task in (first, second) if leaves_first else (second, first):
            task.cancel()
        await third
        assert list("ac") == crowd.order
        assert 13 == now()
        assert "<Bulkhead 0/1, 0 waiting>" == repr(narrow)

    run(main())


def test_a_place_handed_over_but_not_yet_taken_is_not_free() -> None:
    """Between the hand-over and the next round nobody slips in, and cancelling gives it on."""

    async def main() -> None:
        narrow, crowd = Bulkhead(1), Crowd()
        tasks: list[asyncio.Task[None]] = []

        def cancel_the_next() -> None:
            tasks[1].cancel()
            tasks.append(enter(narrow, crowd, "c"))

        @narrow
        async def leave() -> None:
            await asyncio.sleep(3)
            asyncio.get_running_loop().call_soon(cancel_the_next)  # before b learns of its place

        tasks.append(asyncio.ensure_future(leave()))
        tasks.append(enter(narrow, crowd, "b"))
        await asyncio.wait(tasks)
        await tasks[2]
        assert ["c"] == crowd.order
        assert 13 == now()
        assert "<Bulkhead 0/1, 0 waiting>" == repr(narrow)

    run(main())


def test_holds_for_all_states_and_runs_that_share_it() -> None:
    """One object is one limit, wherever it is used."""

    async def main() -> None:
        narrow, crowd = Bulkhead(2), Crowd()

        async def work(ctx: Context) -> Literal[Step.NEXT]:
            await crowd.call("work")
            return Step.NEXT

        async def following(ctx: Context) -> Literal[Step.DONE]:
            await crowd.call("next")
            return Step.DONE

        def flow() -> Workflow[Step, None]:
            workflow = Workflow(Step).register(Step.WORK, work, narrow)
            return workflow.register(Step.NEXT, following, narrow).exits(Step.DONE)

        one, other = flow(), flow()
        await asyncio.gather(*(each.run(Step.WORK) for each in (one, one, other, other)))
        assert 2 == crowd.peak
        assert 40 == now()

    run(main())


def test_holds_for_the_branches_of_a_split() -> None:
    """A bulkhead of a state that is a split bounds its branches."""

    async def main() -> None:
        crowd = Crowd()

        async def branch(ctx: Context) -> None:
            await crowd.call("branch")

        split = Split([branch] * 10, then=Step.DONE)
        workflow = Workflow(Step).register(Step.WORK, split, Bulkhead(3))
        await workflow.exits(Step.NEXT, Step.DONE).run(Step.WORK)
        assert (3, 40) == (crowd.peak, now())

    run(main())


def test_serves_one_loop_after_the_other() -> None:
    """A bulkhead that has served an event loop serves the next one."""
    narrow, crowd = Bulkhead(1), Crowd()

    async def main() -> None:
        await asyncio.gather(*(enter(narrow, crowd, name) for name in "ab"))

    run(main())
    run(main())
    assert (list("abab"), 1) == (crowd.order, crowd.peak)


def test_forgets_who_waited_in_a_loop_that_was_dropped() -> None:
    """Calls that were never ended, because their loop was, hold no place and no line."""
    narrow, crowd = Bulkhead(1), Crowd()
    loop = VirtualLoop()
    loop.call_soon(lambda: [enter(narrow, crowd, name) for name in "ab"])
    loop.call_later(3, loop.stop)
    loop.run_forever()
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert "<Bulkhead 1/1, 1 waiting>" == repr(narrow)
    del loop, task  # pyright: ignore[reportPossiblyUnboundVariable]
    gc.collect()
    assert "<Bulkhead 0/1, 0 waiting>" == repr(narrow)


@pytest.mark.parametrize("limit", [0, -1, 1.5, nan, inf, "3", None])
def test_refuses_what_is_no_number_of_calls(limit: Any) -> None:
    """A limit that lets nothing through, or is no whole number, is a definition error."""
    with pytest.raises(DefinitionError, match=re.escape(f"Bulkhead({limit!r}) is no number")):
        Bulkhead(limit)
