"""Many runs at once: however it ends, nothing is left running, and nothing is lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import pytest

from cano import (
    CompensatableTask,
    Context,
    Resource,
    Resources,
    RunCancelledError,
    Workflow,
    run_many,
)
from cano.concurrent import ManyStatus, Quota, many
from cano.testing import run
from cano.testing.faults import SimulatedCrash


class Step(Enum):
    BOOK = "book"
    WORK = "work"
    DONE = "done"


@dataclass
class Job:
    seconds: float = 0.0
    stubborn: int = 0
    fails_undoing: bool = False


class World:
    """What the runs did, and whether it stands."""

    def __init__(self) -> None:
        self.booked: list[float] = []
        self.begun = 0
        self.working = 0
        self.most = 0


class Book(CompensatableTask[Step, float]):
    async def run(self, ctx: Context[Job], world: World) -> tuple[Literal[Step.WORK], float]:
        world.begun += 1
        world.booked.append(ctx.data.seconds)
        return Step.WORK, ctx.data.seconds

    async def compensate(self, ctx: Context[Job], output: float, world: World) -> None:
        await asyncio.sleep(0.01)
        if ctx.data.fails_undoing:
            raise ValueError("booked for good")
        world.booked.remove(output)


async def work(ctx: Context[Job], world: World) -> Literal[Step.DONE]:
    """Take its time, and swallow some cancellations meanwhile."""
    world.working += 1
    world.most = max(world.most, world.working)
    end = asyncio.get_running_loop().time() + ctx.data.seconds
    patience = ctx.data.stubborn
    try:
        while (left := end - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                patience -= 1
                if patience < 0:
                    raise
    finally:
        world.working -= 1
    return Step.DONE


def flow(world: World, **resources: object) -> Workflow[Step, Job]:
    made = Workflow(Step, data=Job, start=Step.BOOK, resources=Resources(world=world, **resources))
    return made.register(Step.BOOK, Book()).register(Step.WORK, work).exits(Step.DONE)


def alone() -> bool:
    return {asyncio.current_task()} == asyncio.all_tasks()


def test_the_cancelled_are_rolled_back_and_waited_for() -> None:
    """When it is enough, what runs is undone before the call returns, however stubborn it is."""
    world = World()

    async def main() -> list[str]:
        inputs = [Job(1), Job(50), Job(60, stubborn=3)]
        runs = await run_many(flow(world), inputs, wait=Quota(1))
        assert alone()
        assert 1.0 + 3 * 0.05 + 0.01 == pytest.approx(asyncio.get_running_loop().time())
        return [outcome.status for outcome in runs]

    assert ["succeeded", "cancelled", "cancelled"] == run(main())
    assert ([1], 0) == (world.booked, world.working)


def test_who_finishes_while_being_cancelled_has_succeeded() -> None:
    """A cancellation that comes too late changes nothing: the result is kept."""
    world = World()

    async def main() -> list[str]:
        runs = await run_many(flow(world), [Job(1), Job(1.02, stubborn=9)], wait=Quota(1))
        return [outcome.status for outcome in runs]

    assert ["succeeded", "succeeded"] == run(main())
    assert [1, 1.02] == world.booked


def test_what_cannot_be_undone_is_a_failure() -> None:
    """A cancelled run whose rollback failed says so in its outcome."""

    async def main() -> Any:
        inputs = [Job(1), Job(9, fails_undoing=True), Job(9)]
        return await run_many(flow(World()), inputs, wait=Quota(1))

    runs = run(main())
    assert ["succeeded", "failed", "cancelled"] == [outcome.status for outcome in runs]
    assert [RunCancelledError, ValueError] == [type(e) for e in runs[1].error.exceptions]


@pytest.mark.parametrize("after", [0.0, 0.5, 1.0, 1.005])
def test_cancelled_from_outside(after: float) -> None:
    """Without a store, cancelling the call rolls every run back before the call is over."""
    world = World()

    async def main() -> None:
        call = asyncio.ensure_future(
            run_many(flow(world), [Job(2), Job(3, stubborn=2), Job(4), Job(1)], concurrency=3)
        )
        await asyncio.sleep(after)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert alone()

    run(main())
    assert ([], 0) == (world.booked, world.working)


def test_cancelled_twice() -> None:
    """Not even a second cancellation lets a run be left behind."""
    world = World()

    async def main() -> None:
        call = asyncio.ensure_future(run_many(flow(world), [Job(9, stubborn=4), Job(9)]))
        for seconds in (1, 0.06, 0.01, 0.001):
            await asyncio.sleep(seconds)
            call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert alone()

    run(main())
    assert ([], 0) == (world.booked, world.working)


def test_cancelled_while_it_cancels() -> None:
    """A cancellation that comes while the rest is being cancelled waits for the rest as well."""
    world = World()

    async def main() -> None:
        runs = run_many(flow(world), [Job(1), Job(9, stubborn=4)], wait=Quota(1))
        call = asyncio.ensure_future(runs)
        await asyncio.sleep(1.06)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert alone()

    run(main())
    assert ([1], 0) == (world.booked, world.working)


def test_an_error_in_the_block_ends_the_runs() -> None:
    """Whatever leaves the block of `many` waits until nothing runs."""
    world = World()

    async def main() -> ManyStatus:
        runs = many(flow(world), [Job(1), Job(5)])
        with pytest.raises(KeyError):  # noqa: PT012
            async with runs:
                async for outcome in runs:
                    raise KeyError(outcome.index)
        assert alone()
        return runs.status

    assert (1, 1, True) == (
        (status := run(main())).succeeded,
        status.cancelled,
        status.complete,
    )
    assert [1] == world.booked


def test_cancelled_while_an_error_ends_the_runs() -> None:
    """A cancellation that comes while the block is left with an error is not lost."""

    async def main() -> None:
        async def call() -> None:
            async with many(flow(World()), [Job(1), Job(9, stubborn=4)]) as runs:
                async for outcome in runs:
                    raise KeyError(outcome.index)

        calling = asyncio.ensure_future(call())
        await asyncio.sleep(1.06)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert alone()

    run(main())


def test_resources_stay_up() -> None:
    """Resources are set up once for all the runs, and taken down after the last of them."""
    calls: list[str] = []
    world = World()

    class Bank(Resource):
        async def setup(self) -> None:
            calls.append("up")

        async def teardown(self) -> None:
            calls.append(f"down, {world.working} at work")

    run(run_many(flow(world, bank=Bank()), [Job(1), Job(2), Job(3)], concurrency=1, wait=Quota(2)))

    assert ["up", "down, 0 at work"] == calls


def test_resources_that_cannot_be_set_up() -> None:
    """What a setup raises is raised, once, before an input is asked for."""

    class Bank(Resource):
        async def setup(self) -> None:
            raise OSError("closed")

    asked: list[Job] = []
    inputs = (asked.append(job) or job for job in [Job(1)])
    with pytest.raises(OSError, match="closed"):
        run(run_many(flow(World(), bank=Bank()), inputs))
    assert [] == asked


def test_no_run_keeps_a_crash_to_itself() -> None:
    """What is no `Exception` ends the call, and the other runs with it."""
    world = World()

    async def work(ctx: Context[Job]) -> Literal[Step.DONE]:
        await asyncio.sleep(ctx.data.seconds)
        if ctx.data.seconds == 1:
            raise SimulatedCrash("the plug")
        return Step.DONE

    made = Workflow(Step, data=Job, start=Step.BOOK, resources=Resources(world=world))
    made.register(Step.BOOK, Book()).register(Step.WORK, work).exits(Step.DONE)

    async def main() -> None:
        with pytest.raises(SimulatedCrash):
            await run_many(made, [Job(1), Job(9)])
        assert alone()

    run(main())
    assert 9 not in world.booked


def test_a_strategy_that_fails() -> None:
    """What a strategy of the user's own raises comes out, and nothing is left running."""

    class Odd:
        seconds = 99.0

        def enough(self, status: ManyStatus, /) -> bool:
            return 1 // (1 - status.finished) < 0

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await run_many(flow(World()), [Job(1), Job(9)], wait=Odd())
        assert alone()

    run(main())


def test_a_run_cancelled_by_somebody_else() -> None:
    """A `RunCancelledError` that a task met elsewhere is a failure of the run."""

    async def ask(ctx: Context[Job]) -> Literal[Step.DONE]:
        raise RunCancelledError("another one")

    made = Workflow(Step, data=Job, name="ask").register(Step.WORK, ask)
    runs = run(run_many(made.exits(Step.DONE, Step.BOOK), [Job()], start=Step.WORK))

    assert ["failed"] == [outcome.status for outcome in runs]


def test_definitions_are_found_once() -> None:
    """A wrong state to start from is an error of the call, not of each run."""
    with pytest.raises(ValueError, match="no member"):
        run(run_many(flow(World()), [Job()], start="work"))  # type: ignore[arg-type]
