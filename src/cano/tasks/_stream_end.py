"""The end of a stream: steps of which none keeps the next from being done.

Rule 1: the first error is raised; what goes wrong after it is told in its notes.
Rule 2: where the stream ends before its time, every step has a limit of its own.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, NamedTuple, TypeVar

from cano._values import ValueType
from cano.context import Context
from cano.errors import AttemptTimeoutError, RoutingError, note
from cano.policies.policy import Call
from cano.tasks._windows import CloseReason, Window
from cano.tasks.stepped import Done

T = TypeVar("T")
_log = logging.getLogger("cano.streams")


class Verbs(NamedTuple):
    """A stream task, compiled."""

    label: str
    open: Call[Any]
    process: Callable[[Context[Any], Any], Awaitable[Any]]
    flush: Call[Any] | None
    close: Call[Any]
    rejected: Callable[[Context[Any], Any, Exception], Awaitable[None]]
    position: Callable[[Any], Any] | None
    cursor: ValueType
    window: Window
    errors: int | None
    drain_timeout: float


class Ending:
    """What went wrong, and how the rest is done all the same."""

    __slots__ = ("ctx", "cut", "drains", "error", "reason", "verbs")

    def __init__(
        self, ctx: Context[Any], verbs: Verbs, reason: CloseReason, error: BaseException | None
    ) -> None:
        self.ctx = ctx
        self.verbs = verbs
        self.reason = reason
        self.drains = reason in {CloseReason.CANCELLED, CloseReason.TIMED_OUT}
        self.error: Exception | None = error if isinstance(error, Exception) else None
        self.cut: CancelledError | None = error if isinstance(error, CancelledError) else None
        take_back_cancellations()

    @property
    def ordinary(self) -> bool:
        """Whether the stream came to its end by itself: then `close` has all the time the run has."""
        return self.reason in {CloseReason.EXHAUSTED, CloseReason.STOPPED}

    async def step(
        self, what: str, call: Callable[[], Awaitable[T]], *, bounded: bool = True
    ) -> T | None:
        """Do *call*, which gets `drain_timeout` seconds if it is *bounded*."""
        alarm = self.ctx.alarm
        limit = self.verbs.drain_timeout
        alarm.push(limit if bounded else inf)
        try:
            return await call()
        except CancelledError as error:
            if alarm.expired():
                self.too_slow(what, limit)
            else:
                self.cut = error
        except Exception as error:  # noqa: BLE001 -- raised when everything is closed
            self.fail(error, what)
        finally:
            alarm.pop()
        return None

    def too_slow(self, what: str, limit: float) -> None:
        """A step was cut off. That is no fault of it if somebody else wants the stream to end."""
        label = self.verbs.label
        if self.drains:
            tell_of_cut(self.ctx, self.verbs, what)
        else:
            self.fail(AttemptTimeoutError(f"{what} of {label} took longer than {limit:g} s"), what)

    def fail(self, error: Exception, what: str) -> None:
        """Keep the first error, and note the others on it."""
        if self.error is None:
            self.error = error
            if not self.drains:
                self.reason = CloseReason.FAILED
        elif self.error is not error:
            note(self.error, f"cano: then {what} of {self.verbs.label} raised {error!r}")

    def raise_what_happened(self) -> None:
        """Errors before cancellations: those are known to whoever sent them."""
        if self.error is not None:
            raise self.error
        if self.cut is not None:
            raise self.cut


def tell_of_cut(ctx: Context[Any], verbs: Verbs, what: str) -> None:
    """Say in the log that something had to be cancelled."""
    _log.warning(
        "%s of %s in run %r did not end within drain_timeout=%g s, and was cancelled; what was not "
        "kept comes again",
        what, verbs.label, ctx.run_id, verbs.drain_timeout,
    )  # fmt: skip


def being_cancelled() -> bool:
    """Whether somebody cancels this asyncio task."""
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())


def take_back_cancellations() -> None:
    """What told the stream to end must not be taken for somebody who breaks off its end."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def done_of(said: Any, label: str) -> Done[Any]:
    """What `flush` said, if it is what it may say. Raises `RoutingError`."""
    if isinstance(said, Done):
        return said  # pyright: ignore[reportUnknownVariableType] -- of any state
    raise RoutingError(f"{label}.flush returned {said!r}; return Done(state) to leave, or None")


def shown(item: Any) -> str:
    """*item* as an event tells of it."""
    text = repr(item)
    return text if len(text) <= 80 else f"{text[:79]}…"
