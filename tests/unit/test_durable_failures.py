"""A store that fails: the run stops where it is, undoes nothing, and can be resumed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    CheckpointError,
    CompensatableTask,
    Context,
    Event,
    MemoryCheckpoints,
    Split,
    Workflow,
)
from cano.checkpoints.store import CheckpointStore, Status
from cano.join import Settled
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash


class Step(StrEnum):
    BOOK = auto()
    SHIP = auto()
    END = auto()
    LATE = auto()


class World:
    def __init__(self) -> None:
        self.store = MemoryCheckpoints()
        self.done: list[str] = []

    def flow(self, store: CheckpointStore, **more: Any) -> Workflow[Step, None]:
        done = self.done

        class Book(CompensatableTask[Step, int]):
            async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.SHIP], int]:
                done.append("book")
                return Step.SHIP, 1

            async def compensate(self, ctx: Context[Any], output: int) -> None:
                done.append("undo")

        async def ship(ctx: Context[Any]) -> Literal[Step.END]:
            await ctx.effect("ship", lambda: asyncio.sleep(0, done.append("ship")))
            return Step.END

        flow = Workflow(Step, checkpoints=store, **more).exits(Step.END, Step.LATE)
        flow.register(Step.BOOK, Book(), otherwise=Step.LATE)
        return flow.register(Step.SHIP, ship, otherwise=Step.LATE)


WRITES = range(2, 7)
"""TaskCompleted, StateEntered, EffectIntended, EffectDone, RunFinished; the first is the run."""


@pytest.mark.parametrize("number", WRITES)
def test_a_failed_append_stops_the_run(number: int) -> None:
    """Nothing is undone, nothing more is written, no route is taken; the error says where."""

    async def main() -> list[Any]:
        world = World()
        store = FaultyStore(world.store, fail_at=number)
        with pytest.raises(CheckpointError, match=f"write {number} failed") as error:
            await world.flow(store).run(Step.BOOK, run_id="r")
        assert any("run 'r' of Step: BOOK" in note for note in error.value.__notes__)
        assert "undo" not in world.done
        assert number == store.writes
        return [(await world.store.summary("r")).sequence, len(await world.store.load("r"))]

    found = run(main())
    assert [number, number] == found


@pytest.mark.parametrize("number", WRITES)
@pytest.mark.parametrize("scope", [False, True])
def test_the_same_workflow_can_carry_it_on(number: int, scope: bool) -> None:
    """A run the store failed can be resumed at once by whoever had it, scope or not."""

    async def main() -> tuple[Step, int]:
        world = World()
        flow = world.flow(FaultyStore(world.store, fail_at=number))

        async def both() -> Step:
            with suppress(CheckpointError):
                await flow.run(Step.BOOK, run_id="r")
            with suppress(CheckpointError):  # EffectDone failed: it is in doubt
                return await flow.resume("r")
            await flow.handle("r").resolve("ship", None)
            return await flow.resume("r")

        if not scope:
            return await both(), world.done.count("ship")
        async with flow:
            return await both(), world.done.count("ship")

    assert (Step.END, 1) == run(main())


def test_an_open_scope_carries_it_on_by_itself() -> None:
    """In a long-lived process a transient failure does not strand a run."""

    async def main() -> Status:
        world = World()
        async with world.flow(FaultyStore(world.store, fail_at=3)) as flow:
            with suppress(CheckpointError):
                await flow.run(Step.BOOK, run_id="r")
            await asyncio.sleep(100)
            return (await world.store.summary("r")).status

    assert Status.FINISHED is run(main())


def test_a_store_that_cannot_be_reached_begins_nothing() -> None:
    """A run that could not be kept has not begun."""

    async def main() -> list[str]:
        world = World()
        store = FaultyStore(world.store)
        with store.unavailable(), pytest.raises(CheckpointError, match="unavailable"):
            await world.flow(store).run(Step.BOOK, run_id="r")
        assert Step.END is await world.flow(store).run(Step.BOOK, run_id="r")
        return world.done

    assert ["book", "ship"] == run(main())


def test_a_heartbeat_that_fails_for_a_moment_is_no_loss() -> None:
    """The lease outlives a short failure of the store."""

    async def main() -> Step:
        world = World()
        store = FaultyStore(world.store)

        async def slow(ctx: Context[Any]) -> Literal[Step.END]:
            with store.unavailable():
                await asyncio.sleep(9)
            await asyncio.sleep(100)
            return Step.END

        return await world.flow(store).register(Step.SHIP, slow).run(Step.BOOK, run_id="r")

    assert Step.END is run(main())


def test_a_failed_claim_changes_nothing() -> None:
    """A resume the store refuses can be tried again."""

    async def main() -> Step:
        world = World()
        with suppress(SimulatedCrash):
            await world.flow(FaultyStore(world.store, crash_after=3)).run(Step.BOOK, run_id="r")
        await asyncio.sleep(16)
        flow = world.flow(FaultyStore(world.store, fail_at=1))
        with pytest.raises(CheckpointError, match="write 1 failed"):
            await flow.resume("r")
        return await flow.resume("r")

    assert Step.END is run(main())


def test_a_branch_that_cannot_be_recorded_ends_the_split() -> None:
    """Whatever the join: a run that lost its store stops, and takes its branches along."""
    ended: list[str] = []

    async def quick(ctx: Context[Any]) -> int:
        await asyncio.sleep(1)
        return 1

    async def slow(ctx: Context[Any]) -> int:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("slow")
        return 2

    async def main() -> list[str]:
        world = World()
        store = FaultyStore(world.store, fail_at=2)
        flow = world.flow(store)
        flow.register(Step.BOOK, Split([quick, slow], then=Step.SHIP, join=Settled()))
        with pytest.raises(CheckpointError, match="write 2 failed"):
            await flow.run(Step.BOOK, run_id="r")
        return [type(event).__name__ for event in await world.store.load("r")]

    assert ["RunStarted", "StateEntered"] == run(main())
    assert ["slow"] == ended


def test_the_first_error_is_the_one_that_is_told() -> None:
    """Branches that meet the broken pen later hear what broke it."""

    async def work(ctx: Context[Any]) -> int:
        await asyncio.sleep(1)
        return 1

    async def main() -> None:
        world = World()
        flow = world.flow(FaultyStore(world.store, fail_at=2, latency=0.01))
        flow.register(Step.BOOK, Split([work, work, work], then=Step.SHIP, join=Settled()))
        with pytest.raises(CheckpointError, match="write 2 failed"):
            await flow.run(Step.BOOK, run_id="r")

    run(main())


def test_a_task_that_hides_the_failure_does_not_get_away_with_it() -> None:
    """What a task makes of a store's error does not count: the run stops with that error."""

    async def stubborn(ctx: Context[Any]) -> Literal[Step.END]:
        try:
            await ctx.effect("ship", lambda: asyncio.sleep(0))
        except CheckpointError as error:
            raise ValueError("something else") from error
        return Step.END

    async def main() -> Status:
        world = World()
        flow = world.flow(FaultyStore(world.store, fail_at=4)).register(Step.SHIP, stubborn)
        with pytest.raises(CheckpointError, match="write 4 failed"):
            await flow.run(Step.BOOK, run_id="r")
        return (await world.store.summary("r")).status

    assert Status.RUNNING is run(main())


