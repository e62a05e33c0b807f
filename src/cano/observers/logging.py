"""What happens to runs, in the log; and which run a line of the log belongs to.

Rule 1: nothing here configures logging: no handler, no level, no formatter is set behind your back.
Rule 2: a level is asked for when the event comes, for it may change while the program runs; texts
        are put together by whoever writes them down, if anybody does.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from cano.announced import (
    ResourceFailed,
    ResourceReady,
    ResourceReleased,
    ScheduleBackedOff,
    ScheduleEnded,
    ScheduleFired,
    ScheduleSkipped,
    ScheduleTripped,
)
from cano.errors import DefinitionError
from cano.events import (
    BatchProcessed,
    BranchCancelled,
    BranchFailed,
    BranchFinished,
    BranchStarted,
    CallDelayed,
    CallRefused,
    Cause,
    CircuitChanged,
    CompensationFailed,
    CursorSaved,
    EffectDone,
    EffectIntended,
    Event,
    FailureRouted,
    FallbackUsed,
    HedgeStarted,
    ItemFailed,
    PollAnswered,
    RollbackStarted,
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
    SplitStarted,
    StateEntered,
    StreamClosed,
    TaskCancelled,
    TaskCompensated,
    TaskCompleted,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    TimerSet,
    WaitStarted,
    WindowFlushed,
)

Levels: TypeAlias = Mapping[type[Event], int | None]
"""The level of a kind of event; None leaves it out."""


class _Line(NamedTuple):
    """How an event is told: at which level, and the text with the fields it shows."""

    level: int
    text: str
    fields: tuple[str, ...] = ()


_D, _I, _W, _E = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

_LINES: Mapping[type[Event], _Line] = {
    RunStarted: _Line(_I, "run started, version %s", ("version",)),
    RunMigrated: _Line(_I, "run migrated from version %s to %s", ("before", "version")),
    RunParked: _Line(_I, "run waits, and is let go until %s", ("until",)),
    RunReleased: _Line(_W, "run released, reason %s", ("reason",)),
    RunResumed: _Line(_I, "run resumed after event %s", ("sequence",)),
    RunFinished: _Line(_I, "run finished"),
    RunFailed: _Line(_E, "run failed: %s: %s", ("kind", "error")),
    RunCancelled: _Line(_W, "run cancelled"),
    StateEntered: _Line(_D, "state entered"),
    TaskStarted: _Line(_D, "task started"),
    TaskSucceeded: _Line(_I, "task succeeded, next is %s", ("next",)),
    TaskFailed: _Line(_E, "task failed: %s", ("error",)),
    TaskCancelled: _Line(_W, "task cancelled"),
    TaskRetried: _Line(_W, "attempt failed: %s; the next follows in %.3g s", ("error", "delay")),
    TaskCompleted: _Line(_D, "task completed and can be undone, next is %s", ("next",)),
    FailureRouted: _Line(_W, "failure leads to %s: %s", ("next", "error")),
    CursorSaved: _Line(_D, "progress saved"),
    EffectIntended: _Line(_D, "effect %s begins", ("name",)),
    EffectDone: _Line(_D, "effect %s done", ("name",)),
    TimerSet: _Line(_D, "timer %s set to %s", ("name", "until")),
    WaitStarted: _Line(_I, "waits for %s", ("signals",)),
    SignalReceived: _Line(_I, "signal %s received", ("signal",)),
    SplitStarted: _Line(_D, "split into %s", ("names",)),
    BranchStarted: _Line(_D, "branch started"),
    BranchFinished: _Line(_D, "branch finished"),
    BranchFailed: _Line(_W, "branch failed: %s", ("error",)),
    BranchCancelled: _Line(_D, "branch cancelled"),
    SplitJoined: _Line(
        _I,
        "split joined, reason %s: %s succeeded, %s failed, %s cancelled, %s not started",
        ("reason", "succeeded", "failed", "cancelled", "not_started"),
    ),
    PollAnswered: _Line(_D, "poll answered, ready is %s, next in %.3g s", ("ready", "delay")),
    ItemFailed: _Line(_W, "item %s failed: %s", ("item", "error")),
    BatchProcessed: _Line(
        _I, "batch processed: %s succeeded, %s failed", ("succeeded", "failed")
    ),
    WindowFlushed: _Line(_D, "window of %s flushed, %s failed", ("items", "failed")),
    StreamClosed: _Line(
        _I, "stream closed, reason %s: %s items, %s windows", ("reason", "items", "windows")
    ),
    CircuitChanged: _Line(_W, "circuit %s went from %s to %s", ("circuit", "before", "after")),
    CallRefused: _Line(_W, "call refused by %s for %.3g s", ("by", "retry_after")),
    CallDelayed: _Line(_D, "call delayed by %s for %.3g s", ("by", "seconds")),
    HedgeStarted: _Line(_D, "hedge %s started", ("number",)),
    FallbackUsed: _Line(_W, "fallback used: %s", ("error",)),
    RollbackStarted: _Line(_W, "rollback started"),
    TaskCompensated: _Line(_I, "task compensated"),
    CompensationFailed: _Line(_E, "compensation failed: %s", ("cause",)),
    ScheduleFired: _Line(_I, "flow %s fired", ("flow",)),
    ScheduleEnded: _Line(_I, "flow %s ended, %s after %.3g s", ("flow", "outcome", "seconds")),
    ScheduleSkipped: _Line(_I, "flow %s skipped: %s", ("flow", "reason")),
    ScheduleBackedOff: _Line(
        _W, "flow %s failed %s times in a row, and rests until %s", ("flow", "streak", "until")
    ),
    ScheduleTripped: _Line(
        _E, "flow %s failed %s times in a row, and is off: %s", ("flow", "streak", "error")
    ),
    ResourceReady: _Line(_D, "resource %s ready after %.3g s", ("name", "seconds")),
    ResourceFailed: _Line(_E, "resource %s failed: %s", ("name", "error")),
    ResourceReleased: _Line(_D, "resource %s released", ("name",)),
}  # fmt: skip


class LoggingObserver:
    """Write what happens to runs into the log, each kind of event at a level of its own.

    Every record carries `event` (the kind), `run_id`, `workflow`, `state`, `attempt`, `branch` and
    `sequence` as attributes; the first few are in the text too. Levels are in
    `LoggingObserver.LEVELS`; kinds that are not there, such as your own, are told as DEBUG.

    Args:
        logger: where to, by name or itself; ``cano.run`` by default.
        levels: other levels for some kinds; None leaves a kind out, so that it costs nothing. A
            level that the logger has disabled costs the event, but no text.

    Raises `DefinitionError` for levels of what is no event, or that are no levels.
    """

    LEVELS: Mapping[type[Event], int] = {kind: line.level for kind, line in _LINES.items()}

    def __init__(
        self, logger: logging.Logger | str = "cano.run", levels: Levels | None = None
    ) -> None:
        if problems := list(_problems(logger, levels)):
            raise DefinitionError(f"LoggingObserver cannot work with {'; '.join(problems)}")
        self.logger: logging.Logger = (
            logging.getLogger(logger) if isinstance(logger, str) else logger
        )
        self._levels: dict[type[Event], int | None] = {**self.LEVELS, **(levels or {})}

    @property
    def events(self) -> Sequence[type[Event]]:
        """What is told: everything but the kinds whose level is None."""
        silent = [kind for kind, level in self._levels.items() if level is None]
        if not silent:
            return (Event,)
        told = [
            kind for kind in _kinds_of(Event) if not any(issubclass(none, kind) for none in silent)
        ]
        return told or (_Never,)

    def __call__(self, event: Event, /) -> None:
        """Write *event* down, if its level is enabled."""
        kind = type(event)
        level = self._levels.get(kind, logging.DEBUG)
        if level is None or not self.logger.isEnabledFor(level):
            return
        line = _LINES.get(kind)
        text, fields = (_plain(kind.__name__), ()) if line is None else line[1:]
        shown = [_shown(field, getattr(event, field)) for field in fields]
        context = {"event": kind.__name__, "sequence": event.sequence, **_context(event)}
        self.logger.log(level, "%s" + text, _where(event), *shown, extra=context)  # noqa: G003


class RunContext(logging.Filter):
    """Says on every record made inside a task which run it belongs to.

    It is an observer and a filter in one::

        context = RunContext()
        handler.addFilter(context)
        Workflow(Step, observers=[context])

    Records then carry `run_id`, `workflow`, `state`, `attempt` and `branch`, whoever made them;
    outside of runs these are empty. It follows `contextvars`: into tasks made by a task, and into
    threads of `asyncio.to_thread`, not into other threads and processes.
    """

    events: Sequence[type[Event]] = ()

    def __call__(self, event: Event, /) -> None:
        """Remember where the run is, as long as it is there."""
        here = _here.get()
        if isinstance(event, TaskRetried):
            if here and (here.run_id, here.branch) == (event.run_id, event.branch):
                _here.set(here._replace(attempt=event.attempt + 1))
            return
        while here is not None and here.run_id == event.run_id:
            here = here.around  # a run is only where it was last seen
        _here.set(here if isinstance(event, _LEAVES) else _Place(**_context(event), around=here))

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes, where the record has none of its own."""
        here = _here.get() or _NOWHERE
        for name in _CONTEXT:
            if not hasattr(record, name):
                setattr(record, name, getattr(here, name))
        return True


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, and all that was added to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Write *record* down. What JSON has no form for becomes its `str`."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            told["stack"] = record.stack_info
        return json.dumps(told, default=str, ensure_ascii=False)


