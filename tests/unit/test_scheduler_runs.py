"""What scheduled runs have in common with all others."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Literal

from cano import CompensatableTask, Context, RunStarted, Workflow, on
from cano.events import Event
from cano.scheduler import Every, Manual, Scheduler
from cano.testing import run


class Step(Enum):
    BOOK = 0
    WORK = 1
    DONE = 2


class Book(CompensatableTask[Step, str]):
    """Books a room; giving it back fails."""

    async def run(self, ctx: Context) -> tuple[Literal[Step.WORK], str]:
        return Step.WORK, "room"

    async def compensate(self, ctx: Context, output: str) -> None:
        raise OSError("the hotel does not answer")


async def work(ctx: Context) -> Literal[Step.DONE]:
    await asyncio.sleep(100)
    return Step.DONE


def saga(**settings: float) -> Workflow[Step, None]:
    flow = Workflow(Step, start=Step.BOOK, timeout=settings.get("timeout"))
    return flow.register(Step.BOOK, Book()).register(Step.WORK, work).exits(Step.DONE)


def test_what_could_not_be_undone_is_a_failure() -> None:
    """A cancelled run whose work still stands in part has failed, and its flow rests."""
    scheduler = Scheduler().add("x", saga(), Manual())

    async def main() -> None:
        async with scheduler:
            await scheduler.trigger("x")
            await asyncio.sleep(1)
            await scheduler.cancel("x")
            await asyncio.sleep(0.2)
            status = scheduler.status("x")
            assert ("backing off", 1, "failed") == (status.state, status.streak, status.outcome)
            assert status.error.startswith("CompensationFailedError: ")

    run(main())


def test_the_timeout_of_a_run() -> None:
    """The workflow's timeout for a whole run holds for scheduled runs too."""
    scheduler = Scheduler().add("x", saga(timeout=5), Every(1000))

    async def main() -> None:
        async with scheduler:
            await asyncio.sleep(6)
            status = scheduler.status("x")
            assert ("failed", 1) == (status.outcome, status.streak)

    run(main())


def test_the_observers_of_the_workflow() -> None:
    """What happens within a scheduled run is told to the workflow's observers, with its name."""
    seen: list[str] = []

    @on(RunStarted)
    def note(event: RunStarted) -> None:
        seen.append(event.run_id)

    def broken(event: Event) -> None:
        raise RuntimeError("broken")

    class Two(Enum):
        WORK = 1
        DONE = 2

    async def quick(ctx: Context) -> Literal[Two.DONE]:
        return Two.DONE

    flow = Workflow(Two, start=Two.WORK, observers=[broken, note]).register(Two.WORK, quick)
    scheduler = Scheduler(observers=[broken]).add("x", flow.exits(Two.DONE), Every(10))

    async def main() -> None:
        async with scheduler:
            await asyncio.sleep(15)
            assert ("idle", 2) == (scheduler.status("x").state, scheduler.status("x").runs)

    run(main())
    assert 2 == len(seen)
    assert all(name.startswith("x@") for name in seen)


def test_a_flow_is_never_left_running() -> None:
    """Whatever ends a run, even a cancellation that nobody asked for, the flow runs no more."""

    class Two(Enum):
        WORK = 1
        DONE = 2

    async def stray(ctx: Context) -> Literal[Two.DONE]:
        raise asyncio.CancelledError

    flow = Workflow(Two, start=Two.WORK).register(Two.WORK, stray).exits(Two.DONE)
    scheduler = Scheduler().add("x", flow, Every(1000))

    async def main() -> None:
        async with scheduler:
            await asyncio.sleep(1)
            status = scheduler.status("x")
            assert ((), 1, "failed") == (status.running, status.runs, status.outcome)

    run(main())


def test_many_are_triggered_and_none_is_kept() -> None:
    """Runs that ended leave nothing behind in the scheduler."""

    class Two(Enum):
        WORK = 1
        DONE = 2

    async def quick(ctx: Context) -> Literal[Two.DONE]:
        return Two.DONE

    flow = Workflow(Two, start=Two.WORK).register(Two.WORK, quick).exits(Two.DONE)
    scheduler = Scheduler().add("x", flow, Manual())

    async def main() -> None:
        async with scheduler:
            for _ in range(20):
                await (await scheduler.trigger("x")).result()
                await asyncio.sleep(0)
            entry = scheduler._entries["x"]
            left = (entry.held, entry.carried, entry.tasks, entry.asked, entry.state.running)
            assert [0] * 5 == [len(things) for things in left]

    run(main())
