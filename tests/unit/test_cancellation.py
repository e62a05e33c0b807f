"""`handle.cancel()`: wherever the run is, it ends, with one closing event, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    Bulkhead,
    Context,
    Event,
    Resources,
    Retry,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunHandle,
    Split,
    Task,
    Timeout,
    Workflow,
    on,
)
from cano.errors import AttemptTimeoutError, RunCancelledError
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


Body = Callable[[Context], Awaitable[Any]]


class Bench:
    """A workflow on the bench: what closed its runs, and what became of its resource."""

    def __init__(self, body: Any, *policies: Any, **settings: Any) -> None:
        self.closed: list[str] = []
        self.torn_down = 0
        observer = on(RunFinished, RunFailed, RunCancelled)(self.closing)
        self.workflow: Workflow[Step, Any] = Workflow(
            Step, observers=[observer], resources=Resources(bench=self), **settings
        )
        self.workflow.register(Step.WORK, body, *policies).exits(Step.DONE)

    def closing(self, event: Event) -> None:
        self.closed.append(type(event).__name__)

    async def teardown(self) -> None:
        self.torn_down += 1

    async def start(self, after: float = 0) -> RunHandle[Step, Any]:
        """Start a run, and let it get on."""
        handle = await self.workflow.start_run(Step.WORK)
        if after:
            await asyncio.sleep(after)
        return handle

    async def expect(self, *closed: str) -> None:
        """So the runs were closed; and nothing is left of them."""
        await asyncio.sleep(0)  # a task is gone a round after it is done
        loop: Any = asyncio.get_running_loop()
        assert list(closed) == self.closed
        assert 1 == self.torn_down
        assert not self.workflow.resources.up
        assert {asyncio.current_task()} == asyncio.all_tasks()
        assert [] == [timer for timer in loop._scheduled if not timer.cancelled()]


def now() -> float:
    return round(asyncio.get_running_loop().time(), 6)


async def nap(ctx: Context) -> Step:
    await asyncio.sleep(10)
    return Step.DONE


async def cancelled(handle: RunHandle[Step, Any]) -> str:
    """Cancel, wait for the end, and return what it says."""
    await handle.cancel()
    with pytest.raises(RunCancelledError) as caught:
        await handle.result()
    assert handle.done
    assert "cancelled" == handle.status
    return str(caught.value)


@pytest.mark.parametrize("policies", [[], [Retry(), Timeout(5)]])
def test_ends_a_run_in_the_middle_of_a_sleep(policies: list[Any]) -> None:
    """A run that is cancelled inside a long sleep ends at once, and no attempt timed out."""

    async def main() -> None:
        bench = Bench(nap, *policies)
        said = await cancelled(await bench.start(after=3))
        assert 3 == now()
        assert said.endswith("WORK")
        await bench.expect("RunCancelled")

    run(main())


def test_ends_a_run_before_its_first_step() -> None:
    """A run that is cancelled before it began does nothing, and tells nobody."""

    async def main() -> None:
        bench = Bench(nap)
        assert "before it began" in await cancelled(await bench.start())
        bench.torn_down += 1  # it was never set up
        await bench.expect()

    run(main())


@pytest.mark.parametrize("policies", [[Retry.fixed(5, 100)], [Retry.fixed(5, 100), Timeout(1)]])
def test_ends_a_run_in_a_pause(policies: list[Any]) -> None:
    """A run that waits for its next attempt need not wait."""

    async def fail(ctx: Context) -> Step:
        raise ValueError

    async def main() -> None:
        bench = Bench(fail, *policies)
        said = await cancelled(await bench.start(after=150))
        assert 150 == now()
        assert said.endswith("WORK, attempt 2")
        await bench.expect("RunCancelled")

    run(main())


def test_wins_against_the_end_of_the_attempt_that_it_meets() -> None:
    """Cancelled while an attempt out of time cleans up, the run makes no other attempt."""
    attempts: list[int] = []

    async def tidy(ctx: Context) -> Step:
        attempts.append(ctx.attempt)
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.04)
        return Step.DONE

    async def main() -> None:
        bench = Bench(tidy, Retry.fixed(5, 0), Timeout(1))
        await cancelled(await bench.start(after=1.02))
        assert now() <= 1.07
        assert [1] == attempts
        await bench.expect("RunCancelled")

    run(main())


def test_ends_a_run_that_waits_for_a_bulkhead() -> None:
    """A run in line leaves the line; the one inside is not disturbed, and the place not lost."""

    async def main() -> None:
        narrow = Bulkhead(1)
        bench = Bench(nap, narrow)
        first, second, third = [await bench.start() for _ in range(3)]
        await asyncio.sleep(5)
        await cancelled(second)
        assert 5 == now()
        assert Step.DONE == await first.result()
        assert Step.DONE == await third.result()
        assert 20 == now()
        await bench.expect("RunCancelled", "RunFinished", "RunFinished")
        assert repr(narrow) == "<Bulkhead 0/1, 0 waiting>"

    run(main())


def test_ends_a_split() -> None:
    """All branches are cancelled, and awaited, also those that do not heed it at once."""
    left: list[float] = []

    async def branch(ctx: Context) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        try:
            await asyncio.sleep(10)
        finally:
            left.append(now())

    async def main() -> None:
        bench = Bench(Split([branch] * 3, then=Step.DONE, bulkhead=2))
        await cancelled(await bench.start(after=3))
        assert 3.05 == now()
        assert [3.05, 3.05] == left
        await bench.expect("RunCancelled")

    run(main())


@pytest.mark.parametrize("times", [1, 5])
def test_ends_a_task_that_swallows_cancellations(times: int) -> None:
    """A task that does not heed its cancellation is cancelled again, every 50 ms."""

    async def stubborn(ctx: Context) -> Step:
        for _ in range(times):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
        await asyncio.sleep(10)
        return Step.DONE

    async def main() -> None:
        bench = Bench(stubborn)
        await cancelled(await bench.start(after=3))
        assert round(3 + times * 0.05, 6) == now()
        await bench.expect("RunCancelled")

    run(main())


def test_comes_too_late_for_a_task_that_goes_on_to_the_exit() -> None:
    """A task that swallows its cancellation and reaches the exit has finished the run."""

    async def stubborn(ctx: Context) -> Step:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        return Step.DONE

    async def main() -> None:
        bench = Bench(stubborn)
        handle = await bench.start(after=3)
        await handle.cancel()
        assert Step.DONE == await handle.result()
        assert "finished" == handle.status
        await bench.expect("RunFinished")

    run(main())


def test_waits_for_work_that_must_not_be_interrupted() -> None:
    """A task that is not interruptible is done before the cancellation takes effect."""
    done: list[float] = []

    class Careful(Task[Step]):
        interruptible = False

        async def run(self, ctx: Context) -> Literal[Step.WORK, Step.DONE]:
            await asyncio.sleep(10)
            done.append(now())
            return Step.WORK

    async def main() -> None:
        bench = Bench(Careful())
        await cancelled(await bench.start(after=3))
        assert [10] == done
        await bench.expect("RunCancelled")

    run(main())


def test_the_error_of_work_that_must_not_be_interrupted_is_not_hidden() -> None:
    """Work that could not be interrupted, and fails, fails the run that was to be cancelled."""

    class Careful(Task[Step]):
        interruptible = False

        async def run(self, ctx: Context) -> Literal[Step.DONE]:
            await asyncio.sleep(10)
            raise ValueError

    async def main() -> None:
        bench = Bench(Careful())
        handle = await bench.start(after=3)
        await handle.cancel()
        with pytest.raises(ValueError):
            await handle.result()
        await bench.expect("RunFailed")

    run(main())


def test_work_that_must_not_be_interrupted_heeds_its_own_timeout() -> None:
    """A `Timeout` of its own is part of such work; a later one still works."""

    class Careful(Task[Step]):
        interruptible = False

        async def run(self, ctx: Context) -> Literal[Step.WORK, Step.DONE]:
            await asyncio.sleep(10)
            return Step.DONE

    async def main() -> None:
        bench = Bench(Careful(), Timeout(4), timeout=60)
        handle = await bench.start()
        with pytest.raises(AttemptTimeoutError):
            await handle.result()
        assert 4 == now()
        await bench.expect("RunFailed")

    run(main())


def test_cancelling_twice_is_cancelling_once() -> None:
    """A second cancellation of the same run adds nothing."""

    async def tidy(ctx: Context) -> Step:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.04)
        return Step.DONE

    async def main() -> None:
        bench = Bench(tidy)
        handle = await bench.start(after=3)
        await handle.cancel()
        await asyncio.sleep(0.02)
        await cancelled(handle)
        assert 3.04 == now()
        await cancelled(handle)
        await bench.expect("RunCancelled")

    run(main())


def test_cancelling_after_the_end_changes_nothing() -> None:
    """A run that has finished stays finished."""

    async def main() -> None:
        bench = Bench(nap)
        handle = await bench.start(after=11)
        await handle.cancel()
        await asyncio.sleep(1)
        assert Step.DONE == await handle.result()
        assert "finished" == handle.status
        await bench.expect("RunFinished")

    run(main())


def test_a_run_may_cancel_itself() -> None:
    """A task that cancels its own run ends where it next waits."""

    async def main() -> None:
        async def work(ctx: Context) -> Step:
            await handle.cancel()
            await asyncio.sleep(10)
            return Step.DONE

        bench = Bench(work)
        handle = await bench.start()
        with pytest.raises(RunCancelledError):
            await handle.result()
        assert 0 == now()
        await bench.expect("RunCancelled")

    run(main())


def test_a_run_that_cancels_itself_too_late_has_finished() -> None:
    """A task that cancels its own run and reaches the exit without waiting has finished it."""

    async def main() -> None:
        async def work(ctx: Context) -> Step:
            await handle.cancel()
            return Step.DONE

        bench = Bench(work)
        handle = await bench.start()
        assert Step.DONE == await handle.result()
        await bench.expect("RunFinished")

    run(main())


def test_cancelling_who_waits_for_the_result_leaves_the_run_alone() -> None:
    """Waiting for a run is not owning it."""

    async def main() -> None:
        bench = Bench(nap)
        handle = await bench.start(after=3)
        waiting, other = [asyncio.create_task(handle.result()) for _ in range(2)]
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert Step.DONE == await handle.result() == await other
        assert 10 == now()
        await bench.expect("RunFinished")

    run(main())
