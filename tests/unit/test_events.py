"""Events: what is told of a run, in which order, and that what begins ends once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal

import pytest

from cano import (
    Context,
    Event,
    FailureRouted,
    Observer,
    Retry,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    Split,
    TaskCancelled,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    Timeout,
    Workflow,
    on,
)
from cano.errors import RoutingError, RunCancelledError, RunTimeoutError
from cano.testing import run

ENDS = (RunFinished, RunFailed, RunCancelled)


TASK_ENDS = (TaskSucceeded, TaskFailed, TaskCancelled)


class Step(Enum):
    A = "a"
    B = "b"
    C = "c"
    DONE = "done"


class Scored(Event, frozen=True):
    """An event of the user's own."""

    points: int = 0


async def to_b(ctx: Context[Any]) -> Literal[Step.B]:
    return Step.B


async def to_c(ctx: Context[Any]) -> Literal[Step.C]:
    return Step.C


async def to_done(ctx: Context[Any]) -> Literal[Step.DONE]:
    return Step.DONE


async def fail(ctx: Context[Any]) -> Step:
    raise ValueError("no")


async def linger(ctx: Context[Any]) -> Step:
    await asyncio.sleep(1000)
    return Step.DONE


def flow_of(a: Any, b: Any = to_c, c: Any = to_done, **settings: Any) -> Workflow[Step, Any]:
    flow = Workflow(Step, **settings).exits(Step.DONE)
    return flow.register(Step.A, a).register(Step.B, b).register(Step.C, c)


def told_by(make: Callable[[list[Observer]], Workflow[Step, Any]]) -> list[Event]:
    """Everything an observer hears of one run, however the run ends."""
    told: list[Event] = []

    async def main() -> None:
        with contextlib.suppress(Exception):
            await make([told.append]).run(Step.A, run_id="r")

    run(main())
    return told


def names(events: list[Event]) -> list[str]:
    return [f"{type(event).__name__} {event.state}" for event in events]


def test_order() -> None:
    """A run of three states is told in this order, exits entered like any state."""
    expected = [
        "RunStarted A",
        "StateEntered A", "TaskStarted A", "TaskSucceeded A",
        "StateEntered B", "TaskStarted B", "TaskSucceeded B",
        "StateEntered C", "TaskStarted C", "TaskSucceeded C",
        "StateEntered DONE",
        "RunFinished DONE",
    ]  # fmt: skip
    assert expected == names(told_by(lambda o: flow_of(to_b, observers=o)))


def test_start_at_an_exit() -> None:
    """A run that runs nothing is told from its start to its end all the same."""
    told: list[Event] = []
    run(flow_of(to_b, observers=[told.append]).run(Step.DONE))

    assert ["RunStarted DONE", "StateEntered DONE", "RunFinished DONE"] == names(told)


def test_envelope() -> None:
    """Every event says whose it is, and is numbered from 1 without a gap."""

    async def twice(ctx: Context[Any]) -> Literal[Step.B]:
        await asyncio.sleep(5)
        if ctx.attempt == 1:
            raise ConnectionError("no")
        return Step.B

    told: list[Event] = []
    flow = flow_of(to_b, name="Orders", version=7, observers=[told.append])
    flow.register(Step.A, twice, Retry.fixed(2, 10))
    before = time.time()  # noqa: TID251 -- an event's time is wall time at the run's start
    run(flow.run(Step.A, run_id="r"))

    assert {("r", "Orders")} == {(event.run_id, event.workflow) for event in told}
    assert list(range(1, len(told) + 1)) == [event.sequence for event in told]
    assert [0, 0, 0, 5, 20] == [round(event.time - told[0].time) for event in told[:5]]
    assert before <= told[0].time
    assert [0, 0, 1, 1, 2, 0, 1] == [event.attempt for event in told[:7]]
    assert isinstance(told[0], RunStarted)
    assert 7 == told[0].version


def test_times_never_go_back() -> None:
    """Later events have later times, or the same."""
    told = told_by(lambda o: flow_of(Split([to_b, to_c, fail], then=Step.B), observers=o))
    times = [event.time for event in told]

    assert sorted(times) == times


def test_what_the_events_carry() -> None:
    """Successor, error and delay are told where they are known."""

    async def broken(ctx: Context[Any]) -> Step:
        raise ConnectionError("down")

    told: list[Any] = []
    flow = flow_of(to_b, observers=[told.append])
    flow.register(Step.B, broken, Retry.fixed(2, 3), otherwise=Step.C)
    run(flow.run(Step.A))
    by_kind = {type(event): event for event in told if event.state in {"A", "B"}}

    assert "B" == by_kind[TaskSucceeded].next
    assert (3.0, "ConnectionError('down')", 1) == (
        by_kind[TaskRetried].delay, by_kind[TaskRetried].error, by_kind[TaskRetried].attempt,
    )  # fmt: skip
    assert ("ConnectionError('down')", 2) == (
        by_kind[TaskFailed].error, by_kind[TaskFailed].attempt,
    )  # fmt: skip
    assert ("C", "ConnectionError('down')") == (
        by_kind[FailureRouted].next, by_kind[FailureRouted].error,
    )  # fmt: skip