class _Place(NamedTuple):
    """Where in which run some code runs, and where that run itself runs, if within another."""

    run_id: str = ""
    workflow: str = ""
    state: str = ""
    attempt: int = 0
    branch: str = ""
    around: Any = None


class _Never(Event, frozen=True):
    """What never happens: an observer that names no kind would be told of everything."""


_NOWHERE = _Place()
_here: ContextVar[_Place | None] = ContextVar("cano_log_context", default=None)
_CONTEXT = ("run_id", "workflow", "state", "attempt", "branch")
_LEAVES = (RunFinished, RunFailed, RunCancelled, RunParked, RunReleased)
RunContext.events = (
    RunStarted, RunResumed, TaskStarted, TaskRetried, BranchStarted, RollbackStarted, *_LEAVES
)  # fmt: skip
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def _context(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in _CONTEXT}


def _where(event: Event) -> str:
    """What a line begins with, such as ``Order a7 PAY attempt 2: ``."""
    parts = [event.workflow, event.run_id, event.state]
    if event.attempt > 1:
        parts.append(f"attempt {event.attempt}")
    if event.branch:
        parts.append(f"branch {event.branch}")
    return " ".join(filter(None, parts)) + ": " if event.run_id else ""


def _shown(field: str, value: Any) -> Any:
    """A field as people read it."""
    if isinstance(value, Cause):
        return f"{value.kind.rpartition(':')[2]}: {value.message}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
    if field == "until":
        return datetime.fromtimestamp(value, UTC).isoformat() if value else "a signal comes"
    return value


def _plain(name: str) -> str:
    """The text for an event of the user's own: its name, in words."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip().replace("%", "%%")


def _kinds_of(base: type[Event]) -> Iterator[type[Event]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds_of(kind)


def _problems(logger: object, levels: Any) -> Iterator[str]:
    if not isinstance(logger, logging.Logger | str):
        yield f"logger={logger!r}; pass a logger or its name"
    if levels is not None and not hasattr(levels, "items"):
        yield f"levels={levels!r}; pass a mapping such as {{TaskStarted: logging.INFO}}"
    pairs: Iterable[tuple[Any, Any]] = getattr(levels, "items", tuple)()
    for kind, level in pairs:
        if not (isinstance(kind, type) and issubclass(kind, Event)):
            yield f"a level for {kind!r}, which is no kind of event"
        if level is not None and (not isinstance(level, int) or isinstance(level, bool)):
            yield f"the level {level!r}; pass one such as logging.INFO, or None to leave it out"
