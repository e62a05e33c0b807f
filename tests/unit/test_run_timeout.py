"""The end of the time that a run has: the workflow's `timeout`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    Bulkhead,
    Context,
    Resources,
    Retry,
    RunFailed,
    Split,
    Task,
    TaskCancelled,
    Timeout,
    Workflow,
    on,
)
from cano.errors import CanoError, DefinitionError, RunTimeoutError
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    LATE = auto()
    DONE = auto()


Body = Callable[[Context], Awaitable[Any]]


def flow(body: Body, *policies: Any, **settings: Any) -> Workflow[Step, Any]:
    async def work(ctx: Context) -> Step:
        return await body(ctx) or Step.DONE

    workflow = Workflow(Step, **settings).register(Step.WORK, work, *policies)
    return workflow.exits(Step.LATE, Step.DONE)


def failure(workflow: Workflow[Step, Any], at: float) -> Exception:
    """Why *workflow* failed, which it must at that time, leaving no timer and no cancellation."""

    async def main() -> Exception:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        with pytest.raises(Exception) as caught:
            await workflow.run(Step.WORK)
        assert at == pytest.approx(loop.time())
        assert 0 == task.cancelling()
        assert [] == timers(loop)
        return caught.value

    return run(main())


def timers(loop: Any) -> list[asyncio.TimerHandle]:
    """What *loop* would still call some time."""
    return [handle for handle in loop._scheduled if not handle.cancelled()]


async def nap(ctx: Context) -> None:
    await asyncio.sleep(60)


def cycle(cost: float) -> Body:
    """A task that returns to itself for ever, never suspends, and takes its time."""

    async def body(ctx: Context) -> Step:
        asyncio.get_running_loop().now += cost  # type: ignore[attr-defined]
        return Step.WORK

    return body


def test_ends_a_run_in_the_middle_of_a_task() -> None:
    """At its deadline a run is ended wherever it is, and the error says where that was."""
    error = failure(flow(nap, timeout=5), at=5)
    assert isinstance(error, RunTimeoutError)
    assert isinstance(error, TimeoutError)
    assert isinstance(error, CanoError)
    assert "the run took longer than its 5 s; it was in WORK" == str(error)


def test_ends_a_run_that_never_suspends() -> None:
    """A cycle that gives the event loop no turn is ended before its next visit."""
    error = failure(flow(cycle(cost=1), timeout=5.5), at=6)
    assert isinstance(error, RunTimeoutError)
    assert "it was about to visit WORK" in str(error)


def test_ends_a_run_whose_task_swallows_cancellations() -> None:
    """A task that does not heed the end of the run is cancelled again every 50 ms."""

    async def stubborn(ctx: Context) -> None:
        for _ in range(3):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        await asyncio.sleep(60)

    assert isinstance(failure(flow(stubborn, timeout=5), at=5.15), RunTimeoutError)


def test_an_exit_reached_too_late_is_reached() -> None:
    """Who comes to the exit without suspending, though late, has finished."""

    async def late(ctx: Context) -> None:
        asyncio.get_running_loop().now += 60  # type: ignore[attr-defined]

    assert Step.DONE == run(flow(late, timeout=5).run(Step.WORK))


def test_a_run_in_time_keeps_its_result() -> None:
    """A limit that is not reached changes nothing."""
    assert Step.DONE == run(flow(nap, timeout=61).run(Step.WORK))


def test_an_error_before_the_deadline_passes_unchanged() -> None:
    """What goes wrong in time comes out as it is."""

    async def fail(ctx: Context) -> None:
        await asyncio.sleep(1)
        raise KeyError("mine")

    error = failure(flow(fail, timeout=5), at=1)
    assert isinstance(error, KeyError)


def test_is_one_deadline_for_all_states() -> None:
    """The limit is for the whole run, not for each of its states."""
    visits: list[float] = []

    async def again(ctx: Context) -> Step:
        visits.append(asyncio.get_running_loop().time())
        await asyncio.sleep(2)
        return Step.WORK

    failure(flow(again, timeout=5), at=5)
    assert [0, 2, 4] == visits


def test_no_state_routes_the_end_of_the_run() -> None:
    """`otherwise` leads on after failures of tasks; when the run is over nothing leads on."""

    async def work(ctx: Context) -> Literal[Step.DONE]:
        await asyncio.sleep(60)
        return Step.DONE

    workflow = Workflow(Step, timeout=5).register(Step.WORK, work, otherwise=Step.LATE)
    assert isinstance(failure(workflow.exits(Step.LATE, Step.DONE), at=5), RunTimeoutError)


def test_a_state_can_route_the_end_of_an_attempt() -> None:
    """A `Timeout` fails the task, so `otherwise` may lead on after it, within the run's time."""

    async def work(ctx: Context) -> Literal[Step.DONE]:
        await asyncio.sleep(60)
        return Step.DONE

    workflow = Workflow(Step, timeout=5)
    workflow.register(Step.WORK, work, Timeout(1), otherwise={TimeoutError: Step.LATE})
    assert Step.LATE == run(workflow.exits(Step.LATE, Step.DONE).run(Step.WORK))


