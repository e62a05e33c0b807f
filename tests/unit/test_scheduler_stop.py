"""How a scheduler stops: in a time that is known beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal

import pytest

from cano import CompensatableTask, Context, Resources, Workflow
from cano.errors import DataError, DefinitionError, RunCancelledError
from cano.scheduler import Cron, Every, FlowRefusedError, Manual, Once, Scheduler
from cano.testing import run


class Step(Enum):
    WORK = 1
    DONE = 2


@dataclass
class Order:
    day: str = ""
    total: int = 0


class Db:
    """Says when it goes down."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    async def teardown(self) -> None:
        self.said.append("down")


class World:
    """A workflow whose runs take *seconds*, and what was heard of them."""

    def __init__(self, seconds: float, *, stubborn: bool = False) -> None:
        self.said: list[str] = []

        async def work(ctx: Context) -> Literal[Step.DONE]:
            self.said.append("begun")
            until = asyncio.get_running_loop().time() + seconds
            while (left := until - asyncio.get_running_loop().time()) > 0:
                try:
                    await asyncio.sleep(left)
                except asyncio.CancelledError:
                    if not stubborn:
                        self.said.append("cancelled")
                        raise
            self.said.append("finished")
            return Step.DONE

        resources = Resources(db=Db(self.said))
        flow = Workflow(Step, start=Step.WORK, resources=resources)
        self.flow = flow.register(Step.WORK, work).exits(Step.DONE)
        self.scheduler = Scheduler(grace=10)

    def takes(self, script: Callable[[], Coroutine[Any, Any, object]]) -> float:
        """How long the *script* takes after 5 seconds with an open scheduler."""

        async def main() -> float:
            async with self.scheduler:
                await asyncio.sleep(5)
                before = asyncio.get_running_loop().time()
                await script()
                return asyncio.get_running_loop().time() - before

        return run(main())


def test_sleepers_do_not_hold_it_up() -> None:
    """Waiting for a far tick, or resting, is over at once."""
    world = World(0)
    world.scheduler.add("x", world.flow, Every(3600)).add("y", world.flow, Cron("@yearly"))
    assert 0 == round(world.takes(world.scheduler.stop), 3)
    assert ["begun", "finished", "down"] == world.said


def test_runs_may_finish() -> None:
    """What runs is waited for, nothing more is begun, and then the resources go down."""
    world = World(8)
    world.scheduler.add("x", world.flow, Every(4), overlap="queue")
    assert 3 == round(world.takes(world.scheduler.stop), 3)
    assert ["begun", "finished", "down"] == world.said


def test_runs_that_take_too_long_are_cancelled() -> None:
    """After the grace period what still runs is cancelled."""
    world = World(100)
    world.scheduler.add("x", world.flow, Every(1000))
    assert 10 == round(world.takes(world.scheduler.stop), 1)
    assert ["begun", "cancelled", "down"] == world.said


def test_cancelled_at_once() -> None:
    """With "cancel" nobody waits."""
    world = World(100)
    world.scheduler.add("x", world.flow, Every(1000))
    assert 0 == round(world.takes(lambda: world.scheduler.stop("cancel")), 1)
    assert ["begun", "cancelled", "down"] == world.said


def test_a_run_that_never_ends() -> None:
    """Stopping ends in time whatever a run does; it is named, and its resources stay up."""
    world = World(1000, stubborn=True)
    world.scheduler.add("x", world.flow, Manual())
    left: list[tuple[str, ...]] = []

    async def script() -> None:
        await world.scheduler.trigger("x", run_id="mule")
        left.append(await world.scheduler.stop())

    assert 20 == round(world.takes(script), 1)
    assert [("mule",)] == left


def test_what_is_left_alone_ends_some_time() -> None:
    """A run that was left alone, and its resources, end when it does."""
    world = World(1000, stubborn=True)
    world.scheduler.add("x", world.flow, Every(10_000))

    async def main() -> None:
        async with world.scheduler:
            await asyncio.sleep(1)
            await world.scheduler.stop(grace=1)
            assert ["begun"] == world.said
            await asyncio.sleep(1100)

    run(main())
    assert ["begun", "finished", "down"] == world.said


