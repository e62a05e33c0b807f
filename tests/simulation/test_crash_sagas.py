"""Crashes in sagas: whatever completed is undone once, newest first, and nothing else is."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import CompensatableTask, Context, Retry, RouterTask, Workflow

sys.path.insert(0, str(Path(__file__).parent))

from _crash import Data, Scenario, Step, World, everywhere, twice, workflow

NEXT = dict(zip([*Step], [*Step][1:], strict=False))
"""The state after each."""


class Book(CompensatableTask[Step, str]):
    """Books something in its state, and cancels the booking; either is in the data."""

    compensation_policies = (Retry.fixed(2, 5.0),)

    def __init__(self, world: World, to: Step | None = None, refuses: int = 0) -> None:
        self.world = world
        self.to = to
        self.refuses = refuses
        """How often undoing fails before it works."""

    async def run(self, ctx: Context[Data]) -> tuple[Step, str]:
        self.world.do("run", ctx)
        ctx.data.trail.append(ctx.state.name)
        ctx.data.total += 1
        return self.to or NEXT[Step(ctx.state)], f"{ctx.state.name} of {ctx.data.total}"

    async def compensate(self, ctx: Context[Data], output: str) -> None:
        self.world.do("undo", ctx, output)
        ctx.data.trail.append(f"not {output}")
        if self.world.times("refused", output) < self.refuses:
            self.world.do("refused", ctx, output)
            raise ConnectionError(f"cannot undo {output}")
        ctx.data.total -= 1


def saga(world: World, fails: int, refuses: int = 0) -> Workflow[Any, Any]:
    """Five bookings, of which number *fails* is refused. The third undoes at attempt *refuses*."""
    flow = workflow(world)
    for n, state in enumerate([Step.A, Step.B, Step.C, Step.D, Step.E], 1):
        to = Step.END if state is Step.E else None
        flow.register(state, Book(world, to, refuses if state is Step.C else 0))
        if n == fails:
            flow.register(state, failing(world))
    return flow


def failing(world: World) -> Any:
    async def refused(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        ctx.data.trail.append("half done")
        raise ValueError(f"{ctx.state.name} is sold out")

    return refused


def cancelled(world: World, refuses: int = 0) -> Workflow[Any, Any]:
    """Cancelled while the third books, which waits for nobody; the fourth never begins."""
    flow = saga(world, 0)

    class Slow(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Step, str]:
            await self.world.ask_to_cancel()
            await asyncio.sleep(1)  # a file takes a moment to tell
            return await super().run(ctx)

    return flow.register(Step.C, Slow(world, refuses=refuses))


def cancelled_within(world: World) -> Workflow[Any, Any]:
    """Cancelled within a plain task, which is interrupted."""
    flow = saga(world, 0)

    async def wait(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        await world.ask_to_cancel()
        await ctx.sleep(100)
        return Step.END

    return flow.register(Step.C, wait)


def router(world: World) -> Workflow[Any, Any]:
    """A booking, then a router, which leaves no trace, then a failure."""

    class Route(RouterTask[Step]):
        async def route(self, ctx: Context[Data]) -> Literal[Step.C]:
            world.do("route", ctx)
            ctx.data.trail.append("routed")
            return Step.C

    flow = workflow(world).register(Step.A, Book(world)).register(Step.B, Route())
    return flow.register(Step.C, Book(world)).register(Step.D, failing(world))


def unwritable(world: World) -> Workflow[Any, Any]:
    """The output of the second booking cannot be kept: it is undone at once."""

    class Odd(Book):
        async def run(self, ctx: Context[Data]) -> tuple[Step, str]:
            await super().run(ctx)
            return Step.C, object()  # type: ignore[return-value]

        async def compensate(self, ctx: Context[Data], output: str) -> None:
            self.world.do("undo", ctx, "at once")

    flow = workflow(world).register(Step.A, Book(world)).register(Step.B, Odd(world))
    return flow.register(Step.C, failing(world))


def unwritable_data(world: World) -> Workflow[Any, Any]:
    """A task leaves something in the data that cannot be written down."""

    async def spoil(ctx: Context[Data]) -> Literal[Step.C]:
        world.do("run", ctx)
        ctx.data.trail.append(object())  # type: ignore[arg-type]
        return Step.C

    flow = workflow(world).register(Step.A, Book(world)).register(Step.B, spoil)
    return flow.register(Step.C, failing(world))


SCENARIOS = [
    Scenario("fails at 1", "ValueError: 0", partial(saga, fails=1)),
    Scenario("fails at 2", "ValueError: A, not A of 1", partial(saga, fails=2)),
    Scenario("fails at 3", "ValueError: A, B, not B of 2, not A of 1", partial(saga, fails=3)),
    Scenario(
        "fails at 4",
        "ValueError: A, B, C, not C of 3, not B of 2, not A of 1",
        partial(saga, fails=4),
    ),
    Scenario(
        "fails at 5",
        "ValueError: A, B, C, D, not D of 4, not C of 3, not B of 2, not A of 1",
        partial(saga, fails=5),
    ),
    Scenario("finishes", "end: A, B, C, D, E", lambda world: saga(world, 0)),
    Scenario(
        "third undone at the second attempt",
        "ValueError: A, B, C, D, not D of 4, not C of 3, not B of 2, not A of 1",
        lambda world: saga(world, 5, 1),
    ),
    Scenario(
        "third never undone",
        "not undone: A, B, C, D, not D of 4, not B of 2, not A of 1",
        lambda world: saga(world, 5, 99),
    ),
    Scenario("cancelled", "cancelled: A, B, C, not C of 3, not B of 2, not A of 1", cancelled),
    Scenario(
        "cancelled, third never undone",
        "not undone: A, B, C, not B of 2, not A of 1",
        lambda world: cancelled(world, 99),
    ),
    Scenario(
        "cancelled within a task", "cancelled: A, B, not B of 2, not A of 1", cancelled_within
    ),
    Scenario("router", "ValueError: A, routed, C, not C of 2, not A of 1", router),
    Scenario("unwritable output", "DataError: A, not A of 1", unwritable),
    Scenario("unwritable data", "DataError: A, not A of 1", unwritable_data),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_one_crash(scenario: Scenario) -> None:
    """A crash at any durable write changes neither the end of a saga nor what it undoes."""
    assert 0 < everywhere(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_two_crashes(scenario: Scenario) -> None:
    """Neither does a second crash while the run, or its rollback, is resumed."""
    assert 0 < twice(scenario, 40)
