"""`cano.testing.Recorder` over rollbacks, resumed runs and splits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum, auto
from itertools import pairwise
from typing import Any, ClassVar, Literal

import pytest

from cano import (
    CompensatableTask,
    Context,
    MemoryCheckpoints,
    Retry,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    Signal,
    SignalTask,
    Split,
    TaskRetried,
    Workflow,
)
from cano.announced import ScheduleFired
from cano.scheduler import Every, Scheduler
from cano.testing import FailTimes, run
from cano.testing.clock import advance
from cano.testing.recorder import Recorder


class Step(StrEnum):
    ROUTE = auto()
    WORK = auto()
    SHIP = auto()
    SORRY = auto()
    DONE = auto()


async def ship(ctx: Context) -> Literal[Step.DONE]:
    return Step.DONE


async def sorry(ctx: Context) -> Literal[Step.DONE]:
    return Step.DONE


def complaint(call: Callable[[], object]) -> str:
    with pytest.raises(AssertionError) as caught:
        call()
    return str(caught.value)


class Book(CompensatableTask[Step, str]):
    def __init__(self, then: Step, *, broken: bool = False) -> None:
        self.then, self.broken = then, broken

    async def run(self, ctx: Context) -> tuple[Step, str]:
        return self.then, "seat"

    async def compensate(self, ctx: Context, output: str) -> None:
        if self.broken:
            raise ConnectionError("no answer")


def saga(recorder: Recorder, *, broken: bool = False) -> Workflow[Step, None]:
    made = Workflow(Step, start=Step.ROUTE, observers=[recorder]).exits(Step.DONE)
    made.register(Step.ROUTE, Book(Step.WORK)).register(Step.WORK, Book(Step.SHIP, broken=broken))
    made.register(Step.SHIP, FailTimes(9, ValueError, then=Step.SORRY))
    return made.register(Step.SORRY, sorry)


def test_compensations() -> None:
    """What was undone is compared in order, newest first."""
    recorder = Recorder()
    with pytest.raises(ValueError, match="failure 1"):
        run(saga(recorder).run(run_id="a7"))
    recorder.assert_compensated(Step.WORK, Step.ROUTE)
    assert complaint(lambda: recorder.assert_compensated("ROUTE", "WORK")) == (
        "Run 'a7' undid something else, or in another order\n"
        "  expected: ROUTE, WORK\n"
        "  actual:   WORK, ROUTE"
    )
    assert "expected: nothing" in complaint(recorder.assert_compensated)


def test_a_compensation_that_failed() -> None:
    """Work that could not be undone is not undone, and the failure says which."""
    recorder = Recorder()
    with pytest.raises(ExceptionGroup):
        run(saga(recorder, broken=True).run(run_id="a7"))
    recorder.assert_compensated("ROUTE")
    said = complaint(lambda: recorder.assert_compensated("WORK", "ROUTE"))
    assert said.endswith("  actual:   ROUTE\n  could not be undone: WORK")


def test_a_resumed_run_is_one_path() -> None:
    """A recorder that watches a run before and after a break sees one path and one end."""
    recorder, store = Recorder(), MemoryCheckpoints()

    class Go(SignalTask[Step]):
        signals: ClassVar[dict[str, Any]] = {"go": int}

        async def on_signal(self, ctx: Context, signal: Signal[int]) -> Literal[Step.SHIP]:
            return Step.SHIP

    async def main() -> None:
        waiting = Workflow(Step, checkpoints=store, observers=[recorder])
        waiting.register(Step.WORK, Go())
        waiting.register(Step.SHIP, ship).exits(Step.DONE)
        waiting.exits(Step.ROUTE, Step.SORRY)
        async with waiting.copy() as first:
            await first.start_run(Step.WORK, run_id="a7")
            await asyncio.sleep(60)
        await waiting.handle("a7").signal("go", 1)
        await waiting.resume("a7")

    run(main())
    recorder.assert_path(Step.WORK, Step.SHIP, Step.DONE)
    recorder.assert_attempts(Step.WORK, 1)
    recorder.assert_finished(Step.DONE)


def test_branches_are_no_path() -> None:
    """What happens in the branches of a split is neither a state nor an attempt of it."""
    recorder = Recorder()
    split = Split([FailTimes(1, then=1), FailTimes(0, then=2)], then=Step.DONE)
    made = Workflow(Step, observers=[recorder]).register(Step.WORK, split, Retry.fixed(2, 1))
    run(made.exits(Step.DONE, Step.ROUTE, Step.SHIP, Step.SORRY).run(Step.WORK))
    assert 1 == len(recorder.of(TaskRetried))
    recorder.assert_path("WORK", "DONE")
    recorder.assert_attempts("WORK", 1)


def test_a_run_that_goes_on_has_no_end() -> None:
    """A run that failed and was taken up again is under way, until it ends once more."""
    recorder = Recorder()
    recorder(RunStarted(run_id="a7", state="WORK"))
    recorder(RunFailed(run_id="a7", state="WORK", kind="ValueError", error="no"))
    recorder.assert_failed("ValueError")
    recorder(RunResumed(run_id="a7", state="WORK"))
    assert complaint(recorder.assert_failed).endswith("not ended; the last state is WORK")
    recorder(RunFinished(run_id="a7", state="DONE"))
    recorder.assert_finished(Step.DONE)


def test_a_retried_run() -> None:
    """A run that is retried goes on where it failed: another visit, and another end."""
    recorder, store = Recorder(), MemoryCheckpoints()
    work: FailTimes[Step] = FailTimes(1, ValueError, then=Step.DONE)

    async def main() -> None:
        flow = Workflow(Step, checkpoints=store, observers=[recorder]).register(Step.WORK, work)
        flow.exits(Step.DONE, Step.ROUTE, Step.SHIP, Step.SORRY)
        with pytest.raises(ValueError, match="failure 1"):
            await flow.run(Step.WORK, run_id="a7")
        recorder.assert_failed(ValueError, state=Step.WORK)
        await flow.retry("a7")

    run(main())
    recorder.assert_finished(Step.DONE)
    assert "DONE" == recorder.states()[-1]


def test_the_fires_of_a_flow() -> None:
    """The fires of a flow are the moments it was due, or when somebody began it by hand."""
    recorder = Recorder()
    recorder(ScheduleFired(flow="report", due=0.0, time=60.0))
    recorder(ScheduleFired(flow="report", due=120.0, time=121.0))
    recorder(ScheduleFired(flow="other", due=120.0))
    expected = [datetime(1970, 1, 1, 0, minute, tzinfo=UTC) for minute in (1, 2)]
    assert expected == recorder.fires("report")
    assert [] == recorder.fires("none")


def test_a_scheduled_day() -> None:
    """A recorder at a scheduler and at its workflow sees every fire and every run of a day."""
    recorder = Recorder()

    async def main() -> None:
        flow = Workflow(Step, observers=[recorder]).register(Step.SHIP, ship)
        flow.exits(Step.DONE, Step.ROUTE, Step.WORK, Step.SORRY)
        scheduler = Scheduler(observers=[recorder])
        scheduler.add("hourly", flow, Every(3600), start=Step.SHIP)
        async with scheduler:
            await advance(86_400)
            await scheduler.stop()

    run(main(), at=datetime(2027, 1, 1, tzinfo=UTC))
    fires = recorder.fires("hourly")
    assert {3600.0} == {(b - a).total_seconds() for a, b in pairwise(fires)}
    assert len(recorder.runs) == len(fires) >= 24
    for run_id in recorder.runs:
        recorder.assert_path(Step.SHIP, Step.DONE, run_id=run_id)
