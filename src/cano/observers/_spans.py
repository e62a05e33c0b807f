"""The spans of one run, as far as one process carries it out in one go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode

from cano.events import (
    BranchCancelled,
    BranchFailed,
    BranchFinished,
    BranchStarted,
    CompensationFailed,
    Event,
    RollbackStarted,
    StateEntered,
    TaskCancelled,
    TaskFailed,
    TaskRetried,
    TaskStarted,
)


class Scope:
    """A span that is open, and where the present attempt of its work began."""

    __slots__ = ("attempt", "begun", "context", "span")

    def __init__(self, span: Span, context: Context, begun: float) -> None:
        self.span: Span = span
        self.context: Context = context
        self.begun: float = begun
        self.attempt: int = 0
        """The number of the present attempt, if there were any before it."""


class Life:
    """A run, as far as this process carries it out in one go."""

    __slots__ = (
        "branches",
        "inside",
        "interrupted",
        "outside",
        "recording",
        "rollback",
        "span",
        "state",
        "tracer",
    )

    def __init__(self, tracer: trace.Tracer, span: Span, outside: Context, inside: Context) -> None:
        self.tracer: trace.Tracer = tracer
        self.span: Span = span
        self.outside: Context = outside
        self.inside: Context = inside
        self.recording: bool = span.is_recording()
        self.state: Scope | None = None
        self.branches: dict[str, Scope] = {}
        self.rollback: Span | None = None
        self.interrupted: tuple[Scope, float] | None = None
        """The state that was cancelled, and when; why is known when the run ends."""

    def open(self, name: str, event: Event, parent: Context) -> Scope:
        """Begin a span, and make it the current one."""
        where = {"cano.state": event.state}
        if event.branch:
            where["cano.branch"] = event.branch
        span = self.tracer.start_span(
            name, parent, attributes=named(event) | where, start_time=nanoseconds(event.time)
        )
        context = trace.set_span_in_context(span, parent)
        contexts.attach(context)
        return Scope(span, context, event.time)

    def end(self, scope: Scope, time: float, outcome: str) -> None:
        """End the span of *scope*, and that of its last attempt if there were several."""
        if scope.attempt and time >= scope.begun:
            self.attempt(scope, time, outcome)
        scope.span.set_attribute("cano.outcome", outcome)
        if outcome == "timed_out":
            scope.span.set_status(StatusCode.ERROR, "out of time")
        scope.span.end(nanoseconds(time))

    def attempt(self, scope: Scope, time: float, outcome: str, error: str = "") -> None:
        """A span for an attempt that is over."""
        number = scope.attempt or 1
        span = self.tracer.start_span(
            f"attempt {number}",
            scope.context,
            attributes={"cano.attempt": number, "cano.outcome": outcome},
            start_time=nanoseconds(scope.begun),
        )
        if outcome == "failed":
            span.set_status(StatusCode.ERROR, error)
        span.end(nanoseconds(time))

    def close(self, time: float, outcome: str) -> None:
        """End all that is open, the run last."""
        for scope in self.branches.values():
            self.end(scope, time, outcome)
        if self.interrupted is not None:
            self.end(*self.interrupted, outcome)
        if self.state is not None:
            if outcome == "failed":
                self.state.span.set_status(StatusCode.ERROR, "led to no state")
            self.end(self.state, time, outcome)
        if self.rollback is not None:
            self.rollback.end(nanoseconds(time))
        self.span.set_attribute("cano.outcome", outcome)
        self.span.end(nanoseconds(time))

    def task_started(self, event: Event) -> None:
        self.state = self.open(f"state {event.state}", event, self.inside)

    def state_entered(self, event: Event) -> None:
        """The work of the state before, if there was one, is done."""
        if self.state is not None:
            self.state.span.set_attribute("cano.next", event.state)
            self.end(self.state, event.time, "succeeded")
            self.state = None

    def task_failed(self, event: TaskFailed) -> None:
        if self.state is not None:
            _fail(self.state.span, event.error, event.time)
            self.end(self.state, event.time, "failed")
            self.state = None
        contexts.attach(self.inside)

    def task_cancelled(self, event: Event) -> None:
        if self.state is not None:
            self.interrupted, self.state = (self.state, event.time), None
        contexts.attach(self.inside)

    def task_retried(self, event: TaskRetried) -> None:
        scope = self.branches.get(event.branch) if event.branch else self.state
        if scope is None:  # such as an item of a batch, which has no span
            self.noted(event)
            return
        if event.attempt != scope.attempt:  # a series of its own: those of another step
            scope.attempt = event.attempt
        self.attempt(scope, max(event.time, scope.begun), "failed", event.error)
        scope.attempt, scope.begun = event.attempt + 1, event.time + event.delay

    def branch_started(self, event: Event) -> None:
        parent = self.state.context if self.state is not None else self.inside
        self.branches[event.branch] = self.open(f"branch of {event.state}", event, parent)

    def branch_finished(self, event: Event) -> None:
        self.branch_ended(event, "succeeded")

    def branch_failed(self, event: BranchFailed) -> None:
        if event.branch in self.branches:
            _fail(self.branches[event.branch].span, event.error, event.time)
        self.branch_ended(event, "failed")

    def branch_cancelled(self, event: Event) -> None:
        self.branch_ended(event, "cancelled")

    def branch_ended(self, event: Event, outcome: str) -> None:
        if (scope := self.branches.pop(event.branch, None)) is not None:
            self.end(scope, event.time, outcome)

    def rollback_started(self, event: Event) -> None:
        self.rollback = self.open("rollback", event, self.inside).span

    def compensation_failed(self, event: CompensationFailed) -> None:
        span = self.rollback or self.span
        where = f"{event.state} {event.branch}".strip()
        span.set_status(StatusCode.ERROR, f"{where} could not be undone")
        self.noted(event)

    def noted(self, event: Event) -> None:
        """Make *event* one of the innermost span it happened in."""
        scope = self.branches.get(event.branch) or self.state
        span = scope.span if scope is not None else self.rollback or self.span
        kind = type(event)
        if kind not in _FIELDS:
            _FIELDS[kind] = [f for f in kind.__struct_fields__ if f not in _ENVELOPE]
        told: dict[str, Any] = {"cano.state": event.state, "cano.branch": event.branch}
        for field in _FIELDS[kind]:
            value = getattr(event, field)
            if isinstance(value, str | int | float | bool):
                told[f"cano.{field}"] = value
            elif isinstance(value, tuple):
                told[f"cano.{field}"] = list(map(str, getattr(event, field)))
        shown = {name: value for name, value in told.items() if value != ""}
        span.add_event(kind.__name__, shown, nanoseconds(event.time))


_ENVELOPE = {*Event.__struct_fields__, "cause"}
_FIELDS: dict[type[Event], list[str]] = {}
TELLS: Mapping[type[Event], Callable[[Life, Any], None]] = {
    TaskStarted: Life.task_started,
    StateEntered: Life.state_entered,
    TaskFailed: Life.task_failed,
    TaskCancelled: Life.task_cancelled,
    TaskRetried: Life.task_retried,
    BranchStarted: Life.branch_started,
    BranchFinished: Life.branch_finished,
    BranchFailed: Life.branch_failed,
    BranchCancelled: Life.branch_cancelled,
    RollbackStarted: Life.rollback_started,
    CompensationFailed: Life.compensation_failed,
}
"""What opens and closes spans; all other events are noted on the innermost."""


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def named(event: Event) -> dict[str, str]:
    return {"cano.run_id": event.run_id, "cano.workflow": event.workflow}


def _fail(span: Span, error: str, time: float) -> None:
    """Say on *span* that it failed, with a traceback where the exception is at hand."""
    span.set_status(StatusCode.ERROR, error)
    raised = sys.exception()  # events are told where things happen: while it is being handled
    if raised is not None and repr(raised) == error:
        span.record_exception(raised, timestamp=nanoseconds(time))
    else:
        span.add_event("exception", {"exception.message": error}, nanoseconds(time))
