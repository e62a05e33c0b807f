"""`WorkflowObserver`: a method for every kind of event, and nothing for what has none."""

from __future__ import annotations

import asyncio
import re
from enum import Enum
from typing import Any, Literal

import pytest

from cano import (
    Context,
    DefinitionError,
    Event,
    RunFailed,
    RunTimeoutError,
    StateEntered,
    TaskFailed,
    Workflow,
    announced,
    events,
)
from cano._audience import Audience
from cano.observers import WorkflowObserver
from cano.observers.hooks import _KINDS
from cano.testing import VirtualLoop, run


class Step(Enum):
    WORK = 1
    DONE = 2


class Scored(Event, frozen=True):
    """An event of the user's own."""


async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
    ctx.emit(Scored())
    return Step.DONE


async def fail(ctx: Context[Any]) -> Literal[Step.DONE]:
    raise ValueError("no")


def flow_of(task: Any, *observers: Any) -> Workflow[Step, Any]:
    return Workflow(Step, observers=observers).register(Step.WORK, task).exits(Step.DONE)


class Collector(WorkflowObserver):
    def __init__(self) -> None:
        self.told: list[str] = []

    def on_state_entered(self, event: StateEntered) -> None:
        self.told.append(f"entered {event.state}")

    def on_task_failed(self, event: TaskFailed) -> None:
        self.told.append(f"failed {event.error}")


