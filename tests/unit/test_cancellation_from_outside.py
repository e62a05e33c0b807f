"""Cancelled by asyncio, by nobody, by the end of a scope, and while resources come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum, auto
from typing import Any

import pytest

from cano import (
    Context,
    Event,
    Resources,
    Retry,
    RunCancelled,
    RunFailed,
    RunFinished,
    Timeout,
    Workflow,
    on,
)
from cano.errors import RunCancelledError, StrayCancelledError
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


class Slow:
    """A resource that takes its time to come up and to go down."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.log: list[str] = []
        self.stubborn = stubborn

    async def setup(self) -> None:
        self.log.append("setup")
        if self.stubborn:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
        await asyncio.sleep(10)
        self.log.append("up")

    async def teardown(self) -> None:
        self.log.append("teardown")
        await asyncio.sleep(10)
        self.log.append("down")


def flow(
    closed: list[str], work: Any, policies: Sequence[Any] = (), **settings: Any
) -> Workflow[Step, Any]:
    """A workflow that notes how its runs were closed."""

    def closing(event: Event) -> None:
        closed.append(type(event).__name__)

    observer = on(RunFinished, RunFailed, RunCancelled)(closing)
    workflow: Workflow[Step, Any] = Workflow(Step, observers=[observer], **settings)
    return workflow.register(Step.WORK, work, *policies).exits(Step.DONE)


async def nothing_is_left() -> None:
    """No other task, and no timer."""
    await asyncio.sleep(0)  # a task is gone a round after it is done
    loop: Any = asyncio.get_running_loop()
    assert {asyncio.current_task()} == asyncio.all_tasks()
    assert [] == [timer for timer in loop._scheduled if not timer.cancelled()]


def now() -> float:
    return round(asyncio.get_running_loop().time(), 6)


async def nap(ctx: Context) -> Step:
    await asyncio.sleep(10)
    return Step.DONE


def test_asyncio_cancels_a_run() -> None:
    """Cancelling whoever awaits `run()` ends the run, and comes out as what it was."""

    async def main() -> None:
        closed: list[str] = []
        task = asyncio.create_task(flow(closed, nap, [Retry(), Timeout(5)]).run(Step.WORK))
        await asyncio.sleep(3)
        task.cancel("because")
        with pytest.raises(asyncio.CancelledError, match="because"):
            await task
        assert (3, 1) == (now(), task.cancelling())
        assert ["RunCancelled"] == closed
        await nothing_is_left()

    run(main())


def test_asyncio_cancels_a_started_run() -> None:
    """A run in the background that asyncio cancels, not its handle, was cancelled all the same."""

    async def main() -> None:
        closed: list[str] = []
        handle = await flow(closed, nap).start_run(Step.WORK)
        await asyncio.sleep(3)
        (task,) = asyncio.all_tasks() - {asyncio.current_task()}
        task.cancel()
        with pytest.raises(RunCancelledError) as caught:
            await handle.result()
        assert str(caught.value).endswith("WORK")
        assert "cancelled" == handle.status
        assert ["RunCancelled"] == closed
        await nothing_is_left()

    run(main())


def test_a_cancellation_that_nobody_asked_for_is_an_error() -> None:
    """A task that raises `CancelledError` by itself has failed: it does not end the caller."""

    async def stray(ctx: Context) -> Step:
        broken: asyncio.Future[Step] = asyncio.get_running_loop().create_future()
        broken.cancel()
        return await broken

    async def main() -> None:
        closed: list[str] = []
        with pytest.raises(StrayCancelledError, match="WORK raised CancelledError") as caught:
            await flow(closed, stray).run(Step.WORK)
        assert "WORK" in caught.value.__notes__[0]
        assert ["RunFailed"] == closed
        await nothing_is_left()

    run(main())


