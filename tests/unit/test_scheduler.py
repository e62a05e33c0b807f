"""A scheduler that keeps nothing: what is run when."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Literal

import pytest

from cano import Context, Resources, Workflow
from cano.announced import (
    ScheduleEnded,
    ScheduleFired,
)
from cano.errors import DefinitionError, RunCancelledError
from cano.scheduler import (
    Allow,
    CatchUp,
    Cron,
    Every,
    FlowRefusedError,
    Manual,
    Once,
    Scheduler,
)
from cano.testing import run
from tests.unit._schedulers import Step, World


def test_an_interval_runs_at_once_and_at_a_fixed_rate() -> None:
    """The first run is at once, and the next a period later, however long runs take."""
    world = World(takes=4)
    world.scheduler.add("x", world.flow, Every(10))
    world.lasts(35)
    assert [0, 10, 20, 30] == world.begun


def test_a_fixed_delay_waits_for_the_end() -> None:
    """With a fixed delay the period is from the end of a run to the beginning of the next."""
    world = World(takes=4)
    world.scheduler.add("x", world.flow, Every(10, fixed="delay"))
    world.lasts(35)
    assert [0, 14, 28] == world.begun


def test_cron() -> None:
    """A cron flow does not run at once, but when it is time."""
    world = World()
    world.scheduler.add("x", world.flow, Cron("*/20 * * * * *"))
    world.lasts(70)
    assert 3 <= len(world.begun) <= 4
    assert {20.0} == {round(b - a, 2) for a, b in zip(world.begun, world.begun[1:], strict=False)}


def test_once() -> None:
    """A flow of one time runs then, and is done."""
    world = World()

    async def script() -> None:
        at = datetime.fromtimestamp(world.scheduler._now() + 30, UTC)
        world.scheduler.add("x", world.flow, Once(at))
        await asyncio.sleep(1)
        assert "idle" == world.scheduler.status("x").state
        await asyncio.sleep(40)
        assert "done" == world.scheduler.status("x").state

    world.lasts(1000, script)
    assert [30] == world.begun


def test_until() -> None:
    """After the end date nothing is run by itself, but still by hand."""
    world = World()

    async def script() -> None:
        end = datetime.fromtimestamp(world.scheduler._now() + 25, UTC)
        world.scheduler.add("x", world.flow, Every(10), until=end)
        await asyncio.sleep(60)
        assert "done" == world.scheduler.status("x").state
        await (await world.scheduler.trigger("x")).result()

    world.lasts(0, script)
    assert [0, 10, 20, 60] == world.begun


def test_a_tick_that_finds_a_run_is_skipped() -> None:
    """By default a flow has one run at a time, and what is skipped is said."""
    world = World(takes=25)
    world.scheduler.add("x", world.flow, Every(10))
    world.lasts(65)
    assert [0, 30, 60] == world.begun
    assert ["running"] * 4 == world.reasons()


def test_one_is_queued() -> None:
    """With "queue" one tick waits for the end of the run, and no more than one."""
    world = World(takes=25)
    world.scheduler.add("x", world.flow, Every(10), overlap="queue")
    world.lasts(60)
    assert [0, 25, 50] == world.begun
    assert {"queue full"} == set(world.reasons())


def test_the_old_one_is_cancelled() -> None:
    """With "cancel" the run under way is cancelled, and the next begins once it has ended."""
    world = World(takes=25)
    world.scheduler.add("x", world.flow, Every(10), overlap="cancel")
    world.lasts(25)
    assert [0, 10, 20] == world.begun
    ends = [event.outcome for event in world.events if isinstance(event, ScheduleEnded)]
    assert ["cancelled", "cancelled"] == ends[:2]
    assert 0 == world.scheduler.status("x").streak


def test_some_at_once() -> None:
    """With `Allow(n)` so many run at once, and no more."""
    world = World(takes=25)
    world.scheduler.add("x", world.flow, Every(10), overlap=Allow(2))

    async def script() -> None:
        await asyncio.sleep(15)
        assert 2 == len(world.scheduler.status("x").running)

    world.lasts(30, script)
    assert [0, 10, 30, 40] == world.begun


def test_pause_and_resume() -> None:
    """A paused flow is not begun by itself, but by hand; what came meanwhile does not count."""
    world = World()
    world.scheduler.add("x", world.flow, Every(10), misfire=CatchUp(5))

    async def script() -> None:
        await asyncio.sleep(5)
        await world.scheduler.pause("x")
        assert ("paused", None) == (
            world.scheduler.status("x").state,
            world.scheduler.status("x").next_run,
        )
        await asyncio.sleep(30)
        await world.scheduler.trigger("x")
        await world.scheduler.resume("x")

    world.lasts(20, script)
    assert [0, 35, 40, 50] == world.begun


def test_add_and_remove_while_it_runs() -> None:
    """Flows come and go while others run."""
    world = World()
    world.scheduler.add("x", world.flow, Every(10))

    async def script() -> None:
        await asyncio.sleep(5)
        world.scheduler.add("y", world.flow, Every(100))
        await asyncio.sleep(10)
        world.scheduler.remove("x")
        assert (1, ["y"]) == (
            len(world.scheduler),
            [status.flow for status in world.scheduler.list()],
        )
        assert "x" not in world.scheduler

    world.lasts(50, script)
    assert [0, 5, 10] == world.begun


def test_jitter_is_the_same_everywhere() -> None:
    """Jitter puts a run off by less than it says, each by something else, as in every process."""
    first, second = World(), World()
    for world in (first, second):
        world.scheduler.add("x", world.flow, Every(100), jitter=50)
    first.lasts(500)
    late = [moment % 100 for moment in first.begun]
    assert all(0 < by < 50 for by in late)
    assert len(late) == len(set(late))
    flow = second.scheduler._entries["x"].flow
    assert flow.chance(5.0) == first.scheduler._entries["x"].flow.chance(5.0)


def test_names_of_runs() -> None:
    """A run is named after its flow and its tick."""
    world = World()
    world.scheduler.add("x", world.flow, Cron("0 * * * *"))
    world.lasts(3600)
    fired = next(event for event in world.events if isinstance(event, ScheduleFired))
    tick = datetime.fromtimestamp(fired.due, UTC)
    assert f"x@{tick:%Y-%m-%dT%H}:00:00Z" == fired.run_id


def test_nothing_runs_before_the_resources_are_up() -> None:
    """Resources are set up in order before the first run, once, and taken down in reverse."""
    said: list[str] = []

    class Db:
        def __init__(self, name: str) -> None:
            self.name = name

        async def setup(self) -> None:
            said.append(f"{self.name} up")

        async def teardown(self) -> None:
            said.append(f"{self.name} down")

    async def work(ctx: Context, db: Db) -> Literal[Step.DONE]:
        said.append(f"{db.name} runs")
        return Step.DONE

    scheduler = Scheduler()
    for name in "ab":
        flow = Workflow(Step, start=Step.WORK, resources=Resources(db=Db(name)))
        scheduler.add(name, flow.register(Step.WORK, work).exits(Step.DONE), Every(10))

    async def main() -> None:
        async with scheduler:
            await asyncio.sleep(15)

    run(main())
    assert ["a up", "b up", "a runs", "b runs", "a runs", "b runs", "b down", "a down"] == said


def test_a_resource_that_does_not_come_up() -> None:
    """Where a set-up fails nothing is run, and what is up is taken down again."""
    said: list[str] = []

    class Db:
        async def setup(self) -> None:
            said.append("up")

        async def teardown(self) -> None:
            said.append("down")

    class Broken:
        async def setup(self) -> None:
            raise ConnectionError("no")

        async def teardown(self) -> None:
            said.append("never")

    world = World()
    for name, resource in {"a": Db(), "b": Broken()}.items():
        flow = Workflow(Step, start=Step.WORK, resources=Resources(db=resource))
        world.scheduler.add(name, flow.register(Step.WORK, world.work).exits(Step.DONE), Every(10))
    with pytest.raises(ConnectionError):
        world.lasts(5)
    assert ([], ["up", "down"]) == (world.begun, said)
    assert not world.scheduler.open


def test_it_can_be_opened_again() -> None:
    """A scheduler that was stopped can be opened again, and knows what it knew."""
    world = World()
    world.scheduler.add("x", world.flow, Manual())

    async def script() -> None:
        await (await world.scheduler.trigger("x")).result()

    world.lasts(1, script)
    world.lasts(1, script)
    assert 2 == world.scheduler.status("x").runs


def test_definitions_are_checked_when_they_are_added() -> None:
    """What is wrong with a workflow, or its start, is said when it is added."""
    with pytest.raises(DefinitionError, match="does not know where to start"):
        Scheduler().add(
            "x", Workflow(Step).register(Step.WORK, World().work).exits(Step.DONE), Every(1)
        )
    with pytest.raises(DefinitionError, match="no state of Step has a task"):
        Scheduler().add("x", Workflow(Step, start=Step.WORK).exits(Step.DONE), Every(1))


def test_time_passes_for_the_cancelled_too() -> None:
    """Cancelling a flow ends its runs as cancelled, which is no failure; it goes on afterwards."""
    world = World(takes=100)
    world.scheduler.add("x", world.flow, Every(10))

    async def script() -> None:
        await asyncio.sleep(5)
        await world.scheduler.cancel("x")
        await asyncio.sleep(1)
        status = world.scheduler.status("x")
        assert ("idle", "cancelled", 0) == (status.state, status.outcome, status.streak)
        await world.scheduler.cancel("x")  # changes nothing

    world.lasts(5, script)
    assert [0, 10] == world.begun


def test_by_hand() -> None:
    """Triggering returns the handle of the run; one that is cancelled says so."""
    world = World(takes=10)
    world.scheduler.add("x", world.flow, Manual())

    async def script() -> None:
        assert ("idle", None) == (
            world.scheduler.status("x").state,
            world.scheduler.status("x").next_run,
        )
        handle = await world.scheduler.trigger("x")
        await asyncio.sleep(1)
        assert "running" == world.scheduler.status("x").state
        with pytest.raises(FlowRefusedError, match="and may not run more often at once"):
            await world.scheduler.trigger("x")
        await world.scheduler.cancel("x")
        with pytest.raises(RunCancelledError):
            await handle.result()
        named = await world.scheduler.trigger("x", run_id="mine")
        assert ("mine", Step.DONE) == (named.run_id, await named.result())

    world.lasts(1, script)
    assert [0.0, 0.0] == [event.due for event in world.events if isinstance(event, ScheduleFired)]
