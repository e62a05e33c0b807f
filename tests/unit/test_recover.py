"""Runs that nobody carries out although somebody should: found, and carried on."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import Context, MemoryCheckpoints, Resources, RunLostError, RunSummary, Workflow
from cano.checkpoints.store import CheckpointStore, RunQuery, Status
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash


class Step(StrEnum):
    WORK = auto()
    END = auto()
    OTHER = auto()


class World:
    def __init__(self) -> None:
        self.store: CheckpointStore = MemoryCheckpoints()
        self.crashing = True
        self.seconds = 10.0
        self.at_once = 0
        self.most = 0

    def flow(self, store: CheckpointStore | None = None, **more: Any) -> Workflow[Step, None]:
        flow = Workflow(Step, checkpoints=store or self.store, **more).exits(Step.END, Step.OTHER)

        @flow.task(Step.WORK)
        async def work(ctx: Context[Any]) -> Literal[Step.END]:
            if self.crashing:
                raise SimulatedCrash
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(self.seconds)
            self.at_once -= 1
            return Step.END

        return flow

    async def abandon(self, count: int) -> None:
        """Leave so many runs behind, as a process that died does."""
        flow = self.flow()
        for number in range(count):
            with suppress(SimulatedCrash):
                await flow.run(Step.WORK, run_id=str(number))
        self.crashing = False
        await asyncio.sleep(16)

    async def statuses(self) -> list[str]:
        return [run.status.value for run in await self.store.runs(RunQuery(limit=1000))]


def test_recover_carries_on_what_was_abandoned() -> None:
    """Each abandoned run goes on in the background, at most *limit* of them."""

    async def main() -> list[list[str]]:
        world = World()
        await world.abandon(5)
        flow = world.flow()
        handles = await flow.recover(limit=3)
        await asyncio.gather(*(handle.result() for handle in handles))
        first = sorted(await world.statuses())
        await asyncio.gather(*(handle.result() for handle in await flow.recover()))
        assert [] == list(await flow.recover())
        return [first, await world.statuses()]

    assert [["finished"] * 3 + ["running"] * 2, ["finished"] * 5] == run(main())


def test_runs_that_are_carried_out_are_left_alone() -> None:
    """A run with a living owner is nobody else's."""

    async def main() -> list[Any]:
        world = World()
        world.crashing = False
        handle = await world.flow().start_run(Step.WORK)
        found = list(await world.flow().recover())
        await handle.result()
        return found

    assert [] == run(main())


def test_an_open_scope_recovers_by_itself() -> None:
    """The sweeper finds what was left behind before, and what is left behind meanwhile."""

    async def main() -> tuple[list[str], float]:
        world = World()
        await world.abandon(3)
        async with world.flow():
            begun = asyncio.get_running_loop().time()
            while set(await world.statuses()) != {"finished"}:
                await asyncio.sleep(1)
            return await world.statuses(), asyncio.get_running_loop().time() - begun

    statuses, seconds = run(main())
    assert ["finished"] * 3 == statuses
    assert 12 > seconds


def test_a_scope_recovers_at_most_a_hundred_at_once() -> None:
    """More are carried on as the first ones end."""

    async def main() -> tuple[int, int]:
        world = World()
        await world.abandon(250)
        async with world.flow():
            for _ in range(1000):
                if set(await world.statuses()) == {"finished"}:
                    break
                await asyncio.sleep(1)
            return world.most, (await world.statuses()).count("finished")

    assert (100, 250) == run(main())


def test_a_stuck_run_is_not_recovered() -> None:
    """What kills its process again and again is left for a person."""

    async def main() -> list[Any]:
        world = World()
        await world.abandon(1)
        world.crashing = True
        for _ in range(2):
            with suppress(SimulatedCrash):
                await world.flow().resume("0")
            await asyncio.sleep(16)
        return list(await world.flow(max_crashes=2).recover())

    assert [] == run(main())


def test_a_run_of_another_shape_is_refused_once(caplog: pytest.LogCaptureFixture) -> None:
    """A scope that cannot carry a run on says so, and does not try it again and again."""

    async def main() -> str:
        world = World()
        await world.abandon(1)
        flow = Workflow(Step, checkpoints=world.store, version=2).exits(Step.END, Step.OTHER)

        async def work(ctx: Context[Any]) -> Literal[Step.END]:
            return Step.END

        async with flow.register(Step.WORK, work):
            await asyncio.sleep(1000)
            return (await world.store.summary("0")).status

    with caplog.at_level(logging.WARNING, "cano"):
        assert "running" == run(main())
    assert 1 == len(caplog.records)
    assert "write a migration from version 0" in caplog.text


def test_a_failing_store_does_not_end_the_sweeper(caplog: pytest.LogCaptureFixture) -> None:
    """When the store is back, abandoned runs are found again."""

    async def main() -> list[str]:
        world = World()
        await world.abandon(1)
        store = FaultyStore(world.store)
        async with world.flow(store):
            with store.unavailable():
                await asyncio.sleep(100)
            await asyncio.sleep(100)
            return await world.statuses()

    with caplog.at_level(logging.WARNING, "cano"):
        assert ["finished"] == run(main())
    assert "the store is unavailable" in caplog.text


