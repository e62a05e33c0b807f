"""Crashes within a stream: every item at least once, every window that was kept once, same end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import CloseReason, Context, Done, Retry, StreamTask, Window, Workflow

sys.path.insert(0, str(Path(__file__).parent))

from _crash import Data, Scenario, Step, World, everywhere, play, twice, workflow


class Read(StreamTask[Step, int, int, int]):
    """The numbers from 1 to 5. A flush is a step: that of the window after the cursor before it."""

    window = Window(count=2)
    pause = 0.0

    def __init__(self, world: World) -> None:
        self.world = world

    async def open(self, ctx: Context[Data], cursor: int | None) -> AsyncIterator[int]:
        self.world.do("open", ctx)
        for number in range((cursor or 0) + 1, 6):
            await asyncio.sleep(self.pause)
            yield number

    async def process(self, ctx: Context[Data], item: int) -> int:
        self.world.do("item", ctx, item)
        ctx.data.total += item
        return item

    def position(self, item: int) -> int:
        return item

    async def flush(
        self, ctx: Context[Data], window: Sequence[int]
    ) -> Done[Literal[Step.B]] | None:
        self.world.do("step", ctx, window[0] - 1 or None)
        ctx.data.trail.append("+".join(map(str, window)))
        return None

    async def close(self, ctx: Context[Data], reason: CloseReason) -> Literal[Step.B]:
        self.world.do("close", ctx, reason)
        return Step.B


async def end(ctx: Context[Data]) -> Literal[Step.END]:
    ctx.data.trail.append(str(ctx.data.total))
    return Step.END


def read(world: World) -> Workflow[Any, Any]:
    return workflow(world).register(Step.A, Read(world)).register(Step.B, end)


def twice_read(world: World) -> Workflow[Any, Any]:
    """Two visits: the second begins at the beginning, wherever the first was broken off."""

    async def again(ctx: Context[Data]) -> Literal[Step.A, Step.END]:
        ctx.data.trail.append("again")
        return Step.A if ctx.data.trail.count("again") < 2 else Step.END

    return workflow(world).register(Step.A, Read(world)).register(Step.B, again)


class OneByOne(Read):
    """A window for each item, by its time: the flush goes on beside a source that has nothing."""

    window = Window(seconds=1.0)
    pause = 5.0


class Left(Read):
    """Leaves in its second window: `Done` is said again until it was heard."""

    async def flush(self, ctx: Context[Data], window: Sequence[int]) -> Any:
        await super().flush(ctx, window)
        return Done(Step.B) if 4 in window else None


class Hard(Read):
    """Items that fail at first, or for good, or do something that must not be done again."""

    errors = 1

    async def process(self, ctx: Context[Data], item: int) -> int:
        self.world.breathe()
        if item in {2, 4} and ctx.attempt < 3:
            raise ConnectionError("busy")
        if item == 3:
            raise ValueError("bad")

        async def pay() -> int:
            self.world.do("effect", ctx, f"rent {item}")
            return item

        async def paid() -> int | None:
            self.world.breathe()
            return item if self.world.times("effect", f"rent {item}") else None

        ctx.data.total += await ctx.effect(f"rent {item}", pay, verify=paid)
        return item

    async def rejected(self, ctx: Context[Data], item: int, error: Exception) -> None:
        self.world.do("letter", ctx, item)
        ctx.data.trail.append(f"{item} {error}")

    async def flush(self, ctx: Context[Data], window: Sequence[int]) -> None:
        self.world.do("flush", ctx, window[0])
        ctx.data.trail.append("+".join(map(str, window)))


def of(kind: type[Read], *policies: Any) -> Any:
    def build(world: World) -> Workflow[Any, Any]:
        made = workflow(world).register(Step.A, kind(world), *policies)
        return made.register(Step.B, end)

    return build


RETRY = Retry.fixed(3, 1.0, on=ConnectionError)
SCENARIOS = [
    Scenario("stream", "end: 1+2, 3+4, 5, 15", read),
    Scenario(
        "stream twice", "end: 1+2, 3+4, 5, again, 1+2, 3+4, 5, again", twice_read
    ),
    Scenario("stream on time", "end: 1, 2, 3, 4, 5, 15", of(OneByOne)),
    Scenario("stream left", "end: 1+2, 3+4, 10", of(Left)),
    Scenario("stream of hard items", "end: 1+2, 3 bad, 4, 5, 12", of(Hard, RETRY)),
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_one_crash(scenario: Scenario) -> None:
    """A crash at any durable write repeats what was not kept, and nothing else."""
    assert 0 < everywhere(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_two_crashes(scenario: Scenario) -> None:
    """Neither does a second crash after the first."""
    assert 0 < twice(scenario, 40)


def test_a_crash_costs_one_window() -> None:
    """Only the items of the window that was not kept come again."""
    counts: list[int] = []
    for n in range(2, 6):
        ledger = play(SCENARIOS[0], [("before", n)]).ledger
        counts.append(sum(deed.what == "item" for deed in ledger))
    # before the entry of A is nothing; then two items, two, and the last one come again
    assert [7, 7, 6, 5] == counts
