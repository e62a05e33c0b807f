"""Runs as Prometheus metrics.

Rule 1: of a state that is visited one event is asked for: its end is the entry into the next.
Rule 2: numbers live as long as the registry; what is remembered of a run lives as long as the run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from cano.errors import DefinitionError, MissingExtraError
from cano.events import (
    CompensationFailed,
    Event,
    RollbackStarted,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunParked,
    RunReleased,
    RunResumed,
    RunStarted,
    StateEntered,
    TaskCancelled,
    TaskCompensated,
    TaskFailed,
)

try:
    from prometheus_client import REGISTRY, CollectorRegistry

    from cano.observers import _series as all_series
    from cano.observers._series import (
        ACTIVE,
        KEPT,
        ROLLBACKS,
        RUN_SECONDS,
        RUNS,
        SERIES,
        STATE_SECONDS,
        VISITS,
        Collector,
        Count,
        Histogram,
        Series,
    )
except ModuleNotFoundError as _missing:
    raise MissingExtraError(
        "MetricsObserver needs prometheus-client, which is not installed: "
        "pip install 'cano[prometheus]'"
    ) from _missing

BUCKETS = (
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86400.0
)  # fmt: skip
"""Bounds of all histograms, in seconds: from a quick call to a day of waiting."""

_collectors: WeakKeyDictionary[CollectorRegistry, Collector] = WeakKeyDictionary()


class MetricsObserver:
    """Count and time what happens to runs, for Prometheus.

    All observers of one *registry* share its series. Labels are names known in advance, such as
    those of workflows and states, never that of a run. `describe` lists the series.

    Args:
        registry: where the series are registered; prometheus_client's default one if not given.
        buckets: the bounds of all histograms, in seconds, rising.

    Needs ``pip install 'cano[prometheus]'``; raises `MissingExtraError` where that is missing, and
    `DefinitionError` where the registry has other metrics of the same names.
    """

    events: ClassVar[Sequence[type[Event]]]

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        buckets: Sequence[float] = BUCKETS,
    ) -> None:
        self._all: Collector = _collector(REGISTRY if registry is None else registry, buckets)
        self._runs: dict[str, _Life] = {}
        self._states: dict[tuple[str, str], tuple[Count, Histogram]] = {}

    @staticmethod
    def describe() -> Sequence[Series]:
        """All series: name, kind, labels, help and unit."""
        return SERIES

    def __call__(self, event: Event, /) -> None:
        """Count *event*."""
        kind = type(event)
        if kind is StateEntered:  # the only one that comes often, so all of it is here
            life = self._runs.get(event.run_id)
            if life is None:
                return
            if (histogram := life.seconds) is not None:  # the visit before is over
                seconds = event.time - life.since
                histogram.counts[bisect_left(histogram.bounds, seconds)] += 1
                histogram.total += seconds
            state = self._states.get((event.workflow, event.state))
            visits, life.seconds = state or self._state(event.workflow, event.state)
            visits.value += 1
            life.since = event.time
            return
        for series, feed in _FEEDS.get(kind, ()):
            self._feed(event, series, feed)
        if kind in _BEGINNINGS:
            self._begin(event)
        elif kind in _HANDLERS and (life := self._runs.get(event.run_id)) is not None:
            _HANDLERS[kind](self, event, life)

    def _feed(self, event: Event, series: Series, feed: all_series.Feed) -> None:
        amount: float = getattr(event, feed.amount) if feed.amount else 1
        labels = [
            feed.outcome or all_series.label(event, name)
            if name == "outcome"
            else all_series.label(event, name)
            for name in series.labels
        ]
        if series.kind == "histogram":
            self._all.histogram(series, *labels).observe(amount)
        elif amount:
            self._all.count(series, *labels).value += feed.sign * amount

    def _state(self, workflow: str, state: str) -> tuple[Count, Histogram]:
        visits = self._all.count(VISITS, workflow, state)
        seconds = self._all.histogram(STATE_SECONDS, workflow, state, "succeeded")
        found = self._states[workflow, state] = visits, seconds
        return found

    def _begin(self, event: Event) -> None:
        if event.run_id in self._runs:  # it was let go, and nobody was told
            self._leave(event, self._runs[event.run_id])
        durable = isinstance(event, RunResumed) or bool(getattr(event, "fingerprint", ""))
        life = _Life(event.time, event.time, 0 if durable else None)
        if isinstance(event, RunResumed):
            life.begun, life.counted = event.begun, event.sequence - 1  # that is the claim
            if event.entered:
                life.seconds = self._state(event.workflow, event.state)[1]
        self._runs[event.run_id] = life
        self._all.count(ACTIVE, event.workflow).value += 1

    def _task_failed(self, event: Event, life: _Life) -> None:
        self._time(event, event.time - life.since, "failed")
        life.seconds = None

    def _task_cancelled(self, event: Event, life: _Life) -> None:
        life.interrupted, life.seconds = (event, event.time - life.since), None

    def _undone(self, event: Event, life: _Life) -> None:
        life.rolling_back = True
        life.partial |= isinstance(event, CompensationFailed)

    def _time(self, event: Event, seconds: float, outcome: str) -> None:
        state = STATE_SECONDS, event.workflow, event.state
        self._all.histogram(*state, outcome).observe(seconds)

    def _ended(self, event: Event, life: _Life) -> None:
        outcome = _OUTCOMES[type(event)]
        if isinstance(event, RunFailed) and event.kind == "RunTimeoutError":
            outcome = "timed_out"
        if life.interrupted is not None:
            interrupted, seconds = life.interrupted
            self._time(interrupted, seconds, outcome)
        elif outcome == "failed" and life.seconds is not None:  # its task led nowhere
            self._time(event, event.time - life.since, outcome)
        if life.rolling_back:
            how = "partial" if life.partial else "clean"
            self._all.count(ROLLBACKS, event.workflow, how).value += 1
        self._all.count(RUNS, event.workflow, outcome).value += 1
        seconds = event.time - life.begun
        self._all.histogram(RUN_SECONDS, event.workflow, outcome).observe(seconds)
        self._leave(event, life)

    def _leave(self, event: Event, life: _Life) -> None:
        """The run is no longer carried out here."""
        if life.counted is not None:
            self._all.count(KEPT, event.workflow).value += event.sequence - life.counted
        self._all.count(ACTIVE, event.workflow).value -= 1
        del self._runs[event.run_id]


class _Life:
    """A run, as far as this process carries it out in one go."""

    __slots__ = ("begun", "counted", "interrupted", "partial", "rolling_back", "seconds", "since")

    def __init__(self, begun: float, since: float, counted: int | None) -> None:
        self.begun: float = begun
        """When it was started, by whatever process."""
        self.since: float = since
        """When the present visit began."""
        self.seconds: Histogram | None = None
        """Where the present visit is timed; None between visits."""
        self.counted: int | None = counted
        """How many of its events were kept before; None without a store."""
        self.interrupted: tuple[Event, float] | None = None
        """The visit that was cancelled, and its seconds; why is known when the run ends."""
        self.rolling_back: bool = False
        self.partial: bool = False
        """Whether something could not be undone."""


_FEEDS = all_series.feeds()
_BEGINNINGS = (RunStarted, RunResumed)
_OUTCOMES: Mapping[type[Event], str] = {
    RunFinished: "finished",
    RunFailed: "failed",
    RunCancelled: "cancelled",
}
_HANDLERS: Mapping[type[Event], Callable[[MetricsObserver, Any, _Life], None]] = {
    TaskFailed: MetricsObserver._task_failed,
    TaskCancelled: MetricsObserver._task_cancelled,
    RollbackStarted: MetricsObserver._undone,
    TaskCompensated: MetricsObserver._undone,
    CompensationFailed: MetricsObserver._undone,
    RunParked: MetricsObserver._leave,
    RunReleased: MetricsObserver._leave,
    **dict.fromkeys(_OUTCOMES, MetricsObserver._ended),
}
MetricsObserver.events = tuple({StateEntered: 0, **dict.fromkeys([*_FEEDS, *_HANDLERS])})


def _collector(registry: Any, buckets: Sequence[float]) -> Collector:
    """The numbers of *registry*; registered with it the first time. Raises `DefinitionError`."""
    bounds = _bounds(buckets)
    if not hasattr(registry, "register"):
        raise DefinitionError(
            f"MetricsObserver cannot work with registry={registry!r}; pass a CollectorRegistry, or "
            "nothing for the default one"
        )
    found = _collectors.get(registry)
    if found is None:
        found = Collector(bounds)
        try:
            registry.register(found)
        except ValueError as error:
            raise DefinitionError(
                f"the registry has metrics of our names already ({error}); pass "
                "MetricsObserver(CollectorRegistry()) and serve that one, or rename the others"
            ) from None
        _collectors[registry] = found
    elif found.bounds != bounds:
        raise DefinitionError(
            f"another MetricsObserver of this registry has the buckets {found.bounds}; give both "
            "the same, or a registry of their own"
        )
    return found


def _bounds(buckets: Sequence[float]) -> tuple[float, ...]:
    try:
        bounds = tuple([float(bound) for bound in buckets if bound != inf])
    except (TypeError, ValueError):
        bounds = ()
    if not bounds or any(not low < high for low, high in pairwise(bounds)):
        raise DefinitionError(
            f"MetricsObserver cannot work with buckets={buckets!r}; pass rising numbers of seconds"
        )
    return bounds
