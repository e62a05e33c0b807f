"""A process dies at each write in turn, notes included: another one goes on, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from enum import Enum
from typing import Any, Literal

import pytest

from cano import Context, MemoryCheckpoints, RunQuery, Workflow
from cano.scheduler import CatchUp, Every, Scheduler
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash


class Step(Enum):
    WORK = 1
    DONE = 2


class Dying(FaultyStore):
    """A store whose process dies before or after its note or write number *point*."""

    def __init__(self, store: MemoryCheckpoints, point: int, *, after: bool) -> None:
        super().__init__(store)
        self.left = point
        self.late = after

    def step(self) -> None:
        self.left -= 1
        if self.left == 0 and not self.late:
            self.die()
        if self.left < 0:
            raise SimulatedCrash

    def die(self) -> None:
        self.left = -1
        self.dead = True
        raise SimulatedCrash

    def ended(self) -> None:
        if self.left == 0:
            self.die()

    async def note(self, key: str, value: bytes, was: bytes | None, /) -> bool:
        self.step()
        done = await super().note(key, value, was)
        self.ended()
        return done

    def create(self, *args: Any) -> Any:
        self.step()
        done = super().create(*args)
        self.ended()
        return done

    def append(self, *args: Any) -> Any:
        self.step()
        done = super().append(*args)
        self.ended()
        return done


class World:
    def __init__(self) -> None:
        self.store = MemoryCheckpoints()
        self.done: list[str] = []

    def process(self, store: Any, schedule: Every) -> Scheduler:
        async def work(ctx: Context) -> Literal[Step.DONE]:
            await asyncio.sleep(4)
            if not getattr(store, "dead", False):
                self.done.append(ctx.run_id)
            return Step.DONE

        flow = Workflow(Step, start=Step.WORK, name="job", checkpoints=store)
        flow.register(Step.WORK, work).exits(Step.DONE)
        scheduler = Scheduler(store=store, grace=0)
        return scheduler.add("x", flow, schedule, overlap="queue", misfire=CatchUp(100))

    def live_and_die(self, point: int, schedule: Every, *, after: bool) -> bool:
        """One process, to its end; whether it died."""
        dying = Dying(self.store, point, after=after)

        async def main() -> None:
            async with self.process(dying, schedule):
                while not dying.dead and asyncio.get_running_loop().time() < 35:
                    await asyncio.sleep(1)
                if dying.dead:
                    raise SimulatedCrash

        with suppress(SimulatedCrash):
            run(main())
        return dying.dead

    def live(self, schedule: Every) -> Scheduler:
        """Another process, long enough to make up for everything."""
        scheduler = self.process(self.store, schedule)

        async def main() -> None:
            async with scheduler:
                await asyncio.sleep(200)
                await scheduler.pause("x")
                await asyncio.sleep(10)
                assert ("paused", 0) == (scheduler.status("x").state, scheduler.status("x").queued)

        run(main())
        return scheduler


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("schedule", [Every(10), Every(10, fixed="delay")])
def test_dies_at_each_write(schedule: Every, *, after: bool) -> None:
    """Every tick is done, in order, once (twice where it was broken off); and the flow goes on."""
    points = 0
    for point in range(1, 40):
        world = World()
        if not world.live_and_die(point, schedule, after=after):
            break
        points += 1
        scheduler = world.live(schedule)
        runs = asyncio.run(world.store.runs(RunQuery(limit=1000)))
        where = f"died {'after' if after else 'before'} {point}"
        assert {"finished"} == {str(summary.status) for summary in runs}, where
        assert len(runs) == scheduler.status("x").runs, where
        assert {run.run_id for run in runs} == set(world.done), where
        again = Counter(world.done)
        assert sum(again.values()) - len(again) <= 1, where
        if schedule.fixed == "rate":
            dues = sorted(summary.run_id for summary in runs)
            assert len(dues) >= 20, where
    assert points >= 10
