"""Schedules: what a fire costs beside its run, and a virtual day of fires.

The goals are times, 10 µs and 5 s; they are compared with what these are on a machine as loaded as this
one: as many transitions by hand as fit into them where one takes 117 ns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from heapq import heapify, heapreplace
from itertools import count
from time import process_time
from typing import Any, Literal

from bench.harness import Batch, Line, timed
from cano import Context, Workflow
from cano.scheduler import Cron, Every, Schedule, Scheduler
from cano.scheduler._clockwork import Clockwork
from cano.scheduler._entries import Entry
from cano.scheduler._flows import Begin, Flow
from cano.scheduler.settings import Backoff
from cano.testing import run

FLOWS = 10_000
DAY = 86_400


class Step(Enum):
    """As little as there can be."""

    WORK = 1
    DONE = 2


async def nothing(ctx: Context) -> Literal[Step.DONE]:
    return Step.DONE


def workflow() -> Workflow[Step, None]:
    return Workflow(Step, start=Step.WORK).register(Step.WORK, nothing).exits(Step.DONE)


def in_virtual_time(work: Callable[[], Awaitable[object]], operations: int) -> Batch:
    """A batch that awaits *work* without waiting."""

    async def batch() -> float:
        before = process_time()
        await work()
        return (process_time() - before) / operations

    return lambda: run(batch())


def bookkeeping(
    schedule: Callable[[int], Schedule], flows: int = FLOWS, fires: int = 20_000
) -> Batch:
    """Who is next, what is to be done, what follows its end, and when again: without the run."""
    same = workflow()

    async def work() -> None:
        clock: Clockwork[Entry] = Clockwork(lambda entry, now: None, lambda by, now: None)
        start = clock.now()
        for number in range(flows):
            entry = Entry(_flow(str(number), same, schedule(number)))
            entry.state.start = start
            clock.set(entry, entry.flow.wake(entry.state))
        before[0] = process_time()
        for _ in range(fires):
            when = clock.earliest
            woken = clock.next(when)
            if woken is not None:
                _fire(woken, when, clock)
        clock.stop()

    before = [0.0]

    async def batch() -> float:
        await work()
        return (process_time() - before[0]) / fires

    return lambda: run(batch())


def _fire(entry: Entry, now: float, clock: Clockwork[Entry]) -> None:
    flow, state = entry.flow, entry.state
    for action in flow.look(state, now):
        if isinstance(action, Begin):
            flow.end(state, action.run_id, "finished", "", now)
    clock.set(entry, flow.wake(state))


def _flow(name: str, flow: Workflow[Any, Any], schedule: Schedule) -> Flow:
    return Flow(
        name, flow, schedule, None, None, "skip", "skip", Backoff(), None, None, 0.0, (), "resume"
    )


def by_hand(flows: int = FLOWS, fires: int = 20_000) -> Batch:
    """A heap of times and numbers, and nothing decided."""

    def batch() -> float:
        numbers = count()
        heap = [(60.0 + number / flows, next(numbers), 60.0) for number in range(flows)]
        heapify(heap)
        before = process_time()
        for _ in range(fires):
            when, _, period = heap[0]
            heapreplace(heap, (when + period, next(numbers), period))
        return (process_time() - before) / fires

    return batch


def a_day(schedule: Schedule) -> Batch:
    """Every second of a day, a run of a workflow of one state."""
    flow = workflow()

    async def work() -> None:
        async with Scheduler().add("tick", flow, schedule):
            await asyncio.sleep(DAY - 0.5)

    return in_virtual_time(work, DAY)


def a_day_by_hand() -> Batch:
    """The same with a timer that is set anew, and a task for each run."""
    flow = workflow()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        running: set[asyncio.Task[Any]] = set()

        def tick() -> None:
            loop.call_later(1, tick)
            task = loop.create_task(flow.run())
            running.add(task)
            task.add_done_callback(running.discard)

        tick()
        await asyncio.sleep(DAY - 0.5)

    return in_virtual_time(work, DAY)


def at_reference(seconds: float) -> Batch:
    """So many *seconds* of a machine on which a transition by hand takes 117 ns."""
    tasks = {"a": _to("b"), "b": _to("c"), "c": _to("a")}

    async def work() -> None:
        state = "a"
        for _ in range(100_000):
            state = await tasks[state](None)

    transition = timed(work, 100_000)
    return lambda: transition() * seconds / 117e-9


def _to(state: str) -> Callable[[Any], Awaitable[str]]:
    async def task(ctx: Any) -> str:
        return state

    return task


def lines() -> list[Line]:
    """Bookkeeping is per fire; a day is per run."""
    every = bookkeeping(lambda number: Every(60, delay=number / FLOWS))
    cron = bookkeeping(
        lambda number: Cron(f"{number % 60} {number // 60 % 60} * * * *"), 1_000, 5_000
    )
    return [
        Line("next of 10,000 intervals, to 10 µs", every, at_reference(10e-6), must=1, unit="µs"),
        Line("next of 10,000 intervals, to a heap by hand", every, by_hand(), unit="µs"),
        Line("next of 1,000 crons, to 10 µs", cron, at_reference(10e-6), unit="µs"),
        Line(
            "a virtual day, to 5 s", a_day(Every(1)), at_reference(5 / DAY), must=1, unit="µs", rounds=2
        ),
        Line(
            "a virtual day, to one by hand", a_day(Every(1)), a_day_by_hand(), unit="µs", rounds=2
        ),
        Line(
            "a virtual day of cron, to 5 s",
            a_day(Cron("* * * * * *")), at_reference(5 / DAY), unit="µs", rounds=1,
        ),
    ]  # fmt: skip
