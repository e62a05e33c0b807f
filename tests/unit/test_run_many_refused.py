"""Many runs at once: what can never work is refused, with a remedy, before anything starts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from math import inf, nan
from typing import Any, Literal

import pytest

from cano import Context, DefinitionError, Workflow, run_many
from cano.concurrent import Duration, Quota, QuotaOrDuration, many
from cano.testing import run


class Step(Enum):
    WORK = "work"
    DONE = "done"
    GAVE_UP = "gave up"


@dataclass
class Job:
    seconds: float = 0.0


async def work(ctx: Context[Job]) -> Literal[Step.DONE, Step.GAVE_UP]:
    await asyncio.sleep(ctx.data.seconds)
    return Step.DONE


def flow() -> Workflow[Step, Job]:
    made = Workflow(Step, data=Job, start=Step.WORK).register(Step.WORK, work)
    return made.exits(Step.DONE, Step.GAVE_UP)


def jobs(*seconds: float) -> list[Job]:
    return [Job(s) for s in seconds]


def test_definition_errors_come_before_anything() -> None:
    """A workflow that cannot be right is raised, once, and nothing is asked for."""
    broken = Workflow(Step, data=Job, start=Step.WORK).register(Step.WORK, work)
    homeless = Workflow(Step, data=Job).register(Step.WORK, work).exits(Step.DONE, Step.GAVE_UP)
    asked: list[Job] = []

    with pytest.raises(DefinitionError, match="DONE"):
        run(run_many(broken, (asked.append(job) or job for job in jobs(1, 2))))
    with pytest.raises(DefinitionError, match="where to start"):
        run(run_many(homeless, []))
    assert [] == asked


@pytest.mark.parametrize("n", [-1, 1.5, nan, inf, "3", True, None])
def test_bad_quotas(n: Any) -> None:
    """A quota is a whole number, 0 or more."""
    for make in (Quota, lambda n: QuotaOrDuration(n, 1.0)):
        with pytest.raises(DefinitionError, match="pass a whole number, 0 or more"):
            make(n)


@pytest.mark.parametrize("seconds", [0, -1, 0.0, nan, inf, -inf, "3", None])
def test_bad_durations(seconds: Any) -> None:
    """A duration is a finite number above 0."""
    for make in (Duration, lambda seconds: QuotaOrDuration(1, seconds)):
        with pytest.raises(DefinitionError, match="seconds must be a number above 0"):
            make(seconds)


def test_bad_counting() -> None:
    """What counts is one of two words."""
    with pytest.raises(DefinitionError, match='pass "finished" or "succeeded"'):
        Quota(1, of="done")  # type: ignore[arg-type]


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, nan, inf, "3", True])
def test_bad_concurrency(concurrency: Any) -> None:
    """A limit is a whole number, 1 or more."""
    with pytest.raises(DefinitionError, match="pass a whole number, 1 or more"):
        run(run_many(flow(), [], concurrency=concurrency))


def test_bad_arguments_all_at_once() -> None:
    """Everything that is wrong is said together."""
    with pytest.raises(DefinitionError) as caught:
        run(run_many(flow(), 3, wait=Quota, run_ids=["a"], tags="x"))  # type: ignore[arg-type]

    assert 4 == len(caught.value.problems)


def test_entering() -> None:
    """`many` says so when it is not entered, or entered twice."""

    async def twice() -> None:
        runs = many(flow(), jobs(1))
        async with runs, runs:
            pass

    async def never() -> None:
        async for _ in many(flow(), jobs(1)):
            pass

    with pytest.raises(DefinitionError, match="entered once"):
        run(twice())
    with pytest.raises(DefinitionError, match="async with many"):
        run(never())
