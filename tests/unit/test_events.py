"""Events: what observers are told, in which order, and that they never change a run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal

import pytest

from cano import (
    Context,
    Event,
    FailureRouted,
    Observer,
    Resources,
    Retry,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    Split,
    StateEntered,
    TaskCancelled,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    Timeout,
    Workflow,
    on,
)
from cano._audience import Audience
from cano.errors import RoutingError, RunCancelledError, RunTimeoutError
from cano.events import Subscriber
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
    assert abs(told[0].time - before) < 60
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


def timed(make: Any, **settings: Any) -> Callable[[list[Observer]], Workflow[Step, Any]]:
    return lambda observers: make(observers=observers, **settings)


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


def test_subscription() -> None:
    """A subscriber is told of the kinds it asked for, and of no other."""
    told: list[str] = []

    @on(StateEntered, RunFailed)
    def some(event: StateEntered | RunFailed) -> None:
        told.append(f"{type(event).__name__} {event.state}")

    assert isinstance(some, Subscriber)
    run(flow_of(to_b, observers=[some]).run(Step.A))
    with pytest.raises(ValueError):
        run(flow_of(fail, observers=[some]).run(Step.A))

    entered = [f"StateEntered {state}" for state in ("A", "B", "C", "DONE", "A")]
    assert [*entered, "RunFailed A"] == told


def test_subscribing_to_a_base() -> None:
    """A kind stands for those derived from it; `Event` for everything."""

    class Base(Event, frozen=True):
        pass

    class Derived(Base, frozen=True):
        pass

    async def speak(ctx: Context[Any]) -> Literal[Step.B]:
        ctx.emit(Base())
        ctx.emit(Derived())
        ctx.emit(Scored())
        return Step.B

    base: list[Event] = []
    everything: list[Event] = []
    derived: list[Event] = []
    observers = [on(Base)(base.append), on(Event)(everything.append), on(Derived)(derived.append)]
    run(flow_of(speak, observers=observers).run(Step.A))

    assert ["Base A", "Derived A"] == names(base)
    assert ["Derived A"] == names(derived)
    assert ["Base A", "Derived A", "Scored A"] == names(everything)[3:6]


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


def test_emitting_to_nobody() -> None:
    """What nobody listens to is not built, and emitting it does nothing."""

    async def speak(ctx: Context[Any]) -> Literal[Step.B]:
        assert not ctx.listens(Scored)
        ctx.emit(Scored())
        return Step.B

    assert Step.DONE == run(flow_of(speak, observers=[on(RunFailed)(lambda e: None)]).run(Step.A))


KINDS = [RunStarted, StateEntered, TaskStarted, TaskSucceeded, RunFinished, Scored]


@pytest.mark.parametrize("kind", KINDS)
def test_an_observer_that_raises(kind: type[Event], caplog: pytest.LogCaptureFixture) -> None:
    """Who raises is logged once and told no more; the others, and the run, go on."""
    heard: list[Event] = []
    after: list[Event] = []

    def faulty(event: Event) -> None:
        heard.append(event)
        if type(event) is kind:
            raise ZeroDivisionError("observer")

    async def speak(ctx: Context[Any]) -> Literal[Step.B]:
        ctx.emit(Scored())
        return Step.B

    flow = flow_of(speak, observers=[faulty, after.append])
    with caplog.at_level(logging.ERROR, "cano.observers"):
        assert Step.DONE == run(flow.run(Step.A))
        assert Step.DONE == run(flow.run(Step.A))

    (record,) = caplog.records
    assert f"raised on {kind.__name__} and is told no more" in record.getMessage()
    assert kind is type(heard[-1])
    assert 1 == Counter(map(type, heard))[kind]
    assert 2 * 13 == len(after)


def test_every_observer_may_raise(caplog: pytest.LogCaptureFixture) -> None:
    """A run whose observers have all been dismissed goes on to its end."""

    def first(event: Event) -> None:
        raise ValueError

    def second(event: Event) -> None:
        raise KeyError

    with caplog.at_level(logging.ERROR, "cano.observers"):
        assert Step.DONE == run(flow_of(to_b, observers=[first, second]).run(Step.A))

    assert 2 == len(caplog.records)


def test_order_of_observers() -> None:
    """Each event goes to every observer, in the order they were given, before the next event."""
    told: list[tuple[int, str]] = []

    def number(i: int) -> Observer:
        return lambda event: told.append((i, type(event).__name__))

    run(flow_of(to_b, observers=[number(1), number(2)]).run(Step.DONE))
    expected = [(i, name) for name in ("RunStarted", "StateEntered", "RunFinished") for i in (1, 2)]

    assert expected == told


def runner_of(task: Any, **settings: Any) -> Any:
    """What a run awaits in state A."""
    flow = flow_of(task, **settings)
    flow.check()
    assert flow._plan is not None
    return flow._plan.steps["A"][1]


def test_what_nobody_asked_for_is_not_compiled_in() -> None:
    """Without observers, policies and resources, what a run awaits is the function itself."""
    assert to_b is runner_of(to_b)
    assert to_b is runner_of(to_b, observers=[on(RunFailed, TaskRetried)(print)])
    assert to_b is runner_of(to_b, resources=Resources(db=1))
    assert to_b is not runner_of(to_b, observers=[on(StateEntered)(print)])


def test_what_nobody_asked_for_is_not_built() -> None:
    """An event that nobody wants is not even made."""
    made: list[str] = []

    class Counted(Event, frozen=True):
        def __post_init__(self) -> None:
            made.append("Counted")

    async def speak(ctx: Context[Any]) -> Literal[Step.B]:
        if ctx.listens(Counted):
            ctx.emit(Counted())
        return Step.B

    run(flow_of(speak).run(Step.A))
    assert [] == made

    run(flow_of(speak, observers=[on(Counted)(lambda event: None)]).run(Step.A))
    assert made


def test_an_audience_knows_who_wants_what() -> None:
    """`of` lists who is told of a kind, in order; `listens` says whether anybody is."""

    def one(event: Event) -> None: ...

    def two(event: RunFailed) -> None: ...

    audience = Audience([one, on(RunFailed)(two)])

    assert ((one, two), (one,)) == (audience[RunFailed], audience[RunStarted])
    assert audience.listens(RunStarted)
    assert not Audience([on(RunFailed)(two)]).listens(RunStarted)
    assert not Audience().listens(RunFailed)


class Recorder:
    """An observer that keeps what it is told in a list that happens to be called `events`."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)


def test_a_list_called_events_is_no_subscription() -> None:
    """Only kinds of events subscribe; an observer that collects events is told everything."""
    recorder = Recorder()
    run(flow_of(to_b, observers=[recorder]).run(Step.A))

    assert 12 == len(recorder.events)


def test_a_class_may_subscribe() -> None:
    """An object with `events` is told of those kinds."""

    class Alarm:
        events = (RunFailed,)

        def __init__(self) -> None:
            self.heard: list[Event] = []

        def __call__(self, event: Event, /) -> None:
            self.heard.append(event)

    alarm = Alarm()
    with pytest.raises(ValueError):
        run(flow_of(fail, observers=[alarm]).run(Step.A))

    assert ["RunFailed A"] == names(alarm.heard)


def test_subscription_repr() -> None:
    """A subscription shows the function and the kinds."""

    def alarm(event: Event) -> None: ...

    assert "alarm of RunFailed, TaskFailed>" in repr(on(RunFailed, TaskFailed)(alarm))
    alarm_again = on(RunFailed)(alarm)

    assert None is alarm_again(RunFailed())


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
