"""Many runs at once: where their inputs come from, and how that may go wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import msgspec
import pytest

from cano import Context, Resources, StrayCancelledError, Workflow, run_many
from cano.concurrent import Duration, ManyStatus, Quota, many
from cano.testing import run
from cano.testing.faults import SimulatedCrash


class Step(Enum):
    WORK = "work"
    DONE = "done"


@dataclass
class Job:
    seconds: float = 0.0


class World:
    """What the runs did."""

    def __init__(self) -> None:
        self.begun = 0
        self.working = 0
        self.most = 0


async def work(ctx: Context[Job], world: World) -> Literal[Step.DONE]:
    world.begun += 1
    world.working += 1
    world.most = max(world.most, world.working)
    try:
        await asyncio.sleep(ctx.data.seconds)
    finally:
        world.working -= 1
    return Step.DONE


def flow(world: World) -> Workflow[Step, Job]:
    made = Workflow(Step, data=Job, start=Step.WORK, resources=Resources(world=world))
    return made.register(Step.WORK, work).exits(Step.DONE)


def alone() -> bool:
    return {asyncio.current_task()} == asyncio.all_tasks()


def test_a_source_that_fails() -> None:
    """When the inputs raise, what runs is ended, and the error comes out, noted."""
    world = World()

    def inputs() -> Iterator[Job]:
        yield Job(1)
        yield Job(5)
        raise LookupError("no more")

    async def main() -> float:
        with pytest.raises(LookupError) as caught:
            await run_many(flow(world), inputs(), concurrency=2)
        assert ["cano: asking for input 2 of Step"] == caught.value.__notes__
        assert alone()
        return asyncio.get_running_loop().time()

    assert 1.0 == run(main())
    assert (2, 0) == (world.begun, world.working)


def test_a_source_that_fails_while_nobody_looks() -> None:
    """Who leaves the block early is told all the same that the inputs raised."""

    async def inputs() -> AsyncIterator[Job]:
        yield Job(1)
        await asyncio.sleep(1.5)
        raise LookupError("no more")

    async def main() -> None:
        async with many(flow(World()), inputs()) as runs:
            async for _ in runs:
                await asyncio.sleep(1)
                break

    with pytest.raises(LookupError, match="no more"):
        run(main())


def test_an_error_of_the_source_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    """When the block fails by itself, asyncio need not complain that nobody saw the source fail."""

    async def inputs() -> AsyncIterator[Job]:
        yield Job(1)
        await asyncio.sleep(1.5)
        raise LookupError("no more")

    async def main() -> None:
        async with many(flow(World()), inputs()) as runs:
            async for _ in runs:
                await asyncio.sleep(1)
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(main())
    gc.collect()
    assert [] == caplog.records


def test_cancelled_twice_while_the_source_hangs() -> None:
    """Not even a source that swallows cancellations lets a run be left behind."""
    world = World()

    async def main() -> None:
        call = asyncio.ensure_future(run_many(flow(world), hanging(4)))
        for seconds in (1, 0.06, 0.01):
            await asyncio.sleep(seconds)
            call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert alone()

    run(main())
    assert (1, 0) == (world.begun, world.working)


def test_cancelled_while_an_error_ends_the_source() -> None:
    """A cancellation that comes while the block is left with an error is not lost."""

    async def main() -> None:
        async def call() -> None:
            async with many(flow(World()), hanging(4)):
                await asyncio.sleep(1)
                raise KeyError("mine")

        calling = asyncio.ensure_future(call())
        await asyncio.sleep(1.06)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert alone()

    run(main())


@pytest.mark.parametrize("crash", [SimulatedCrash, GeneratorExit])
def test_a_source_that_crashes(crash: type[BaseException]) -> None:
    """What is no `Exception` ends the call too."""

    class Source:
        def __iter__(self) -> Source:
            return self

        def __next__(self) -> Job:
            raise crash

    with pytest.raises(crash):
        run(run_many(flow(World()), Source()))


async def hanging(stubborn: int) -> AsyncIterator[Job]:
    """One job, and then none for a long time, whatever happens."""
    yield Job(5)
    for _ in range(stubborn):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(99)


def test_an_endless_source_without_a_window() -> None:
    """Runs begin and end while their inputs are asked for, so a quota can be reached."""

    def endless() -> Iterator[Job]:
        for _ in range(1000):
            yield Job()
        raise LookupError("asked for too many")

    runs = run(run_many(flow(World()), endless(), wait=Quota(3)))

    assert runs.status.succeeded >= 3


def test_an_async_source() -> None:
    """Inputs may come one by one over time; each run starts when its input is there."""
    closed: list[float] = []

    async def inputs() -> AsyncIterator[Job]:
        try:
            for _ in range(100):
                await asyncio.sleep(1)
                yield Job(1.5)
        finally:
            closed.append(asyncio.get_running_loop().time())

    async def main() -> tuple[ManyStatus, list[float]]:
        world = World()
        runs = await run_many(flow(world), inputs(), wait=Duration(4.25))
        assert alone()
        assert 2 == world.most
        return msgspec.structs.replace(runs.status, seconds=round(runs.status.seconds, 6)), closed

    assert (ManyStatus(4, 0, 0, 2, 0, 2, 4.25, complete=True), [4.25]) == run(main())


def test_an_async_source_in_the_window_is_closed() -> None:
    """A source that is not being asked when it is enough is closed too."""
    closed: list[int] = []

    async def inputs() -> AsyncIterator[Job]:
        try:
            while True:
                yield Job(1)
        finally:
            await asyncio.sleep(0.25)
            closed.append(1)

    runs = run(run_many(flow(World()), inputs(), wait=Quota(3), concurrency=2))

    assert ([1], 4) == (closed, runs.status.finished)


def test_a_source_that_cannot_be_closed() -> None:
    """An async iterator need not have more than its two methods."""

    class Source:
        left = 3

        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> Job:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return Job(1)

    assert 3 == run(run_many(flow(World()), Source())).status.succeeded


def test_a_source_that_fails_to_close(caplog: pytest.LogCaptureFixture) -> None:
    """What closing raises is logged: the outcomes are worth more."""

    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> Job:
            await asyncio.sleep(1)
            return Job(0.5)

        async def aclose(self) -> None:
            raise OSError("stuck")

    with caplog.at_level(logging.ERROR, "cano.concurrent"):
        runs = run(run_many(flow(World()), Source(), wait=Quota(2)))

    assert (2, ["closing the inputs failed"]) == (
        runs.status.succeeded,
        [record.message for record in caplog.records],
    )


def test_a_source_that_hangs_and_heeds_nothing() -> None:
    """A source that swallows a cancellation is cancelled again."""

    async def inputs() -> AsyncIterator[Job]:
        yield Job(1)
        for _ in range(3):
            try:
                await asyncio.sleep(99)
            except asyncio.CancelledError:
                continue

    async def main() -> float:
        await run_many(flow(World()), inputs(), wait=Quota(1))
        assert alone()
        return asyncio.get_running_loop().time()

    assert 1.1 == pytest.approx(run(main()))


def test_a_source_that_was_cancelled_elsewhere() -> None:
    """A cancellation that nobody asked for is an error of the source, not the end of the inputs."""

    async def inputs() -> AsyncIterator[Job]:
        yield Job(1)
        other = asyncio.ensure_future(asyncio.sleep(9))
        asyncio.get_running_loop().call_later(0.5, other.cancel)
        await other

    with pytest.raises(StrayCancelledError, match="input 1"):
        run(run_many(flow(World()), inputs()))
