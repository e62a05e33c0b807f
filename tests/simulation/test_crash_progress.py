"""Crashes within a visit: effects, steps, signals and timers go on where they were."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import (
    Branch,
    CompensatableTask,
    Context,
    Done,
    More,
    Retry,
    Signal,
    SignalTask,
    Split,
    SteppedTask,
    TimerTask,
    Workflow,
)

sys.path.insert(0, str(Path(__file__).parent))

from _crash import RUN, Data, Scenario, Step, World, everywhere, twice, workflow


def charge(world: World, ctx: Context[Data], name: str, amount: int) -> Any:
    """An effect outside, which books *amount*."""

    async def call() -> int:
        world.do("effect", ctx, name)
        return amount

    return call


def happened(world: World, name: str, amount: int) -> Any:
    """What asking the outside about an effect brings."""

    async def verify() -> int | None:
        world.breathe()
        return amount if world.times("effect", name) else None

    return verify


def verified(world: World) -> Workflow[Any, Any]:
    """Two effects in a task, one in a branch; whoever resumes asks whether they happened."""

    async def a(ctx: Context[Data]) -> Literal[Step.B]:
        world.do("run", ctx)
        for name, amount in (("rent", 10), ("food", 20)):
            verify = happened(world, name, amount)
            paid = await ctx.effect(name, charge(world, ctx, name, amount), verify=verify)
            ctx.data.total += paid
        return Step.B

    async def eu(ctx: Context[Data]) -> int:
        world.do("run", ctx)
        verify = happened(world, "tax", 30)
        return await ctx.effect("tax", charge(world, ctx, "tax", 30), verify=verify)

    async def end(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        assert ctx.split is not None
        ctx.data.total += sum(one.value for one in ctx.split.successes)
        return Step.END

    flow = workflow(world).register(Step.A, a)
    flow.register(Step.B, Split([Branch(eu, name="eu")], then=Step.C))
    return flow.register(Step.C, end)


def in_doubt(world: World) -> Workflow[Any, Any]:
    """An effect nobody can ask about: a person decides."""

    async def a(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        ctx.data.total += await ctx.effect("rent", charge(world, ctx, "rent", 10))
        ctx.data.total += await ctx.effect("food", charge(world, ctx, "food", 20))
        return Step.END

    return workflow(world).register(Step.A, a)


def in_doubt_undoing(world: World) -> Workflow[Any, Any]:
    """The same within a compensation."""

    class Book(CompensatableTask[Step, int]):
        async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], int]:
            world.do("run", ctx)
            return Step.B, 10

        async def compensate(self, ctx: Context[Data], output: int) -> None:
            ctx.data.total -= await ctx.effect("refund", charge(world, ctx, "refund", output))

    async def b(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        raise ValueError("no")

    return workflow(world).register(Step.A, Book()).register(Step.B, b)


def decided(world: World, name: str) -> int | None:
    """What a person finds out about an effect in doubt."""
    return {"rent": 10, "food": 20, "refund": 10}[name] if world.times("effect", name) else None


def idempotent(world: World) -> Workflow[Any, Any]:
    """An effect that may be made again, since the outside knows its key."""

    async def a(ctx: Context[Data]) -> Literal[Step.B]:
        world.do("run", ctx)

        async def call() -> str:
            world.do("idempotent", ctx, "rent")
            return ctx.idempotency_key

        ctx.data.trail.append(await ctx.effect("rent", call, idempotent=True))
        return Step.B

    async def b(ctx: Context[Data]) -> Literal[Step.END]:
        keys = {deed.key for deed in world.ledger if deed.what == "idempotent"}
        ctx.data.trail.append(f"{len(keys)} keys")
        return Step.END

    return workflow(world).register(Step.A, a).register(Step.B, b)


def retried(world: World) -> Workflow[Any, Any]:
    """Effects of an attempt that failed are not made again in the next."""

    async def a(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        verify = happened(world, "rent", 10)
        ctx.data.total += await ctx.effect("rent", charge(world, ctx, "rent", 10), verify=verify)
        if world.times("failed") < 2:
            world.do("failed", ctx)
            raise ConnectionError("busy")
        return Step.END

    return workflow(world).register(Step.A, a, Retry.fixed(4, 30.0))


class Count(SteppedTask[Step, int]):
    """Three steps in each of two visits."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def step(
        self, ctx: Context[Data], cursor: int | None
    ) -> More[int] | Done[Literal[Step.B]]:
        self.world.do("step", ctx, cursor)
        ctx.data.trail.append(f"{cursor}")
        at = (cursor or 0) + 1
        return More(at) if at < 3 else Done(Step.B)


def stepped(world: World) -> Workflow[Any, Any]:
    async def again(ctx: Context[Data]) -> Literal[Step.A, Step.END]:
        world.do("run", ctx)
        ctx.data.total += 1
        return Step.A if ctx.data.total < 2 else Step.END

    return workflow(world).register(Step.A, Count(world)).register(Step.B, again)


