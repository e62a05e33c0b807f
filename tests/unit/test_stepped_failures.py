"""Steps that fail, cursors that cannot be kept or read: what is repeated, and what is not."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    CheckpointError,
    Context,
    DataError,
    Done,
    MemoryCheckpoints,
    More,
    Resources,
    Retry,
    RunFailedError,
    SteppedTask,
    Timeout,
    Workflow,
)
from cano.checkpoints.store import CheckpointStore
from cano.events import CursorSaved
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash


class Step(StrEnum):
    COUNT = auto()
    END = auto()


class Count(SteppedTask[Step, int]):
    """Counts to *end*; fails at *bad* as often as it is told."""

    def __init__(self, end: int, bad: int = -1, fails: int = 0, error: Any = OSError) -> None:
        self.end, self.bad, self.fails, self.error = end, bad, fails, error
        self.seen: list[int | None] = []

    async def step(
        self, ctx: Context[Any], cursor: int | None
    ) -> More[int] | Done[Literal[Step.END]]:
        self.seen.append(cursor)
        if (cursor or 0) == self.bad and self.fails:
            self.fails -= 1
            raise self.error
        at = (cursor or 0) + 1
        return More(at) if at <= self.end else Done(Step.END)


def counting(store: CheckpointStore | None, task: Any, *policies: Any) -> Workflow[Step, None]:
    flow = Workflow(Step, checkpoints=store).exits(Step.END)
    return flow.register(Step.COUNT, task, *policies)


@pytest.mark.parametrize("durable", [False, True])
def test_the_cursors_of_a_run(durable: bool) -> None:
    """Each step has the cursor of the one before; with a store each is a row, densely numbered."""

    async def main() -> tuple[list[int | None], list[tuple[int, bytes]]]:
        store, task = MemoryCheckpoints(), Count(3)
        await counting(store if durable else None, task).run(Step.COUNT, run_id="r")
        events = await store.load("r") if durable else []
        rows = [(e.sequence, bytes(e.value)) for e in events if isinstance(e, CursorSaved)]
        return task.seen, rows

    rows = [(3, b"1"), (4, b"2"), (5, b"3")] if durable else []
    assert ([None, 1, 2, 3], rows) == run(main())


@pytest.mark.parametrize("durable", [False, True])
def test_a_transient_failure_repeats_its_step(durable: bool) -> None:
    """Three attempts per step: two failures at a cursor are two more calls with it."""
    task = Count(5, bad=3, fails=2)
    store = MemoryCheckpoints() if durable else None
    run(counting(store, task, Retry.fixed(3, 1)).run(Step.COUNT))
    assert [None, 1, 2, 3, 3, 3, 4, 5] == task.seen


def test_a_slow_step_has_a_timeout_of_its_own() -> None:
    """A `Timeout` counts anew for each step."""

    class Slow(Count):
        async def step(
            self, ctx: Context[Any], cursor: int | None
        ) -> More[int] | Done[Literal[Step.END]]:
            await asyncio.sleep(4)
            return await super().step(ctx, cursor)

    assert Step.END is run(counting(None, Slow(5), Timeout(5)).run(Step.COUNT))


def test_a_final_failure_leaves_the_cursor() -> None:
    """A run that failed in a step goes on with that step when it is opened again."""

    async def main() -> list[int | None]:
        store, task = MemoryCheckpoints(), Count(5, bad=4, fails=1)
        with pytest.raises(OSError):
            await counting(store, task).run(Step.COUNT, run_id="r")
        with pytest.raises(RunFailedError):
            await counting(store, task).run(Step.COUNT, run_id="r")
        await counting(store, task).retry("r")
        return task.seen

    assert [None, 1, 2, 3, 4, 4, 5] == run(main())


@pytest.mark.parametrize("at", [2, 3])
def test_a_cursor_that_the_store_does_not_take(at: int) -> None:
    """The run stops where it is, whatever the `Retry`; the step after it is never made."""

    async def main() -> list[int | None]:
        task = Count(5)
        store = FaultyStore(MemoryCheckpoints(), fail_at=at)
        with pytest.raises(CheckpointError):
            await counting(store, task, Retry.fixed(9, 1, on=(Exception,))).run(Step.COUNT)
        return task.seen

    assert [None, 1, 2][: at - 1] == run(main())


def test_a_cursor_that_cannot_be_written_is_no_reason_to_try_again() -> None:
    """What its step has done is not done again, since it would bring the same."""
    steps: list[Any] = []

    class Odd(SteppedTask[Step, Any]):
        async def step(self, ctx: Context[Any], cursor: Any) -> More[Any] | Done[Literal[Step.END]]:
            steps.append(cursor)
            return More(object())

    with pytest.raises(DataError, match="the cursor of Odd"):
        run(counting(MemoryCheckpoints(), Odd(), Retry.fixed(9, 1)).run(Step.COUNT))
    assert [None] == steps


def test_a_cursor_that_no_longer_decodes() -> None:
    """A cursor of another type than it was fails the visit, and says whose it is."""

    class Words(SteppedTask[Step, str]):
        async def step(
            self, ctx: Context[Any], cursor: str | None
        ) -> More[str] | Done[Literal[Step.END]]:
            raise AssertionError("never called")

    async def main() -> None:
        store = MemoryCheckpoints()
        with suppress(SimulatedCrash):
            task = Count(5, bad=2, fails=1, error=SimulatedCrash)
            await counting(store, task).run(Step.COUNT, run_id="r")
        await asyncio.sleep(16)
        said = "the cursor of Words was recorded as 2, which is not what it is annotated with"
        with pytest.raises(DataError, match=said):
            await counting(store, Words(), Retry.fixed(9, 1)).resume("r")

    run(main())


def test_steps_take_resources() -> None:
    """`step` has resources like any verb."""

    class Adds(SteppedTask[Step, int]):
        async def step(
            self, ctx: Context[Any], cursor: int | None, by: int
        ) -> More[int] | Done[Literal[Step.END]]:
            at = (cursor or 0) + by
            return More(at) if at < 10 else Done(Step.END)

    flow = Workflow(Step, resources=Resources(by=5)).exits(Step.END).register(Step.COUNT, Adds())
    assert Step.END is run(flow.run(Step.COUNT))
