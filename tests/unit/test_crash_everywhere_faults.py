"""What happens to a process under each fault of `crash_everywhere`, and what its world allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import partial
from typing import Any, Literal

import pytest

from cano import Context, DefinitionError, Event, MemoryCheckpoints, Workflow
from cano.testing._crash_story import at_once
from cano.testing.crash import FAULTS, Crash, CrashFoundError, World, crash_everywhere
from cano.testing.faults import SimulatedCrash


class Step(StrEnum):
    A = auto()
    B = auto()
    C = auto()
    END = auto()


@dataclass
class Data:
    seen: int = 0


def simple(world: World) -> Workflow[Step, Data]:
    """Three states, one after the other."""

    def doing(to: Any) -> Any:
        async def task(ctx: Context[Data]) -> Step:
            world.ran(ctx)
            await asyncio.sleep(1)
            ctx.data.seen += 1
            return Step(to)

        return task

    flow = Workflow(Step, data=Data, checkpoints=world.store, lease=10).exits(Step.END)
    flow.register(Step.A, doing(Step.B)).register(Step.B, doing(Step.C))
    return flow.register(Step.C, doing(Step.END))


def happened(
    *story: Crash, make: Callable[[World], Workflow[Any, Any]] = simple
) -> tuple[list[tuple[int, str]], list[Event]]:
    """What was begun by which process, and what is on record, after those crashes."""
    told: list[Any] = []

    def check(world: World) -> None:
        told[:] = [world.ledger, at_once(world.store.store.load("r"))]

    crash_everywhere(make, start=Step.A, only=[story], check=check)
    return [(deed.life, deed.state + "!" * deed.late) for deed in told[0]], told[1]


def claims(events: list[Event]) -> list[int]:
    """After how many events the run was taken over."""
    return [event.sequence - 1 for event in events if type(event).__name__ == "RunClaimed"]


def test_before() -> None:
    """A process that dies before a write has done what led to it, and nothing is kept of it."""
    deeds, events = happened(Crash("before", 2))

    assert [(1, "A"), (2, "A"), (2, "B"), (2, "C")] == deeds
    assert [2] == claims(events)


def test_after() -> None:
    """What is written when a process dies is kept, and it does nothing after it."""
    deeds, events = happened(Crash("after", 2))

    assert [(1, "A"), (2, "B"), (2, "C")] == deeds
    assert [3] == claims(events)


def test_duplicate() -> None:
    """Two processes resume the run at once: one claims it, the other one waits for its end."""
    deeds, events = happened(Crash("duplicate", 2))

    assert [(1, "A"), (2, "B"), (2, "C")] == deeds
    assert [3] == claims(events)


def test_frozen() -> None:
    """A process that stood still for too long is overtaken, and writes nothing when it wakes up."""
    deeds, events = happened(Crash("frozen", 2))

    assert [(1, "A"), (2, "A"), (2, "B"), (2, "C")] == deeds
    assert ([2], 6) == (claims(events), len(events))


def test_frozen_processes_are_late() -> None:
    """What such a process does outside before it is refused is marked, and not compared."""

    def make(world: World) -> Workflow[Step, Data]:
        async def aside(ctx: Context[Data]) -> None:
            await asyncio.sleep(1.5)
            world.did("aside", "once")

        async def a(ctx: Context[Data]) -> Literal[Step.END]:
            beside = asyncio.ensure_future(aside(ctx))
            await asyncio.sleep(1)
            await ctx.sleep(1)
            await beside
            return Step.END

        flow = Workflow(Step, data=Data, checkpoints=world.store)
        return flow.exits(Step.B, Step.C, Step.END).register(Step.A, a)

    seen: list[tuple[int, bool]] = []

    def check(world: World) -> None:
        seen[:] = [(deed.life, deed.late) for deed in world.ledger]

    crash_everywhere(make, start=Step.A, only=[Crash("frozen", 2)], check=check)

    assert [(2, False), (1, True)] == seen


@pytest.mark.parametrize(("fault", "kept"), [("unavailable", 2), ("unanswered", 3)])
def test_outages(fault: Any, kept: int) -> None:
    """A store that fails stops the run, which the same process takes up when it is back."""
    deeds, events = happened(Crash(fault, 2))

    assert {1} == {life for life, _ in deeds}
    assert [kept] == claims(events)
    assert 31 <= events[kept].time - events[0].time <= 50


def test_shutdown() -> None:
    """A process that is asked to stop lets go of the run, which another one claims at once."""
    deeds, events = happened(Crash("shutdown", 2))

    assert [(1, "A"), (2, "B"), (2, "C")] == deeds
    assert [3] == claims(events)
    assert events[3].time - events[2].time < 1


def test_clocks() -> None:
    """The clock of the next process is ahead, or behind, by more than the lease."""
    gaps = [
        round(events[3].time - events[2].time)
        for _, events in (happened(Crash("forward", 2)), happened(Crash("backward", 2)))
    ]

    assert [21, -21] == gaps


def test_a_second_crash_meets_the_second_process() -> None:
    """The entries of a story happen to one process after the other, the claim counted as a write."""
    deeds, events = happened(Crash("after", 1), Crash("after", 2))

    assert [(3, "A"), (3, "B"), (3, "C")] == deeds
    assert [2, 3] == claims(events)


def test_the_dead_cannot_act() -> None:
    """After its crash every use of a process's world raises, and what it still changes is lost."""
    worlds: list[World] = []
    after: list[str] = []

    def make(world: World) -> Workflow[Step, Data]:
        worlds.append(world)
        kept = world.keep(list[str], "post")

        async def a(ctx: Context[Data]) -> Literal[Step.END]:
            try:
                await ctx.sleep(1)
            except BaseException:
                kept.append("from beyond")
                with pytest.raises(SimulatedCrash):
                    world.did("letter")
                after.append("died")
                raise
            return Step.END

        flow = Workflow(Step, data=Data, checkpoints=world.store)
        return flow.exits(Step.B, Step.C, Step.END).register(Step.A, a)

    def check(world: World) -> None:
        assert world.keep(list[str], "post") == []
        assert world.ledger == ()

    crash_everywhere(make, start=Step.A, only=[Crash("before", 2)], check=check)

    assert ["died"] == after
    for use in (worlds[-2].breathe, partial(worlds[-2].times, "letter")):
        with pytest.raises(SimulatedCrash):
            use()


