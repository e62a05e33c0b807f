"""Many items in one state, against a loop of tasks under an `asyncio.Semaphore`."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from enum import Enum
from typing import Any, Literal

from bench.harness import Batch, Line, timed
from cano import BatchTask, Context, ItemOutcome, Outcomes, Retry, Timeout, Workflow

ITEMS = 100_000
AT_ONCE = 100


class Step(Enum):
    """One batch and its end."""

    BATCH = "batch"
    DONE = "done"


class Trivial(BatchTask[Step, int, int]):
    """Items that do nothing at all."""

    concurrency = AT_ONCE

    def __init__(self, items: int) -> None:
        self.items = items

    async def load(self, ctx: Context[Any]) -> range:
        return range(self.items)

    async def process(self, ctx: Context[Any], item: int) -> int:
        return item

    async def finish(self, ctx: Context[Any], outcomes: Outcomes[int]) -> Literal[Step.DONE]:
        assert outcomes.succeeded == self.items
        return Step.DONE


class Suspending(Trivial):
    """Items that let others have their turn."""

    async def process(self, ctx: Context[Any], item: int) -> int:
        await asyncio.sleep(0)
        return item


class Guarded(Trivial):
    """Items with policies, none of which has anything to do."""

    item_policies = (Retry(), Timeout(60))


class Yielded(Trivial):
    """Items of an async generator."""

    async def load(self, ctx: Context[Any]) -> AsyncIterator[int]:  # type: ignore[override]
        for item in range(self.items):
            yield item


class Collected(Trivial):
    """Items that are not kept, and neither is what comes of them."""

    async def load(self, ctx: Context[Any]) -> Iterator[list[int]]:  # type: ignore[override]
        return ([item] * 10 for item in range(self.items))

    async def process(self, ctx: Context[Any], item: Any) -> Any:
        await asyncio.sleep(0)
        return item[0]

    async def collect(self, ctx: Context[Any], outcome: ItemOutcome[int]) -> None:
        assert outcome.value is not None


def batch(task: Trivial) -> Batch:
    """A run of *task*, by the item."""
    return timed(lambda: _run(task), task.items)


async def _run(task: Trivial) -> None:
    flow = Workflow(Step).exits(Step.DONE).register(Step.BATCH, task)
    await flow.run(Step.BATCH)


def by_hand(*, suspends: bool = False, items: int = ITEMS) -> Batch:
    """What people write: a task per item, and a semaphore for the limit."""

    async def process(item: int) -> int:
        if suspends:
            await asyncio.sleep(0)
        return item

    async def work() -> None:
        free = asyncio.Semaphore(AT_ONCE)

        async def limited(item: int) -> int:
            async with free:
                return await process(item)

        results = await asyncio.gather(*(limited(item) for item in range(items)))
        assert items == len(results)

    return timed(work, items)


def peak(task: Trivial) -> Batch:
    """The most bytes that a run of *task* holds at any moment."""

    def measured() -> float:
        tracemalloc.start()
        try:
            asyncio.run(_run(task))
            return float(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    return measured


def lines() -> list[Line]:
    """A hundred thousand items, a hundred at once; figures are per item."""
    hand = by_hand()
    return [
        Line("trivial items", batch(Trivial(ITEMS)), hand, must=3, aim=1, unit="µs"),
        Line(
            "items that suspend once",
            batch(Suspending(ITEMS)), by_hand(suspends=True), must=3, aim=1, unit="µs",
        ),
        Line("Retry and Timeout around each", batch(Guarded(ITEMS)), hand, unit="µs"),
        Line("from an async generator", batch(Yielded(ITEMS)), hand, unit="µs"),
        Line("collected one by one", batch(Collected(ITEMS)), hand, unit="µs"),
        Line(
            "peak memory, 100,000 items collected over 10,000",
            peak(Collected(100_000)), peak(Collected(10_000)), must=1.1, unit="KiB", rounds=1,
        ),
    ]  # fmt: skip