KINDS = [
    kind
    for module in (events, announced)
    for kind in vars(module).values()
    if isinstance(kind, type)
    and issubclass(kind, Event)
    and kind.__module__ == module.__name__
    and kind.__name__ not in {"Event", "Progress"}
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_every_event_has_its_method(kind: type[Event]) -> None:
    """A new kind of event must be given its method, named after it and annotated with it."""
    name = "on_" + re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()

    assert kind is _KINDS[name]
    assert kind.__name__ == getattr(WorkflowObserver, name).__annotations__["event"]


def test_no_method_without_an_event() -> None:
    """There is no method that nothing is ever told to."""
    methods = {name for name in vars(WorkflowObserver) if name.startswith("on_")}

    assert {"on_event", *_KINDS} == methods
    assert len(KINDS) == len(_KINDS)


def test_overridden_methods_are_told() -> None:
    """Each event goes to the method named after it."""
    collector = Collector()
    flow = flow_of(fail, collector)
    with pytest.raises(ValueError):
        run(flow.run(Step.WORK))

    assert ["entered WORK", "failed ValueError('no')"] == collector.told


def test_what_is_not_overridden_costs_nothing() -> None:
    """Only the events of overridden methods are subscribed to."""
    audience = Audience([Collector()])

    assert audience.listens(StateEntered)
    assert not audience.listens(RunFailed)


def test_nothing_overridden_is_nothing_told() -> None:
    """An observer without methods of its own is not told of everything instead."""
    told: list[Event] = []

    class Silent(WorkflowObserver):
        def __call__(self, event: Event, /) -> None:
            told.append(event)

    assert Step.DONE == run(flow_of(work, Silent(), WorkflowObserver()).run(Step.WORK))
    assert [] == told


def test_on_event_is_told_of_everything() -> None:
    """`on_event` hears every event, those of the user's own too, before the method of the event."""
    told: list[str] = []

    class Both(WorkflowObserver):
        def on_event(self, event: Event) -> None:
            told.append(type(event).__name__)

        def on_state_entered(self, event: StateEntered) -> None:
            told.append(event.state)

    run(flow_of(work, Both()).run(Step.WORK))

    begins = ["RunStarted", "StateEntered", "WORK", "TaskStarted", "Scored", "TaskSucceeded"]
    assert [*begins, "StateEntered", "DONE", "RunFinished"] == told


def test_methods_are_inherited() -> None:
    """What a base class or a mixin overrides counts, too."""

    class Mixin:
        told: list[str]

        def on_run_failed(self, event: RunFailed) -> None:
            self.told.append(f"{event.kind} ended it")

    class Derived(Mixin, Collector):
        pass

    derived = Derived()
    with pytest.raises(ValueError):
        run(flow_of(fail, derived).run(Step.WORK))

    assert ["entered WORK", "failed ValueError('no')", "ValueError ended it"] == derived.told


def test_a_method_hears_derived_kinds() -> None:
    """An event derived from a kind goes to the method of that kind."""
    heard: list[str] = []

    class Worse(TaskFailed, frozen=True):
        pass

    class Alarm(WorkflowObserver):
        def on_task_failed(self, event: TaskFailed) -> None:
            heard.append(type(event).__name__)

    async def speak(ctx: Context[Any]) -> Literal[Step.DONE]:
        ctx.emit(Worse())
        return Step.DONE

    run(flow_of(speak, Alarm()).run(Step.WORK))

    assert ["Worse"] == heard


def test_a_misspelt_method() -> None:
    """A name that is almost right is refused at once, with the right one."""
    with pytest.raises(DefinitionError, match=r"Typo\.on_task_faild .* mean on_task_failed\?"):

        class Typo(WorkflowObserver):
            def on_task_faild(self, event: TaskFailed) -> None: ...


def test_a_method_of_no_event() -> None:
    """A name like no event's is refused with the remedy, and so is a mixin's."""

    class Mixin:
        def on_zzz(self) -> None: ...

    with pytest.raises(DefinitionError, match=r"on_zzz is told of nothing.*begin its name other"):

        class Derived(Mixin, WorkflowObserver):
            pass


def test_an_async_method() -> None:
    """A method that would only be made, and never awaited, is refused."""
    with pytest.raises(DefinitionError, match=r"Late\.on_run_failed is async; make it a plain"):

        class Late(WorkflowObserver):
            async def on_run_failed(self, event: RunFailed) -> None: ...  # type: ignore[override]


def test_an_attribute_in_the_place_of_a_method() -> None:
    """What cannot be called is refused, and all problems are told at once."""
    with pytest.raises(DefinitionError) as caught:

        class Odd(WorkflowObserver):
            on_run_failed = "no"  # type: ignore[assignment]
            on_nothing = 1

    assert "Odd.on_run_failed is 'no'; make it a method of one event" in str(caught.value)
    assert "Odd.on_nothing is told of nothing" in str(caught.value)


def test_one_that_raises_is_told_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """A method that raises is logged with its observer, which is dismissed; the run goes on."""

    class Faulty(Collector):
        def on_state_entered(self, event: StateEntered) -> None:
            super().on_state_entered(event)
            raise ZeroDivisionError

    faulty = Faulty()

    assert Step.DONE == run(flow_of(work, faulty).run(Step.WORK))
    assert ["entered WORK"] == faulty.told
    assert ["raised on StateEntered" in record.getMessage() for record in caplog.records] == [True]


def test_one_that_blocks() -> None:
    """While an observer blocks nothing else runs, and the time it takes is that of the run."""
    beats: list[float] = []

    class Slow(WorkflowObserver):
        def on_state_entered(self, event: StateEntered) -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.now += 5.0  # as time.sleep(5) would: time passes, and the loop stands still

    async def beat() -> None:
        while True:
            beats.append(asyncio.get_running_loop().time())
            await asyncio.sleep(1)

    async def slow(ctx: Context[Any]) -> Literal[Step.DONE]:
        await asyncio.sleep(2)
        return Step.DONE

    async def main() -> None:
        beating = asyncio.ensure_future(beat())
        await asyncio.sleep(0)
        flow = Workflow(Step, observers=[Slow()], timeout=6).register(Step.WORK, slow)
        with pytest.raises(RunTimeoutError):
            await flow.exits(Step.DONE).run(Step.WORK)
        beating.cancel()

    run(main())

    assert [0.0, 5.0] == beats[:2]
