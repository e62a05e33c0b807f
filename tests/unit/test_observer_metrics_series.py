"""The series of `MetricsObserver`: their list, their labels, their registry."""

from __future__ import annotations

import asyncio
import re
import threading
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from cano import Context, DefinitionError, Workflow
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
    Event,
    RunFinished,
    RunStarted,
    StateEntered,
    StreamClosed,
    TaskStarted,
    TaskSucceeded,
    WindowFlushed,
)
from cano.observers import MetricsObserver
from cano.observers._series import SERIES, feeds
from cano.testing import run

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "metrics.md"


class Step(Enum):
    WORK = 1
    DONE = 2


async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
    return Step.DONE


def flow_of(*observers: Any, name: str = "Order") -> Workflow[Step, Any]:
    flow = Workflow(Step, name=name, observers=observers)
    return flow.register(Step.WORK, work).exits(Step.DONE)


def test_the_page_lists_every_series() -> None:
    """The table in the guide says what `describe` says."""
    rows = re.findall(
        r"^\| `(cano_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", PAGE.read_text(), re.M
    )

    assert [
        (series.name, series.kind, ", ".join(series.labels), series.help)
        for series in MetricsObserver.describe()
    ] == [(name, kind, labels.strip().replace("`", ""), text) for name, kind, labels, text in rows]


def test_names_follow_the_rules() -> None:
    """Counters end in `_total`, times are in seconds and say so, and no name is there twice."""
    for series in SERIES:
        assert ("counter" == series.kind) is series.name.endswith("_total"), series.name
        assert ("seconds" == series.unit) is series.name.endswith("_seconds"), series.name
        assert series.help.endswith("."), series.name
    assert len(SERIES) == len({series.name for series in SERIES})


def test_labels_are_bounded() -> None:
    """No label is a name that is made while the program runs, such as that of a run."""
    labels = {label for series in SERIES for label in series.labels}

    assert {
        "workflow", "state", "outcome", "next", "satisfied", "reason", "ready", "circuit",
        "before", "after", "by", "flow", "name",
    } == labels  # fmt: skip
    named = {series.name for series in SERIES if "name" in series.labels}
    assert {"cano_resource_setup_seconds", "cano_resource_failures_total"} == named


@pytest.mark.parametrize("kind", feeds(), ids=lambda kind: str(kind.__name__))
def test_feeds_fit_their_events(kind: type[Event]) -> None:
    """What a series takes from an event, the event has."""
    registry = CollectorRegistry()
    MetricsObserver(registry)(kind(run_id="a", workflow="Order", state="WORK"))

    generate_latest(registry)


def test_a_state_costs_one_event() -> None:
    """Of what happens at every state only the entry is subscribed to."""
    told = MetricsObserver(CollectorRegistry()).events

    assert StateEntered in told
    assert not {TaskStarted, TaskSucceeded, Event} & set(told)


def test_flows() -> None:
    """Scheduled runs are counted by flow and outcome, timed, and active in between."""
    registry = CollectorRegistry()
    observer = MetricsObserver(registry)
    for event in (
        ScheduleFired(flow="nightly", run_id="a"),
        ScheduleFired(flow="nightly", run_id="b"),
        ScheduleSkipped(flow="nightly", reason="overlap"),
        ScheduleEnded(flow="nightly", run_id="a", outcome="failed", seconds=7.0),
        ScheduleBackedOff(flow="nightly", streak=1),
        ScheduleTripped(flow="nightly", streak=3),
        ResourceReady(name="db", seconds=2.0),
        ResourceFailed(name="db"),
    ):
        observer(event)

    def value(series: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"cano_{series}", labels)

    assert 1 == value("flow_runs_active", flow="nightly")
    assert 1 == value("flow_runs_total", flow="nightly", outcome="failed")
    assert 7 == value("flow_run_seconds_sum", flow="nightly", outcome="failed")
    assert 1 == value("flow_skips_total", flow="nightly", reason="overlap")
    assert (1, 1) == (value("flow_backoffs_total", flow="nightly"), value("flow_trips_total", flow="nightly"))  # fmt: skip
    assert (2, 1) == (value("resource_setup_seconds_sum", name="db"), value("resource_failures_total", name="db"))  # fmt: skip


