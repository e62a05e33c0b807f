"""Crashes in batches: what an item came to is kept, and no finished item is processed twice."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import BatchTask, Context, ItemOutcome, Outcomes, Retry, Workflow

sys.path.insert(0, str(Path(__file__).parent))

from _crash import Data, Scenario, Step, World, everywhere, twice, workflow

TIMES = {"ann": 0.3, "ben": 0.1, "cyd": 0.4, "dan": 0.2, "eve": 0.1}


class Greet(BatchTask[Step, str, str]):
    """Two at a time; those named in *fails* do."""

    concurrency = 2
    durable_items = True

    def __init__(self, world: World, fails: str = "", **settings: Any) -> None:
        self.world = world
        self.fails = fails
        vars(self).update(settings)

    async def load(self, ctx: Context[Data]) -> list[str]:
        return list(TIMES)

    def key(self, item: str) -> str:
        return f"of {item}"

    async def process(self, ctx: Context[Data], item: str) -> str:
        self.world.do("run", ctx)
        await asyncio.sleep(TIMES[item])
        self.world.breathe()
        if item in self.fails:
            raise ValueError(f"{item} failed")
        return item.upper()

    async def finish(self, ctx: Context[Data], outcomes: Outcomes[str]) -> Literal[Step.B]:
        self.world.breathe()
        ctx.data.trail += [one.value or repr(one.error) for one in outcomes]
        return Step.B


class Pages(Greet):
    """Items of an async generator, each with something that must happen once."""

    async def load(self, ctx: Context[Data]) -> AsyncIterator[str]:  # type: ignore[override]
        for name in TIMES:
            await asyncio.sleep(0.05)
            yield name

    async def process(self, ctx: Context[Data], item: str) -> str:
        self.world.do("run", ctx)
        await ctx.sleep(0.1)

        async def send() -> str:
            self.world.do("effect", ctx, "send")
            return item

        async def look() -> str | None:
            key = ctx.idempotency_key
            sent = [deed for deed in self.world.ledger if (deed.what, deed.key) == ("effect", key)]
            return item if sent else None

        return await ctx.effect("send", send, verify=look)


class Collected(Greet):
    """The outcomes are handed to the run data one by one."""

    async def collect(self, ctx: Context[Data], outcome: ItemOutcome[str]) -> None:
        self.world.breathe()
        ctx.data.trail.append(outcome.value or repr(outcome.error))

    async def finish(self, ctx: Context[Data], outcomes: Outcomes[str]) -> Literal[Step.B]:
        self.world.breathe()
        ctx.data.trail.append(f"{outcomes.failed} of {outcomes.total} failed")
        return Step.B


class Impatient(Greet):
    """Its finish wants to see no failure, and gives up at the second attempt."""

    async def process(self, ctx: Context[Data], item: str) -> str:
        self.world.do("try", ctx)  # a failed item is tried again on purpose
        await asyncio.sleep(TIMES[item])
        self.world.breathe()
        if item in self.fails:
            raise ValueError(f"{item} failed")
        return item.upper()

    async def finish(self, ctx: Context[Data], outcomes: Outcomes[str]) -> Literal[Step.B]:
        if outcomes.failed and ctx.attempt < 2:
            raise ConnectionError("again")
        return await super().finish(ctx, outcomes)


def batch(world: World, kind: type[Greet], *policies: Any, **settings: Any) -> Workflow[Any, Any]:
    """A batch, and a state after it."""

    async def after(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        return Step.END

    flow = workflow(world).register(Step.A, kind(world, **settings), *policies)
    return flow.register(Step.B, after)


ALL = "ANN, BEN, CYD, DAN, EVE"
SOME = "ANN, ValueError('ben failed'), CYD, DAN, ValueError('eve failed')"

SCENARIOS = [
    Scenario("items", f"end: {ALL}", partial(batch, kind=Greet)),
    Scenario("items, two fail", f"end: {SOME}", partial(batch, kind=Greet, fails="ben eve")),
    Scenario(
        "items, one after the other", f"end: {ALL}", partial(batch, kind=Greet, concurrency=1)
    ),
    Scenario("items, all at once", f"end: {ALL}", partial(batch, kind=Greet, concurrency=9)),
    Scenario(
        "items, too many fail",
        "TooManyFailuresError: 0",
        partial(batch, kind=Greet, fails="ben eve", max_failures=1),
    ),
    Scenario("items with effects", "end: ann, ben, cyd, dan, eve", partial(batch, kind=Pages)),
    Scenario(
        "collected",
        f"end: {SOME}, 2 of 5 failed",
        partial(batch, kind=Collected, fails="ben eve"),
    ),
]


def again(world: World) -> Workflow[Any, Any]:
    """The whole batch is tried twice."""
    return batch(world, Impatient, Retry.fixed(2, 1), fails="ben")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_one_crash(scenario: Scenario) -> None:
    """A crash at any durable write changes neither the end nor what the items came to."""
    assert 0 < everywhere(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_two_crashes(scenario: Scenario) -> None:
    """Nor does a second one, in the life after."""
    assert 0 < twice(scenario, 40)


def test_a_crash_between_attempts() -> None:
    """A crash in either attempt of the whole batch leads to the same end."""
    end = "end: ANN, ValueError('ben failed'), CYD, DAN, EVE"
    assert 0 < everywhere(Scenario("again", end, again))
