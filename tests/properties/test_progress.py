"""A task of random durable calls, stopped at random moments: it does everything once, in order.

The model is the list of calls itself. However often the process goes away between and inside of
them, the run ends with the same values, each effect made once, each signal taken once, and no wait
begun twice.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum, auto
from typing import Any, Literal, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from cano import Context, Done, MemoryCheckpoints, More, Split, SteppedTask, Workflow
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash

Call: TypeAlias = tuple[str, float]


class Step(StrEnum):
    WORK = auto()
    AGAIN = auto()
    END = auto()


CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("effect"), st.just(0.0)),
        st.tuples(st.just("sleep"), st.sampled_from([1.0, 60.0, 3600.0])),
        st.tuples(st.just("signal"), st.just(0.0)),
    ),
    min_size=1,
    max_size=6,
)
CRASHES = st.lists(st.integers(2, 12), max_size=4)
SHAPES = st.sampled_from(["function", "steps", "branches"])


class World:
    """What is outside of all processes."""

    def __init__(self, calls: list[Call], shape: str) -> None:
        self.calls = calls
        self.shape = shape
        self.store = MemoryCheckpoints()
        self.made: list[str] = []
        self.got: dict[str, list[Any]] = {"work": [], "again": []}

    async def make(self, ctx: Context[Any], number: int, where: str) -> Any:
        kind, seconds = self.calls[number]
        name = f"{where}{number}"

        async def effect() -> str:
            self.made.append(name)
            return name

        async def made() -> str | None:
            return name if name in self.made else None

        match kind:
            case "effect":
                return await ctx.effect(name, effect, verify=made)
            case "sleep":
                return await ctx.sleep(seconds)
        return await ctx.wait_signal("go", int)

    def flow(self, store: FaultyStore) -> Workflow[Step, None]:
        flow = Workflow(Step, checkpoints=store, max_crashes=1000).exits(Step.END)
        world, count = self, len(self.calls)

        async def all_of(ctx: Context[Any]) -> Literal[Step.AGAIN]:
            world.got["work"].append([await world.make(ctx, n, "a") for n in range(count)])
            return Step.AGAIN

        class Steps(SteppedTask[Step, list[Any]]):
            async def step(
                self, ctx: Context[Any], cursor: list[Any] | None
            ) -> More[list[Any]] | Done[Literal[Step.AGAIN]]:
                done = cursor or []
                if len(done) == count:
                    world.got["work"].append(done)
                    return Done(Step.AGAIN)
                return More([*done, await world.make(ctx, len(done), "s")])

        async def branch(ctx: Context[Any], item: int) -> Any:
            return await world.make(ctx, item, "b")

        fan = Split.over(lambda _: range(count), run=branch, then=Step.AGAIN)
        flow.register(
            Step.WORK, {"function": all_of, "steps": Steps(), "branches": fan}[self.shape]
        )

        async def again(ctx: Context[Any]) -> Literal[Step.END]:
            if ctx.split is not None:
                world.got["work"].append(list(ctx.split.values))
            world.got["again"].append([await world.make(ctx, n, "z") for n in range(count)])
            return Step.END

        return flow.register(Step.AGAIN, again)

    async def live(self, crashes: list[int]) -> float:
        """From the start to the end, through as many processes as there are crashes, and one."""
        signals = sum(kind == "signal" for kind, _ in self.calls) * 2
        for number in (*crashes, None):
            store = FaultyStore(self.store, crash_before=number)
            flow = self.flow(store)
            task = asyncio.ensure_future(flow.run(Step.WORK, run_id="r", wait=True))
            await asyncio.sleep(0)
            while signals and not task.done():
                with suppress(LookupError):
                    for value in range(signals):
                        await self.flow(FaultyStore(self.store)).handle("r").signal("go", value)
                    signals = 0
                await asyncio.sleep(0)
            with suppress(SimulatedCrash):
                await task
                break
            await asyncio.sleep(16)
        return asyncio.get_running_loop().time()


@settings(max_examples=60)
@given(CALLS, CRASHES, SHAPES)
def test_everything_once_and_in_order(calls: list[Call], crashes: list[int], shape: str) -> None:
    """The values, the effects and the signals do not depend on where processes died."""
    calm, rough = World(calls, shape), World(calls, shape)
    undisturbed = run(calm.live([]))
    time = run(rough.live(crashes))
    assert sorted(calm.made) == sorted(rough.made)
    for state, (expected,) in calm.got.items():
        for found in rough.got[state]:
            if shape == "branches":  # which branch gets which signal is not fixed
                assert sorted(map(repr, expected)) == sorted(map(repr, found))
            else:
                assert expected == found
        assert rough.got[state]
    assert undisturbed <= time + 0.001
    assert time <= undisturbed + 33 * len(crashes)