def test_batches_and_streams() -> None:
    """Items are counted by what became of them."""
    registry = CollectorRegistry()
    observer = MetricsObserver(registry)
    where = {"workflow": "Order", "state": "WORK"}
    observer(BatchProcessed(**where, succeeded=5, failed=0))
    observer(WindowFlushed(**where, items=3, failed=1))
    observer(WindowFlushed(**where, items=4, failed=0))
    observer(StreamClosed(**where, reason="exhausted", items=7, windows=2))

    def value(series: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"cano_{series}", where | labels)

    assert (1, 2) == (value("batches_total"), value("stream_windows_total"))
    assert (5, None) == (value("batch_items_total", outcome="succeeded"), value("batch_items_total", outcome="failed"))  # fmt: skip
    assert (7, 1) == (value("stream_items_total", outcome="succeeded"), value("stream_items_total", outcome="failed"))  # fmt: skip
    assert 1 == value("streams_total", reason="exhausted")


def test_observers_of_a_registry_share_its_series() -> None:
    """Two workflows with an observer each are told apart by their label, in the same series."""
    registry = CollectorRegistry()
    for name in ("Order", "Refund"):
        run(flow_of(MetricsObserver(registry), name=name).run(Step.WORK))
    lines = generate_latest(registry).decode().splitlines()

    assert 'cano_runs_total{outcome="finished",workflow="Order"} 1.0' in lines
    assert 'cano_runs_total{outcome="finished",workflow="Refund"} 1.0' in lines
    assert 1 == sum(line.startswith("# TYPE cano_runs_total ") for line in lines)


def test_registries_are_apart() -> None:
    """Each registry has series of its own."""
    registries = CollectorRegistry(), CollectorRegistry()
    run(flow_of(MetricsObserver(registries[0])).run(Step.WORK))
    MetricsObserver(registries[1])

    assert b"" != generate_latest(registries[0])
    assert b"" == generate_latest(registries[1])


def test_the_default_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a registry it is the one that prometheus_client serves by default."""
    registry = CollectorRegistry()
    monkeypatch.setattr("cano.observers.metrics.REGISTRY", registry)
    run(flow_of(MetricsObserver()).run(Step.WORK))

    assert b"cano_runs_total" in generate_latest(registry)


def test_a_name_that_is_taken() -> None:
    """A registry with other metrics of our names is refused, with the names and the remedy."""
    registry = CollectorRegistry()
    Counter("cano_runs", "Someone else's.", registry=registry)
    with pytest.raises(
        DefinitionError, match=r"cano_runs.*pass MetricsObserver\(CollectorRegistry"
    ):
        MetricsObserver(registry)


@pytest.mark.parametrize("buckets", [(), (1, 1), (2, 1), ("x",), None, 5])
def test_bad_buckets(buckets: Any) -> None:
    """Bounds must rise, and are judged when the observer is made."""
    with pytest.raises(DefinitionError, match="pass rising numbers of seconds"):
        MetricsObserver(CollectorRegistry(), buckets=buckets)


def test_other_buckets_in_the_same_registry() -> None:
    """Series that are shared have one set of bounds."""
    registry = CollectorRegistry()
    MetricsObserver(registry, buckets=(1, 2, float("inf")))
    MetricsObserver(registry, buckets=(1, 2))
    with pytest.raises(DefinitionError, match=r"has the buckets \(1.0, 2.0\)"):
        MetricsObserver(registry)


def test_a_bad_registry() -> None:
    """What is no registry is refused."""
    registry: Any = "default"
    with pytest.raises(DefinitionError, match="registry='default'; pass a CollectorRegistry"):
        MetricsObserver(registry)


def test_runs_whose_beginning_was_missed() -> None:
    """What is told of a run that nobody saw begin is left out, rather than counted wrongly."""
    registry = CollectorRegistry()
    observer = MetricsObserver(registry)
    observer(StateEntered(run_id="a", workflow="Order", state="WORK"))
    observer(RunFinished(run_id="a", workflow="Order", state="DONE"))

    assert b"" == generate_latest(registry)


def test_a_run_begun_twice() -> None:
    """A run whose end nobody was told of is no longer active when it begins again."""
    registry = CollectorRegistry()
    observer = MetricsObserver(registry)
    for _ in range(2):
        observer(RunStarted(run_id="a", workflow="Order", state="WORK"))

    assert 1 == registry.get_sample_value("cano_runs_active", {"workflow": "Order"})


def test_several_threads() -> None:
    """Workflows may run in several threads, and be scraped meanwhile: every run is counted."""
    registry = CollectorRegistry()
    flows = [flow_of(MetricsObserver(registry)) for _ in range(3)]

    async def many(flow: Workflow[Step, Any]) -> None:
        for _ in range(200):
            await flow.run(Step.WORK)

    threads = [threading.Thread(target=asyncio.run, args=(many(flow),)) for flow in flows]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        generate_latest(registry)
    labels = {"workflow": "Order", "state": "WORK"}

    assert 600 == registry.get_sample_value("cano_state_visits_total", labels)
    assert 0 == registry.get_sample_value("cano_runs_active", {"workflow": "Order"})
