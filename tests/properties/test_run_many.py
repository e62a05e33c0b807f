"""Many runs at once against a model of it: random durations, failures, windows and strategies.

The model knows no tasks and no cancellation. It walks through the moments at which a run ends, and
says who is then where. No two of them are the same: the fractions of the durations are powers of
two, each run its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any, Literal

from hypothesis import event, given, settings
from hypothesis import strategies as st

from cano import Context, MemoryCheckpoints, Workflow, run_many
from cano.concurrent import Duration, Forever, ManyStatus, Quota, QuotaOrDuration
from cano.testing import run

COUNTED = st.sampled_from(["finished", "succeeded"])
SECONDS = st.integers(1, 12).map(lambda whole: whole + 2.0**-12)
WAITS = st.one_of(
    st.just(Forever()),
    st.builds(Quota, st.integers(0, 7), COUNTED),
    st.builds(Duration, SECONDS),
    st.builds(QuotaOrDuration, st.integers(0, 7), SECONDS, COUNTED),
)


class Step(Enum):
    WORK = "work"
    DONE = "done"


@dataclass
class Job:
    index: int
    seconds: float
    fails: bool


@dataclass(frozen=True)
class Case:
    jobs: tuple[Job, ...]
    wait: Any
    concurrency: int | None
    source: str
    stored: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(0, 7))
    jobs = tuple(
        Job(index, draw(st.integers(1, 5)) + 2.0 ** -(index + 1), draw(st.booleans()))
        for index in range(count)
    )
    return Case(
        jobs,
        draw(WAITS),
        draw(st.none() | st.integers(1, 4)),
        draw(st.sampled_from(["list", "iterator", "async"])),
        draw(st.booleans()),
    )


def expected(case: Case) -> tuple[list[str], float]:
    """What becomes of each job, and when the call is over."""
    needed = getattr(case.wait, "n", inf)
    limit = getattr(case.wait, "seconds", inf)
    successes_only = getattr(case.wait, "of", "") == "succeeded"
    ends = ["not started"] * len(case.jobs)
    waiting = list(range(len(case.jobs)))
    running: list[tuple[float, int]] = []
    now, counted = 0.0, 0
    while counted < needed:
        while waiting and len(running) < (case.concurrency or inf):
            index = waiting.pop(0)
            running.append((now + case.jobs[index].seconds, index))
        if not running:
            return ends, now
        then, index = min(running)
        if then > limit:
            now = limit
            break
        now = then
        running.remove((then, index))
        fails = case.jobs[index].fails
        ends[index] = "failed" if fails else "succeeded"
        counted += not (fails and successes_only)
    for _, index in running:
        ends[index] = "cancelled"
    return ends, now


class World:
    """What really happened."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.told: list[ManyStatus] = []


def flow(world: World, *, stored: bool) -> Workflow[Step, Job]:
    async def work(ctx: Context[Job]) -> Literal[Step.DONE]:
        world.running += 1
        world.most = max(world.most, world.running)
        try:
            await asyncio.sleep(ctx.data.seconds)
        finally:
            world.running -= 1
        if ctx.data.fails:
            raise ValueError(ctx.data.index)
        return Step.DONE

    store = MemoryCheckpoints() if stored else None
    made = Workflow(Step, data=Job, start=Step.WORK, checkpoints=store)
    return made.register(Step.WORK, work).exits(Step.DONE)


def inputs(case: Case) -> Any:
    def one_by_one() -> Iterator[Job]:
        yield from case.jobs

    async def slowly() -> AsyncIterator[Job]:
        for job in case.jobs:
            await asyncio.sleep(0)
            yield job

    if case.source == "list":
        return list(case.jobs)
    return one_by_one() if case.source == "iterator" else slowly()


@settings(max_examples=200)
@given(cases())
def test_as_the_model_says(case: Case) -> None:
    """Each input has the outcome it must have, after as long as it must take; counts add up."""
    world = World()

    async def main() -> tuple[Any, float]:
        runs = await run_many(
            flow(world, stored=case.stored),
            inputs(case),
            wait=case.wait,
            concurrency=case.concurrency,
            on_change=world.told.append,
        )
        assert {asyncio.current_task()} == asyncio.all_tasks()
        return runs, asyncio.get_running_loop().time()

    runs, took = run(main())
    ends, seconds = expected(case)
    event(f"{type(case.wait).__name__}, {case.source}: {', '.join(sorted(set(ends)))}")
    got = [outcome.status for outcome in runs]
    if case.source != "list":  # nobody knows of what was never asked for
        got += ["not started"] * (len(ends) - len(got))
    assert ends == got
    assert seconds == took
    for index, outcome in enumerate(runs):
        assert index == outcome.index
        if outcome.status != "not started":
            assert case.jobs[index] == outcome.data
        if outcome.status == "failed":
            assert (index,) == outcome.error.args
        assert (outcome.status == "succeeded") == (outcome.state is Step.DONE)
    assert world.most <= (case.concurrency or inf)
    check_counts(world, runs.status, [outcome.status for outcome in runs])


def check_counts(world: World, last: ManyStatus, ends: list[str]) -> None:
    """Every status told adds up, none goes back, and the last says what the outcomes say."""
    names = ("not_started", "running", "succeeded", "failed", "cancelled")
    over = [0, 0, 0]
    for status in world.told:
        assert status.total == sum(getattr(status, name) for name in names)
        now = [status.succeeded, status.failed, status.cancelled]
        assert all(a <= b for a, b in zip(over, now, strict=True))
        over = now
    assert last == world.told[-1]
    assert (True, 0, 0) == (last.complete, last.running, world.running)
    for name in names[2:]:
        assert ends.count(name) == getattr(last, name)


@settings(max_examples=100)
@given(cases(), st.floats(0, 15))
def test_cancelled_at_any_time(case: Case, after: float) -> None:
    """Cancelled at whatever moment, the call ends at once with nothing left running."""
    world = World()

    async def main() -> None:
        call = asyncio.ensure_future(
            run_many(
                flow(world, stored=case.stored),
                inputs(case),
                wait=case.wait,
                concurrency=case.concurrency,
            )
        )
        await asyncio.wait((call,), timeout=after)
        event(f"over: {call.done()}")
        call.cancel()
        await asyncio.wait((call,))
        assert asyncio.get_running_loop().time() <= after + 0.1
        assert {asyncio.current_task()} == asyncio.all_tasks()

    run(main())
    assert 0 == world.running
