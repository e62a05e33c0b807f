"""Many runs at once: what is waited for, and what is said of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import pytest

from cano import Context, ManyRuns, RunCancelledError, Workflow, run_many
from cano.concurrent import (
    Duration,
    Forever,
    ManyStatus,
    Quota,
    QuotaOrDuration,
    RunOutcome,
    Wait,
    many,
)
from cano.testing import run


class Step(Enum):
    WORK = "work"
    DONE = "done"
    GAVE_UP = "gave up"


@dataclass
class Job:
    seconds: float = 0.0
    fails: bool = False
    log: str = ""


async def work(ctx: Context[Job]) -> Literal[Step.DONE, Step.GAVE_UP]:
    await asyncio.sleep(ctx.data.seconds)
    if ctx.data.fails:
        raise ValueError(f"after {ctx.data.seconds:g} s")
    ctx.data.log = f"{ctx.data.seconds:g} s"
    return Step.GAVE_UP if ctx.data.seconds > 50 else Step.DONE


def flow() -> Workflow[Step, Job]:
    made = Workflow(Step, data=Job, start=Step.WORK).register(Step.WORK, work)
    return made.exits(Step.DONE, Step.GAVE_UP)


def jobs(*seconds: float) -> list[Job]:
    """One job each; a negative number is one that fails when its time is over."""
    return [Job(abs(s), s < 0) for s in seconds]


def ran(
    inputs: Any, wait: Wait | None = None, **settings: Any
) -> tuple[ManyRuns[Step, Job], float]:
    """What became of the runs, and after how many seconds."""
    if wait is not None:
        settings["wait"] = wait

    async def main() -> tuple[ManyRuns[Step, Job], float]:
        runs = await run_many(flow(), inputs, **settings)
        assert {asyncio.current_task()} == asyncio.all_tasks()
        return runs, asyncio.get_running_loop().time()

    return run(main())


def ends(runs: Sequence[RunOutcome[Step, Job]]) -> list[str]:
    return [outcome.status for outcome in runs]


def test_one_outcome_per_input_in_their_order() -> None:
    """Whoever ends first, each input has its own outcome at its own place."""
    runs, took = ran(jobs(3, 1, -2, 60))

    assert ["succeeded", "succeeded", "failed", "succeeded"] == ends(runs)
    assert [0, 1, 2, 3] == [outcome.index for outcome in runs]
    assert ["3 s", "1 s", "", "60 s"] == [outcome.data.log for outcome in runs if outcome.data]
    assert [Step.DONE, Step.DONE, Step.WORK, Step.GAVE_UP] == [outcome.state for outcome in runs]
    assert (60.0, ManyStatus(4, succeeded=3, failed=1, seconds=60.0, complete=True)) == (
        took,
        runs.status,
    )


def test_failures_are_reported() -> None:
    """What a run raises is the error of its outcome, noted, and does not touch the others."""
    runs, _ = ran(jobs(-1, 2))

    assert "ValueError('after 1 s')" == repr(runs[0].error)
    assert [True] == [note.startswith("cano: run ") for note in runs[0].error.__notes__]  # type: ignore[union-attr]
    assert [0] == [outcome.index for outcome in runs.errors]
    assert [1] == [outcome.index for outcome in runs.successes]


def test_no_inputs() -> None:
    """Nothing to do is done at once, and complete."""
    runs, took = ran([])

    assert ([], ManyStatus(complete=True), 0.0) == (list(runs), runs.status, took)


def test_a_quota_counts_failures_too() -> None:
    """By default every end counts towards a quota, and what still runs is cancelled."""
    runs, took = ran(jobs(3, -1, 2, 9), Quota(2))

    assert ["cancelled", "failed", "succeeded", "cancelled"] == ends(runs)
    assert isinstance(runs[0].error, RunCancelledError)
    assert (2.0, 2) == (took, runs.status.finished)


def test_a_quota_of_successes() -> None:
    """On request only runs that came to an exit count."""
    runs, took = ran(jobs(3, -1, 2, 9), Quota(2, of="succeeded"))

    assert ["succeeded", "failed", "succeeded", "cancelled"] == ends(runs)
    assert 3.0 == took


def test_a_quota_out_of_reach_waits_for_all() -> None:
    """When too many failed, the rest is run all the same: each result may be worth something."""
    runs, took = ran(jobs(3, -1, -2, 9), Quota(3, of="succeeded"))

    assert ["succeeded", "failed", "failed", "succeeded"] == ends(runs)
    assert 9.0 == took


@pytest.mark.parametrize("n", [3, 4, 100])
def test_a_quota_of_all(n: int) -> None:
    """A quota of as many as there are, or more, waits for every run."""
    runs, took = ran(jobs(1, 2, 3), Quota(n))

    assert (["succeeded"] * 3, 3.0) == (ends(runs), took)


@pytest.mark.parametrize("wait", [Quota(0), QuotaOrDuration(0, 5)])
def test_a_quota_of_none(wait: Wait) -> None:
    """A quota of 0 is reached before anything is started."""
    runs, took = ran(jobs(1, 2), wait)

    assert (["not started"] * 2, 0.0) == (ends(runs), took)
    assert ManyStatus(total=2, not_started=2, complete=True) == runs.status


def test_a_duration_keeps_what_has_ended() -> None:
    """What ended before the time was up keeps its result; the others are cancelled."""
    runs, took = ran(jobs(1, 9, -2, 3), Duration(2.5))

    assert ["succeeded", "cancelled", "failed", "cancelled"] == ends(runs)
    assert "1 s" == (runs[0].data and runs[0].data.log)
    assert 2.5 == took


def test_a_duration_that_is_not_needed() -> None:
    """When every run has ended, nobody waits for the time to be up."""
    runs, took = ran(jobs(1, 2), Duration(60))

    assert (["succeeded"] * 2, 2.0) == (ends(runs), took)


@pytest.mark.parametrize(
    ("wait", "took"),
    [
        (QuotaOrDuration(2, 2.5), 2.0),
        (QuotaOrDuration(3, 2.5), 2.5),
        (QuotaOrDuration(2, 3.5, of="succeeded"), 3.0),
        (QuotaOrDuration(9, 99), 4.0),
    ],
)
def test_a_quota_or_a_duration(wait: Wait, took: float) -> None:
    """Whichever comes first ends it, or the last run."""
    runs, seconds = ran(jobs(1, -2, 3, 4), wait)

    assert took == seconds
    assert [s <= took for s in (1, 2, 3, 4)] == [end != "cancelled" for end in ends(runs)]


@pytest.mark.parametrize(
    ("wait", "finished", "succeeded", "late"),
    [
        (Forever(), False, False, False),
        (Quota(3), True, False, False),
        (Quota(2, of="succeeded"), False, True, False),
        (Duration(5), False, False, True),
        (QuotaOrDuration(3, 5), True, False, True),
        (QuotaOrDuration(2, 5, of="succeeded"), False, True, True),
    ],
)
def test_strategies_judge_counts(wait: Wait, finished: bool, succeeded: bool, late: bool) -> None:
    """A verdict depends on nothing but the counts and the seconds."""
    assert not wait.enough(ManyStatus(9, succeeded=1, failed=1, cancelled=5, seconds=4.9))
    assert finished == wait.enough(ManyStatus(9, succeeded=1, failed=2))
    assert succeeded == wait.enough(ManyStatus(9, succeeded=2))
    assert late == wait.enough(ManyStatus(9, seconds=5.0))


def test_a_strategy_of_ones_own() -> None:
    """Anything that judges the counts, and says how long to wait at most, is a strategy."""

    class TooManyFailures:
        seconds = 60.0

        def enough(self, status: ManyStatus, /) -> bool:
            return status.failed > 1

    runs, took = ran(jobs(1, -2, 3, -4, 5), TooManyFailures())

    assert ["succeeded", "failed", "succeeded", "failed", "cancelled"] == ends(runs)
    assert 4.0 == took


def test_at_most_so_many_at_once() -> None:
    """With a limit, a run starts when another has ended, in the order of the inputs."""
    seen: list[tuple[int, float]] = []
    runs, took = ran(
        jobs(4, 1, 1, 1, 2),
        concurrency=2,
        on_change=lambda status: seen.append((status.running, status.seconds)),
    )

    assert 5.0 == took
    assert 2 == max(running for running, _ in seen)
    assert ["succeeded"] * 5 == ends(runs)


def test_inputs_are_asked_for_when_there_is_room() -> None:
    """An endless source is gone through no further than the window and the quota need."""
    asked: list[int] = []

    def endless() -> Iterator[Job]:
        while True:
            asked.append(len(asked))
            yield Job(1)

    runs, _ = ran(endless(), Quota(4), concurrency=3)

    assert ["succeeded"] * 4 == ends(runs)[:4]
    assert len(runs) == len(asked) <= 7


def test_inputs_never_asked_for_are_not_started() -> None:
    """What has a length has an outcome for each, also for those nobody asked for."""
    runs, _ = ran(jobs(1, 5, 1, 1), Quota(1), concurrency=2)

    assert 4 == len(runs)
    assert RunOutcome(3) == runs[-1]
    assert [RunOutcome(3)] == runs[3:]
    assert runs.status.not_started == ends(runs).count("not started")
    with pytest.raises(IndexError):
        runs[4]


def test_data_of_the_wrong_type_fails_one_run() -> None:
    """An input that is no data of the workflow is a failure of its own run."""
    runs, _ = ran([Job(1), "no job", Job(2)])

    assert ["succeeded", "failed", "succeeded"] == ends(runs)
    assert "run data is a str, not a Job" == str(runs[1].error)


def test_names() -> None:
    """Runs are named by index and input, and a name that cannot be made is a failure of one run."""

    def name(index: int, job: Job) -> str:
        return f"job-{index}-{10 / job.seconds:g}"

    runs, _ = ran(jobs(1, 0, 2), run_ids=name)

    assert ["job-0-10", "", "job-2-5"] == [outcome.run_id for outcome in runs]
    assert isinstance(runs[1].error, ZeroDivisionError)


def test_workflows_without_data() -> None:
    """Where a run has no data, an input is None and stands for a run."""

    async def nothing(ctx: Context) -> Literal[Step.DONE]:
        return Step.DONE

    bare = Workflow(Step).register(Step.WORK, nothing).exits(Step.DONE, Step.GAVE_UP)
    runs = run(run_many(bare, [None] * 3, start=Step.WORK))

    assert [Step.DONE] * 3 == [outcome.state for outcome in runs]


def test_progress() -> None:
    """Told at each start and end, and at last; the counts add up every time."""
    seen: list[ManyStatus] = []
    runs, _ = ran(jobs(1, -2, 9), Quota(2), on_change=seen.append, concurrency=2)

    assert all(
        status.total
        == status.not_started + status.running + status.succeeded + status.failed + status.cancelled
        for status in seen
    )
    assert [False] * (len(seen) - 1) + [True] == [status.complete for status in seen]
    assert runs.status == seen[-1]
    assert 3 + 3 + 1 == len(seen)


def test_progress_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A listener that raises is logged once, told no more, and harms nobody."""
    told: list[ManyStatus] = []

    def fail(status: ManyStatus) -> None:
        told.append(status)
        raise ValueError("the terminal is gone")

    with caplog.at_level(logging.ERROR, "cano.concurrent"):
        runs, _ = ran(jobs(1, 2), on_change=fail)

    assert (1, ["succeeded"] * 2) == (len(told), ends(runs))
    assert ["on_change failed, and is told no more"] == [r.message for r in caplog.records]


