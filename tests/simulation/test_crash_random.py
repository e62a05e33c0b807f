"""Crashes in workflows nobody thought of: made of all there is, at random, but always the same."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cano import (
    Branch,
    CompensatableTask,
    Context,
    Done,
    More,
    Retry,
    RouterTask,
    Signal,
    SignalTask,
    Split,
    SteppedTask,
    TimerTask,
    Workflow,
)
from cano.join import All, Quorum, Settled
from cano.join import Any as AnyOf

sys.path.insert(0, str(Path(__file__).parent))

from _crash import Data, Scenario, Step, World, check, play, points, workflow

STATES = [Step.A, Step.B, Step.C, Step.D, Step.E]
KINDS = ["plain", "book", "split", "branches", "router", "steps", "timer", "signal", "effects"]


class Maker:
    """Makes tasks whose every choice follows from one seed."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = Random(seed)  # noqa: S311 -- seeded on purpose
        self.seed = seed

    def fails(self) -> bool:
        return self.chance.random() < 0.15

    def seconds(self) -> float:
        return self.chance.randint(1, 40) / 10

    def task(self, kind: str, state: Step, to: Step) -> Any:
        return getattr(self, kind)(state, to)

    async def effect(self, ctx: Context[Data], name: str, what: str = "") -> int:
        """An effect that can be asked about."""
        world, key = self.world, f"{what or ctx.idempotency_key} {name}"

        async def call() -> int:
            world.do("effect", ctx, key)
            return len(name)

        async def verify() -> int | None:
            world.breathe()
            return len(name) if world.times("effect", key) else None

        return await ctx.effect(name, call, verify=verify)

    def plain(self, state: Step, to: Step) -> Any:
        fails, times, slow = self.fails(), self.chance.randint(0, 2), self.chance.random() < 0.3
        cancels = self.chance.random() < 0.15

        async def task(ctx: Context[Data]) -> Step:
            self.world.do("run", ctx)
            ctx.data.trail.append(state.name)
            if cancels:
                await self.world.ask_to_cancel()
            if slow or cancels:
                await ctx.sleep(7)
            if self.world.times("failed", state) < times:
                self.world.do("failed", ctx, state)
                raise ConnectionError("busy")
            if fails:
                raise ValueError(f"{state.name} fails")
            return to

        return task

    def effects(self, state: Step, to: Step) -> Any:
        fails = self.fails()

        async def task(ctx: Context[Data]) -> Step:
            self.world.do("run", ctx)
            for n in range(2):
                ctx.data.total += await self.effect(ctx, f"effect {n}")
            if fails:
                raise ValueError(f"{state.name} fails")
            return to

        return task

    def book(self, state: Step, to: Step) -> Any:
        maker, fails, refuses = self, self.fails(), self.chance.choice([0, 0, 1, 99])

        class Book(CompensatableTask[Step, str]):
            compensation_policies = (Retry.fixed(2, 3.0),)

            async def run(self, ctx: Context[Data]) -> tuple[Step, str]:
                maker.world.do("run", ctx)
                ctx.data.total += await maker.effect(ctx, "pay")
                if fails:
                    raise ValueError(f"{state.name} fails")
                return to, ctx.idempotency_key

            async def compensate(self, ctx: Context[Data], output: str) -> None:
                maker.world.do("undo", ctx, output)
                ctx.data.trail.append(f"not {output}")
                await ctx.sleep(1)
                if maker.world.times("refused", output) < refuses:
                    maker.world.do("refused", ctx, output)
                    raise ConnectionError(f"cannot undo {output}")
                ctx.data.total -= await maker.effect(ctx, "refund", output)

        return Book()

    def split(self, state: Step, to: Step, *, undoable: bool = False) -> Any:
        times = self.chance.sample(range(1, 40), self.chance.randint(1, 4))
        count = len(times)
        # Branches that end in another order after a crash may rightly come to something else.
        join = self.chance.choice([All(), AnyOf(), Quorum(count), Settled()])
        branches = [
            self.branch(
                f"b{n}", seconds / 10, self.fails(), undoable and self.chance.random() < 0.7
            )
            for n, seconds in enumerate(times)
        ]
        losers: Any = self.chance.choice(["cancel", "wait"])
        return Split(branches, join=join, then=to, losers=losers)

    def branches(self, state: Step, to: Step) -> Any:
        return self.split(state, to, undoable=True)

    def branch(self, name: str, seconds: float, fails: bool, undoable: bool) -> Branch[Any]:
        async def work(ctx: Context[Data]) -> str:
            self.world.do("begin", ctx)
            await asyncio.sleep(seconds)
            if fails:
                raise ValueError(f"{name} fails")
            self.world.do("run", ctx)
            return name

        async def undo(ctx: Context[Data], value: str) -> None:
            self.world.do("undo", ctx, f"{ctx.state.name} {value}")
            ctx.data.trail.append(f"not {value}")

        return Branch(work, name=name, compensate=undo if undoable else None)

    def router(self, state: Step, to: Step) -> Any:
        world = self.world

        class Route(RouterTask[Step]):
            async def route(self, ctx: Context[Data]) -> Step:
                world.do("route", ctx)
                ctx.data.trail.append("routed")
                return to

        return Route()

    def steps(self, state: Step, to: Step) -> Any:
        maker, count, fails = self, self.chance.randint(1, 3), self.fails()

        class Steps(SteppedTask[Step, int]):
            async def step(self, ctx: Context[Data], cursor: int | None) -> More[int] | Done[Step]:
                maker.world.do("step", ctx, cursor)
                at = (cursor or 0) + 1
                ctx.data.total += await maker.effect(ctx, f"step {at}")
                await ctx.sleep(2)
                if fails and at == count:
                    raise ValueError(f"{state.name} fails")
                return More(at) if at < count else Done(to)

        return Steps()

    def timer(self, state: Step, to: Step) -> Any:
        return TimerTask(50, then=to)

    def signal(self, state: Step, to: Step) -> Any:
        name = self.chance.choice(["left", "never"])

        class Wait(SignalTask[Step]):
            signals = {name: str}  # noqa: RUF012
            timeout = 100.0

            async def on_signal(self, ctx: Context[Data], signal: Signal[str]) -> Step:
                ctx.data.trail.append(f"{signal.name} {signal.value}")
                return to

        return Wait()

    def workflow(self) -> Workflow[Any, Any]:
        flow = workflow(self.world)
        count = self.chance.randint(2, 5)
        targets = [*STATES[1:count], Step.END]
        for state, to in zip(STATES, targets, strict=False):
            kind = self.chance.choice(KINDS)
            policies = [Retry.fixed(3, 5.0)] if kind in ("plain", "steps", "book") else []
            otherwise = Step.LATE if kind != "router" and self.chance.random() < 0.2 else None
            flow.register(state, self.task(kind, state, to), *policies, otherwise=otherwise)
        late = self.chance.choice([Step.END, *STATES[:count][-1:]])

        async def route(ctx: Context[Data]) -> Any:
            self.world.do("run", ctx)
            ctx.data.trail.append(f"{type(ctx.error).__name__} {ctx.split and ctx.split.reason}")
            return late if ctx.data.trail.count("again") == 0 else Step.END

        async def once(ctx: Context[Data]) -> Any:
            back = await route(ctx)
            ctx.data.trail.append("again")
            return back

        return flow.register(Step.LATE, once)


async def messages(world: World) -> None:
    """Three signals from the start."""
    for n in range(3):
        await world.send_once("left", f'"{n}"', f"left {n}")


def scenario(seed: int) -> Scenario:
    return Scenario(
        f"random {seed}",
        "",
        lambda world: Maker(world, seed).workflow(),
        messages,
    )


@settings(max_examples=60)
@given(st.integers(0, 1_000_000), st.integers(0, 1_000_000))
def test_random_workflows(seed: int, choice: int) -> None:
    """Whatever the workflow and the crash points, nothing is lost and nothing done twice."""
    case = scenario(seed)
    clean = play(case)
    chance = Random(choice)  # noqa: S311 -- seeded on purpose
    where = points(clean)
    for count in (1, 1, 2, 3):
        check(case, *(chance.choice(where) for _ in range(count)), clean=clean)
