"""The timer behind `Timeout`, and whose cancellation it was when somebody else cancels too."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum, auto
from math import inf
from typing import Any

import pytest

from cano import Context, Retry, Timeout, Workflow
from cano._deadline import Alarm
from cano.testing import VirtualLoop, run


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


Body = Callable[[Context], Awaitable[Any]]


def flow(body: Body, *policies: Any, **settings: Any) -> Workflow[Step, Any]:
    async def work(ctx: Context) -> Step:
        return await body(ctx) or Step.DONE

    return Workflow(Step, **settings).register(Step.WORK, work, *policies).exits(Step.DONE)


def external(when: float, *, order: str) -> Callable[[asyncio.Task[Any]], None]:
    """Cancel a task at that time: before our timer was set, after it was, or a round later."""

    def arrange(task: asyncio.Task[Any]) -> None:
        loop = asyncio.get_running_loop()
        if order == "first":
            loop.call_at(when, task.cancel)
        elif order == "second":
            loop.call_soon(lambda: loop.call_soon(lambda: loop.call_at(when, task.cancel)))
        else:
            loop.call_at(when, lambda: loop.call_soon(task.cancel))

    return arrange


@pytest.mark.parametrize("order", ["first", "second", "a round later"])
@pytest.mark.parametrize("when", [2, 5, 5.01])
@pytest.mark.parametrize("settings", [{"policies": [Timeout(5)]}, {"timeout": 5}])
def test_a_cancellation_from_outside_is_not_lost(
    settings: dict[str, Any], when: float, order: str
) -> None:
    """Before, at and after a deadline: who cancels the run cancels it."""

    async def tidy(ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.03)

    async def main() -> None:
        policies = settings.get("policies", [])
        limit = settings.get("timeout")
        work = flow(tidy, Retry.fixed(9, 0), *policies, timeout=limit).run(Step.WORK)
        task = asyncio.create_task(work)
        external(when, order=order)(task)
        await asyncio.wait([task])
        assert task.cancelled()
        assert 1 == task.cancelling()
        assert asyncio.get_running_loop().time() < 5.1

    run(main())


def test_a_cancellation_during_the_clean_up_before_the_deadline_is_not_lost() -> None:
    """A deadline that strikes while a cancelled task cleans up does not become its end."""

    async def tidy(ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(60)

    async def main() -> None:
        work = flow(tidy, Retry.fixed(9, 0), Timeout(5)).run(Step.WORK)
        task = asyncio.create_task(work)
        external(4.9, order="first")(task)
        await asyncio.wait([task])
        assert task.cancelled()
        assert 5 == asyncio.get_running_loop().time()

    run(main())


def test_a_cancellation_that_was_swallowed_before_the_run_does_not_matter() -> None:
    """A task that was cancelled once, and did not heed it, can still wait for timed work."""

    async def nap(ctx: Context) -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await flow(nap, Timeout(5)).run(Step.WORK)
        assert 1 == task.cancelling()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the cancel count cannot tell")
def test_a_cancellation_that_an_ending_group_absorbs_is_not_lost() -> None:
    """Where the cancel count is right it tells of a cancellation that no error shows."""

    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.04)

    async def body(ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(tidy())

    async def main() -> None:
        work = flow(body, Retry.fixed(9, 0), Timeout(5)).run(Step.WORK)
        task = asyncio.create_task(work)
        external(5.02, order="first")(task)
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())


class CountingLoop(VirtualLoop):
    """Counts the timers that are set."""

    set = 0

    def call_at(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        self.set += 1
        return super().call_at(*args, **kwargs)


def test_many_deadlines_share_one_timer() -> None:
    """A thousand timed attempts set one timer, and one more for every time that it rings."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        visits = 0

        async def body(ctx: Context) -> Step:
            nonlocal visits
            visits += 1
            loop.now += 0.01
            return Step.WORK if visits < 1000 else Step.DONE

        await flow(body, Retry(), Timeout(30)).run(Step.WORK)
        assert [] == [h for h in loop._scheduled if not h.cancelled()]
        return loop.set

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        assert 1 == runner.run(main())


def test_a_coarse_clock_may_be_early() -> None:
    """A loop calls its timers early by the resolution of its clock, and so the alarm rings."""

    async def body(ctx: Context) -> None:
        await asyncio.sleep(4.99)
        await asyncio.sleep(60)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        loop._clock_resolution = 0.015
        with pytest.raises(TimeoutError):
            await flow(body, Timeout(5)).run(Step.WORK)
        assert 4.99 == loop.time()

    run(main())


def test_a_shorter_deadline_sets_the_timer_anew() -> None:
    """A deadline before the one the timer is set for is not missed."""

    async def main() -> None:
        alarm = Alarm()
        alarm.push(30)
        alarm.push(2)
        alarm.push(50)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(60)
        assert 2 == asyncio.get_running_loop().time()
        assert not alarm.expired()
        alarm.pop()
        assert alarm.expired()
        alarm.pop()
        assert not alarm.expired()
        assert 30 == alarm.nearest
        alarm.pop()
        alarm.close()

    run(main())


def test_a_timer_for_a_deadline_that_is_over_is_set_for_the_next() -> None:
    """A timer that rings for nothing waits for what is still open."""

    async def main() -> None:
        alarm = Alarm()
        alarm.push(30)
        alarm.push(2)
        alarm.pop()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(60)
        assert 30 == asyncio.get_running_loop().time()
        alarm.pop()
        alarm.close()

    run(main())


def test_a_deadline_is_open_ended_until_it_is_pushed() -> None:
    """Without deadlines the nearest one is at infinity."""

    async def main() -> None:
        assert inf == Alarm().nearest

    run(main())


@pytest.mark.parametrize("loop", [VirtualLoop, asyncio.SelectorEventLoop])
def test_the_clock_is_that_of_the_loop(loop: Any) -> None:
    """Deadlines are moments of the loop's own time, whichever loop it is."""

    async def main() -> None:
        before = asyncio.get_running_loop().time()
        now = Alarm().now()
        assert before <= now <= asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
