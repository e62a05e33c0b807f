"""Runs within runs that a store keeps."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    CompensatableTask,
    Context,
    MemoryCheckpoints,
    Retry,
    RunCancelledError,
    RunQuery,
    Split,
    Status,
    Timeout,
    Workflow,
)
from cano.errors import CheckpointError, DefinitionError
from cano.testing import run


class Step(StrEnum):
    SHIP = auto()
    CHECK = auto()
    LATE = auto()
    DONE = auto()


class One(StrEnum):
    SHIP = auto()
    DONE = auto()


class Ship(StrEnum):
    PACK = auto()
    SEND = auto()
    SENT = auto()


@dataclass
class Parcel:
    log: list[str] = field(default_factory=list)


LOG: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    LOG.clear()


class Pack(CompensatableTask[Ship, str]):
    async def run(self, ctx: Context[Parcel]) -> tuple[Literal[Ship.SEND], str]:
        LOG.append("pack")
        ctx.data.log.append("packed")
        return Ship.SEND, "box"

    async def compensate(self, ctx: Context[Parcel], output: str) -> None:
        LOG.append(f"unpack {output}")


async def send(ctx: Context[Parcel]) -> Literal[Ship.SENT]:
    LOG.append("send")
    await ctx.sleep(10)
    ctx.data.log.append("sent")
    return Ship.SENT


def shipping(store: Any) -> Workflow[Ship, Parcel]:
    return (
        Workflow(Ship, data=Parcel, start=Ship.PACK, checkpoints=store)
        .register(Ship.PACK, Pack())
        .register(Ship.SEND, send)
        .exits(Ship.SENT)
    )


async def check(ctx: Context[Parcel]) -> Literal[Step.DONE, Step.LATE]:
    await ctx.sleep(10)
    return Step.DONE


def take(ctx: Context[Parcel], parcel: Parcel) -> None:
    ctx.data.log += parcel.log


def ordering(store: Any, *policies: Any, **settings: Any) -> Workflow[Step, Parcel]:
    return (
        Workflow(Step, data=Parcel, start=Step.SHIP, checkpoints=store)
        .register(
            Step.SHIP,
            shipping(store).as_task(Step.CHECK, data_out=take),
            *policies,
            **settings,
        )
        .register(Step.CHECK, check)
        .exits(Step.DONE, Step.LATE)
    )


async def let_go(flow: Workflow[Any, Parcel], after: float) -> None:
    """A process that goes away in an orderly manner."""
    going = asyncio.ensure_future(flow.run(run_id="r"))
    await asyncio.sleep(after)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going


async def statuses(store: Any) -> dict[str, str]:
    return {each.run_id: str(each.status) for each in await store.runs(RunQuery())}


def test_the_part_is_a_run_of_its_own() -> None:
    """It has a name made of its whole's, and is found by a tag."""

    async def main() -> tuple[Any, ...]:
        store = MemoryCheckpoints()
        await ordering(store).run(run_id="r")
        parts = await store.runs(RunQuery(tag="part of r"))
        return await statuses(store), [(each.run_id, each.workflow) for each in parts]

    assert ({"r": "finished", "r/1/SHIP": "finished"}, [("r/1/SHIP", "Ship")]) == run(main())


def test_letting_go_of_the_whole_lets_go_of_the_part() -> None:
    """A shutdown undoes nothing; whoever resumes the whole finds the part where it was."""

    async def main() -> tuple[Any, ...]:
        store = MemoryCheckpoints()
        await let_go(ordering(store), 3)
        before = await statuses(store)
        began = asyncio.get_running_loop().time()
        flow = ordering(store)
        end = await flow.resume("r")
        took = asyncio.get_running_loop().time() - began
        return before, end, round(took), (await flow.handle("r").data()).log

    before, end, took, log = run(main())
    assert {"r": "running", "r/1/SHIP": "running"} == before
    assert ["pack", "send", "send"] == LOG, "what was completed is not done again"
    assert (Step.DONE, 17, ["packed", "sent"]) == (end, took, log)


