"""The series of `MetricsObserver`: which there are, what feeds them, and the numbers themselves.

Rule 1: whatever can be a label is known when the program is written: workflows, states, outcomes,
        flows, circuits, policies. Names of runs, items, branches and signals never are.
Rule 2: what did not happen is not there: a series appears with its first number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from cano.announced import (
    ResourceFailed,
    ResourceReady,
    ScheduleBackedOff,
    ScheduleEnded,
    ScheduleFired,
    ScheduleSkipped,
    ScheduleTripped,
)
from cano.events import (
    BatchProcessed,
    BranchCancelled,
    BranchFailed,
    BranchFinished,
    CallDelayed,
    CallRefused,
    CircuitChanged,
    CompensationFailed,
    CursorSaved,
    EffectDone,
    Event,
    FailureRouted,
    FallbackUsed,
    HedgeStarted,
    PollAnswered,
    RunMigrated,
    RunParked,
    RunReleased,
    RunResumed,
    RunStarted,
    SignalReceived,
    SplitJoined,
    StreamClosed,
    TaskCompensated,
    TaskRetried,
    TimerSet,
    WaitStarted,
    WindowFlushed,
)

Labels = tuple[str, ...]


class Feed(NamedTuple):
    """An event that a series grows with: by one, or by what is in the field *amount*."""

    kind: type[Event]
    outcome: str = ""
    """The label of that name; empty where the event says it itself."""
    amount: str = ""
    sign: int = 1


class Series(NamedTuple):
    """A metric: its name, what kind it is, its labels, what it says, and in which unit."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    help: str
    unit: str = ""
    feeds: tuple[Feed, ...] = ()
    """Empty for what has to be reckoned from several events."""


_OF_STATE = ("workflow", "state")


def _counter(name: str, labels: Labels, text: str, *feeds: Feed) -> Series:
    return Series(name, "counter", labels, text, "", feeds)


RUNS = _counter("cano_runs_total", ("workflow", "outcome"), "Runs that ended.")
RUN_SECONDS = Series(
    "cano_run_seconds", "histogram", ("workflow", "outcome"),
    "From the start of a run to its end, waiting included.", "seconds",
)  # fmt: skip
ACTIVE = Series(
    "cano_runs_active", "gauge", ("workflow",), "Runs that this process is carrying out."
)
VISITS = _counter("cano_state_visits_total", _OF_STATE, "Visits to a state, exits included.")
STATE_SECONDS = Series(
    "cano_state_seconds", "histogram", (*_OF_STATE, "outcome"),
    "A visit to a state: all attempts, pauses and branches.", "seconds",
)  # fmt: skip
ROLLBACKS = _counter(
    "cano_rollbacks_total", ("workflow", "outcome"), "Rollbacks that ended: clean or partial."
)
KEPT = _counter("cano_events_kept_total", ("workflow",), "Events that a store has kept.")

