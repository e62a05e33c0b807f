"""The events of a stored run, each told in a line; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import click
import msgspec

from cano.cli.runs_words import clock, cut, lasted, local, plain
from cano.events import (
    BranchFailed,
    BranchFinished,
    CompensationFailed,
    CursorSaved,
    EffectDone,
    EffectIntended,
    Event,
    FailureRouted,
    Patch,
    RollbackStarted,
    RunCancelled,
    RunClaimed,
    RunFailed,
    RunFinished,
    RunMigrated,
    RunReopened,
    RunStarted,
    SignalReceived,
    SplitJoined,
    SplitStarted,
    StateEntered,
    TaskCompensated,
    TaskCompleted,
    TaskRetried,
    TimerSet,
    WaitStarted,
)

VALUE = 60
"""How much of a value is shown in a line."""
_GOOD, _BAD, _ODD = {"fg": "green"}, {"fg": "red"}, {"fg": "yellow"}
_STYLES: Mapping[type[Event], dict[str, Any]] = {
    RunFinished: _GOOD, RunFailed: _BAD, CompensationFailed: _BAD, TaskRetried: _ODD,
    FailureRouted: _ODD, BranchFailed: _ODD, RollbackStarted: _ODD, RunClaimed: _ODD,
    TaskCompensated: _ODD, RunCancelled: _ODD,
}  # fmt: skip


def lines(events: Sequence[Event], width: int | None) -> Iterator[str]:
    """A line per event, and one per day; at most *width* wide, None is no limit."""
    states = max((len(_where(event)) for event in events), default=0)
    numbers = len(str(events[-1].sequence)) if events else 0
    day: date | None = None
    for event in events:
        moment = local(event.time)
        if moment.date() != day:
            day = moment.date()
            yield click.style(f"{moment:%A %Y-%m-%d, UTC%z}", dim=True)
        time = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
        front = f"{event.sequence:>{numbers}}  {_where(event):<{states}}  "
        text = what(event)
        if width is not None:
            text = cut(text, max(width - len(time) - 2 - len(front), 20))
        style = _STYLES.get(type(event))
        told = click.style(text, **style) if style else text
        yield f"{click.style(time, dim=True)}  {front}{told}"


def what(event: Event) -> str:
    """What happened, in a line."""
    tell = _TOLD.get(type(event))
    return plain(tell(event) if tell else type(event).__name__)


def value(raw: msgspec.Raw | bytes | None) -> str:
    """A value, as far as there is room for it in a line."""
    text = b"null" if raw is None else bytes(raw)
    return plain(cut(text[: 4 * VALUE].decode(errors="replace"), VALUE))


def _where(event: Event) -> str:
    return plain(f"{event.state}/{event.branch}" if event.branch else event.state)


def _fields(patch: Patch | None) -> str:
    return f"; changed {', '.join(patch)}" if patch else ""


def _named(event: Any) -> str:
    return f" {event.name!r}" if event.name else ""


def _started(event: RunStarted) -> str:
    version = f", version {event.version}" if event.version else ""
    if event.forked_from:
        return f"run forked from {event.forked_from} at event {event.forked_at}{version}"
    return f"run started{version}"


def _retried(event: TaskRetried) -> str:
    return f"attempt {event.attempt} failed: {event.error}; again in {lasted(event.delay)}"


def _timer(event: TimerSet) -> str:
    return f"sleep{_named(event)} began, until {clock(event.until, event.time)}"


def _wait(event: WaitStarted) -> str:
    until = f"until {clock(event.until, event.time)}" if event.until else "without a limit"
    return f"wait for {' or '.join(map(repr, event.signals))} began, {until}"


def _received(event: SignalReceived) -> str:
    name = event.signal or event.name
    if not event.number:
        return f"wait {name!r} ended without a signal"
    return f"signal {name!r} received: {value(event.value)}"


def _joined(event: SplitJoined) -> str:
    verdict = "joined" if event.satisfied else "join failed"
    counts = (("succeeded", event.succeeded), ("failed", event.failed))
    rest = (("cancelled", event.cancelled), ("not started", event.not_started))
    told = ", ".join(f"{number:,} {word}" for word, number in counts + rest if number)
    return f"split {verdict} ({event.reason}): {told}" if told else f"split {verdict}"


def _failed(event: RunFailed) -> str:
    return f"run failed: {event.kind}: {event.error}" if event.kind else "run failed"


def _rollback(event: RollbackStarted) -> str:
    why = "asked for" if event.cancelled else event.cause.message if event.cause else ""
    return f"rollback started: {why}" if why else "rollback started"


def _not_compensated(event: CompensationFailed) -> str:
    why = f": {event.cause.kind.rpartition(':')[-1]}: {event.cause.message}" if event.cause else ""
    return f"could not be undone{why}"


_TOLD: Mapping[type[Event], Callable[[Any], str]] = {
    RunStarted: _started,
    RunClaimed: lambda event: f"taken over by {event.owner}, epoch {event.epoch}",
    RunMigrated: lambda event: f"migrated from version {event.before} to {event.version}",
    StateEntered: lambda event: f"entered{_fields(event.patch)}",
    TaskRetried: _retried,
    TaskCompleted: lambda event: (
        f"completed, leads to {event.next}, can be undone with {value(event.value)}"
    ),
    FailureRouted: lambda event: f"failed: {event.error}; goes on to {event.next}",
    CursorSaved: lambda event: f"cursor saved: {value(event.value)}",
    EffectIntended: lambda event: f"effect{_named(event)} intended",
    EffectDone: lambda event: f"effect{_named(event)} done: {value(event.value)}",
    TimerSet: _timer,
    WaitStarted: _wait,
    SignalReceived: _received,
    SplitStarted: lambda event: (
        f"split into {len(event.names):,}: {cut(', '.join(event.names), VALUE)}"
    ),
    BranchFinished: lambda event: f"branch finished: {value(event.value)}",
    BranchFailed: lambda event: f"branch failed: {event.error}",
    SplitJoined: _joined,
    RollbackStarted: _rollback,
    TaskCompensated: lambda event: f"undone{_fields(event.patch)}",
    CompensationFailed: _not_compensated,
    RunFinished: lambda event: "run finished",
    RunFailed: _failed,
    RunCancelled: lambda event: "run cancelled",
    RunReopened: lambda event: "run reopened, to try again",
}
