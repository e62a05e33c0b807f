"""Runs that their process left behind, and flows whose process is gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cano import Workflow
from cano.announced import ScheduleBackedOff, ScheduleEnded
from cano.scheduler import Backoff, Every, Manual
from cano.scheduler._kept import key
from cano.testing.faults import FaultyStore
from tests.unit._scheduler_processes import Data, Process, Step, World, lasts


@pytest.mark.parametrize("schedule", [Every(10, fixed="delay"), Every(10)])
@pytest.mark.parametrize("stays", [0, 1])
@pytest.mark.parametrize("first", [0, 1])
def test_the_others_go_on(schedule: Any, stays: int, first: int) -> None:
    """When one of two processes goes, the other goes on, whichever ran the flow so far."""
    world = World(schedule=schedule)
    processes = [world.process(), world.process()]

    async def script() -> None:
        async with processes[first].scheduler, processes[1 - first].scheduler:
            await asyncio.sleep(35)
            await processes[1 - stays].scheduler.stop()
            before = len(world.did)
            await asyncio.sleep(35)
            assert 3 <= len(world.did) - before <= 4

    lasts(script)


def test_cancelled_while_it_is_begun() -> None:
    """A run that is cancelled before it is in the store is cancelled as soon as it is."""
    world = World(schedule=Manual())
    store = FaultyStore(world.store, latency=0.5)
    process = Process(store, world.did, schedule=Every(100))
    process.takes = 50

    async def script() -> None:
        async with process.scheduler:
            while not process.scheduler._entries["x"].carried:
                await asyncio.sleep(0.1)
            assert not process.scheduler._entries["x"].held
            await process.scheduler.cancel("x")
            await asyncio.sleep(10)
            assert ("idle", "cancelled") == (process.status.state, process.status.outcome)

    lasts(script)


def test_a_run_that_was_let_go_is_carried_on() -> None:
    """A process stops in the middle of a run: another one carries that very run on."""
    world = World(schedule=Every(1000))
    first, second = world.process(), world.process()
    first.takes = 100

    async def script() -> None:
        async with first.scheduler:
            await asyncio.sleep(5)
            await first.scheduler.stop("release")
        assert ["running"] == await world.ends()
        async with second.scheduler:
            await asyncio.sleep(30)
            assert ("idle", "finished", ()) == (
                second.status.state,
                second.status.outcome,
                second.status.running,
            )
        assert ["finished"] == await world.ends()

    lasts(script)
    assert 2 == len(world.did)
    assert 1 == len(set(world.did))
    assert ["released"] == [e.outcome for e in first.events if isinstance(e, ScheduleEnded)]


def test_a_run_that_was_left_behind_is_superseded() -> None:
    """With "supersede" it is cancelled instead, and the flow goes on with its next tick."""
    world = World(schedule=Every(100), unfinished="supersede")
    first, second = world.process(), world.process()
    first.takes = 1000

    async def script() -> None:
        async with first.scheduler:
            await asyncio.sleep(5)
            await first.scheduler.stop("release")
        async with second.scheduler:
            await asyncio.sleep(10)
            assert ("idle", "cancelled", 0) == (
                second.status.state,
                second.status.outcome,
                second.status.streak,
            )
            await asyncio.sleep(100)
        assert ["cancelled", "finished"] == await world.ends()

    lasts(script)


def test_cancelled_for_good() -> None:
    """Stopped with "cancel", a run is over for every process."""
    world = World(schedule=Every(1000))
    first, second = world.process(), world.process()
    first.takes = 100

    async def script() -> None:
        async with first.scheduler:
            await asyncio.sleep(5)
            assert () == await first.scheduler.stop("cancel")
        assert ["cancelled"] == await world.ends()
        async with second.scheduler:
            await asyncio.sleep(30)
            assert ("idle", "cancelled") == (second.status.state, second.status.outcome)

    lasts(script)
    assert 1 == len(world.did)


def test_cancelled_from_another_process() -> None:
    """A run is cancelled by a process that does not carry it out."""
    world = World(schedule=Every(1000))
    first = world.process()
    first.takes = 500
    second = world.process()

    async def script() -> None:
        async with first.scheduler:
            await asyncio.sleep(2)
            async with second.scheduler:
                await asyncio.sleep(2)
                assert "running" == second.status.state
                await second.scheduler.cancel("x")
                await asyncio.sleep(5)
                assert ("idle", "cancelled") == (second.status.state, first.status.outcome)

    lasts(script)


def test_a_run_of_another_version_does_not_block_its_flow() -> None:
    """A run that no process of this version can carry on counts as failed after a while."""
    world = World(schedule=Every(20), backoff=Backoff(delay=0))
    first, second = world.process(), world.process()
    first.takes = 100
    other = Workflow(
        Step, start=Step.WORK, data=Data, name="job", version=2, checkpoints=world.store
    )
    other.register(Step.WORK, second.work).exits(Step.DONE)
    second.scheduler.remove("x")
    second.scheduler.add("x", other, Every(20), backoff=Backoff(delay=0))

    async def script() -> None:
        async with first.scheduler:
            await asyncio.sleep(5)
            await first.scheduler.stop("release")
        async with second.scheduler:
            await asyncio.sleep(30)
            assert "running" == second.status.state
            await asyncio.sleep(150)
            assert ("finished", 0) == (second.status.outcome, second.status.streak)
        assert ["running", "finished"] == (await world.ends())[:2]

    lasts(script)
    assert 3 <= len(world.did)
    rests = [event for event in second.events if isinstance(event, ScheduleBackedOff)]
    assert 1 == len(rests)


def test_decided_upon_and_not_begun() -> None:
    """A process dies between deciding upon a tick and beginning its run: another one begins it."""
    world = World(schedule=Every(1000))
    first, second = world.process(), world.process()

    async def script() -> None:
        crashing = FaultyStore(world.store, fail_at=1)
        dying = Process(crashing, world.did, schedule=Every(1000))
        async with dying.scheduler:
            await asyncio.sleep(0.5)
            await dying.scheduler.stop("release", grace=0)
        assert (0, 1) == (len(world.did), dying.status.runs)
        async with second.scheduler:
            await asyncio.sleep(10)
            assert ("idle", "finished", 1) == (
                second.status.state,
                second.status.outcome,
                second.status.runs,
            )
        assert not first.did[1:]

    lasts(script)
    assert 1 == len(world.did)


def test_a_run_that_nobody_can_carry_on_does_not_block_its_flow() -> None:
    """A run that kills its process again and again is set aside, and counts as a failure."""
    world = World(schedule=Every(100), backoff=Backoff(delay=0))
    process = world.process()

    async def script() -> None:
        async with process.scheduler:
            await asyncio.sleep(5)
        state = await world.store.noted(key("x"))
        assert state is not None
        lost = state.replace(b'"runs":1', b'"running":{"x#lost":1.0},"runs":1')
        assert lost != state
        assert await world.store.note(key("x"), lost, state)
        other = world.process()
        async with other.scheduler:
            await asyncio.sleep(2)
            assert "running" == other.status.state
            await asyncio.sleep(300)
            assert ("idle", "finished") == (other.status.state, other.status.outcome)
        assert any(event.streak for event in other.events if hasattr(event, "streak"))

    lasts(script)
