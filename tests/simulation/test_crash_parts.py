"""Crashes in runs within runs: a part is resumed with its whole, and undone with it."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass, field
from enum import StrEnum, auto
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import CompensatableTask, Context, Retry, RunQuery, Workflow
from cano._history import replay
from cano.testing import run

sys.path.insert(0, str(Path(__file__).parent))

from _crash import (
    LEASE,
    Data,
    Deed,
    Scenario,
    Step,
    World,
    everywhere,
    play,
    points,
    twice,
    workflow,
)


class Part(StrEnum):
    X = auto()
    Y = auto()
    Z = auto()
    OUT = auto()


@dataclass
class PartData:
    trail: list[str] = field(default_factory=list)


class Book(CompensatableTask[Any, str]):
    """Books in the outer run, where the rig looks after what is done and undone."""

    def __init__(self, world: World, to: Any) -> None:
        self.world = world
        self.to = to

    async def run(self, ctx: Context[Any]) -> tuple[Any, str]:
        self.world.do("run", ctx)
        ctx.data.trail.append(ctx.state.name)
        return self.to, ctx.state.name

    async def compensate(self, ctx: Context[Any], output: str) -> None:
        self.world.do("undo", ctx, output)
        ctx.data.trail.append(f"not {output}")


class Within(Book):
    """The same in the run within: the rig knows nothing of that run's own history."""

    async def run(self, ctx: Context[Any]) -> tuple[Any, str]:
        do(self.world, ctx)
        ctx.data.trail.append(ctx.state.name)
        return self.to, ctx.state.name

    async def compensate(self, ctx: Context[Any], output: str) -> None:
        self.world.breathe()
        key = re.sub(r"\+\d", "", f"r/{ctx.run_id}/undo at once")
        self.world.ledger.append(Deed(self.world.life, "undo", key, output))


def do(world: World, ctx: Context[Any]) -> None:
    """Work within; whether the part had to begin anew under another name is no matter."""
    world.breathe()
    key = re.sub(r"\+\d", "", ctx.idempotency_key)
    world.ledger.append(Deed(world.life, "run", key))


async def fail(world: World, ctx: Context[Any]) -> Any:
    do(world, ctx)
    raise ValueError("sold out")


def refusing(world: World, to: Any, times: int) -> Any:
    """Fails *times* times, in runs of their own, then leads on."""

    async def task(ctx: Context[Any]) -> Any:
        do(world, ctx)
        if not any(ctx.run_id.endswith(f"/{n}") for n in range(times + 1, 9)) and times:
            raise ValueError("sold out")
        return to

    return task


def failing(world: World) -> Any:
    async def task(ctx: Context[Any]) -> Literal[Step.END]:
        await fail(world, ctx)
        return Step.END

    return task


def ending(world: World) -> Any:
    async def task(ctx: Context[Data]) -> Literal[Step.END]:
        world.do("run", ctx)
        ctx.data.trail.append("C")
        return Step.END

    return task


def part_of(world: World, last: Any = None) -> Workflow[Part, PartData]:
    """Two bookings and a third task."""
    made: Any = Workflow(Part, data=PartData, start=Part.X, checkpoints=world.store, lease=LEASE)
    made.register(Part.X, Within(world, Part.Y)).register(Part.Y, Within(world, Part.Z))
    made.register(Part.Z, last or refusing(world, Part.OUT, 0)).exits(Part.OUT)
    return made  # type: ignore[no-any-return]


def take(ctx: Context[Data], part: PartData) -> None:
    ctx.data.trail.append("".join(part.trail))


def refuse_to_take(ctx: Context[Data], part: PartData) -> None:
    raise TypeError("not taken")


def whole(
    world: World, last: Any = None, *policies: Any, fails: bool = False, out: Any = take
) -> Workflow[Any, Any]:
    """A booking, the part, and what fails or ends."""
    flow = workflow(world).register(Step.A, Book(world, Step.B))
    part = part_of(world, last).as_task(
        Step.C, data_in=lambda ctx: PartData([*ctx.data.trail]), data_out=out
    )
    flow.register(Step.B, part, *policies)
    return flow.register(Step.C, failing(world) if fails else ending(world))


def part_fails(world: World) -> Workflow[Any, Any]:
    return whole(world, partial(fail, world))


def tried_again(world: World) -> Workflow[Any, Any]:
    return whole(world, refusing(world, Part.OUT, 2), Retry(delay=1))


def cancelled(world: World) -> Workflow[Any, Any]:
    """The end is asked for while the part is in the midst of its work."""

    async def slow(ctx: Context[Any]) -> Any:
        do(world, ctx)
        await world.ask_to_cancel()
        await asyncio.sleep(100)
        return Part.OUT

    return whole(world, slow)


SCENARIOS = [
    Scenario("finishes", "end: A, AXY, C", whole),
    Scenario("fails after it", "ValueError: A, AXY, not A", partial(whole, fails=True)),
    Scenario("fails within", "ValueError: A, not A", part_fails),
    Scenario("tried again", "end: A, AXY, C", tried_again),
    Scenario("cancelled", "cancelled: A, not A", cancelled),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_one_crash(scenario: Scenario) -> None:
    """A crash at any write, of either run, changes neither the end nor what is undone."""
    assert 0 < everywhere(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=repr)
def test_two_crashes(scenario: Scenario) -> None:
    """Neither does a second crash."""
    assert 0 < twice(scenario, 60)


@pytest.mark.parametrize("out", [take, refuse_to_take])
def test_nothing_is_left_of_the_parts(out: Any) -> None:
    """When the whole has failed, every part it ever began is over, and nothing of it stands.

    A part that was taken back may have to be begun anew, under another name, if the crash came
    before its whole could say why.
    """
    worlds: list[World] = []

    def build(world: World) -> Workflow[Any, Any]:
        worlds.append(world)
        return whole(world, out=out, fails=True)

    scenario = Scenario("", "", build)
    clean = play(scenario)
    for crash in points(clean):
        ending = play(scenario, [crash])
        assert (clean.outcome, clean.data) == (ending.outcome, ending.data), crash
        parts = run(_parts(worlds[-1]))
        assert parts, crash
        assert [] == [name for name, over, standing in parts if standing or not over], crash


async def _parts(world: World) -> list[tuple[str, bool, int]]:
    runs = await world.inner.runs(RunQuery(tag="part of r"))
    histories = [replay(await world.inner.load(each.run_id)) for each in runs]
    return [
        (each.run_id, history.over, len(history.standing))
        for each, history in zip(runs, histories, strict=True)
    ]