def test_work_that_must_not_be_broken_off() -> None:
    """A saga under way is cancelled only when its step is done, and then undone."""
    said: list[str] = []

    class Saga(Enum):
        BOOK = 0
        WORK = 1
        DONE = 2

    class BookFirst(CompensatableTask[Saga, str]):
        async def run(self, ctx: Context) -> tuple[Literal[Saga.WORK], str]:
            await asyncio.sleep(7)
            said.append("booked")
            return Saga.WORK, "room"

        async def compensate(self, ctx: Context, output: str) -> None:
            said.append(f"{output} given back")

    async def work(ctx: Context) -> Literal[Saga.DONE]:
        await asyncio.sleep(100)
        return Saga.DONE

    saga = Workflow(Saga, start=Saga.BOOK).register(Saga.BOOK, BookFirst())
    saga.register(Saga.WORK, work).exits(Saga.DONE)
    world = World(0)
    world.scheduler.add("x", saga, Every(1000))
    assert 2 == round(world.takes(lambda: world.scheduler.stop("cancel")), 1)
    assert ["booked", "room given back"] == said


def test_asked_twice() -> None:
    """Stopping twice is stopping once, and both hear the same; asked to hurry, it does."""
    world = World(100)
    world.scheduler.add("x", world.flow, Every(1000))

    async def script() -> None:
        first = asyncio.create_task(world.scheduler.stop())
        second = asyncio.create_task(world.scheduler.stop())
        await asyncio.sleep(1)
        assert not first.done()
        await world.scheduler.stop("cancel")
        assert ((), ()) == (await first, await second)
        assert () == await world.scheduler.stop()
        assert () == await world.scheduler.wait()

    assert 1 == round(world.takes(script), 1)


def test_nothing_works_afterwards() -> None:
    """A scheduler that is not open triggers nothing, and says so; its status can be had."""
    world = World(0)
    world.scheduler.add("x", world.flow, Every(10))

    async def script() -> None:
        await world.scheduler.stop()
        for verb in ("trigger", "reset", "cancel", "pause", "resume"):
            with pytest.raises(FlowRefusedError, match="not open; say `async with scheduler:`"):
                await getattr(world.scheduler, verb)("x")
        assert 1 == world.scheduler.status("x").runs

    world.takes(script)


def test_never_opened() -> None:
    """Stopping, or waiting for the end of, what was never opened is no work."""

    async def main() -> None:
        assert ((), ()) == (await Scheduler().stop(), await Scheduler().wait())
        with pytest.raises(DefinitionError, match='pass "finish", "cancel" or "release"'):
            await Scheduler().stop("now")  # type: ignore[arg-type]

    run(main())


def test_opened_once_at_a_time() -> None:
    """A scheduler that is open is not opened again."""
    world = World(0)

    async def script() -> None:
        with pytest.raises(DefinitionError, match="open already"):
            await world.scheduler.run()

    world.takes(script)


def test_flows_that_are_not_there() -> None:
    """Every verb says that there is no such flow, and which one may be meant."""
    world = World(0)
    world.scheduler.add("report", world.flow, Manual())

    async def script() -> None:
        for verb in ("trigger", "reset", "cancel", "pause", "resume"):
            with pytest.raises(DefinitionError, match="no flow 'reprot'; did you mean 'report'"):
                await getattr(world.scheduler, verb)("reprot")
        for verb in ("status", "remove"):
            with pytest.raises(DefinitionError, match="no flow 'x'"):
                getattr(world.scheduler, verb)("x")

    world.takes(script)


def test_run_until_stopped() -> None:
    """`run` returns when somebody has stopped the scheduler, and not before."""
    world = World(1)
    world.scheduler.add("x", world.flow, Every(10))

    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(35, lambda: tasks.append(asyncio.ensure_future(world.scheduler.stop())))
        tasks: list[asyncio.Future[Any]] = []
        await world.scheduler.run()
        return loop.time()

    assert 35 == round(run(main()), 1)
    assert 4 == world.scheduler.status("x").runs