def test_a_finished_part_is_not_carried_out_again() -> None:
    """Resumed after it, the whole goes on from its end."""

    async def main() -> Any:
        store = MemoryCheckpoints()
        await let_go(ordering(store), 13)
        return await ordering(store).resume("r"), await statuses(store)

    assert (Step.DONE, {"r": "finished", "r/1/SHIP": "finished"}) == run(main())
    assert ["pack", "send"] == LOG


@pytest.mark.parametrize("after", [3, 13])
def test_cancelling_the_whole_undoes_the_part(after: float) -> None:
    """Whether it is still at work or has finished long ago."""

    async def main() -> Any:
        store = MemoryCheckpoints()
        async with ordering(store) as flow:
            handle = await flow.start_run(run_id="r")
            await asyncio.sleep(after)
            await flow.handle("r").cancel()
            with pytest.raises(RunCancelledError):
                await handle.result()
        return await statuses(store)

    assert {"r": "cancelled", "r/1/SHIP": "cancelled"} == run(main())
    assert ["pack", "send", "unpack box"] == LOG


@pytest.mark.parametrize("after", [3, 13])
def test_cancelling_an_abandoned_whole_undoes_the_part(after: float) -> None:
    """The end may be asked for while nobody carries the runs out."""

    async def main() -> Any:
        store = MemoryCheckpoints()
        await let_go(ordering(store), after)
        flow = ordering(store)
        await flow.handle("r").cancel()
        with pytest.raises(RunCancelledError):
            await flow.resume("r")
        return await statuses(store)

    assert {"r": "cancelled", "r/1/SHIP": "cancelled"} == run(main())
    assert 1 == LOG.count("unpack box")


def test_a_part_that_is_cancelled_fails_its_whole() -> None:
    """Whoever cancels the part alone has that heard by the whole, which may have an answer."""

    async def main() -> Any:
        store = MemoryCheckpoints()
        flow = ordering(store, otherwise={RunCancelledError: Step.LATE})
        async with flow:
            handle = await flow.start_run(run_id="r")
            await asyncio.sleep(3)
            await shipping(store).handle("r/1/SHIP").cancel()
            return await handle.result(), await statuses(store)

    assert (Step.LATE, {"r": "finished", "r/1/SHIP": "cancelled"}) == run(main())
    assert ["pack", "send", "unpack box"] == LOG


def test_an_attempt_out_of_time_is_undone_and_tried_again() -> None:
    """Each attempt is a run of its own; one that a timeout ended is cancelled, not let go."""

    async def main() -> Any:
        store = MemoryCheckpoints()
        with pytest.raises(TimeoutError):
            await ordering(store, Retry.fixed(2, 1), Timeout(5)).run(run_id="r")
        return await statuses(store)

    over = {"r": "failed", "r/1/SHIP": "cancelled", "r/1/SHIP/2": "cancelled"}
    assert over == run(main())
    assert ["pack", "send", "unpack box"] * 2 == LOG


def test_a_part_that_somebody_else_carries_on_is_waited_for() -> None:
    """The sweeper of the part's own workflow may be faster than that of the whole."""

    async def main() -> Any:
        store = MemoryCheckpoints()
        await let_go(ordering(store), 3)
        async with shipping(store):
            await asyncio.sleep(1)
            return await ordering(store).resume("r"), await statuses(store)

    assert (Step.DONE, {"r": "finished", "r/1/SHIP": "finished"}) == run(main())
    assert ["pack", "send", "send"] == LOG


def test_branches_that_are_workflows() -> None:
    """Their values are what became of them, and come back from the store as they were."""

    class Two(StrEnum):
        SPLIT = auto()
        MERGE = auto()
        DONE = auto()

    seen: list[Any] = []

    async def merge(ctx: Context[None]) -> Literal[Two.DONE]:
        seen.extend(ctx.joined(Any).values)
        await ctx.sleep(5)
        return Two.DONE

    def flow(store: Any) -> Workflow[Two, None]:
        branches = [shipping(store).as_branch(name=name) for name in ("eu", "us")]
        made = Workflow(Two, start=Two.SPLIT, checkpoints=store)
        made.register(Two.SPLIT, Split(branches, then=Two.MERGE)).register(Two.MERGE, merge)
        return made.exits(Two.DONE)

    async def main() -> Any:
        store = MemoryCheckpoints()
        going = asyncio.ensure_future(flow(store).run(run_id="r"))
        await asyncio.sleep(12)
        going.cancel()
        await asyncio.wait((going,))
        await flow(store).resume("r")
        return await statuses(store)

    assert {"r": "finished", "r/1/SPLIT/eu": "finished", "r/1/SPLIT/us": "finished"} == run(main())
    told = [(one.run_id, one.exit, one.data) for one in seen]
    assert (
        2
        * [
            ("r/1/SPLIT/eu", "SENT", Parcel(["packed", "sent"])),
            ("r/1/SPLIT/us", "SENT", Parcel(["packed", "sent"])),
        ]
        == told
    )