SERIES = (
    _counter("cano_runs_started_total", ("workflow",), "Runs begun.", Feed(RunStarted)),
    _counter("cano_runs_resumed_total", ("workflow",), "Runs taken up again.", Feed(RunResumed)),
    _counter("cano_runs_parked_total", ("workflow",), "Runs let go to wait.", Feed(RunParked)),
    _counter(
        "cano_runs_released_total", ("workflow", "reason"), "Runs let go before their end.",
        Feed(RunReleased),
    ),
    _counter(
        "cano_runs_migrated_total", ("workflow",), "Runs brought to another version.",
        Feed(RunMigrated),
    ),
    RUNS, RUN_SECONDS, ACTIVE, VISITS, STATE_SECONDS,
    _counter(
        "cano_retries_total", _OF_STATE, "Attempts that failed and were followed by another.",
        Feed(TaskRetried),
    ),
    _counter(
        "cano_failures_routed_total", (*_OF_STATE, "next"), "Failures that led to a state.",
        Feed(FailureRouted),
    ),
    _counter(
        "cano_branches_total", (*_OF_STATE, "outcome"), "Branches of splits that ended.",
        Feed(BranchFinished, "succeeded"), Feed(BranchFailed, "failed"),
        Feed(BranchCancelled, "cancelled"),
    ),
    _counter(
        "cano_splits_total", (*_OF_STATE, "satisfied", "reason"), "Joins that were decided.",
        Feed(SplitJoined),
    ),
    _counter("cano_polls_total", (*_OF_STATE, "ready"), "Polls answered.", Feed(PollAnswered)),
    _counter("cano_batches_total", _OF_STATE, "Batches processed.", Feed(BatchProcessed)),
    _counter(
        "cano_batch_items_total", (*_OF_STATE, "outcome"), "Items of batches.",
        Feed(BatchProcessed, "succeeded", "succeeded"), Feed(BatchProcessed, "failed", "failed"),
    ),
    _counter(
        "cano_streams_total", (*_OF_STATE, "reason"), "Streams closed.", Feed(StreamClosed)
    ),
    _counter("cano_stream_windows_total", _OF_STATE, "Windows flushed.", Feed(WindowFlushed)),
    _counter(
        "cano_stream_items_total", (*_OF_STATE, "outcome"), "Items of streams, in their windows.",
        Feed(WindowFlushed, "succeeded", "items"), Feed(WindowFlushed, "failed", "failed"),
    ),
    _counter(
        "cano_cursors_saved_total", _OF_STATE, "Steps and windows recorded.", Feed(CursorSaved)
    ),
    _counter("cano_effects_total", _OF_STATE, "Effects made.", Feed(EffectDone)),
    _counter("cano_timers_total", _OF_STATE, "Timers set.", Feed(TimerSet)),
    _counter("cano_waits_total", _OF_STATE, "Waits for a signal begun.", Feed(WaitStarted)),
    _counter("cano_signals_total", _OF_STATE, "Signals taken.", Feed(SignalReceived)),
    _counter(
        "cano_circuit_transitions_total", ("circuit", "before", "after"),
        "Changes of circuit breakers.", Feed(CircuitChanged),
    ),
    _counter(
        "cano_calls_refused_total", (*_OF_STATE, "by"), "Calls a policy did not let through.",
        Feed(CallRefused),
    ),
    Series(
        "cano_call_delay_seconds", "histogram", (*_OF_STATE, "by"),
        "How long policies made calls wait that had to.", "seconds",
        (Feed(CallDelayed, amount="seconds"),),
    ),
    _counter("cano_hedges_total", _OF_STATE, "Slow calls made once more.", Feed(HedgeStarted)),
    _counter("cano_fallbacks_total", _OF_STATE, "Values returned instead.", Feed(FallbackUsed)),
    _counter(
        "cano_compensations_total", (*_OF_STATE, "outcome"), "Completed works undone, or not.",
        Feed(TaskCompensated, "undone"), Feed(CompensationFailed, "failed"),
    ),
    ROLLBACKS, KEPT,
    _counter(
        "cano_flow_runs_total", ("flow", "outcome"), "Scheduled runs that ended.",
        Feed(ScheduleEnded),
    ),
    Series(
        "cano_flow_run_seconds", "histogram", ("flow", "outcome"), "A scheduled run.", "seconds",
        (Feed(ScheduleEnded, amount="seconds"),),
    ),
    Series(
        "cano_flow_runs_active", "gauge", ("flow",), "Scheduled runs under way.", "",
        (Feed(ScheduleFired), Feed(ScheduleEnded, sign=-1)),
    ),
    _counter(
        "cano_flow_skips_total", ("flow", "reason"), "Due times at which nothing was begun.",
        Feed(ScheduleSkipped),
    ),
    _counter("cano_flow_backoffs_total", ("flow",), "Backoffs begun.", Feed(ScheduleBackedOff)),
    _counter("cano_flow_trips_total", ("flow",), "Flows switched off.", Feed(ScheduleTripped)),
    Series(
        "cano_resource_setup_seconds", "histogram", ("name",), "Setting a resource up.", "seconds",
        (Feed(ResourceReady, amount="seconds"),),
    ),
    _counter(
        "cano_resource_failures_total", ("name",), "Resources that failed to be set up or taken "
        "down.", Feed(ResourceFailed),
    ),
)  # fmt: skip
"""All there are."""


class Count:
    """A number."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """How many values there were up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds: tuple[float, ...] = bounds
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Collector:
    """All numbers of one registry, handed to it when it asks.

    Prometheus's own counters would cost a state ten times as much: they lock. Here a number is
    changed in one step of the interpreter, by the threads that run workflows.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds: tuple[float, ...] = bounds
        self.counts: dict[str, dict[Labels, Count]] = {
            series.name: {} for series in SERIES if series.kind != "histogram"
        }
        self.histograms: dict[str, dict[Labels, Histogram]] = {
            series.name: {} for series in SERIES if series.kind == "histogram"
        }

    def count(self, series: Series, *labels: str) -> Count:
        """The number of *series* for these labels."""
        table = self.counts[series.name]
        found = table.get(labels)
        if found is None:
            found = table.setdefault(labels, Count())
        return found

    def histogram(self, series: Series, *labels: str) -> Histogram:
        """The same for histograms."""
        table = self.histograms[series.name]
        found = table.get(labels)
        if found is None:
            found = table.setdefault(labels, Histogram(self.bounds))
        return found

    def describe(self) -> Iterable[Metric]:
        """For the registry: the names, without numbers."""
        return [_family(series) for series in SERIES]

    def collect(self) -> Iterator[Metric]:
        """For the registry: all there is."""
        for series in SERIES:
            family = _family(series)
            if isinstance(family, HistogramMetricFamily):
                for labels, histogram in list(self.histograms[series.name].items()):
                    _add(family, labels, histogram)
            else:
                for labels, count in list(self.counts[series.name].items()):
                    if count.value or series.kind == "gauge":
                        family.add_metric(labels, count.value)
            if family.samples:
                yield family


def _family(
    series: Series,
) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    name, text, labels, unit = series.name, series.help, series.labels, series.unit
    if series.kind == "counter":
        return CounterMetricFamily(name, text, labels=labels)
    if series.kind == "gauge":
        return GaugeMetricFamily(name, text, labels=labels)
    return HistogramMetricFamily(name, text, labels=labels, unit=unit)


def _add(family: HistogramMetricFamily, labels: Labels, histogram: Histogram) -> None:
    counts = list(accumulate(histogram.counts))
    if counts[-1]:
        bounds = [*map(str, histogram.bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, counts, strict=True)), histogram.total)


def feeds() -> Mapping[type[Event], list[tuple[Series, Feed]]]:
    """What to do on each kind of event."""
    found: dict[type[Event], list[tuple[Series, Feed]]] = {}
    for series in SERIES:
        for feed in series.feeds:
            found.setdefault(feed.kind, []).append((series, feed))
    return found


def label(event: Event, name: str) -> str:
    """What *event* says for a label."""
    value: Any = getattr(event, name)
    return str(value).lower() if isinstance(value, bool) else str(value)