def test_run_is_cancelled() -> None:
    """Cancelling `run` ends the runs and takes the resources down, and is a cancellation."""
    world = World(100)
    world.scheduler.add("x", world.flow, Every(10))

    async def main() -> float:
        task = asyncio.create_task(world.scheduler.run())
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return asyncio.get_running_loop().time()

    assert 5 == round(run(main()), 1)
    assert ["begun", "cancelled", "down"] == world.said


def test_cancelled_while_it_stops() -> None:
    """Whoever cancels the one who waits for the end makes it hurry."""
    world = World(100)
    world.scheduler.add("x", world.flow, Every(1000))

    async def script() -> None:
        task = asyncio.create_task(world.scheduler.stop())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert 1 == round(world.takes(script), 1)
    assert ["begun", "cancelled", "down"] == world.said


def test_a_block_that_fails() -> None:
    """An exception in the block ends the runs at once, and comes through."""
    world = World(100)
    world.scheduler.add("x", world.flow, Every(1000))

    async def script() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError):
        world.takes(script)
    assert ["begun", "cancelled", "down"] == world.said


def test_removed_flows_end_too() -> None:
    """The runs of a flow that was removed are waited for like the others."""
    world = World(8)
    world.scheduler.add("x", world.flow, Every(100))

    async def script() -> None:
        world.scheduler.remove("x")
        await world.scheduler.stop()

    assert 3 == round(world.takes(script), 3)
    assert ["begun", "finished", "down"] == world.said


def test_a_run_of_the_block_is_not_ours() -> None:
    """A handle of a triggered run still tells of its end when the scheduler was stopped."""
    world = World(100)
    world.scheduler.add("x", world.flow, Manual())

    async def script() -> None:
        handle = await world.scheduler.trigger("x")
        await world.scheduler.stop("cancel")
        with pytest.raises(RunCancelledError):
            await handle.result()

    world.takes(script)


def test_data_that_cannot_be_made() -> None:
    """What makes the data may fail: by itself that is a failed run, by hand it is said at once."""

    def make() -> Order:
        raise OSError("no data")

    async def work(ctx: Context[Order]) -> Literal[Step.DONE]:
        return Step.DONE

    flow = Workflow(Step, start=Step.WORK, data=Order).register(Step.WORK, work).exits(Step.DONE)
    world = World(0)
    world.scheduler.add("x", flow, Every(4), data=make, trip=2)

    async def script() -> None:
        status = world.scheduler.status("x")
        assert ("tripped", 2, "OSError: no data") == (status.state, status.streak, status.error)
        await world.scheduler.reset("x")
        with pytest.raises(OSError, match="no data"):
            await world.scheduler.trigger("x")
        with pytest.raises(DataError):
            await world.scheduler.trigger("x", data="nonsense")

    world.takes(script)


def test_data_is_made_for_each_run() -> None:
    """Each run has data of its own, made with the time it is due where that is asked for."""
    totals: list[tuple[str, int]] = []

    async def work(ctx: Context[Order]) -> Literal[Step.DONE]:
        ctx.data.total += 1
        totals.append((ctx.data.day, ctx.data.total))
        return Step.DONE

    flow = Workflow(Step, start=Step.WORK, data=Order).register(Step.WORK, work).exits(Step.DONE)
    world = World(0)
    at = datetime(2020, 1, 1, tzinfo=UTC)
    day = Once(at)
    world.scheduler.add("a", flow, day, misfire="once", data=lambda due: Order(f"{due:%Y-%m-%d}"))
    world.scheduler.add("b", flow, Every(4), data=Order)
    world.scheduler.add("c", flow, Manual())

    async def script() -> None:
        await world.scheduler.trigger("c", data=Order("mine", 5))

    world.takes(script)
    assert [("2020-01-01", 1), ("", 1), ("", 1), ("mine", 6)] == totals
