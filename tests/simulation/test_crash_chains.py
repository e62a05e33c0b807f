"""Crashes in plain chains: with data, failing, routed, retried."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import Context, Retry, Workflow

sys.path.insert(0, str(Path(__file__).parent))

from _crash import Data, Scenario, Step, World, everywhere, twice, workflow


def note(world: World, ctx: Context[Data], to: Step) -> Step:
    """What a plain task of these scenarios does: a deed outside, and a line in the data."""
    world.do("run", ctx)
    ctx.data.trail.append(ctx.state.name)
    ctx.data.total += 1
    return to


def chain(world: World) -> Workflow[Any, Any]:
    flow = workflow(world)

    async def a(ctx: Context[Data]) -> Literal[Step.B]:
        return note(world, ctx, Step.B)  # type: ignore[return-value]

    async def b(ctx: Context[Data]) -> Literal[Step.C, Step.B]:
        again = ctx.data.total < 3
        return note(world, ctx, Step.B if again else Step.C)  # type: ignore[return-value]

    async def c(ctx: Context[Data]) -> Literal[Step.END]:
        return note(world, ctx, Step.END)  # type: ignore[return-value]

    return flow.register(Step.A, a).register(Step.B, b).register(Step.C, c)


def failing(world: World) -> Workflow[Any, Any]:
    flow = workflow(world)

    async def a(ctx: Context[Data]) -> Literal[Step.B]:
        return note(world, ctx, Step.B)  # type: ignore[return-value]

    async def b(ctx: Context[Data]) -> Literal[Step.END]:
        note(world, ctx, Step.END)
        raise ValueError("no more")

    return flow.register(Step.A, a).register(Step.B, b)


def routed(world: World) -> Workflow[Any, Any]:
    flow = workflow(world)

    async def a(ctx: Context[Data]) -> Literal[Step.END]:
        note(world, ctx, Step.END)
        raise TimeoutError("too late")

    async def late(ctx: Context[Data]) -> Literal[Step.B]:
        ctx.data.trail.append(f"{type(ctx.error).__name__}: {ctx.error}")
        return note(world, ctx, Step.B)  # type: ignore[return-value]

    async def b(ctx: Context[Data]) -> Literal[Step.END]:
        ctx.data.trail.append(str(ctx.error))
        return note(world, ctx, Step.END)  # type: ignore[return-value]

    flow.register(Step.A, a, otherwise={TimeoutError: Step.LATE})
    return flow.register(Step.LATE, late).register(Step.B, b)


def retried(world: World) -> Workflow[Any, Any]:
    flow = workflow(world)

    async def a(ctx: Context[Data]) -> Literal[Step.B]:
        note(world, ctx, Step.B)
        if world.times("failed") < 2:
            world.do("failed", ctx)
            raise ConnectionError("busy")
        return Step.B

    async def b(ctx: Context[Data]) -> Literal[Step.END]:
        note(world, ctx, Step.END)
        raise ConnectionError("for ever busy")

    flow.register(Step.A, a, Retry.fixed(4, 60.0))
    return flow.register(Step.B, b, Retry.fixed(2, 60.0))


SCENARIOS = [
    Scenario("chain", "end: A, B, B, B, C", chain),
    Scenario("failing", "ValueError: A", failing),
    Scenario("routed", "end: A, TimeoutError: too late, LATE, None, B", routed),
    Scenario("retried", "ConnectionError: A", retried),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_one_crash(scenario: Scenario) -> None:
    """A crash at any durable write changes neither the end of a chain nor its data."""
    assert 0 < everywhere(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_two_crashes(scenario: Scenario) -> None:
    """Neither does a second crash while the run is resumed."""
    assert 0 < twice(scenario)
