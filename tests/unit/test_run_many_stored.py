"""Many runs at once with a store: names, resuming, and what a cancellation leaves behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import pytest

from cano import (
    CheckpointError,
    Context,
    Event,
    MemoryCheckpoints,
    RunCancelledError,
    RunFailedError,
    RunOwnedError,
    RunQuery,
    Status,
    TimerTask,
    Workflow,
    run_many,
)
from cano.checkpoints.store import CheckpointStore, NewRun
from cano.concurrent import Duration, Quota, many
from cano.testing import run


class Step(Enum):
    WORK = "work"
    DONE = "done"


@dataclass
class Job:
    seconds: float = 0.0
    fails: bool = False
    done: int = 0


def flow(store: CheckpointStore, ran: list[float] | None = None) -> Workflow[Step, Job]:
    async def work(ctx: Context[Job]) -> Literal[Step.DONE]:
        if ran is not None:
            ran.append(ctx.data.seconds)
        await asyncio.sleep(ctx.data.seconds)
        if ctx.data.fails:
            raise ValueError("no")
        ctx.data.done += 1
        return Step.DONE

    made = Workflow(Step, data=Job, start=Step.WORK, checkpoints=store)
    return made.register(Step.WORK, work).exits(Step.DONE)


def name(index: int, job: Job) -> str:
    return f"job-{index}"


async def statuses(store: CheckpointStore) -> dict[str, tuple[Status, bool]]:
    """By name: how the run stands, and whether somebody has it."""
    page = await store.runs(RunQuery())
    return {run.run_id: (run.status, bool(run.owner)) for run in page}


def test_called_again() -> None:
    """With names a second call gives the recorded ends, data and all, and runs nothing."""
    store, ran = MemoryCheckpoints(), list[float]()

    async def main() -> tuple[Any, Any]:
        jobs = [[Job(2), Job(1, fails=True), Job(1)] for _ in range(2)]
        first = await run_many(flow(store, ran), jobs[0], run_ids=name)
        return first, await run_many(flow(store, ran), jobs[1], run_ids=name)

    first, second = run(main())
    for runs in (first, second):
        assert ["succeeded", "failed", "succeeded"] == [outcome.status for outcome in runs]
        assert ["job-0", "job-1", "job-2"] == [outcome.run_id for outcome in runs]
        assert [1, 0, 1] == [outcome.data.done for outcome in runs]
    assert [1, 1, 2] == sorted(ran)
    assert [ValueError, RunFailedError] == [type(runs[1].error) for runs in (first, second)]


def test_the_cancelled_stay_cancelled() -> None:
    """When it is enough the rest is cancelled in the store, and called again it still is."""
    store = MemoryCheckpoints()

    async def main() -> None:
        for _ in range(2):
            jobs = [Job(1), Job(9), Job(9)]
            runs = await run_many(flow(store), jobs, run_ids=name, wait=Quota(1), concurrency=2)
            assert runs[1].status == "cancelled"
            assert isinstance(runs[1].error, RunCancelledError)
        assert Status.CANCELLED == (await statuses(store))["job-1"][0]

    run(main())


def test_cancelled_from_outside_lets_go() -> None:
    """Cancelling the call leaves unfinished runs to whoever resumes them; nothing is undone."""
    store, ran = MemoryCheckpoints(), list[float]()

    async def main() -> list[str]:
        jobs = [Job(1), Job(5), Job(6), Job(2)]
        call = asyncio.ensure_future(run_many(flow(store, ran), jobs, run_ids=name, concurrency=3))
        await asyncio.sleep(1.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert {
            "job-0": (Status.FINISHED, False),
            "job-1": (Status.RUNNING, False),
            "job-2": (Status.RUNNING, False),
            "job-3": (Status.RUNNING, False),
        } == await statuses(store)
        runs = await run_many(flow(store, ran), [Job(1), Job(5), Job(6), Job(2)], run_ids=name)
        return [outcome.status for outcome in runs]

    assert ["succeeded"] * 4 == run(main())
    assert [1, 2, 2, 5, 5, 6, 6] == sorted(ran)


def test_cancelled_while_runs_are_being_created() -> None:
    """A run whose creation is under way is let go of too, or was never made."""

    async def main(after: int) -> None:
        store = MemoryCheckpoints()
        call = asyncio.ensure_future(run_many(flow(store), [Job(5)] * 5, run_ids=name))
        for _ in range(after):
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert {asyncio.current_task()} == asyncio.all_tasks()
        found = await statuses(store)
        assert {(Status.RUNNING, False)} >= set(found.values())

    for after in range(12):
        run(main(after))


class Slow(MemoryCheckpoints):
    """A store that takes a second to create a run."""

    def create(self, run: NewRun, events: Sequence[Event], /) -> asyncio.Future[None]:
        async def later() -> None:
            await asyncio.sleep(1)
            await super(Slow, self).create(run, events)

        return asyncio.ensure_future(later())


def test_decided_while_a_run_is_being_created() -> None:
    """A run that appears in the store after the time was up is cancelled there."""
    store = Slow()

    async def main() -> list[str]:
        runs = await run_many(flow(store), [Job(5), Job(5)], run_ids=name, wait=Duration(0.5))
        assert {(Status.CANCELLED, False)} == set((await statuses(store)).values())
        return [outcome.status for outcome in runs]

    assert ["cancelled", "cancelled"] == run(main())


def test_cancelled_while_it_waits_for_the_source() -> None:
    """Once the call is cancelled, runs are let go of: they are no longer cancelled in the store."""
    store = MemoryCheckpoints()

    async def inputs() -> AsyncIterator[Job]:
        yield Job(1)
        yield Job(9)
        for _ in range(3):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(99)

    async def main() -> None:
        runs = run_many(flow(store), inputs(), run_ids=name, wait=Quota(1))
        call = asyncio.ensure_future(runs)
        await asyncio.sleep(1.06)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (Status.RUNNING, False) == (await statuses(store))["job-1"]
        assert {asyncio.current_task()} == asyncio.all_tasks()

    run(main())


def test_what_had_no_time_to_begin_does_not() -> None:
    """A run that is called off before its first step never comes into the store."""
    store = MemoryCheckpoints()

    async def inputs() -> AsyncIterator[Job]:
        yield Job(1)
        raise LookupError("no more")

    async def main() -> None:
        with pytest.raises(LookupError):
            await run_many(flow(store), inputs())
        assert {} == await statuses(store)

    run(main())


def test_letting_go_of_a_waiting_run() -> None:
    """A run that had been let go to wait is not asked for, and stays as it is."""

    class SlowToLoad(MemoryCheckpoints):
        async def load(self, *args: Any) -> list[Event]:
            await asyncio.sleep(0.2)
            return await super().load(*args)

    store = SlowToLoad()
    made = Workflow(Step, data=Job, start=Step.WORK, checkpoints=store)
    made.register(Step.WORK, TimerTask(3600, then=Step.DONE)).exits(Step.DONE)

    async def main() -> None:
        async with made:
            runs = many(made, [Job()], run_ids=name)
            with pytest.raises(KeyError):  # noqa: PT012
                async with runs:
                    await asyncio.sleep(1)
                    raise KeyError
            assert (0, 1) == (runs.status.running, runs.status.cancelled)
            assert (Status.WAITING, False) == (await statuses(store))["job-0"]
            await made.handle("job-0").cancel()

    run(main())


def test_a_store_that_takes_no_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    """A run that cannot be cancelled durably is let go of, and the reason is in its outcome."""

    class Deaf(MemoryCheckpoints):
        async def send(self, *args: Any, **kwargs: Any) -> Any:
            raise CheckpointError("the disk is full")

    store = Deaf()

    async def main() -> Any:
        runs = await run_many(flow(store), [Job(1), Job(9)], run_ids=name, wait=Quota(1))
        assert (Status.RUNNING, False) == (await statuses(store))["job-1"]
        assert {asyncio.current_task()} == asyncio.all_tasks()
        return runs

    with caplog.at_level(logging.WARNING, "cano.concurrent"):
        runs = run(main())
    assert ["succeeded", "cancelled"] == [outcome.status for outcome in runs]
    assert "the disk is full" == str(runs[1].error)
    assert 1 == len(caplog.records)


def test_a_name_for_two_inputs() -> None:
    """One name stands for one run: a second input under it is refused while that one runs."""

    async def main() -> Any:
        jobs = [Job(1), Job(1)]
        return await run_many(flow(MemoryCheckpoints()), jobs, run_ids=lambda *_: "same")

    runs = run(main())
    assert {type(None), RunOwnedError} == {type(outcome.error) for outcome in runs}
    assert (1, 1) == (runs.status.succeeded, runs.status.failed)


def test_tags() -> None:
    """Every run carries the tags."""
    store = MemoryCheckpoints()

    async def main() -> list[tuple[str, ...]]:
        await run_many(flow(store), [Job(), Job()], tags=["night"])
        return [tuple(run.tags) for run in await store.runs(RunQuery())]

    assert [("night",)] * 2 == run(main())


def test_waiting_runs_in_a_scope() -> None:
    """Runs that are let go to wait, in a scope of the workflow, are waited for all the same."""
    store = MemoryCheckpoints()

    class Day(Enum):
        NAP = "nap"
        WORK = "work"
        DONE = "done"

    class Nap(TimerTask[Day]):
        async def moment(self, ctx: Context[Job]) -> float:
            return ctx.data.seconds

    async def work(ctx: Context[Job]) -> Literal[Day.DONE]:
        ctx.data.done += 1
        return Day.DONE

    made = Workflow(Day, data=Job, start=Day.NAP, checkpoints=store)
    made.register(Day.NAP, Nap(then=Day.WORK)).register(Day.WORK, work).exits(Day.DONE)

    async def main() -> Any:
        async with made:
            calling = asyncio.ensure_future(
                run_many(made, [Job(3600), Job(7200), Job(9e9)], wait=Quota(2))
            )
            await asyncio.sleep(60)
            assert {(Status.WAITING, False)} == set((await statuses(store)).values())
            return await calling

    runs = run(main())
    assert ["succeeded", "succeeded", "cancelled"] == [outcome.status for outcome in runs]
    assert [1, 1, 0] == [outcome.data.done for outcome in runs]