def test_keep_tells_fakes_apart() -> None:
    """A fake is found again by its class, function or name; a partial needs a name."""
    found: list[Any] = []

    def check(world: World) -> None:
        def both() -> list[int]:
            return []

        found[:] = [world.keep(both), world.keep(list[int]), world.keep(list[int], "other")]
        assert world.keep(list[int]) is found[1]
        with pytest.raises(DefinitionError, match="anew every time; pass name="):
            world.keep(partial(list, [1]))

    crash_everywhere(simple, start=Step.A, only=[], check=check)

    assert 3 == len({id(each) for each in found})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"faults": ["befor"]}, "'befor' is no fault; there are: before, after"),
        ({"faults": []}, "leaves nothing to try"),
        ({"points": -1}, "points=-1 is no number of runs"),
        ({"pairs": 1.5}, "pairs=1.5 is no number of runs"),
        ({"timeout": 0}, "timeout=0 leaves a process no time"),
        ({"only": [Crash("after", 0)]}, 'only=Crash("after", 0) is no crash; write Crash('),
        ({"only": ["after"]}, "only='a' is no crash"),
        (
            {"only": [(Crash("frozen", 1), Crash("after", 1))]},
            "nothing can follow a duplicate or a frozen process",
        ),
    ],
)
def test_wrong_arguments(settings: dict[str, Any], said: str) -> None:
    """A wrong argument is refused before anything runs, with what to pass instead."""
    with pytest.raises(DefinitionError) as error:
        crash_everywhere(simple, start=Step.A, **settings)

    assert said in str(error.value)


def test_wrong_workflows() -> None:
    """What `make` returns must be a workflow, over the store of the world, that gets somewhere."""

    def elsewhere(world: World) -> Workflow[Step, Data]:
        return Workflow(Step, data=Data, checkpoints=MemoryCheckpoints()).exits(*Step)

    def none(world: World) -> Any:
        return None

    with pytest.raises(DefinitionError, match="returned None; return a new Workflow"):
        crash_everywhere(none)
    with pytest.raises(DefinitionError, match=r"say Workflow\(\.\.\., checkpoints=world\.store\)"):
        crash_everywhere(elsewhere, start=Step.A)
    with pytest.raises(DefinitionError, match="does not know where to start"):
        crash_everywhere(simple)


def test_not_from_a_coroutine() -> None:
    """It runs loops of its own, and says so where one runs already."""

    async def main() -> None:
        with pytest.raises(DefinitionError, match="call it from a plain function"):
            crash_everywhere(simple, start=Step.A)

    asyncio.run(main())


def test_every_fault_is_described() -> None:
    """The faults are those of the docs, and a story that finds something names its own."""
    error = CrashFoundError("text", (Crash("torn", 3),))

    assert 10 == len(FAULTS)
    assert ('(Crash("torn", 3),)', "text") == (repr(error.story), str(error))


def test_a_workflow_is_no_way_to_build_one() -> None:
    """Each process needs a workflow of its own, over the store of its life."""
    made: Any = Workflow(Step, start=next(iter(Step)))
    with pytest.raises(DefinitionError, match="needs a function that builds the workflow anew"):
        crash_everywhere(made)