def test_a_stray_cancellation_is_no_timeout() -> None:
    """A `CancelledError` of the task's own is not taken for the end of a timed attempt or run."""

    async def stray(ctx: Context) -> Step:
        raise asyncio.CancelledError

    async def main() -> None:
        closed: list[str] = []
        with pytest.raises(StrayCancelledError):
            await flow(closed, stray, [Retry(), Timeout(5)], timeout=5).run(Step.WORK)
        assert ["RunFailed"] == closed
        await nothing_is_left()

    run(main())


def test_ends_the_setup_of_resources() -> None:
    """Cancelled while resources come up, what is up goes down, and no task is run."""

    async def main() -> None:
        closed: list[str] = []
        first, second = Slow(), Slow()
        resources = Resources(first=first, second=second)
        handle = await flow(closed, nap, resources=resources).start_run(Step.WORK)
        await asyncio.sleep(13)
        await handle.cancel()
        with pytest.raises(RunCancelledError, match="before it began"):
            await handle.result()
        assert 23 == now()
        assert ["setup", "up", "teardown", "down"] == first.log
        assert ["setup"] == second.log
        assert [] == closed
        await nothing_is_left()

    run(main())


def test_a_setup_that_swallows_the_cancellation_does_not_start_the_run() -> None:
    """What a setup did not heed is heeded before the first state."""

    async def work(ctx: Context) -> Step:
        raise AssertionError("it must not come to this")

    async def main() -> None:
        closed: list[str] = []
        slow = Slow(stubborn=True)
        workflow = flow(closed, work, resources=Resources(slow=slow))
        handle = await workflow.start_run(Step.WORK)
        await asyncio.sleep(3)
        await handle.cancel()
        with pytest.raises(RunCancelledError, match="before it began"):
            await handle.result()
        assert ["setup", "up", "teardown", "down"] == slow.log
        assert ["RunCancelled"] == closed
        await nothing_is_left()

    run(main())


def test_leaves_the_teardown_of_resources_alone() -> None:
    """Cancelled while its resources go down, the run has already ended, and they do."""

    async def main() -> None:
        closed: list[str] = []
        slow = Slow()
        handle = await flow(closed, nap, resources=Resources(slow=slow)).start_run(Step.WORK)
        await asyncio.sleep(25)
        assert "finished" == handle.status
        await handle.cancel()
        assert Step.DONE == await handle.result()
        assert 30 == now()
        assert ["setup", "up", "teardown", "down"] == slow.log
        assert ["RunFinished"] == closed
        await nothing_is_left()

    run(main())


def test_a_scope_waits_for_its_runs() -> None:
    """Leaving `async with workflow:` waits for the runs that were started in it."""

    async def main() -> None:
        closed: list[str] = []
        async with (workflow := flow(closed, nap)):
            handle = await workflow.start_run(Step.WORK)
        assert handle.done
        assert 10 == now()
        assert ["RunFinished"] == closed
        await nothing_is_left()

    run(main())


async def stubborn(ctx: Context) -> Step:
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(100)
    await asyncio.sleep(100)
    return Step.DONE


@pytest.mark.parametrize(("work", "latest"), [(nap, 3), (stubborn, 4)])
def test_a_scope_that_fails_cancels_its_runs(work: Any, latest: float) -> None:
    """When the block fails, its runs are cancelled, again where need be, and awaited."""

    async def main() -> None:
        closed: list[str] = []
        workflow = flow(closed, work)

        async def scope() -> None:
            async with workflow:
                await workflow.start_run(Step.WORK)
                await asyncio.sleep(3)
                raise KeyError

        with pytest.raises(KeyError):
            await scope()
        assert now() <= latest
        assert ["RunCancelled"] == closed
        await nothing_is_left()

    run(main())


def test_a_scope_cancelled_while_it_waits_takes_its_runs_along() -> None:
    """Who cancels a scope that waits for its runs cancels them too, and they are awaited."""

    async def main() -> None:
        closed: list[str] = []

        async def scope() -> None:
            async with (workflow := flow(closed, nap)):
                await workflow.start_run(Step.WORK)

        task = asyncio.create_task(scope())
        await asyncio.sleep(3)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert 3 == now()
        assert ["RunCancelled"] == closed
        await nothing_is_left()

    run(main())
