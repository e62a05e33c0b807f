"""Many branches at once, against `asyncio.gather` and `asyncio.wait`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

from bench.harness import Batch, Line, timed
from cano import Context, Retry, Split, Workflow
from cano import join as joins

BRANCHES = 1_000


class Step(Enum):
    """One split and its end."""

    SPLIT = "split"
    DONE = "done"


async def nothing(ctx: Any) -> int:
    return 1


async def one_turn(ctx: Any) -> int:
    await asyncio.sleep(0)
    return 1


async def for_ever(ctx: Any) -> int:
    await asyncio.get_running_loop().create_future()
    return 1


async def sleeping(ctx: Any) -> int:
    await asyncio.sleep(3600)
    return 1


async def soon(ctx: Any) -> int:
    for _ in range(3):
        await asyncio.sleep(0)
    return 1


def split(
    branch: Callable[[Context[Any]], Awaitable[int]],
    count: int = BRANCHES,
    *policies: Any,
    winner: Callable[[Context[Any]], Awaitable[int]] | None = None,
    times: int = 1,
    **settings: Any,
) -> Batch:
    """A batch of *count* times *branch*, one of them a *winner* if there is one."""
    branches = [branch] * count
    if winner is not None:
        branches[count // 2] = winner
    return _run(Split(branches, then=Step.DONE, **settings), count, times, policies)


def split_over(count: int = BRANCHES) -> Batch:
    """The same, with the branches made of items at run time."""

    async def each(ctx: Context[Any], item: int) -> int:
        return 1

    return _run(Split.over(lambda data: range(count), run=each, then=Step.DONE), count, 1, ())


def _run(task: Split[Step], count: int, times: int, policies: tuple[Any, ...]) -> Batch:
    flow = Workflow(Step).exits(Step.DONE).register(Step.SPLIT, task, *policies)
    flow.check(Step.SPLIT)

    async def work() -> None:
        for _ in range(times):
            await flow.run(Step.SPLIT)

    return timed(work, count * times)


def gather(branch: Callable[[Any], Awaitable[int]], times: int = 1) -> Batch:
    async def work() -> None:
        for _ in range(times):
            await asyncio.gather(*(branch(None) for _ in range(BRANCHES)))

    return timed(work, BRANCHES * times)


def first(branch: Callable[[Any], Any]) -> Batch:
    """The first of many by hand: wait, cancel the rest, and see them end."""

    async def work() -> None:
        tasks = [asyncio.ensure_future(branch(None)) for _ in range(BRANCHES - 1)]
        tasks.insert(BRANCHES // 2, asyncio.ensure_future(soon(None)))
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    return timed(work, BRANCHES)


def total(batch: Batch, count: int) -> Batch:
    """All of it instead of one branch's share."""
    return lambda: batch() * count


def lines() -> list[Line]:
    """A thousand branches each time; figures are per branch."""
    hand, first_by_hand = gather(nothing, 5), first(for_ever)
    half = BRANCHES // 2
    strategies: dict[str, dict[str, Any]] = {
        "Any()": {"join": joins.Any()},
        f"Quorum({half})": {"join": joins.Quorum(half)},
        "Percentage(0.5)": {"join": joins.Percentage(0.5)},
        f"PartialResults({half})": {"join": joins.PartialResults(half)},
        "PartialTimeout()": {"join": joins.PartialTimeout(), "timeout": 30.0},
        "Tolerate(failures=1)": {"join": joins.Tolerate(failures=1)},
        "Settled()": {"join": joins.Settled()},
        "All(), bulkhead=10": {"bulkhead": 10},
        "All(), timeout=30": {"timeout": 30.0},
    }
    return [
        Line("All()", split(nothing, times=5), hand, must=1.25, aim=0.7, unit="µs"),
        Line(
            "All(), every branch suspends once",
            split(one_turn, times=5), gather(one_turn, 5), must=1.25, unit="µs",
        ),
        Line(
            "the first of them wins",
            split(for_ever, winner=soon, join=joins.Any()),
            first_by_hand, must=1.3, aim=1.1, unit="µs",
        ),
        Line(
            "the first wins, the others sleep",
            split(sleeping, winner=soon, join=joins.Any()),
            first(sleeping), must=1.3, aim=1.1, unit="µs",
        ),
        Line(
            "10,000 branches over 1,000",
            total(split(nothing, 10_000), 10_000), total(split(nothing), 1_000), must=12, unit="µs",
        ),
        *(
            Line(name, split(nothing, times=5, **settings), hand, unit="µs")
            for name, settings in strategies.items()
        ),
        Line("All(), Retry around each", split(nothing, BRANCHES, Retry(), times=5), hand, unit="µs"),
        Line("Split.over(1,000 items)", split_over(), hand, unit="µs"),
    ]  # fmt: skip