def test_outcomes_as_they_come() -> None:
    """`many` hands out each outcome when its run ends, and keeps none."""

    async def main() -> list[tuple[int, float]]:
        clock = asyncio.get_running_loop().time
        async with many(flow(), jobs(3, 1, 2)) as runs:
            came = [(outcome.index, clock()) async for outcome in runs]
        assert ManyStatus(3, succeeded=3, seconds=3.0, complete=True) == runs.status
        return came

    assert [(1, 1.0), (2, 2.0), (0, 3.0)] == run(main())


def test_slow_takers_are_not_flooded() -> None:
    """A run keeps its place until its outcome is taken."""

    async def main() -> list[int]:
        ahead = []
        async with many(flow(), jobs(*[1] * 5), concurrency=2) as runs:
            taken = 0
            async for _ in runs:
                taken += 1
                await asyncio.sleep(10)
                ahead.append(5 - runs.status.not_started - taken)
        return ahead

    assert [2, 2, 2, 1, 0] == run(main())


def test_leaving_early_is_enough() -> None:
    """Who breaks off has seen enough: what runs is cancelled and waited for."""

    async def main() -> tuple[ManyStatus, float]:
        async with many(flow(), jobs(9, 1, 9)) as runs:
            async for _ in runs:
                break
        return runs.status, asyncio.get_running_loop().time()

    expected = ManyStatus(3, succeeded=1, cancelled=2, seconds=1.0, complete=True)
    assert (expected, 1.0) == run(main())


def test_seen_from_outside() -> None:
    """What is printed says how many stand where."""
    runs, _ = ran(jobs(1, -1, 9), Quota(2))

    assert "<ManyRuns 3 inputs: 1 succeeded, 1 failed, 1 cancelled>" == repr(runs)
    assert "<many runs of Step: 2 inputs: 2 not started>" == repr(many(flow(), jobs(1, 2)))