def test_branches_are_undone_too() -> None:
    """A branch that finished is undone when another makes the run fail."""

    async def fail(ctx: Context[None]) -> None:
        await asyncio.sleep(20)
        raise ValueError("late")

    async def main() -> Any:
        store = MemoryCheckpoints()
        made = Workflow(One, start=One.SHIP, checkpoints=store).exits(One.DONE)
        made.register(One.SHIP, Split([shipping(store).as_branch(), fail], then=One.DONE))
        with pytest.raises(ExceptionGroup):
            await made.run(run_id="r")
        return await statuses(store)

    assert {"r": "failed", "r/1/SHIP/Ship": "cancelled"} == run(main())
    assert ["pack", "send", "unpack box"] == LOG


def test_a_stored_whole_needs_a_stored_part() -> None:
    """What is to be undone of a part without a store would be forgotten by a crash."""
    with pytest.raises(DefinitionError, match="Ship has no store, so a crash would forget"):
        (
            Workflow(One, start=One.SHIP, checkpoints=MemoryCheckpoints())
            .register(One.SHIP, shipping(None).as_task(One.DONE))
            .exits(One.DONE)
            .check()
        )


def test_a_part_in_doubt_puts_its_whole_in_doubt() -> None:
    """Both wait for the person who says what became of the effect of the part."""

    async def charge() -> str:
        LOG.append("charge")
        await asyncio.sleep(10)
        return "charged"

    async def pay(ctx: Context[Parcel]) -> Literal[Ship.SENT, Ship.SEND]:
        ctx.data.log.append(await ctx.effect("charge", charge))
        return Ship.SENT

    def paying(store: Any) -> Workflow[One, Parcel]:
        part = Workflow(Ship, data=Parcel, start=Ship.PACK, checkpoints=store)
        part.register(Ship.PACK, pay).exits(Ship.SENT, Ship.SEND)
        made = Workflow(One, data=Parcel, start=One.SHIP, checkpoints=store)
        return made.register(One.SHIP, part.as_task(One.DONE, data_out=take)).exits(One.DONE)

    async def main() -> Any:
        store = MemoryCheckpoints()
        await let_go(paying(store), 3)
        flow = paying(store)
        with pytest.raises(Exception, match="may have happened"):
            await flow.resume("r")
        doubt = await statuses(store)
        task: Any = flow._registrations["SHIP"].task
        await task.workflow.handle("r/1/SHIP").resolve("charge", "yes")
        return doubt, await flow.resume("r"), (await flow.handle("r").data()).log

    doubt, end, log = run(main())
    assert {"r": str(Status.IN_DOUBT), "r/1/SHIP": str(Status.IN_DOUBT)} == doubt
    assert (One.DONE, ["yes"], ["charge"]) == (end, log, LOG)


def test_a_part_that_cannot_be_taken_back_stops_its_whole() -> None:
    """Where the store of the part fails meanwhile, nobody claims that it was undone."""

    class Sick(MemoryCheckpoints):
        sick = False

        async def summary(self, run_id: str, /) -> Any:
            if self.sick and run_id == "r/1/SHIP":
                raise CheckpointError("the disk is gone")
            return await super().summary(run_id)

    async def main() -> Any:
        store = Sick()
        flow = ordering(store, Timeout(5))
        going = asyncio.ensure_future(flow.run(run_id="r"))
        await asyncio.sleep(3)
        store.sick = True
        with pytest.raises(CheckpointError, match="the disk is gone"):
            await going
        store.sick = False
        return await statuses(store)

    assert {"r": "running", "r/1/SHIP": "cancelled"} == run(main())
