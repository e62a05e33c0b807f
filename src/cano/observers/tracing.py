"""Runs as OpenTelemetry spans: a run, its states, their branches, attempts and rollback.

Rule 1: only the API is used. Which spans are kept, and who is sent them, the SDK decides; where
        there is none, a run is noticed once, and its states cost next to nothing.
Rule 2: spans begin and end at the times of the events, on the run's own clock.
Rule 3: what is made the current span in an asyncio task is taken back in the same task, or the
        task ends with it, as that of a branch does: nothing leaks to whoever awaits a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from cano.errors import DefinitionError, MissingExtraError
from cano.events import (
    BatchProcessed,
    CallDelayed,
    CallRefused,
    CircuitChanged,
    EffectDone,
    Event,
    FailureRouted,
    FallbackUsed,
    HedgeStarted,
    ItemFailed,
    PollAnswered,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunMigrated,
    RunParked,
    RunReleased,
    RunResumed,
    RunStarted,
    SignalReceived,
    SplitJoined,
    StreamClosed,
    TaskCompensated,
    TimerSet,
    WaitStarted,
    WindowFlushed,
)

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, StatusCode, TraceFlags, TracerProvider

    from cano.observers._spans import TELLS, Life, nanoseconds
except ImportError as _missing:
    raise MissingExtraError(
        "TracingObserver needs opentelemetry-api, which is not installed: pip install 'cano[otel]'"
    ) from _missing

EARLY = 10_000
"""How many spans of runs may wait for the run to be in its store."""

_INSIDE = contexts.create_key("cano-run")
"""Set in the context of what a run does: a run that is resumed within another is part of it."""

_TOLD = (
    FailureRouted, TimerSet, WaitStarted, SignalReceived, EffectDone, SplitJoined, PollAnswered,
    ItemFailed, BatchProcessed, WindowFlushed, StreamClosed, CircuitChanged, CallRefused,
    CallDelayed, HedgeStarted, FallbackUsed, RunMigrated, TaskCompensated,
)  # fmt: skip
"""What becomes an event of the span it happens in."""


class TracingObserver:
    """Make spans of runs, with OpenTelemetry's API.

    A run is the child of the span that is current where it is started; one that is resumed begins
    a trace of its own, linked to its first, which is kept with the run. States are
    children of their run, branches of the state of their split. Spans that a task makes itself are
    children of its state or branch. Where attempts were repeated, each has a span too, beside
    those. All spans carry ``cano.run_id``, ``cano.workflow`` and ``cano.outcome``.

    Args:
        tracer_provider: where spans come from; the global one by default.
        attributes: more attributes for the span of every run.

    Needs ``pip install 'cano[otel]'``; raises `MissingExtraError` where that is missing.
    """

    events: ClassVar[Sequence[type[Event]]]

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        attributes: Mapping[str, str | bool | int | float] | None = None,
    ) -> None:
        if tracer_provider is not None and not hasattr(tracer_provider, "get_tracer"):
            raise DefinitionError(
                f"TracingObserver cannot work with tracer_provider={tracer_provider!r}; pass a "
                "TracerProvider, or nothing for the global one"
            )
        self._tracer = trace.get_tracer("cano", tracer_provider=tracer_provider)
        self._attributes = dict(attributes or {})
        self._lives: dict[str, Life] = {}
        self._early: dict[str, Span] = {}

    def __call__(self, event: Event, /) -> None:
        """Begin, end or note what *event* tells of."""
        life = self._lives.get(event.run_id)
        kind = type(event)
        if kind is RunStarted or kind is RunResumed:
            if life is not None:  # its end was missed
                self._close(life, event, "released")
            self._begin(event)
        elif life is None:
            return
        elif kind in _OUTCOMES:
            self._end(life, event)
        elif life.recording:
            tell = TELLS.get(kind, Life.noted)
            tell(life, event)

    def begin_trace(self, run_id: str, workflow: str, time: float) -> str:
        """For the engine: begin the span of a run that is about to be stored; its `traceparent`."""
        span = self._start(run_id, workflow, time, contexts.get_current())
        called = span.get_span_context()
        if not called.is_valid:
            return ""
        while len(self._early) >= EARLY:
            del self._early[next(iter(self._early))]
        self._early[run_id] = span
        flags = called.trace_flags
        return f"00-{called.trace_id:032x}-{called.span_id:016x}-{flags:02x}"

    def _start(
        self,
        run_id: str,
        workflow: str,
        time: float,
        parent: Context,
        links: Sequence[Link] = (),
    ) -> Span:
        named = {"cano.run_id": run_id, "cano.workflow": workflow, **self._attributes}
        return self._tracer.start_span(
            f"run {workflow}",
            parent,
            attributes=named,
            links=links,
            start_time=nanoseconds(time),
        )

    def _begin(self, event: Event) -> None:
        outside = parent = contexts.get_current()
        span = self._early.pop(event.run_id, None)  # of no use where the run was there already
        if isinstance(event, RunResumed):
            links = [Link(first, {"cano.link": "resumed"}) for first in _called(event.trace)]
            if not contexts.get_value(_INSIDE, outside):
                parent, by = Context(), trace.get_current_span(outside).get_span_context()
                if by.is_valid:
                    links.append(Link(by, {"cano.link": "resumed by"}))
            span = self._start(event.run_id, event.workflow, event.time, parent, links)
        elif span is None:
            span = self._start(event.run_id, event.workflow, event.time, parent)
        if not span.get_span_context().is_valid:  # there is no SDK
            return
        span.set_attribute("cano.resumed", isinstance(event, RunResumed))
        inside = contexts.set_value(_INSIDE, True, trace.set_span_in_context(span, parent))
        self._lives[event.run_id] = Life(self._tracer, span, outside, inside)
        contexts.attach(inside)

    def _end(self, life: Life, event: Event) -> None:
        outcome = _OUTCOMES[type(event)]
        if isinstance(event, RunFailed):
            if event.kind == "RunTimeoutError":
                outcome = "timed_out"
            life.span.set_attribute("error.type", event.kind)
            life.span.set_status(StatusCode.ERROR, f"{event.kind}: {event.error}")
        if isinstance(event, RunReleased):
            life.span.set_attribute("cano.reason", event.reason)
        self._close(life, event, outcome)
        contexts.attach(life.outside)

    def _close(self, life: Life, event: Event, outcome: str) -> None:
        """End every span of *life* that is still open."""
        del self._lives[event.run_id]
        life.close(event.time, outcome)


_OUTCOMES: Mapping[type[Event], str] = {
    RunFinished: "finished",
    RunFailed: "failed",
    RunCancelled: "cancelled",
    RunParked: "parked",
    RunReleased: "released",
}
TracingObserver.events = (RunStarted, RunResumed, *_OUTCOMES, *TELLS, *_TOLD)


def _called(traceparent: str) -> Iterator[SpanContext]:
    """The span that a `traceparent` names, if it names one."""
    try:
        _, trace_id, span_id, flags = traceparent.split("-")
        named = [int(part, 16) for part in (trace_id, span_id, flags)]
    except ValueError:
        return
    yield SpanContext(named[0], named[1], is_remote=True, trace_flags=TraceFlags(named[2]))
