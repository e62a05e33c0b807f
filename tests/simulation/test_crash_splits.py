"""Crashes in splits: what a branch came to is kept, and no finished branch runs twice."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import Branch, CompensatableTask, Context, RouterTask, Split, Workflow
from cano.errors import JoinFailedError
from cano.join import All, Join, Quorum, Settled
from cano.join import Any as AnyOf

sys.path.insert(0, str(Path(__file__).parent))

from _crash import Data, Scenario, Step, World, everywhere, twice, workflow


def branch(world: World, name: str, seconds: float, fails: bool = False) -> Branch[int]:
    """A branch that takes its time, and returns a number, or fails."""

    async def work(ctx: Context[Data]) -> int:
        world.do("run", ctx)
        await asyncio.sleep(seconds)
        world.breathe()
        if fails:
            raise ValueError(f"{name} failed")
        return int(seconds * 10)

    return Branch(work, name=name)


def undoable(world: World, name: str, seconds: float, fails: bool = False) -> Branch[str]:
    """A branch that books something, and can cancel the booking."""

    async def book(ctx: Context[Data]) -> str:
        world.do("begin", ctx)
        await asyncio.sleep(seconds)
        if fails:
            raise ValueError(f"{name} is sold out")
        world.do("run", ctx)
        return f"booked {name}"

    async def cancel(ctx: Context[Data], value: str) -> None:
        world.do("undo", ctx, value)
        ctx.data.trail.append(f"not {value}")

    return Branch(book, name=name, compensate=cancel)


def merge(world: World) -> Any:
    """The state after the join writes down what it finds."""

    async def after(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        if isinstance(ctx.error, JoinFailedError):
            assert ctx.error.result == ctx.split
            ctx.data.trail += [str(ctx.error), *map(repr, ctx.error.exceptions)]
        if ctx.split is None:
            ctx.data.trail.append("no split")
            return Step.END
        split = ctx.split
        ctx.data.trail += [f"{one.name}={one.value}" for one in split.successes]
        ctx.data.trail += [f"{one.name}: {one.error!r}" for one in split.errors]
        ctx.data.trail.append(f"{split.reason} {split.cancelled} {split.not_started}")
        return Step.END

    return after


def refused(world: World) -> Any:
    async def task(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        raise ValueError("refused")

    return task


def split(world: World, join: Join, fails: str = "", **settings: Any) -> Workflow[Any, Any]:
    """Four branches side by side; those named in *fails* do."""
    times = {"ann": 0.3, "ben": 0.1, "cyd": 0.4, "dan": 0.2}
    branches = [branch(world, name, times[name], name in fails) for name in times]
    flow = workflow(world).register(Step.A, Split(branches, join=join, then=Step.B, **settings))
    return flow.register(Step.B, merge(world))


def routed(world: World) -> Workflow[Any, Any]:
    """A join that fails leads to a state, which finds the split."""
    branches = [branch(world, "ann", 0.1), branch(world, "ben", 0.2, True)]
    flow = workflow(world)
    flow.register(Step.A, Split(branches, then=Step.B), otherwise=Step.LATE)
    return flow.register(Step.B, merge(world)).register(Step.LATE, merge(world))


def items(world: World, fails: str = "") -> Workflow[Any, Any]:
    """A branch per item, where the items are known at run time only; two at once."""

    async def plan(ctx: Context[Data]) -> Literal[Step.B]:
        world.do("run", ctx)
        ctx.data.trail = ["x", "y", "z"]
        return Step.B

    async def work(ctx: Context[Data], item: str) -> str:
        world.do("run", ctx)
        await asyncio.sleep(ord(item) / 1000)
        world.breathe()
        if item in fails:
            raise ValueError(item)
        return item * 2

    over = Split.over(
        lambda data: data.trail, run=work, name=str, join=Settled(), then=Step.C, bulkhead=2
    )
    flow = workflow(world).register(Step.A, plan).register(Step.B, over)
    return flow.register(Step.C, merge(world))


def through_router(world: World) -> Workflow[Any, Any]:
    """The join leads to a router, and that to a state; only the router finds the split."""

    class Route(RouterTask[Step]):
        async def route(self, ctx: Context[Data]) -> Literal[Step.C]:
            assert ctx.split is not None
            ctx.data.trail.append(f"{len(ctx.split.successes)} came")
            return Step.C

    async def plain(ctx: Context[Data]) -> Literal[Step.D]:
        world.do("run", ctx)
        ctx.data.trail.append(f"plain, {ctx.split}")
        return Step.D

    async def fails(ctx: Context[Data]) -> Literal[Step.END]:
        raise ValueError("never called")

    branches = [branch(world, "ann", 0.1), branch(world, "ben", 0.2)]
    flow = workflow(world).register(Step.A, Split(branches, then=Step.B))
    flow.register(Step.B, Route()).register(Step.C, plain)
    # D may be entered with an error, so it is shown what the state before left for it.
    flow.register(Step.D, merge(world)).register(Step.E, fails, otherwise=Step.D)
    return flow


def undone(world: World, join: Join, **settings: Any) -> Workflow[Any, Any]:
    """Branches that can be undone, between two other bookings, and then a failure."""

    class Book(CompensatableTask[Step, str]):
        async def run(self, ctx: Context[Data]) -> tuple[Step, str]:
            world.do("run", ctx)
            return (Step.B if ctx.state is Step.A else Step.D), ctx.state.name

        async def compensate(self, ctx: Context[Data], output: str) -> None:
            world.do("undo", ctx, output)
            ctx.data.trail.append(f"not {output}")

    branches = [
        undoable(world, "ann", 0.3),
        undoable(world, "ben", 0.1),
        branch(world, "cyd", 0.2),
        undoable(world, "dan", 0.4),
    ]
    flow = workflow(world).register(Step.A, Book())
    flow.register(Step.B, Split(branches, join=join, then=Step.C, **settings))
    return flow.register(Step.C, Book()).register(Step.D, refused(world))


def undone_for_one(world: World) -> Workflow[Any, Any]:
    """One branch fails while others book: their bookings are finished, recorded and undone."""
    branches = [
        undoable(world, "ann", 0.3),
        undoable(world, "ben", 0.1),
        branch(world, "cyd", 0.2, True),
        undoable(world, "dan", 0.4),
    ]
    flow = workflow(world).register(Step.A, Split(branches, then=Step.B))
    return flow.register(Step.B, merge(world))


def undone_when_cancelled(world: World) -> Workflow[Any, Any]:
    """Cancelled while branches book."""

    async def ask(ctx: Context[Data]) -> int:
        world.do("run", ctx)
        await asyncio.sleep(0.2)
        await world.ask_to_cancel()
        await asyncio.sleep(60)
        return 1

    branches = [undoable(world, "ann", 0.3), undoable(world, "ben", 0.1), Branch(ask, name="cyd")]
    flow = workflow(world).register(Step.A, Split(branches, then=Step.B))
    return flow.register(Step.B, merge(world))


SCENARIOS = [
    Scenario("all", "end: ann=3, ben=1, cyd=4, dan=2, all () ()", partial(split, join=All())),
    Scenario("all, one fails", "JoinFailedError: 0", partial(split, join=All(), fails="dan")),
    Scenario(
        "all, waiting",
        "JoinFailedError: 0",
        partial(split, join=All(fail_fast=False), fails="dan ann"),
    ),
    Scenario(
        "any",
        "end: dan=2, ben: ValueError('ben failed'), enough (0, 2) ()",
        partial(split, join=AnyOf(), fails="ben"),
    ),
    Scenario(
        "any, waiting",
        "end: ann=3, cyd=4, dan=2, ben: ValueError('ben failed'), all () ()",
        partial(split, join=AnyOf(), fails="ben", losers="wait"),
    ),
    Scenario(
        "quorum",
        "end: ann=3, dan=2, ben: ValueError('ben failed'), enough (2,) ()",
        partial(split, join=Quorum(2), fails="ben"),
    ),
    Scenario(
        "quorum, impossible", "JoinFailedError: 0", partial(split, join=Quorum(3), fails="ben ann")
    ),
    Scenario(
        "quorum, window of two",
        "end: ann=3, cyd=4, dan=2, ben: ValueError('ben failed'), all () ()",
        partial(split, join=Quorum(3), fails="ben", bulkhead=2),
    ),
    Scenario(
        "settled",
        "end: ann=3, dan=2, ben: ValueError('ben failed'), cyd: ValueError('cyd failed'), all () ()",
        partial(split, join=Settled(), fails="ben cyd"),
    ),
    Scenario(
        "routed",
        "end: the join of A failed: 1 of 2 branches succeeded, 1 failed; All(), reason: all "
        "(1 sub-exception), ValueError('ben failed'), ann=1, ben: ValueError('ben failed'), "
        "all () ()",
        routed,
    ),
    Scenario("items", "end: x, y, z, x=xx, y=yy, z=zz, all () ()", items),
    Scenario(
        "items, one fails",
        "end: x, y, z, x=xx, z=zz, y: ValueError('y'), all () ()",
        partial(items, fails="y"),
    ),
    Scenario("through a router", "end: 2 came, plain, None, no split", through_router),
    Scenario(
        "undone",
        "ValueError: not C, not booked dan, not booked ann, not booked ben, not A",
        partial(undone, join=All()),
    ),
    Scenario(
        "undone, any",
        "ValueError: not C, not booked dan, not booked ann, not booked ben, not A",
        partial(undone, join=AnyOf()),
    ),
    Scenario(
        "undone, quorum",
        "ValueError: not C, not booked dan, not booked ann, not booked ben, not A",
        partial(undone, join=Quorum(2), bulkhead=3),
    ),
    Scenario(
        "undone for one",
        "JoinFailedError: not booked dan, not booked ann, not booked ben",
        undone_for_one,
    ),
    Scenario(
        "undone when cancelled", "cancelled: not booked ann, not booked ben", undone_when_cancelled
    ),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_one_crash(scenario: Scenario) -> None:
    """A crash at any durable write changes neither the join nor what the branches came to."""
    assert 0 < everywhere(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_two_crashes(scenario: Scenario) -> None:
    """Neither does a second crash while the split is resumed."""
    assert 0 < twice(scenario, 40)
