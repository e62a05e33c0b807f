"""Crashes within polls and nodes: a saved wait goes on, and nothing is done from a wrong beginning."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import (
    Context,
    Done,
    More,
    Node,
    Pending,
    PollExhaustedError,
    PollTask,
    Ready,
    Retry,
    RouterTask,
    SteppedTask,
    TimerTask,
    Workflow,
    poll,
)

sys.path.insert(0, str(Path(__file__).parent))

from _crash import Data, Scenario, Step, World, everywhere, twice, workflow


class Gather(PollTask[Step]):
    """Three answers with a saved wait after each, in each of two visits."""

    delay = 10.0

    def __init__(self, world: World) -> None:
        self.world = world

    async def poll(self, ctx: Context[Data]) -> Ready[Literal[Step.B]] | Pending:
        mine = [line for line in ctx.data.trail if line.startswith(f"{ctx.data.total}.")]
        self.world.do("poll", ctx, len(mine))
        ctx.data.trail.append(f"{ctx.data.total}.{len(mine)}")
        return Ready(Step.B) if len(mine) == 2 else Pending(save=True)


def saved(world: World) -> Workflow[Any, Any]:
    async def again(ctx: Context[Data]) -> Literal[Step.A, Step.END]:
        world.do("run", ctx)
        ctx.data.total += 1
        return Step.A if ctx.data.total < 2 else Step.END

    return workflow(world).register(Step.A, Gather(world)).register(Step.B, again)


def retried(world: World) -> Workflow[Any, Any]:
    """Polls that fail once each, and are tried again; the rows of one do not count for the next."""

    class Flaky(PollTask[Step]):
        errors = 1

        async def poll(self, ctx: Context[Data]) -> Ready[Literal[Step.END]] | Pending:
            world.do("poll", ctx, ctx.data.total)
            ctx.data.total += 1
            if world.times("poll", ctx.data.total - 1) == 1:
                raise ConnectionError("busy")
            return Ready(Step.END) if ctx.data.total == 3 else Pending()

    return workflow(world).register(Step.A, Flaky(), Retry.fixed(3, 5.0))


def effects(world: World) -> Workflow[Any, Any]:
    """Each poll pays something, once."""

    class Paying(PollTask[Step]):
        async def poll(self, ctx: Context[Data]) -> Ready[Literal[Step.END]] | Pending:
            number = ctx.data.total + 1
            world.do("poll", ctx, number)

            async def pay() -> int:
                world.do("effect", ctx, f"rent {number}")
                return number

            async def paid() -> int | None:
                world.breathe()
                return number if world.times("effect", f"rent {number}") else None

            ctx.data.total = await ctx.effect("rent", pay, verify=paid)
            return Ready(Step.END) if number == 3 else Pending(5, save=number == 1)

    return workflow(world).register(Step.A, Paying())


def in_time(world: World) -> Workflow[Any, Any]:
    """A deadline that counts through crashes, and a state to go to when it has passed."""

    class Never(PollTask[Step]):
        delay = 100.0
        max_delay = 100.0
        deadline = 350.0

        async def poll(self, ctx: Context[Data]) -> Ready[Literal[Step.B]] | Pending:
            world.breathe()
            ctx.data.total = ctx.data.total or int(ctx.now())
            return Pending(save=True)

    async def late(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        waited = int(ctx.now()) - ctx.data.total
        ctx.data.trail.append("in time" if 300 <= waited <= 350 + 17 * world.life else f"{waited}")
        ctx.data.total = 0
        return Step.END

    flow = workflow(world)
    flow.register(Step.A, Never(), otherwise={PollExhaustedError: Step.LATE})
    return flow.register(Step.LATE, late).register(Step.B, late)


def nodes(world: World) -> Workflow[Any, Any]:
    """A node that fails at first, before a poll by a function and one that repeats all of it."""

    class Pay(Node[Step, int, int]):
        async def prep(self, ctx: Context[Data]) -> int:
            world.do("prep", ctx)
            ctx.data.trail.append("prep")
            return 10

        async def exec(self, ctx: Context[Data], prepared: int) -> int:
            world.do("exec", ctx)
            ctx.data.trail.append("exec")

            async def pay() -> int:
                world.do("effect", ctx, f"rent {ctx.state.name}")
                return prepared

            async def paid() -> int | None:
                world.breathe()
                return prepared if world.times("effect", f"rent {ctx.state.name}") else None

            amount = await ctx.effect("rent", pay, verify=paid)
            if world.times(f"failed {ctx.state.name}") < 2:
                world.do(f"failed {ctx.state.name}", ctx)
                raise ConnectionError("busy")
            return amount

        async def post(self, ctx: Context[Data], result: int) -> Literal[Step.B, Step.END]:
            world.do("post", ctx)
            ctx.data.total += result
            return Step.B if ctx.state is Step.A else Step.END

    class Whole(Pay):
        repeat = "all"

    async def ready(ctx: Context[Data]) -> bool:
        world.do("ask", ctx)
        return True

    flow = workflow(world).register(Step.A, Pay(), Retry.fixed(4, 1.0))
    flow.register(Step.B, poll(ready, then=Step.C))
    return flow.register(Step.C, Whole(), Retry.fixed(4, 1.0))


def pipeline(world: World) -> Workflow[Any, Any]:
    """One of each model: a crash is resumed in the state it fell in, and in no other."""

    class Route(RouterTask[Step]):
        async def route(self, ctx: Context[Data]) -> Literal[Step.B]:
            world.do("route", ctx)
            return Step.B

    class Count(SteppedTask[Step, int]):
        async def step(
            self, ctx: Context[Data], cursor: int | None
        ) -> More[int] | Done[Literal[Step.C]]:
            world.do("step", ctx, cursor)
            ctx.data.trail.append(f"step {cursor or 0}")
            return Done(Step.C) if cursor else More(1)

    class Ask(PollTask[Step]):
        async def poll(self, ctx: Context[Data]) -> Ready[Literal[Step.D]] | Pending:
            ctx.data.total += 1
            world.do("poll", ctx, ctx.data.total)
            return Ready(Step.D) if ctx.data.total == 2 else Pending(5, save=True)

    class Summarise(Node[Step, int, str]):
        async def prep(self, ctx: Context[Data]) -> int:
            return ctx.data.total

        async def exec(self, ctx: Context[Data], prepared: int) -> str:
            world.do("run", ctx)
            return f"node {prepared}"

        async def post(self, ctx: Context[Data], result: str) -> Literal[Step.END]:
            ctx.data.trail.append(result)
            return Step.END

    flow = workflow(world).register(Step.A, Route()).register(Step.B, Count())
    flow.register(Step.C, Ask()).register(Step.D, TimerTask(30, then=Step.E))
    return flow.register(Step.E, Summarise())


SCENARIOS = [
    Scenario("saved waits", "end: 0.0, 0.1, 0.2, 1.0, 1.1, 1.2", saved),
    Scenario("retried polls", "end: 3", retried),
    Scenario("effects in polls", "end: 3", effects),
    Scenario("deadline", "end: in time", in_time),
    Scenario("pipeline", "end: step 0, step 1, node 2", pipeline),
    Scenario("nodes", "end: prep, exec, prep, exec", nodes),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_one_crash(scenario: Scenario) -> None:
    """A crash at any durable write repeats no poll that was saved, and loses no data."""
    assert 0 < everywhere(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_two_crashes(scenario: Scenario) -> None:
    """Neither does a second crash while the visit is resumed."""
    assert 0 < twice(scenario, 40)
