"""Flows that fail: rests, trips, resets, and what is begun by hand meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from cano import on
from cano.announced import (
    ScheduleBackedOff,
    ScheduleEnded,
    ScheduleFired,
    ScheduleTripped,
)
from cano.scheduler import (
    Backoff,
    Every,
    FlowRefusedError,
    Scheduler,
)
from tests.unit._schedulers import Step, World


def test_backoff() -> None:
    """After a failure nothing is begun for a while, twice as long each time, until one succeeds."""
    world = World(failing=3)
    backoff = Backoff(delay=15, factor=2, max_delay=40, jitter=0)
    world.scheduler.add("x", world.flow, Every(10), backoff=backoff)
    world.lasts(155)
    assert [0, 20, 60, 110, 120, 130, 140, 150] == world.begun
    rests = [event.until for event in world.events if isinstance(event, ScheduleBackedOff)]
    assert 3 == len(rests)


def test_backoff_with_a_fixed_delay() -> None:
    """With a fixed delay the next run comes after the longer of both."""
    world = World(failing=2)
    backoff = Backoff(delay=15, factor=2, jitter=0)
    world.scheduler.add("x", world.flow, Every(10, fixed="delay"), backoff=backoff)
    world.lasts(60)
    assert [0, 15, 45, 55] == world.begun


def test_the_reference_numbers_of_backoff() -> None:
    """1 s, doubled, at most 300 s; jitter within its share; never more than the maximum."""
    plain = Backoff(delay=0.1, jitter=0)
    assert [0.1, 0.1, 0.2, 0.4, 0.8] == [plain.pause(n) for n in range(5)]
    assert (1.0, 300.0) == (Backoff().pause(1), Backoff().pause(100_000))
    spread = Backoff(delay=1, jitter=0.5)
    assert (0.5, 1.5) == (spread.pause(1, 0.0), spread.pause(1, 1.0))
    assert Backoff().max_delay == Backoff().pause(50, 0.999)


def test_trip_and_reset() -> None:
    """A flow that fails so often in a row is not begun again, by hand either, until it is reset."""
    world = World(failing=3)
    world.scheduler.add("x", world.flow, Every(10), backoff=Backoff(delay=0), trip=3)

    async def script() -> None:
        await asyncio.sleep(55)
        status = world.scheduler.status("x")
        assert ("tripped", 3, 3, None) == (
            status.state,
            status.streak,
            status.runs,
            status.next_run,
        )
        assert "ValueError: no" == status.error
        with pytest.raises(FlowRefusedError, match="tripped after 3 .* ValueError: no; mend that"):
            await world.scheduler.trigger("x")
        await world.scheduler.reset("x")
        assert ("idle", 0, "") == (
            world.scheduler.status("x").state,
            world.scheduler.status("x").streak,
            world.scheduler.status("x").error,
        )

    world.lasts(10, script)
    assert [0, 10, 20, 60] == world.begun
    assert ["ScheduleTripped"] == world.seen(ScheduleTripped)


def test_a_reset_ends_the_rest() -> None:
    """A reset flow goes on with its next tick, not when its rest would have been over."""
    world = World(failing=1)
    world.scheduler.add("x", world.flow, Every(10), backoff=Backoff(delay=100))

    async def script() -> None:
        await asyncio.sleep(15)
        assert "backing off" == world.scheduler.status("x").state
        await world.scheduler.reset("x")

    world.lasts(20, script)
    assert [0, 20, 30] == world.begun


def test_a_success_by_hand_ends_the_rest() -> None:
    """Triggering works while a flow rests, and if that goes well it rests no more."""
    world = World(failing=1)
    world.scheduler.add("x", world.flow, Every(10), backoff=Backoff(delay=100, jitter=0))

    async def script() -> None:
        await asyncio.sleep(11)
        handle = await world.scheduler.trigger("x")
        assert Step.DONE is await handle.result()
        await asyncio.sleep(0)
        assert ("idle", 0) == (
            world.scheduler.status("x").state,
            world.scheduler.status("x").streak,
        )

    world.lasts(12, script)
    assert [0, 11, 20] == world.begun


def test_every_fire_has_an_end() -> None:
    """Whatever becomes of a run, what was fired has ended once; both say of which run."""
    world = World(takes=3, failing=2)
    world.scheduler.add("x", world.flow, Every(10), backoff=Backoff(delay=0))
    world.lasts(41)
    fired = [event.run_id for event in world.events if isinstance(event, ScheduleFired)]
    ends = [event for event in world.events if isinstance(event, ScheduleEnded)]
    assert fired == [event.run_id for event in ends]
    assert ["failed", "failed", "finished", "finished", "finished"] == [e.outcome for e in ends]
    assert ("x", "Step", 3.0, "ValueError: no") == (
        ends[0].flow,
        ends[0].workflow,
        round(ends[0].seconds, 3),
        ends[0].error,
    )
    assert all(event.time > 1e9 for event in world.events)


def test_observers_say_what_they_want() -> None:
    """An observer may subscribe to some events, and one that raises is told no more."""
    tripped: list[str] = []

    @on(ScheduleTripped)
    def alarm(event: ScheduleTripped) -> None:
        tripped.append(event.flow)
        raise RuntimeError("broken")

    world = World(failing=10)
    world.scheduler = Scheduler(observers=[alarm])
    for name in "ab":
        world.scheduler.add(name, world.flow, Every(10), trip=1)
    world.lasts(5)
    assert ["a"] == tripped
