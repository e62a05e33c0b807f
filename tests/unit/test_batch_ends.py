"""Batches that do not come to their end: too many failures, cancellations, broken sources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    BatchTask,
    Context,
    ItemOutcome,
    MemoryCheckpoints,
    Outcomes,
    Retry,
    Timeout,
    Workflow,
)
from cano.errors import (
    AttemptTimeoutError,
    ProgressMismatchError,
    RunTimeoutError,
    StrayCancelledError,
    TooManyFailuresError,
)
from cano.events import ItemFailed
from cano.testing import run


class Step(StrEnum):
    A = auto()
    END = auto()


Process = Callable[[Context[Any], Any], Awaitable[Any]]


class Watched(BatchTask[Step, Any, Any]):
    """Tells what begins, what ends, what is cancelled, and whether it was finished."""

    concurrency = 3

    def __init__(self, items: Any, process: Process, **settings: Any) -> None:
        self.items = items
        self.how = process
        self.told: list[str] = []
        self.given: Outcomes[Any] | None = None
        vars(self).update(settings)

    async def load(self, ctx: Context[Any]) -> Any:
        return self.items

    async def process(self, ctx: Context[Any], item: Any) -> Any:
        try:
            return await self.how(ctx, item)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # cleaning up takes its time
            self.told.append(f"{item} cancelled")
            raise

    async def finish(self, ctx: Context[Any], outcomes: Outcomes[Any]) -> Literal[Step.END]:
        self.given = outcomes
        return Step.END


def flow_of(task: Any, *policies: Any, **settings: Any) -> Workflow[Step, Any]:
    return Workflow(Step, **settings).exits(Step.END).register(Step.A, task, *policies)


def ended_by(kind: type[BaseException], task: Watched, *policies: Any, **settings: Any) -> Any:
    """What the run raised; nothing of it is left."""

    async def main() -> BaseException:
        with pytest.raises(kind) as caught:
            await flow_of(task, *policies, **settings).run(Step.A)
        assert 1 == len(asyncio.all_tasks()), "something was left behind"
        return caught.value

    error = run(main())
    assert task.given is None
    return error


async def hang(ctx: Context[Any], item: Any) -> None:
    await asyncio.get_running_loop().create_future()


async def ok(ctx: Context[Any], item: Any) -> Any:
    await asyncio.sleep(1)
    return item


def fails_or_hangs(*bad: int) -> Process:
    async def process(ctx: Context[Any], item: int) -> None:
        await asyncio.sleep(item)
        if item in bad:
            raise ValueError(item)
        await hang(ctx, item)

    return process


# Too many failures


def test_too_many_failures_end_it_at_once() -> None:
    """One failure more than allowed cancels what runs, which is no failure, and holds the others."""
    items = [3, 0, 1, 2, 7, 8, 9]
    task = Watched(items, fails_or_hangs(1, 2, 3), concurrency=4, max_failures=2)
    failed: list[int] = []

    def told(event: Any) -> None:
        if isinstance(event, ItemFailed):
            failed.append(event.index)

    error = ended_by(TooManyFailuresError, task, observers=[told])
    assert [2, 3, 0] == failed

    assert "3 items of A failed, and max_failures is 2 (3 sub-exceptions)" == str(error)
    assert ["3", "1", "2"] == [str(one) for one in error.exceptions]
    assert ["0 cancelled", "7 cancelled", "8 cancelled"] == sorted(task.told)


def test_as_many_failures_as_allowed() -> None:
    """The limit itself is tolerated; `finish` sees the failures."""

    async def process(ctx: Context[Any], item: int) -> None:
        if item < 2:
            raise ValueError(item)

    task = Watched(range(9), process, max_failures=2)
    run(flow_of(task).run(Step.A))
    assert task.given is not None
    assert 2 == task.given.failed


def test_the_first_failure_may_be_one_too_many() -> None:
    """With max_failures=0 the first failure ends the batch."""
    task = Watched(range(9), fails_or_hangs(2), max_failures=0)
    error = ended_by(TooManyFailuresError, task)
    assert ["2"] == [str(one) for one in error.exceptions]


@pytest.mark.parametrize("collects", [False, True])
def test_not_every_exception_is_held(collects: bool) -> None:
    """The group holds a hundred exceptions at most, and says how many there were."""

    async def process(ctx: Context[Any], item: int) -> None:
        raise ValueError(item)

    class Collects(Watched):
        async def collect(self, ctx: Context[Any], outcome: ItemOutcome[Any]) -> None:
            assert outcome.error is not None

    task = (Collects if collects else Watched)(range(900), process, max_failures=250)
    error = ended_by(TooManyFailuresError, task)
    assert str(error).startswith(
        "251 items of A failed, and max_failures is 250; the exceptions of"
    )
    assert 100 == len(error.exceptions)


def test_it_keeps_its_class_when_it_is_split() -> None:
    """What `except*` or `suppress` leave of the group is still one."""
    error = TooManyFailuresError("2 items failed", [ValueError(), KeyError()])
    _, rest = error.split(ValueError)
    assert isinstance(rest, TooManyFailuresError)
    assert "2 items failed (1 sub-exception)" == str(rest)


def test_it_is_not_retried_by_default() -> None:
    """What has failed too often is not repeated by a `Retry` that was not asked to."""
    task = Watched([0], fails_or_hangs(0), max_failures=0)
    ended_by(TooManyFailuresError, task, Retry())


def test_trouble_of_the_run_is_no_outcome() -> None:
    """What makes the run itself stop where it is, such as a broken store, fills no place."""

    async def process(ctx: Context[Any], item: int) -> None:
        if item == 1:
            raise ProgressMismatchError("other items")
        await hang(ctx, item)

    task = Watched(range(9), process)
    ended_by(ProgressMismatchError, task, checkpoints=MemoryCheckpoints())
    assert {"0 cancelled"} <= set(task.told)


# Cancellations


def test_cancellation_takes_the_items_along() -> None:
    """Cancelled from outside, every item is cancelled and awaited, and `finish` is not called."""
    task = Watched(range(9), hang)

    async def main() -> None:
        running = asyncio.ensure_future(flow_of(task).run(Step.A))
        await asyncio.sleep(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert 1 == len(asyncio.all_tasks())

    run(main())
    assert ["0 cancelled", "1 cancelled", "2 cancelled"] == sorted(task.told)
    assert task.given is None


def test_a_cancellation_is_sent_again() -> None:
    """An item that swallows a cancellation is cancelled again, every 50 ms, and awaited."""
    swallowed: list[float] = []

    async def stubborn(ctx: Context[Any], item: int) -> None:
        while len(swallowed) < 4:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                swallowed.append(round(asyncio.get_running_loop().time(), 2))
        await asyncio.sleep(3600)

    ended_by(AttemptTimeoutError, Watched([1], stubborn), Timeout(1))
    assert [1.0, 1.05, 1.1, 1.15] == swallowed


def test_a_cancellation_counts_more_than_what_is_failing_already() -> None:
    """Whoever cancels a batch that is ending for another reason is not told of that reason alone."""

    async def process(ctx: Context[Any], item: int) -> None:
        await asyncio.sleep(0.01)
        if item == 0:
            raise ValueError
        try:
            await hang(ctx, item)
        finally:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.04)

    async def main() -> None:
        task = Watched(range(2), process, max_failures=0)
        running = asyncio.ensure_future(flow_of(task, Retry(on=(Exception,))).run(Step.A))
        await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run(main())


def test_the_deadline_of_the_run_ends_it() -> None:
    """A run that is out of time cancels its items, hanging or not suspending at all."""
    ended_by(RunTimeoutError, Watched(range(9), hang), timeout=5)


def test_an_endless_source_of_quick_items_can_be_stopped() -> None:
    """Items that never suspend do not keep a cancellation from being heard."""

    def endless() -> Iterator[int]:
        while True:
            yield 1

    async def nothing(ctx: Context[Any], item: int) -> None:
        pass

    class Counted(Watched):
        async def collect(self, ctx: Context[Any], outcome: ItemOutcome[Any]) -> None:
            pass

    async def main() -> None:
        running = asyncio.ensure_future(flow_of(Counted(endless(), nothing)).run(Step.A))
        await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run(main())


@pytest.mark.parametrize("itself", [False, True])
def test_a_cancellation_out_of_the_blue_is_a_failure_of_its_item(itself: bool) -> None:
    """`CancelledError` that nobody sent, or that an item sent itself, fills its place."""

    async def process(ctx: Context[Any], item: int) -> int:
        if item == 1 and itself:
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
            await asyncio.sleep(1)
        if item == 1:
            raise asyncio.CancelledError
        current = asyncio.current_task()
        assert current is not None
        assert 0 == current.cancelling()
        return item

    task = Watched(range(9), process, concurrency=1)
    run(flow_of(task).run(Step.A))
    assert task.given is not None
    assert [0, 2, 3, 4, 5, 6, 7, 8] == task.given.values
    error = task.given.errors[1]
    assert isinstance(error, StrayCancelledError)
    assert "item 1 of A raised CancelledError, but nobody had cancelled it" == str(error)


def test_a_cancelled_worker_is_not_missed_silently() -> None:
    """Somebody who cancels every task there is but the run's own does not lose items unseen."""

    async def process(ctx: Context[Any], item: int) -> None:
        await asyncio.sleep(1 + item)

    class Yields(Watched):
        async def load(self, ctx: Context[Any]) -> AsyncIterator[int]:  # type: ignore[override]
            yield 1
            sources.append(asyncio.current_task())
            await asyncio.sleep(3600)

    sources: list[Any] = []
    task = Yields([], process)

    async def main() -> None:
        running = asyncio.ensure_future(flow_of(task).run(Step.A))
        await asyncio.sleep(1)
        sources[0].cancel()
        with pytest.raises(StrayCancelledError, match=r"what load\(\) of A returned raised"):
            await running

    run(main())


def test_the_end_of_the_loop_starts_nothing_new() -> None:
    """Where everything is cancelled at once, as at the end of `asyncio.run`, no item begins."""
    begun: list[int] = []

    class Hangs(Watched):
        async def process(self, ctx: Context[Any], item: Any) -> None:
            begun.append(item)
            await hang(ctx, item)

    async def main() -> None:
        running = asyncio.ensure_future(flow_of(Hangs(range(9), hang)).run(Step.A))
        while len(begun) < 3:
            await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in sorted(others, key=lambda task: task is running):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await running

    run(main())
    assert [0, 1, 2] == begun


class Halt(BaseException):
    """Such as `KeyboardInterrupt`."""


def test_what_is_no_exception_is_no_outcome() -> None:
    """A `BaseException` ends the batch, and passes through as it is."""

    async def process(ctx: Context[Any], item: int) -> None:
        if item == 1:
            raise Halt
        await hang(ctx, item)

    task = Watched(range(9), process)
    ended_by(Halt, task)
    assert ["0 cancelled"] == [told for told in task.told if told.startswith("0")]
