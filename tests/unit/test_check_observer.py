"""`cano.testing.check_observer`: finds what breaks the contract, and our own observers keep it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from cano import Event, RunFailed, RunFinished, RunStarted, TaskFailed, TaskStarted, on
from cano.announced import ScheduleFired
from cano.testing import BrokenContractError, run
from cano.testing.observers import _RULES, check_observer, samples
from cano.testing.recorder import Recorder


def logging_observer() -> Any:
    from cano.observers import LoggingObserver

    return LoggingObserver()


def hooks_observer() -> Any:
    from cano.observers import WorkflowObserver

    class Counting(WorkflowObserver):
        started = 0

        def on_run_started(self, event: RunStarted) -> None:
            self.started += 1

    return Counting()


def tracing_observer() -> Any:
    from cano.observers import TracingObserver

    return TracingObserver()


def metrics_observer() -> Any:
    from prometheus_client import CollectorRegistry

    from cano.observers import MetricsObserver

    return MetricsObserver(registry=CollectorRegistry())


OURS: dict[str, tuple[Callable[[], Any], str]] = {
    "Recorder": (Recorder, "cano.testing.recorder"),
    "Recorder, some": (lambda: Recorder(RunFailed), "cano.testing.recorder"),
    "WorkflowObserver": (hooks_observer, "cano.observers.hooks"),
    "LoggingObserver": (logging_observer, "cano.observers.logging"),
    "TracingObserver": (tracing_observer, "cano.observers.tracing"),
    "MetricsObserver": (metrics_observer, "cano.observers.metrics"),
}


@pytest.mark.parametrize("name", OURS)
def test_our_own_keep_the_contract(name: str) -> None:
    """Each observer of ours passes the test that those of others must pass."""
    make, module = OURS[name]
    if find_spec(module) is None:
        pytest.skip(f"there is no {module}")
    logging.getLogger("cano").setLevel(logging.CRITICAL)
    try:
        run(check_observer(make, seconds=0.02))
    finally:
        logging.getLogger("cano").setLevel(logging.NOTSET)


def nothing(event: Event) -> None: ...


def test_the_least_is_enough() -> None:
    """A function that does nothing keeps the contract, subscribed or not."""
    run(check_observer(lambda: nothing))
    run(check_observer(lambda: on(RunFailed)(nothing)))


def test_samples_are_of_every_kind() -> None:
    """There is a sample of every kind of event, and one of a kind that nobody knows."""
    kinds = [type(event) for event in samples()]
    assert len(set(kinds)) == len(kinds)
    assert {RunStarted, TaskStarted, RunFinished, ScheduleFired} <= set(kinds)
    assert len(kinds) > 45
    assert "_OfTheUser" == kinds[-1].__name__


async def later(event: Event) -> None: ...


def returns_something(event: Event) -> int:
    return 1


def raises_on_one(event: Event) -> None:
    if isinstance(event, TaskFailed):
        raise KeyError(event.state)


def wants_a_state(event: Event) -> None:
    assert event.state


def changes_events(event: Event) -> None:
    if (patch := getattr(event, "patch", None)) is not None:
        patch.clear()


def blocks(event: Event) -> None:
    time.sleep(0.003)


def leaks(event: Event) -> None:
    asyncio.ensure_future(asyncio.sleep(3600))  # noqa: RUF006


class BelievesInOrder:
    def __init__(self) -> None:
        self.open: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.open[event.run_id] = 1
        elif isinstance(event, RunFinished):
            del self.open[event.run_id]


class WantsOtherThings:
    events = (RunStarted, int)

    def __call__(self, event: Event) -> None: ...


class ChangesItsMind:
    asked = 0

    @property
    def events(self) -> Any:
        self.asked += 1
        return (RunStarted,) if self.asked % 2 else (RunFailed,)

    def __call__(self, event: Event) -> None: ...


def fails_on_a_second_attempt(event: Event) -> None:
    if event.attempt == 2 and event.workflow == "_Step":
        raise ValueError("two")


@pytest.mark.parametrize(
    ("observer", "rule", "said"),
    [
        (later, "is_fit_to_be_told", "is async; make it a plain `def`"),
        (later, "answers_nothing", "what it returned on "),
        (
            returns_something,
            "answers_nothing",
            "what it returned on RunStarted: expected None, got 1",
        ),
        (raises_on_one, "takes_every_kind", "kinds on which it raised: expected 'none', got"),
        (wants_a_state, "takes_empty_events", "state=''"),
        (BelievesInOrder(), "takes_events_in_any_order", "KeyError"),
        (changes_events, "leaves_events_alone", "RunStarted afterwards"),
        (blocks, "is_quick", "ms per event, more than 1; put events into a queue"),
        (leaks, "answers_nothing", "asyncio tasks left running"),
        (WantsOtherThings(), "subscribes_to_events", "its events"),
        (ChangesItsMind(), "subscribes_to_events", "asked again"),
        (fails_on_a_second_attempt, "watches_runs_to_their_end", "ValueError: two, on Task"),
    ],
)
def test_broken_ones_are_found(observer: Any, rule: str, said: str) -> None:
    """Each way of breaking the contract is found by its rule, which is named and explained."""
    with pytest.raises(BrokenContractError) as caught:
        run(check_observer(lambda: observer, only=[rule]))
    assert (rule,) == caught.value.rules
    assert said in str(caught.value), str(caught.value)


def test_every_rule_is_proven() -> None:
    """No rule is without an observer that breaks it."""
    mark = test_broken_ones_are_found.pytestmark[0]  # type: ignore[attr-defined]
    assert {rule.name for rule in _RULES} == {case[1] for case in mark.args[1]}


def test_all_broken_rules_are_listed() -> None:
    """One error lists every broken rule."""
    with pytest.raises(BrokenContractError, match=r"^\d broken rules of Observer:") as caught:
        run(check_observer(lambda: raises_on_one))
    assert {"answers_nothing", "takes_every_kind", "watches_runs_to_their_end"} <= set(
        caught.value.rules
    )


@pytest.mark.parametrize("made", [3, Recorder])
def test_what_is_no_observer(made: Any) -> None:
    """What cannot be told anything at all is refused at once."""
    with pytest.raises(TypeError, match="is no observer"):
        run(check_observer(lambda: made))