@pytest.mark.parametrize(
    "policies", [[Retry()], [Bulkhead(1)], [Timeout(5)], [Retry(), Timeout(5)]]
)
def test_policies_do_not_hide_the_end_of_the_run(policies: list[Any]) -> None:
    """Whatever is around the task, what comes out is the run's own error."""
    assert isinstance(failure(flow(nap, *policies, timeout=5), at=5), RunTimeoutError)


def test_never_ends_a_pause() -> None:
    """A pause fits into the run's time or is not made: the task's own error comes out."""

    async def fail(ctx: Context) -> None:
        raise KeyError(ctx.attempt)

    error = failure(flow(fail, Retry.fixed(9, 2), timeout=5), at=4)
    assert isinstance(error, KeyError)


def test_ends_the_branches_of_a_split() -> None:
    """When the run is over its branches are, and they are awaited."""
    ended: list[str] = []

    async def branch(ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("branch")

    workflow = Workflow(Step, timeout=5).register(Step.WORK, Split([branch] * 3, then=Step.DONE))
    assert isinstance(failure(workflow.exits(Step.LATE, Step.DONE), at=5), RunTimeoutError)
    assert ["branch"] * 3 == ended


def test_waits_for_work_that_must_not_be_interrupted() -> None:
    """A task that is not interruptible is done before its run is told that it is late."""
    done: list[float] = []

    class Careful(Task[Step]):
        interruptible = False

        async def run(self, ctx: Context) -> Literal[Step.DONE]:
            await asyncio.sleep(60)
            done.append(asyncio.get_running_loop().time())
            return Step.DONE

    workflow = Workflow(Step, timeout=5).register(Step.WORK, Careful())
    error = failure(workflow.exits(Step.LATE, Step.DONE), at=60)
    assert isinstance(error, RunTimeoutError)
    assert [60] == pytest.approx(done)


def test_tells_the_observers_and_lets_go_of_the_resources() -> None:
    """A run out of time has failed: one closing event, and its resources are torn down."""
    told: list[str] = []

    class Db:
        async def teardown(self) -> None:
            told.append("torn down")

    observer = on(RunFailed, TaskCancelled)(lambda event: told.append(type(event).__name__))
    workflow = flow(nap, timeout=5, observers=[observer], resources=Resources(db=Db()))
    failure(workflow, at=5)
    assert ["TaskCancelled", "RunFailed", "torn down"] == told


def test_a_run_within_a_run_has_its_own_end() -> None:
    """The end of a nested run fails the task it is in; the end of the outer one ends both."""

    async def nested(ctx: Context) -> None:
        await flow(nap, timeout=3).run(Step.WORK)

    assert "longer than its 3 s" in str(failure(flow(nested, timeout=5), at=3))
    assert "longer than its 2 s" in str(failure(flow(nested, timeout=2), at=2))
    assert "longer than its 3 s" in str(failure(flow(nested, Retry(), Timeout(3.5), timeout=4), 3))


def test_a_run_within_a_run_ends_with_it_in_the_same_moment() -> None:
    """Where both are out of time at once, the outer one does not take it for a failed task."""

    async def nested(ctx: Context) -> None:
        await flow(nap, timeout=5).run(Step.WORK)

    error = failure(flow(nested, Retry(on=lambda error: True), timeout=5), at=5)
    assert isinstance(error, RunTimeoutError)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_refuses_a_run_without_time(seconds: float) -> None:
    """A limit that leaves a run no time is a definition error."""
    with pytest.raises(DefinitionError, match="leaves a run no time"):
        Workflow(Step, timeout=seconds)
