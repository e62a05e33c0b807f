"""A workflow as the task of a state, without a store."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    AttemptTimeoutError,
    CompensatableTask,
    CompensationFailedError,
    Context,
    Retry,
    RunCancelledError,
    RunTimeoutError,
    Split,
    Timeout,
    Workflow,
)
from cano.errors import DefinitionError
from cano.testing import run


class Step(StrEnum):
    SHIP = auto()
    CHECK = auto()
    REFUND = auto()
    DONE = auto()


class One(StrEnum):
    SHIP = auto()
    DONE = auto()


class Ship(StrEnum):
    PACK = auto()
    SEND = auto()
    SENT = auto()
    LOST = auto()


@dataclass
class Order:
    items: list[str] = field(default_factory=list)
    tracking: str = ""


@dataclass
class Parcel:
    items: list[str] = field(default_factory=list)
    tracking: str = ""


LOG: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    LOG.clear()


class Pack(CompensatableTask[Ship, str]):
    async def run(self, ctx: Context[Parcel]) -> tuple[Literal[Ship.SEND], str]:
        LOG.append("pack")
        return Ship.SEND, "box"

    async def compensate(self, ctx: Context[Parcel], output: str) -> None:
        LOG.append(f"unpack {output}")


async def send(ctx: Context[Parcel]) -> Literal[Ship.SENT, Ship.LOST]:
    LOG.append("send")
    ctx.data.tracking = "T" + "+".join(ctx.data.items)
    return Ship.LOST if "lost" in ctx.data.items else Ship.SENT


async def slow(ctx: Context[Parcel]) -> Literal[Ship.SENT, Ship.LOST]:
    await asyncio.sleep(100)
    return Ship.SENT


async def refuse(ctx: Context[Parcel]) -> Literal[Ship.SENT, Ship.LOST]:
    raise ConnectionError("no carrier")


def shipping(sending: Any = send, **settings: Any) -> Workflow[Ship, Parcel]:
    return (
        Workflow(Ship, data=Parcel, start=Ship.PACK, **settings)
        .register(Ship.PACK, Pack())
        .register(Ship.SEND, sending)
        .exits(Ship.SENT, Ship.LOST)
    )


async def check(ctx: Context[Order]) -> Literal[Step.DONE]:
    if "bad" in ctx.data.items:
        raise ValueError("bad order")
    return Step.DONE


def take(ctx: Context[Order], parcel: Parcel) -> None:
    ctx.data.tracking = parcel.tracking


def ordering(
    part: Workflow[Ship, Parcel] | None = None,
    *policies: Any,
    checking: Any = check,
    **settings: Any,
) -> Workflow[Step, Order]:
    task = (part or shipping()).as_task(
        {Ship.SENT: Step.CHECK, Ship.LOST: Step.REFUND},
        data_in=lambda ctx: Parcel(list(ctx.data.items)),
        data_out=take,
    )
    return (
        Workflow(Step, data=Order, start=Step.SHIP, **settings)
        .register(Step.SHIP, task, *policies)
        .register(Step.CHECK, checking)
        .exits(Step.DONE, Step.REFUND)
    )


@pytest.mark.parametrize(("items", "end"), [(["a"], Step.DONE), (["lost"], Step.REFUND)])
def test_each_exit_leads_to_its_state(items: list[str], end: Step) -> None:
    """The exit of the run within says where the outer run goes, and its data is handed in and out."""
    order = Order(items)
    assert end is run(ordering().run(data=order))
    assert "T" + items[0] == order.tracking
    assert ["pack", "send"] == LOG


def test_it_is_undone_with_its_whole() -> None:
    """What the run within has completed is undone when the outer run fails later."""
    with pytest.raises(ValueError, match="bad order"):
        run(ordering().run(data=Order(["bad"])))
    assert ["pack", "send", "unpack box"] == LOG


def test_a_part_that_fails_undoes_itself_once() -> None:
    """The failure passes through, with both paths in its notes."""
    with pytest.raises(ConnectionError, match="no carrier") as caught:
        run(ordering(shipping(refuse)).run())
    assert ["pack", "unpack box"] == LOG
    notes = "\n".join(caught.value.__notes__)
    assert "of Ship: PACK → SEND" in notes
    assert "of Step: SHIP" in notes


def test_each_attempt_is_a_run_of_its_own() -> None:
    """A retry begins the run within anew, with fresh data."""
    names: list[str] = []

    async def flaky(ctx: Context[Parcel]) -> Literal[Ship.SENT, Ship.LOST]:
        names.append(ctx.run_id)
        if len(names) < 3:
            raise ConnectionError
        return Ship.SENT

    assert Step.DONE is run(ordering(shipping(flaky), Retry(delay=1)).run(run_id="r"))
    assert ["r/1/SHIP", "r/1/SHIP/2", "r/1/SHIP/3"] == names
    assert ["pack", "unpack box", "pack", "unpack box", "pack"] == LOG


def test_a_timeout_of_the_state_ends_the_part() -> None:
    """The policies of the state go around the whole run within; it undoes what it did."""
    with pytest.raises(AttemptTimeoutError):
        run(ordering(shipping(slow), Timeout(5)).run())
    assert ["pack", "unpack box"] == LOG


def test_the_outer_deadline_is_seen_inside() -> None:
    """The seconds left of the outer run bound those of the run within."""
    left: list[float] = []

    async def look(ctx: Context[Parcel]) -> Literal[Ship.SENT, Ship.LOST]:
        left.append(ctx.remaining)
        await asyncio.sleep(100)
        return Ship.SENT

    with pytest.raises(RunTimeoutError):
        run(ordering(shipping(look), timeout=7).run())
    assert [7.0] == [round(seconds, 3) for seconds in left]
    assert ["pack", "unpack box"] == LOG


def test_cancelling_the_whole_cancels_the_part() -> None:
    """`handle.cancel` of the outer run ends the run within, undone, before it raises."""

    async def main() -> None:
        flow = ordering(shipping(slow))
        handle = await flow.start_run()
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle.result()

    run(main())
    assert ["pack", "unpack box"] == LOG


def test_parts_of_branches_are_cancelled_with_their_branch() -> None:
    """A branch that the join no longer needs takes its run within along."""
    part = shipping(slow)

    async def other(ctx: Context[Order]) -> None:
        await asyncio.sleep(1)
        raise KeyError("other")

    async def ship(ctx: Context[Order]) -> Ship:
        return await part.run(data=Parcel())

    flow = Workflow(One, data=Order, start=One.SHIP).exits(One.DONE)
    flow.register(One.SHIP, Split([other, ship], then=One.DONE))
    with pytest.raises(ExceptionGroup):
        run(flow.run())
    assert ["pack", "unpack box"] == LOG


def test_what_cannot_be_taken_over_is_undone_at_once() -> None:
    """If `data_out` fails, nothing would undo the finished run within later."""

    def broken(ctx: Context[Any], parcel: Parcel) -> None:
        raise TypeError("no")

    flow = Workflow(One, start=One.SHIP).exits(One.DONE)
    flow.register(One.SHIP, shipping().as_task(One.DONE, data_out=broken))
    with pytest.raises(TypeError, match="no"):
        run(flow.run())
    assert ["pack", "send", "unpack box"] == LOG


def test_undoing_that_fails_is_told() -> None:
    """What the run within could not undo is in the error of the outer run."""

    class Stuck(Pack):
        async def compensate(self, ctx: Context[Parcel], output: str) -> None:
            raise OSError("stuck")

    part = shipping().copy().register(Ship.PACK, Stuck())
    with pytest.raises(CompensationFailedError) as caught:
        run(ordering(part).run(data=Order(["bad"])))
    original, failed = caught.value.exceptions
    assert isinstance(original, ValueError)
    assert isinstance(failed, CompensationFailedError)
    assert "stuck" in str(failed.exceptions[0])


def test_parts_within_parts() -> None:
    """Three levels: the innermost is undone through the middle one."""

    class Top(StrEnum):
        ORDER = auto()
        FAIL = auto()
        END = auto()

    async def fail(ctx: Context[Any]) -> Literal[Top.END]:
        raise ValueError("late")

    flow = Workflow(Top, start=Top.ORDER).exits(Top.END).register(Top.FAIL, fail)
    middle = ordering().as_task(Top.FAIL, data_in=lambda ctx: Order())
    flow.register(Top.ORDER, middle)
    with pytest.raises(ValueError, match="late"):
        run(flow.run())
    assert ["pack", "send", "unpack box"] == LOG


def test_problems_of_the_part_are_found_with_the_whole() -> None:
    """Everything wrong with the run within is told by the check of the outer workflow."""
    part = Workflow(Ship).register(Ship.PACK, Pack()).exits(Ship.SENT, Ship.LOST)
    flow = Workflow(One, start=One.SHIP).exits(One.DONE)
    flow.register(One.SHIP, part.as_task({Ship.SENT: One.DONE}))
    with pytest.raises(DefinitionError) as caught:
        flow.check()
    found = "\n".join(caught.value.problems)
    assert "SHIP: Ship: " in found, "that of the part"
    assert "does not know where to start" in found
    assert "then= does not say where to go from LOST" in found


def test_edges_are_known() -> None:
    """The graph has an edge for each exit."""
    edges = {(edge.source.name, edge.target.name) for edge in ordering().check().edges}
    assert {("SHIP", "CHECK"), ("SHIP", "REFUND"), ("CHECK", "DONE")} == edges


def test_nothing_is_kept_of_runs_that_are_over() -> None:
    """What would be undone with a run is forgotten with it."""
    flow = ordering()
    for _ in range(3):
        run(flow.run())
    gc.collect()
    task: Any = flow._registrations["SHIP"].task
    assert 0 == len(task._standing)