# Observers


def test_observers_are_told_what_is_kept_with_its_number() -> None:
    """Every event carries the run, its number and its time; what is not kept has the last number."""
    heard: list[Event] = []

    async def main() -> list[Event]:
        world = World()
        await world.flow(world.store, observers=[heard.append]).run(Step.BOOK, run_id="r")
        return await world.store.load("r")

    kept = run(main())
    assert {("r", "Step")} == {(event.run_id, event.workflow) for event in heard}
    numbers = [event.sequence for event in heard]
    assert sorted(numbers) == numbers
    names = {type(event).__name__ for event in kept}
    told = [e for e in heard if type(e).__name__ in names and e.state != "END"]
    assert [(e.sequence, type(e)) for e in kept[:-1]] == [(e.sequence, type(e)) for e in told]
    assert all(event.time > 0 for event in heard)


def test_a_resumed_run_is_announced() -> None:
    """RunResumed comes first in a new life, and what was announced before is not repeated."""
    heard: list[Event] = []

    async def main() -> None:
        world = World()
        with suppress(SimulatedCrash):
            await world.flow(FaultyStore(world.store, crash_after=3)).run(Step.BOOK, run_id="r")
        await asyncio.sleep(16)
        await world.flow(world.store, observers=[heard.append]).resume("r")

    run(main())
    first = heard[0]
    assert ("RunResumed", "SHIP", "r", 5) == (
        type(first).__name__, first.state, first.run_id, first.sequence,
    )  # fmt: skip
    assert [] == [e for e in heard if e.state == "BOOK"]


def test_a_handle_follows_a_durable_run_to_its_end() -> None:
    """`events()` of a handle ends with the run."""

    async def main() -> list[str]:
        world = World()

        async def slow(ctx: Context[Any]) -> Literal[Step.END]:
            await asyncio.sleep(10)
            return Step.END

        handle = await world.flow(world.store).register(Step.SHIP, slow).start_run(Step.BOOK)
        return [type(event).__name__ async for event in handle.events()]

    assert "RunFinished" == run(main())[-1]


def test_stored_events_are_followed_by_anybody() -> None:
    """`handle(run_id).events()` gives what there is and what comes, from any workflow object."""

    async def main() -> tuple[list[int], float]:
        world = World()

        async def slow(ctx: Context[Any]) -> Literal[Step.END]:
            await asyncio.sleep(10)
            return Step.END

        flow = world.flow(world.store).register(Step.SHIP, slow)
        await flow.start_run(Step.BOOK, run_id="r")
        other = world.flow(world.store)
        numbers = [event.sequence async for event in other.handle("r").events()]
        return numbers, asyncio.get_running_loop().time()

    assert ([1, 2, 3, 4, 5], 10) == run(main())


def test_the_events_of_an_unknown_run_are_an_error() -> None:
    """Nobody waits for the events of a run that is not there."""

    async def main() -> None:
        world = World()
        with pytest.raises(LookupError, match="nobody"):
            async for _ in world.flow(world.store).handle("nobody").events():
                pass

    run(main())


def test_nothing_of_the_end_is_missed() -> None:
    """Whoever follows a slow store is told of the end too, however it falls."""

    async def main() -> list[int]:
        world = World()
        await world.flow(world.store).run(Step.BOOK, run_id="r")
        lengths: list[int] = []
        for hundredth in range(40):
            run_id = f"r{hundredth}"
            flow = world.flow(world.store)

            async def slow(
                ctx: Context[Any], seconds: float = hundredth / 100
            ) -> Literal[Step.END]:
                await asyncio.sleep(seconds)
                return Step.END

            await flow.register(Step.SHIP, slow).start_run(Step.BOOK, run_id=run_id)
            reader = world.flow(FaultyStore(world.store, latency=0.1)).handle(run_id)
            lengths.append(len([event async for event in reader.events()]))
        return lengths

    assert [5] * 40 == run(main())
