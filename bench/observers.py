"""What watching costs a transition, against the loop one would write by hand, R.

An observer of what does not happen is held against a workflow without one. Spans are made with
OpenTelemetry's API alone, which is what every program pays that has no SDK; with an SDK most of
the time is its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracerProvider
from prometheus_client import CollectorRegistry

from bench.harness import Batch, Line
from bench.transitions import flow, loop_by_hand
from cano import Event, Observer, RunFailed, TaskFailed, on
from cano.observers import LoggingObserver, MetricsObserver, TracingObserver, WorkflowObserver


@on(RunFailed, TaskFailed)
def alarm(event: RunFailed | TaskFailed) -> None:
    """An observer of failures, of which there are none here."""


def everything(event: Event) -> None:
    """An observer of all there is."""


class Hooks(WorkflowObserver):
    """The same as `alarm`, with methods."""

    def on_run_failed(self, event: RunFailed) -> None: ...
    def on_task_failed(self, event: TaskFailed) -> None: ...


def lines() -> list[Line]:
    """What is not asked for must cost nothing; what is asked for, little."""
    hand, bare = loop_by_hand(), flow()

    def watched(*observers: Observer) -> Batch:
        return flow(observers=observers)

    def line(
        name: str,
        observers: Sequence[Observer],
        must: float | None = None,
        aim: float | None = None,
    ) -> Line:
        return Line(name, watched(*observers), hand, must, aim)

    quiet = logging.getLogger("cano.bench.quiet")
    quiet.setLevel(logging.CRITICAL)
    return [
        Line("an observer of failures, against none", watched(alarm), bare, must=1.05),
        Line("hooks of failures, against none", watched(Hooks()), bare, must=1.05),
        line("an observer of everything", [everything]),
        line("traces, without an SDK", [TracingObserver(NoOpTracerProvider())], 10, 5),
        line("traces, with an SDK that exports nothing", [TracingObserver(TracerProvider())]),
        line("metrics", [MetricsObserver(CollectorRegistry())], 6, 3),
        line("logs, at a level that is disabled", [LoggingObserver(quiet)]),
    ]
