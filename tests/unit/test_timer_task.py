"""TimerTask: one wait, never too short, and nothing after it if it is cut off."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    AttemptTimeoutError,
    Context,
    MemoryCheckpoints,
    Resources,
    Retry,
    RunCancelledError,
    RunTimeoutError,
    Timeout,
    TimerTask,
    Workflow,
)
from cano.testing import run


class Step(StrEnum):
    WAIT = auto()
    THEN = auto()
    END = auto()


def time() -> float:
    return asyncio.get_running_loop().time()


class After:
    """The state after the wait, and when it was entered."""

    def __init__(self) -> None:
        self.entered: list[float] = []

    async def __call__(self, ctx: Context[Any]) -> Literal[Step.END]:
        self.entered.append(time())
        return Step.END


def timed(task: TimerTask[Step], after: After, *policies: Any, **more: Any) -> Workflow[Step, None]:
    flow = Workflow(Step, **more).exits(Step.END).register(Step.THEN, after)
    return flow.register(Step.WAIT, task, *policies)


class Counting(TimerTask[Step]):
    """Works its moment out, or fails with it."""

    def __init__(self, *moments: Any) -> None:
        super().__init__(then=Step.THEN)
        self.moments = list(moments)
        self.asked = 0

    async def moment(self, ctx: Context[Any]) -> Any:
        self.asked += 1
        moment = self.moments.pop(0)
        if isinstance(moment, Exception):
            raise moment
        return moment


@pytest.mark.parametrize("durable", [False, True])
def test_one_wake_up(durable: bool) -> None:
    """However long it is, a wait is one timer, and no second early."""

    timers: list[float] = []

    async def main() -> list[float]:
        loop: Any = asyncio.get_running_loop()
        begun, call_at = loop.time(), loop.call_at

        def counted(when: float, *args: Any, **more: Any) -> Any:
            if 20 < when - begun < 40:  # the lease has a timer too
                timers.append(when - begun)
            return call_at(when, *args, **more)

        loop.call_at = counted
        after = After()
        store = MemoryCheckpoints() if durable else None
        await timed(TimerTask(30, then=Step.THEN), after, checkpoints=store, lease=999).run(
            Step.WAIT
        )
        return after.entered

    assert [30] == pytest.approx(run(main()), abs=1e-4)
    assert [30] == pytest.approx(timers, abs=1e-4)


@pytest.mark.parametrize("durable", [False, True])
def test_a_moment_that_is_near_is_not_early(durable: bool) -> None:
    """`datetime`s are waited for to the microsecond."""

    async def main() -> tuple[float, float]:
        after = After()
        loop: Any = asyncio.get_running_loop()
        moment = datetime.fromtimestamp(loop.wall_offset, UTC) + timedelta(milliseconds=7)
        store = MemoryCheckpoints() if durable else None
        await timed(TimerTask(moment, then=Step.THEN), after, checkpoints=store).run(Step.WAIT)
        return moment.timestamp() - loop.wall_offset, after.entered[0]

    due, entered = run(main())
    assert due <= entered < due + 1e-3


@pytest.mark.parametrize("delay", [0, -5, timedelta(0), datetime(2001, 1, 1, tzinfo=UTC)])
def test_what_is_past_is_not_waited_for(delay: Any) -> None:
    """No time, or a moment that has passed, leads on at once."""
    after = After()
    run(timed(TimerTask(delay, then=Step.THEN), after).run(Step.WAIT))
    assert [0] == after.entered


def test_a_failing_moment_waits_for_nothing() -> None:
    """An error of `moment` is raised as it is, before any wait."""
    after, problem = After(), LookupError("no calendar")

    async def main() -> float:
        with pytest.raises(LookupError) as caught:
            await timed(Counting(problem), after).run(Step.WAIT)
        assert problem is caught.value
        return time()

    assert 0 == run(main())
    assert [] == after.entered


def test_policies_go_around_the_moment() -> None:
    """A `Retry` asks again for the moment, and never waits twice for it."""
    after, task = After(), Counting(OSError(), 100)
    run(timed(task, after, Retry.fixed(2, 5)).run(Step.WAIT))
    assert ([105], 2) == (after.entered, task.asked)


def test_a_timeout_bounds_the_moment_and_not_the_wait() -> None:
    """The wait is as long as it was asked to be; working it out is not to take for ever."""

    class Slow(TimerTask[Step]):
        async def moment(self, ctx: Context[Any]) -> float:
            await asyncio.sleep(10)
            return 0

    after = After()
    run(timed(TimerTask(3600, then=Step.THEN), after, Timeout(0.05)).run(Step.WAIT))
    assert [3600] == after.entered
    with pytest.raises(AttemptTimeoutError):
        run(timed(Slow(then=Step.THEN), after, Timeout(5)).run(Step.WAIT))


@pytest.mark.parametrize("durable", [False, True])
def test_the_run_may_be_out_of_time(durable: bool) -> None:
    """The timeout of the run ends a wait, and the next state is never entered."""
    after = After()
    store = MemoryCheckpoints() if durable else None
    flow = timed(TimerTask(3600, then=Step.THEN), after, timeout=0.05, checkpoints=store)
    with pytest.raises(RunTimeoutError):
        run(flow.run(Step.WAIT))
    assert [] == after.entered


@pytest.mark.parametrize("durable", [False, True])
def test_a_cancelled_wait_leads_nowhere(durable: bool) -> None:
    """A run that is cancelled while it waits ends at once, and enters no other state."""
    after = After()

    async def main() -> float:
        store = MemoryCheckpoints() if durable else None
        flow = timed(TimerTask(3600, then=Step.THEN), after, checkpoints=store)
        handle = await flow.start_run(Step.WAIT)
        await asyncio.sleep(10)
        await handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle.result()
        return time()

    assert run(main()) < 12
    assert [] == after.entered


def test_the_moment_takes_resources() -> None:
    """`moment` has resources and run data like any verb."""

    class Until(TimerTask[Step]):
        async def moment(self, ctx: Context[Any], calendar: dict[str, int]) -> float:
            return calendar["opening"]

    after = After()
    resources = Resources(calendar={"opening": 77})
    run(timed(Until(then=Step.THEN), after, resources=resources).run(Step.WAIT))
    assert [77] == after.entered
