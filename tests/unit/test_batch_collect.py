"""Batches whose outcomes are taken one by one, and not kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import BatchTask, Context, ItemOutcome, Outcomes, Workflow
from cano.errors import DefinitionError
from cano.testing import run


class Step(StrEnum):
    A = auto()
    END = auto()


Process = Callable[[Context[Any], Any], Awaitable[Any]]


class Numbers(BatchTask[Step, Any, Any]):
    """Processes *items*, and keeps what `finish` was given."""

    def __init__(self, items: Any, process: Process, **settings: Any) -> None:
        self.items = items
        self.how = process
        self.loaded = 0
        self.given: Outcomes[Any] | None = None
        vars(self).update(settings)

    async def load(self, ctx: Context[Any]) -> Iterable[Any]:
        self.loaded += 1
        items: Iterable[Any] = self.items
        return items

    async def process(self, ctx: Context[Any], item: Any) -> Any:
        return await self.how(ctx, item)

    async def finish(self, ctx: Context[Any], outcomes: Outcomes[Any]) -> Literal[Step.END]:
        self.given = outcomes
        return Step.END


def outcomes_of(task: Numbers, *policies: Any, **settings: Any) -> Outcomes[Any]:
    flow = Workflow(Step, **settings).exits(Step.END).register(Step.A, task, *policies)
    assert Step.END == run(flow.run(Step.A))
    assert task.given is not None
    return task.given


async def double(ctx: Context[Any], item: int) -> int:
    return 2 * item


async def later_first(ctx: Context[Any], item: int) -> int:
    """The later an item, the sooner it is done."""
    await asyncio.sleep(100 - item)
    return 2 * item


class Collects(Numbers):
    """Collects in a list."""

    def __init__(self, items: Any, process: Process, **settings: Any) -> None:
        super().__init__(items, process, **settings)
        self.collected: list[Any] = []

    async def collect(self, ctx: Context[Any], outcome: ItemOutcome[Any]) -> None:
        await asyncio.sleep(0.1)
        self.collected.append(repr(outcome.error) if outcome.error else outcome.value)


@pytest.mark.parametrize("concurrency", [1, 3, 10, 100])
def test_outcomes_may_be_collected(concurrency: int) -> None:
    """`collect` gets every outcome once, in input order, whatever is done first."""

    async def process(ctx: Context[Any], item: int) -> int:
        if item == 3:
            raise ValueError(item)
        return await later_first(ctx, item)

    task = Collects(range(10), process, concurrency=concurrency)
    outcomes = outcomes_of(task)

    assert [0, 2, 4, "ValueError(3)", 8, 10, 12, 14, 16, 18] == task.collected
    assert (10, 9, 1) == (outcomes.total, outcomes.succeeded, outcomes.failed)


def test_what_was_collected_is_not_kept() -> None:
    """Whoever asks the outcomes for what `collect` has taken is told so."""
    outcomes = outcomes_of(Collects(range(3), double))

    for ask in (lambda: outcomes.values, lambda: outcomes.errors, lambda: outcomes[0]):
        with pytest.raises(DefinitionError, match=r"only the counts are kept; read total"):
            ask()
    with pytest.raises(DefinitionError):
        list(outcomes)


def test_a_slow_item_holds_back_new_ones() -> None:
    """At most twice as many items as run at once are begun and not collected."""
    begun = 0
    ahead: list[int] = []

    async def process(ctx: Context[Any], item: int) -> None:
        nonlocal begun
        begun += 1
        if item == 0:
            await asyncio.sleep(1000)
            ahead.append(begun)

    outcomes_of(Collects(range(100), process, concurrency=5))
    assert [10] == ahead
