"""A stream of items nobody does anything with, against a bare `async for` over the same source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Literal

from bench.harness import Batch, Line, timed
from cano import (
    CloseReason,
    Context,
    MemoryCheckpoints,
    Retry,
    SqliteCheckpoints,
    StreamTask,
    Window,
    Workflow,
)

ITEMS = 100_000
WINDOWS = 200
"""Of a hundred items each, where every window is a commit."""


class Step(Enum):
    """The stream and its end."""

    READ = "read"
    DONE = "done"


async def source(items: int, after: int = 0) -> AsyncIterator[int]:
    for number in range(after + 1, items + 1):
        yield number


class Read(StreamTask[Step, int, int, int]):
    """Does nothing with *items* items, a hundred at a time."""

    def __init__(self, items: int, window: Window) -> None:
        self.items = items
        self.window = window

    async def open(self, ctx: Context[Any], cursor: int | None) -> AsyncIterator[int]:
        return source(self.items, cursor or 0)

    async def process(self, ctx: Context[Any], item: int) -> int:
        return item

    def position(self, item: int) -> int:
        return item

    async def flush(self, ctx: Context[Any], window: Sequence[int]) -> None:
        pass

    async def close(self, ctx: Context[Any], reason: CloseReason) -> Literal[Step.DONE]:
        return Step.DONE


def bare() -> Batch:
    async def work() -> None:
        async for _ in source(ITEMS):
            pass

    return timed(work, ITEMS)


def stream(window: Window, *policies: Any, items: int = ITEMS) -> Batch:
    flow = Workflow(Step).exits(Step.DONE).register(Step.READ, Read(items, window), *policies)
    flow.check(Step.READ)
    return timed(lambda: flow.run(Step.READ), items)


def stored(window: Window, opened: Callable[[Path], Any], per: int) -> Batch:
    """Seconds of wall time for each *per* items, with a store: a disk takes its time."""

    async def work() -> float:
        with TemporaryDirectory() as folder:
            store = opened(Path(folder) / "runs.db")
            flow = Workflow(Step, checkpoints=store).exits(Step.DONE)
            flow.register(Step.READ, Read(WINDOWS * 100, window))
            try:
                before = perf_counter()
                await flow.run(Step.READ, run_id="r")
                taken = perf_counter() - before
                rows = await store.load("r")
            finally:
                await store.close()
            assert len(rows) == WINDOWS + 3, "one row for each window, and no other"
            return taken / (WINDOWS * 100 / per)

    return lambda: asyncio.run(work())


def lines() -> list[Line]:
    hand, hundred = bare(), Window(count=100)
    nothing: Batch = lambda: 0.0  # noqa: E731 -- it is no function worth a name
    return [
        Line("windows of 100, per item", stream(hundred), hand, must=4, aim=2),
        Line("windows of 1, per item", stream(Window(count=1)), hand),
        Line("windows of 100, Retry around each item", stream(hundred, Retry()), hand),
        Line("windows of 100 or 60 s, per item", stream(Window(count=100, seconds=60.0)), hand),
        Line(
            "windows of 100 in memory, per window",
            stored(hundred, lambda path: MemoryCheckpoints(), 100), nothing,
            unit="µs", by="difference", rounds=3,
        ),
        Line(
            "windows of 100 in SQLite, per window: one commit",
            stored(hundred, SqliteCheckpoints, 100), nothing,
            unit="µs", by="difference", rounds=3,
        ),
    ]  # fmt: skip


def notes() -> list[str]:
    return [
        "a window in SQLite is one row in one transaction; compare `durable` for what that costs "
        "on this disk"
    ]