class Collect(SteppedTask[Step, int]):
    """Each step takes a signal, pays something, and sleeps."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def step(
        self, ctx: Context[Data], cursor: int | None
    ) -> More[int] | Done[Literal[Step.END]]:
        self.world.do("step", ctx, cursor)
        ctx.data.trail.append(await ctx.wait_signal("name", str))
        at = (cursor or 0) + 1
        name = f"rent {at}"

        async def pay() -> int:
            self.world.do("effect", ctx, name)
            return at

        async def paid() -> int | None:
            self.world.breathe()
            return at if self.world.times("effect", name) else None

        ctx.data.total += await ctx.effect("rent", pay, verify=paid)
        before = ctx.now()
        await ctx.sleep(100)
        ctx.data.trail.append("slept" if ctx.now() - before < 101 else "overslept")
        return More(at) if at < 3 else Done(Step.END)


def collecting(world: World) -> Workflow[Any, Any]:
    return workflow(world).register(Step.A, Collect(world))


async def three_names(world: World) -> None:
    for name in ("ann", "ben", "cyd"):
        await world.inner.send(RUN, "name", f'"{name}"'.encode(), 0.0, name)


def waiting(world: World) -> Workflow[Any, Any]:
    """Waits for a signal in a task of its own, for two in a function, for one in a branch."""

    class Approve(SignalTask[Step]):
        signals = {"approved": str}  # noqa: RUF012
        timeout = 1000.0

        async def on_signal(self, ctx: Context[Data], signal: Signal[str]) -> Literal[Step.B]:
            world.do("run", ctx)
            ctx.data.trail.append(signal.value)
            return Step.B

    async def b(ctx: Context[Data]) -> Literal[Step.C]:
        world.do("run", ctx)
        first = await ctx.wait_signals(["left", "right"], int)
        second = await ctx.wait_signals(["left", "right"], int)
        ctx.data.trail += [f"{first.name} {first.value}", f"{second.name} {second.value}"]
        return Step.C

    async def eu(ctx: Context[Data]) -> str:
        world.do("run", ctx)
        return await ctx.wait_signal("branch", str, timeout=1000)

    async def end(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        assert ctx.split is not None
        ctx.data.trail += [str(one.value) for one in ctx.split.successes]
        return Step.END

    flow = workflow(world).register(Step.A, Approve()).register(Step.B, b)
    flow.register(Step.C, Split([Branch(eu, name="eu")], then=Step.D))
    return flow.register(Step.D, end)


async def signals(world: World) -> None:
    """What comes for `waiting`: some of it long before anybody asks."""
    await world.send("right", "2")
    await asyncio.sleep(30)
    await world.send("approved", '"ann"')
    await asyncio.sleep(30)
    await world.send("left", "1")
    await world.send("branch", '"eu"')


def unanswered(world: World) -> Workflow[Any, Any]:
    """Waits in vain, each time for as long as it said, crashes included."""

    async def a(ctx: Context[Data]) -> Literal[Step.B]:
        world.do("run", ctx)
        await ctx.wait_signal("never", str, timeout=100)
        return Step.B

    async def late(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        ctx.data.trail.append(str(ctx.error))
        return Step.END

    flow = workflow(world).register(Step.A, a, otherwise=Step.LATE)
    return flow.register(Step.LATE, late).register(Step.B, late)


def timers(world: World) -> Workflow[Any, Any]:
    """Waits in a task of its own, and twice in a function; a crash makes no wait longer."""

    async def a(ctx: Context[Data]) -> Literal[Step.B]:
        world.do("run", ctx)
        ctx.data.total = int(ctx.now())
        return Step.B

    async def c(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        await ctx.sleep(100)
        await ctx.sleep(200, "long")
        # Somebody had to find out about each crash, which takes at most a lease.
        slept = int(ctx.now()) - ctx.data.total
        ctx.data.trail.append("in time" if 600 <= slept <= 600 + 17 * world.life else f"{slept} s")
        ctx.data.total = 0
        return Step.END

    flow = workflow(world).register(Step.A, a)
    return flow.register(Step.B, TimerTask(300, then=Step.C)).register(Step.C, c)


SCENARIOS = [
    Scenario("verified effects", "end: 60", verified),
    Scenario("effects in doubt", "end: 30", in_doubt, happened=decided),
    Scenario(
        "effect in doubt while undoing", "ValueError: -10", in_doubt_undoing, happened=decided
    ),
    Scenario("idempotent effect", "end: r/1/A, 1 keys", idempotent),
    Scenario("effect retried", "end: 10", retried),
    Scenario("steps", "end: None, 1, 2, None, 1, 2", stepped),
    Scenario("steps that wait", "end: ann, slept, ben, slept, cyd, slept", collecting, three_names),
    Scenario("signals", "end: ann, right 2, left 1, eu", waiting, signals),
    Scenario("no signal", "end: A waited 100 s for 'never', and it did not come", unanswered),
    Scenario("timers", "end: in time", timers),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_one_crash(scenario: Scenario) -> None:
    """A crash at any durable write repeats nothing that is known to be done."""
    assert 0 < everywhere(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_two_crashes(scenario: Scenario) -> None:
    """Neither does a second crash while the visit is resumed."""
    assert 0 < twice(scenario, 40)
