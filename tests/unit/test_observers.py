"""Observers: who is told of what, and that nobody who listens can change a run."""

from __future__ import annotations

import logging
from collections import Counter
from enum import Enum
from typing import Any, Literal

import pytest

from cano import (
    Context,
    Event,
    Observer,
    Resources,
    RunFailed,
    RunFinished,
    RunStarted,
    StateEntered,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    Workflow,
    on,
)
from cano._audience import Audience
from cano._subscribe import Subscriber
from cano.testing import run


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


def flow_of(a: Any, b: Any = to_c, c: Any = to_done, **settings: Any) -> Workflow[Step, Any]:
    flow = Workflow(Step, **settings).exits(Step.DONE)
    return flow.register(Step.A, a).register(Step.B, b).register(Step.C, c)


def names(events: list[Event]) -> list[str]:
    return [f"{type(event).__name__} {event.state}" for event in events]


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


def step_of(task: Any, **settings: Any) -> Any:
    """What a run announces and awaits in state A."""
    flow = flow_of(task, **settings)
    flow.check()
    assert flow._plan is not None
    return flow._plan.steps["A"][1:]


def test_what_nobody_asked_for_is_not_compiled_in() -> None:
    """Without observers, policies and resources, what a run awaits is the function itself."""
    assert (None, to_b) == step_of(to_b)
    assert (None, to_b) == step_of(to_b, observers=[on(RunFailed, TaskRetried)(print)])
    assert (None, to_b) == step_of(to_b, resources=Resources(db=1))
    assert (StateEntered(state="A"), to_b) == step_of(to_b, observers=[on(StateEntered)(print)])
    assert to_b is not step_of(to_b, observers=[on(TaskStarted)(print)])[1]


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