def test_a_failed_run_tells_why() -> None:
    """`RunFailed` names the state, the kind of the error and its text."""
    last = told_by(lambda o: flow_of(to_b, fail, observers=o))[-1]

    assert RunFailed is type(last)
    assert ("B", "ValueError", "no") == (last.state, last.kind, last.error)  # type: ignore[attr-defined]


def stubborn(observers: list[Observer]) -> Workflow[Step, Any]:
    async def swallows(ctx: Context[Any]) -> Step:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
        await asyncio.sleep(1000)
        return Step.DONE

    return flow_of(to_b, swallows, timeout=5, observers=observers)


def routed(observers: list[Observer]) -> Workflow[Step, Any]:
    return flow_of(to_b, observers=observers).register(Step.B, fail, otherwise=Step.C)


def retried(observers: list[Observer]) -> Workflow[Step, Any]:
    return flow_of(to_b, observers=observers).register(Step.B, fail, Retry(on=ValueError))


def attempt_timed_out(observers: list[Observer]) -> Workflow[Step, Any]:
    return flow_of(to_b, observers=observers).register(Step.B, linger, Timeout(3))


async def lost(ctx: Context[Any]) -> Any:
    return None


async def stray(ctx: Context[Any]) -> Step:
    raise asyncio.CancelledError


MAKES: dict[str, Callable[[list[Observer]], Workflow[Step, Any]]] = {
    "success": lambda o: flow_of(to_b, observers=o),
    "failure": lambda o: flow_of(to_b, fail, observers=o),
    "routed failure": routed,
    "retried": retried,
    "attempt timed out": attempt_timed_out,
    "run timed out": lambda o: flow_of(to_b, linger, timeout=5, observers=o),
    "swallowed cancellation": stubborn,
    "routing error": lambda o: flow_of(to_b, lost, observers=o),
    "stray cancellation": lambda o: flow_of(to_b, stray, observers=o),
    "split": lambda o: flow_of(Split([to_b, to_c], then=Step.B), observers=o),
    "failed split": lambda o: flow_of(Split([to_b, fail], then=Step.B), observers=o),
    "strict": lambda o: flow_of(to_b, strict=True, observers=o),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_what_begins_ends_once(make: Callable[[list[Observer]], Workflow[Step, Any]]) -> None:
    """Whatever happens: one start and one end of the run, first and last; pairs within."""
    told = told_by(make)
    open_tasks = 0
    for event in told:
        open_tasks += isinstance(event, TaskStarted) - isinstance(event, TASK_ENDS)
        assert open_tasks in (0, 1)

    assert 0 == open_tasks
    assert [0] == [i for i, event in enumerate(told) if isinstance(event, RunStarted)]
    assert [len(told) - 1] == [i for i, event in enumerate(told) if isinstance(event, ENDS)]
    assert list(range(1, len(told) + 1)) == [event.sequence for event in told]


@pytest.mark.parametrize("through_handle", [True, False])
def test_a_cancelled_run_ends_once(through_handle: bool) -> None:
    """A run cancelled in the middle closes its task and itself, exactly once."""
    told: list[Event] = []
    flow = flow_of(to_b, linger, observers=[told.append])

    async def main() -> None:
        if through_handle:
            handle = await flow.start_run(Step.A)
            await asyncio.sleep(3)
            await handle.cancel()
            with pytest.raises(RunCancelledError):
                await handle.result()
        else:
            task = asyncio.ensure_future(flow.run(Step.A))
            await asyncio.sleep(3)
            task.cancel()
            await asyncio.wait([task])

    run(main())

    assert ["TaskStarted B", "TaskCancelled B", "RunCancelled B"] == names(told)[-3:]
    assert 1 == len([event for event in told if isinstance(event, ENDS)])


def test_events_of_ones_own() -> None:
    """An emitted event carries the envelope: state, attempt and branch included."""

    async def speak(ctx: Context[Any]) -> Literal[Step.B]:
        if ctx.attempt == 1:
            raise ConnectionError
        ctx.emit(Scored(points=3))
        return Step.B

    told: list[Any] = []
    flow = flow_of(to_b, observers=[on(Scored)(told.append)])
    flow.register(Step.A, Split([speak], then=Step.B), Retry.fixed(2, 1))
    run(flow.run(Step.A, run_id="r"))
    (event,) = told

    assert ("r", "Step", "A", 2, 3) == (
        event.run_id, event.workflow, event.state, event.attempt, event.points,
    )  # fmt: skip
    assert event.branch.endswith("speak[0]")


def test_timeouts_are_told_as_failures() -> None:
    """A run out of time has failed: its task was ended, and `RunFailed` says why."""
    told = told_by(MAKES["run timed out"])

    assert ["TaskCancelled B", "RunFailed B"] == names(told)[-2:]
    assert "RunTimeoutError" == told[-1].kind  # type: ignore[attr-defined]
    with pytest.raises(RunTimeoutError):
        run(flow_of(to_b, linger, timeout=5).run(Step.A))


def test_routing_errors_are_told_as_failures() -> None:
    """The task that leads nowhere has succeeded; the run has not."""
    told = told_by(MAKES["routing error"])

    assert ["TaskSucceeded B", "RunFailed B"] == names(told)[-2:]
    assert "RoutingError" == told[-1].kind  # type: ignore[attr-defined]
    with pytest.raises(RoutingError):
        run(flow_of(to_b, lost).run(Step.A))
