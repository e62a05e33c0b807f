"""A scheduler with a store: a tick is run once, and what is known survives."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Literal

import pytest

from cano import Context, MemoryCheckpoints, RunQuery, Workflow
from cano.announced import ScheduleEnded, ScheduleFired, ScheduleTripped
from cano.checkpoints.store import Status
from cano.errors import DefinitionError
from cano.scheduler import Backoff, CatchUp, Cron, Every, FlowRefusedError, Manual, Scheduler
from cano.testing.faults import FaultyStore
from tests.unit._scheduler_processes import Data, Process, Step, World, lasts


def test_each_tick_is_run_once_by_whichever_process() -> None:
    """Three processes have the same flow: each tick is run by one of them."""
    world = World()
    processes = [world.process() for _ in range(3)]

    async def script() -> None:
        async with processes[0].scheduler, processes[1].scheduler, processes[2].scheduler:
            await asyncio.sleep(95)
        assert ["finished"] * 10 == await world.ends()

    lasts(script)
    assert 10 == len(world.did) == len(set(world.did))
    fired = [e.run_id for p in processes for e in p.events if isinstance(e, ScheduleFired)]
    ended = [e.run_id for p in processes for e in p.events if isinstance(e, ScheduleEnded)]
    assert sorted(world.did) == sorted(fired) == sorted(ended)


@pytest.mark.parametrize("schedule", [Every(5), Every(5, fixed="delay"), Cron("*/5 * * * * *")])
def test_one_run_at_a_time_in_all_processes(schedule: Any) -> None:
    """A tick that finds a run under way is skipped, whoever carries the run out."""
    world = World(schedule=schedule)
    first, second = world.process(), world.process()
    first.takes = second.takes = 12
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            running = await world.store.runs(RunQuery(statuses=(Status.RUNNING,)))
            most = max(most, len(running))
            await asyncio.sleep(1)

    async def script() -> None:
        async with first.scheduler, second.scheduler:
            watching = asyncio.create_task(watch())
            await asyncio.sleep(100)
            watching.cancel()

    lasts(script)
    assert 1 == most
    assert 5 <= len(set(world.did)) <= 8


def test_what_is_known_survives_a_restart() -> None:
    """The count of runs, the last tick, and the streak are there again after a restart."""
    world = World(backoff=Backoff(delay=0), trip=5)
    first, second = world.process(), world.process()
    first.failing = second.failing = True

    async def script() -> None:
        async with first.scheduler:
            await asyncio.sleep(15)
        async with second.scheduler:
            await asyncio.sleep(1)
            assert (2, 2, "ValueError: no") == (
                second.status.runs,
                second.status.streak,
                second.status.error,
            )
            await asyncio.sleep(60)
            assert ("tripped", 5) == (second.status.state, second.status.streak)

    lasts(script)
    assert 5 == len(world.did)
    assert 1 == sum(isinstance(event, ScheduleTripped) for event in second.events)


def test_a_trip_holds_everywhere_and_so_does_a_reset() -> None:
    """A flow that tripped in one process is tripped in all; and reset by one, for all."""
    world = World(trip=1)
    first, second = world.process(), world.process()
    first.failing = second.failing = True

    async def script() -> None:
        async with first.scheduler, second.scheduler:
            await asyncio.sleep(30)
            assert ["tripped", "tripped"] == [first.status.state, second.status.state]
            with pytest.raises(FlowRefusedError, match="tripped"):
                await second.scheduler.trigger("x")
            first.failing = second.failing = False
            await first.scheduler.reset("x")
            await first.scheduler.stop()
            await asyncio.sleep(130)
            assert ("idle", 0) == (second.status.state, second.status.streak)

    lasts(script)
    assert 5 < len(world.did) == len(set(world.did))


def test_a_pause_holds_everywhere() -> None:
    """Paused by one process, and after a restart too; resumed by another."""
    world = World()
    first, second = world.process(), world.process()

    async def script() -> None:
        async with first.scheduler:
            await asyncio.sleep(5)
            await first.scheduler.pause("x")
        async with second.scheduler:
            await asyncio.sleep(100)
            assert ("paused", 1) == (second.status.state, len(world.did))
            await second.scheduler.resume("x")
            await asyncio.sleep(15)

    lasts(script)
    assert 2 <= len(world.did) <= 3


@pytest.mark.parametrize(("misfire", "count"), [("skip", 3), ("once", 4), (CatchUp(3), 6)])
def test_ticks_while_nobody_was_there(misfire: Any, count: int) -> None:
    """What came while no process was there is treated as the flow says."""
    world = World(misfire=misfire, schedule=Every(100))
    first, second = world.process(), world.process()

    async def script() -> None:
        async with first.scheduler:
            await asyncio.sleep(150)
        await asyncio.sleep(1020)
        async with second.scheduler:
            await asyncio.sleep(100)

    lasts(script)
    assert count == len(world.did) == len(set(world.did))


def test_a_store_that_fails_for_a_while() -> None:
    """While the store is away nothing is run; then the flow goes on, and nothing is run twice."""
    world = World()
    store = FaultyStore(world.store)
    process = Process(store, world.did, misfire="skip")

    async def script() -> None:
        async with process.scheduler:
            await asyncio.sleep(15.5)
            with store.unavailable():
                await asyncio.sleep(30)
            await asyncio.sleep(40)
            assert "finished" == process.status.outcome

    lasts(script)
    assert 5 <= len(world.did) == len(set(world.did))
    assert {1} == set(Counter(world.did).values())


def test_another_schedule_begins_anew() -> None:
    """Where the program says another schedule than before, its past ticks never were."""
    world = World(misfire=CatchUp(100))
    first, second = (
        world.process(),
        Process(world.store, world.did, schedule=Cron("*/7 * * * * *"), misfire=CatchUp(100)),
    )

    async def script() -> None:
        async with first.scheduler:
            await asyncio.sleep(5)
        await asyncio.sleep(1000)
        async with second.scheduler:
            await asyncio.sleep(8)

    lasts(script)
    assert 2 <= len(world.did) <= 3


def test_by_hand() -> None:
    """A triggered run is kept like the others, found by its tag, and counted everywhere."""
    world = World(schedule=Manual())
    first, second = world.process(), world.process()

    async def script() -> None:
        async with first.scheduler, second.scheduler:
            handle = await first.scheduler.trigger("x", data=Data("now"))
            with pytest.raises(FlowRefusedError, match="may not run more often at once"):
                await second.scheduler.trigger("x")
            assert Step.DONE is await handle.result()
            await asyncio.sleep(1)
            await (await second.scheduler.trigger("x")).result()
        tagged = await world.store.runs(RunQuery(tag="flow:x"))
        assert 2 == len(tagged)
        assert "now" == (await first.flow.handle(handle.run_id).data()).due

    lasts(script)


def test_the_clock_is_put_back() -> None:
    """No tick is run twice when the clock is put back: the flow waits until it has caught up."""
    world = World(schedule=Every(100))
    process = world.process()

    async def script() -> None:
        loop: Any = asyncio.get_running_loop()
        async with process.scheduler:
            await asyncio.sleep(350)
            loop.wall_offset -= 1000
            await asyncio.sleep(1200)

    lasts(script)
    assert 6 == len(world.did) == len(set(world.did))


def test_a_workflow_without_a_store() -> None:
    """Where nobody could tell whether a tick was run, the flow is refused."""
    flow = Workflow(Step, start=Step.WORK).register(Step.WORK, World().process().work)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="has no store, so nobody can tell"):
        Scheduler(store=MemoryCheckpoints()).add("x", flow.exits(Step.DONE), Every(1))


def test_a_scheduler_without_a_store_over_workflows_with_one() -> None:
    """Its runs are kept all the same, and a tick that another process has begun is left to it."""
    world = World()
    processes = [world.process() for _ in range(2)]
    for process in processes:
        process.scheduler = Scheduler(observers=[process.events.append])
        process.scheduler.add("x", process.flow, Cron("*/10 * * * * *"))

    async def script() -> None:
        async with processes[0].scheduler, processes[1].scheduler:
            await asyncio.sleep(60)

    lasts(script)
    assert 6 == len(world.did) == len(set(world.did))


def test_added_while_the_store_is_away() -> None:
    """A flow that is added when the store cannot be asked begins as soon as it can."""
    world = World()
    store = FaultyStore(world.store)
    process = Process(store, world.did)

    async def script() -> None:
        async with process.scheduler:
            with store.unavailable():
                process.scheduler.add("late", process.flow, Every(10))
                await asyncio.sleep(5)
            await asyncio.sleep(5)
            assert 1 <= process.scheduler.status("late").runs

    lasts(script)


def test_a_long_error() -> None:
    """An error is kept with a length that a note can bear."""
    world = World(backoff=Backoff(delay=100))
    process = world.process()

    async def work(ctx: Context[Data]) -> Literal[Step.DONE]:
        raise ValueError("x" * 100_000)

    flow = Workflow(Step, start=Step.WORK, data=Data, checkpoints=world.store, name="long")
    process.scheduler.add("long", flow.register(Step.WORK, work).exits(Step.DONE), Every(10))

    async def script() -> None:
        async with process.scheduler:
            await asyncio.sleep(5)
            assert 500 == len(process.scheduler.status("long").error)

    lasts(script)