# Ownership


def test_a_lease_is_renewed_while_a_task_takes_its_time() -> None:
    """However long a task takes, nobody else may have its run."""

    async def main() -> tuple[list[Any], Step]:
        world = World()
        world.crashing, world.seconds = False, 10_000
        handle = await world.flow().start_run(Step.WORK)
        found: list[Any] = []
        for _ in range(20):
            await asyncio.sleep(400)
            found += await world.flow().recover()
        return found, await handle.result()

    assert ([], Step.END) == run(main())


def test_one_heartbeat_for_all_runs_of_a_scope() -> None:
    """Renewing costs one write per third of a lease, however many runs there are."""

    async def main() -> int:
        world = World()
        world.crashing, world.seconds = False, 100
        renewals: list[float] = []

        class Counting(FaultyStore):
            async def renew(self, *more: Any) -> bool:
                renewals.append(1)
                return await super().renew(*more)

        flow = world.flow(Counting(world.store))
        await asyncio.gather(*(flow.run(Step.WORK) for _ in range(50)))
        return len(renewals)

    assert 25 > run(main())


def test_an_owner_that_lost_its_run_touches_nothing() -> None:
    """A frozen owner learns at its next append that the run is another's, and writes nothing."""

    async def main() -> tuple[list[int], Status, list[str]]:
        world = World()
        world.crashing = False
        flow = world.flow()
        handle = await flow.start_run(Step.WORK, run_id="r")
        await asyncio.sleep(1)
        (owner,) = [(await world.store.summary("r")).owner]
        await world.store.expire(owner)  # as if it had been frozen for longer than its lease
        state = asyncio.ensure_future(world.flow().resume("r"))
        with pytest.raises(RunLostError):
            await handle.result()
        assert Step.END is await state
        events = await world.store.load("r")
        return (
            [event.sequence for event in events],
            (await world.store.summary("r")).status,
            [type(event).__name__ for event in events],
        )

    numbers, status, names = run(main())
    assert [1, 2, 3, 4] == numbers
    assert Status.FINISHED is status
    assert ["RunStarted", "StateEntered", "RunClaimed", "RunFinished"] == names


def test_a_lost_run_is_stopped_by_the_heartbeat() -> None:
    """A task that never appends is ended too, once its lease is found to be over."""
    ended: list[str] = []

    async def main() -> None:
        world = World()
        world.crashing = False
        flow = world.flow()

        async def endless(ctx: Context[Any]) -> Literal[Step.END]:
            try:
                await asyncio.sleep(1e6)
            finally:
                ended.append("first")
            return Step.END

        flow.register(Step.WORK, endless)
        handle = await flow.start_run(Step.WORK, run_id="r")
        await asyncio.sleep(1)
        await world.store.expire((await world.store.summary("r")).owner)
        await world.flow().resume("r")
        with pytest.raises(RunLostError, match="run 'r' was taken over"):
            await handle.result()
        assert 30 > asyncio.get_running_loop().time()

    run(main())
    assert ["first"] == ended


def test_two_workflows_of_one_process_are_two_owners() -> None:
    """Each scope has its own lease: closing one leaves the other's runs alone."""

    async def main() -> list[Any]:
        world = World()
        world.crashing = False
        async with world.flow() as one:
            handle = await one.start_run(Step.WORK, run_id="r")
            async with world.flow():
                pass
            found = list(await world.flow().recover())
            await handle.result()
            return found

    assert [] == run(main())


def test_a_closed_scope_holds_no_lease() -> None:
    """Leaving a scope gives the lease up, so that nobody has to wait for it."""

    async def main() -> list[Any]:
        world = World()
        world.crashing = False
        async with world.flow() as flow:
            await flow.run(Step.WORK, run_id="r")
        from cano._process import here

        return list(await world.store.owners(here(), 0))

    assert [] == run(main())


def test_a_block_that_fails_lets_go_of_its_runs() -> None:
    """Runs of a scope that ends with an error can be resumed at once."""

    async def main() -> tuple[Status, str]:
        world = World()
        world.crashing = False
        with suppress(KeyError):
            async with world.flow() as flow:
                await flow.start_run(Step.WORK, run_id="r")
                await asyncio.sleep(1)
                raise KeyError
        summary = await world.store.summary("r")
        assert Step.END is await world.flow().resume("r")
        return summary.status, summary.owner

    assert (Status.RUNNING, "") == run(main())


def test_who_is_cancelled_while_starting_a_run_leaves_none_behind() -> None:
    """Without a handle nobody could end it: it is not begun, or let go."""

    class Slow:
        async def setup(self) -> None:
            await asyncio.sleep(5)

        async def teardown(self) -> None: ...

    async def main() -> list[RunSummary]:
        store = MemoryCheckpoints()
        flow = World().flow(store, resources=Resources(slow=Slow()))
        starting = asyncio.ensure_future(flow.start_run(Step.WORK, run_id="r"))
        await asyncio.sleep(1)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await asyncio.sleep(10)
        return [*await store.runs(RunQuery())]

    assert [] == run(main())
