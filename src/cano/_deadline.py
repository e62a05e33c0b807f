"""Many deadlines, one timer.

`asyncio.timeout` costs a timer per use; here a deadline is a number on a list, and one timer per
asyncio task, armed for the earliest and re-armed when it rings early, ends what is overdue.

Rule 1: level-triggered. On CPython 3.11 and 3.12 a `TaskGroup` inside the attempt can swallow a
        cancellation, and user code can on any version; so it is sent again until the attempt ends.
Rule 2: what ended is decided by our own flag, but somebody else's cancellation is never taken for
        ours. The task's cancel count says whether there is one. Before 3.13 a failing `TaskGroup`
        leaves the count raised (CPython issues 128588 and 133747); there the error has to say so
        too, which our own cancellations carry a message for.
Rule 3: what we added to the cancel count we take off again, so that an `asyncio.timeout` around
        the run stays right.
"""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio import CancelledError
from collections.abc import Callable
from math import inf
from typing import Any

AGAIN = 0.05
"""Seconds after which an unheeded cancellation is sent again."""

_COUNT_IS_RIGHT = sys.version_info >= (3, 13)
_NOBODY = sys.maxsize


class Alarm:
    """The deadlines of one asyncio task, outermost first, and the timer that minds them."""

    __slots__ = (
        "_again", "_before", "_due", "_handle", "_joined", "_loop", "_message", "_stopping",
        "_task", "armed", "deadlines", "now", "sent",
    )  # fmt: skip

    def __init__(self, task: asyncio.Task[Any] | None = None) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = loop.time
        if getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time:
            self.now = time.monotonic  # noqa: TID251 -- all that it does, at half the price
        task = task or asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine that runs has one
        self._task: asyncio.Task[Any] = task
        self._before = task.cancelling()
        self._handle: asyncio.TimerHandle | None = None
        self._message = ""
        self._due = _NOBODY
        self._again = 0.0
        self._joined = False
        self._stopping = False
        self.deadlines: list[float] = []
        self.armed = inf
        """The loop time at which the timer rings."""
        self.sent = 0
        """How many cancellations have to be taken back."""

    @property
    def nearest(self) -> float:
        """The loop time of the earliest deadline, or infinity."""
        return min(self.deadlines, default=inf)

    def push(self, seconds: float) -> None:
        """Open a deadline inside those that are open. Every push has a `pop`."""
        when = self.now() + seconds
        self.deadlines.append(when)
        if when < self.armed:
            self.arm(when)

    def pop(self) -> None:
        """Close the innermost deadline."""
        self.deadlines.pop()
        if self.sent:
            self.settle()

    def expired(self) -> bool:
        """Whether it was the innermost deadline that cancelled.

        To be asked where the cancellation was caught, and before `pop`.
        """
        if self._due != len(self.deadlines) - 1 or self._stopping:
            return False
        if self._task.cancelling() <= self._before + self.sent:
            return True
        return not (_COUNT_IS_RIGHT or self._joined or self._foreign(sys.exception()))

    def stop(self) -> None:
        """Cancel the task in the loop's next round, and again, until `close`."""
        if not self._stopping:
            self._stopping = True
            self.arm(self.now())

    def close(self) -> None:
        """Let go of the timer; the task goes on to other things."""
        self._stopping = False
        self.deadlines.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle, self.armed = None, inf
        if self.sent:
            self.settle()

    def settle(self) -> None:
        """Take back what was sent, if what sent it is over."""
        if self._stopping or len(self.deadlines) > self._due:
            return
        while self.sent:
            self.sent -= 1
            self._task.uncancel()
        self._due, self._again, self._joined = _NOBODY, 0.0, False

    def arm(self, when: float) -> None:
        """Set the timer, which was set for later or not at all."""
        if self._handle is not None:
            self._handle.cancel()
        self.armed = when
        self._handle = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        now = max(self.now(), self.armed)  # a loop may be early by the resolution of its clock
        self._handle, self.armed = None, inf
        due = next((i for i, when in enumerate(self.deadlines) if when <= now), _NOBODY)
        if due == _NOBODY and not self._stopping:
            if self.deadlines:
                self.arm(self.nearest)
        elif not self._task.done():
            if due < self._due or now >= self._again:
                self._due, self._again = min(due, self._due), now + AGAIN
                self._cancel()
            self.arm(min([self._again, *(when for when in self.deadlines if when > now)]))

    def _cancel(self) -> None:
        self.sent += 1
        self._message = f"cano: out of time, or stopped ({id(self):x})"
        if not _COUNT_IS_RIGHT:  # runs in the next round, right before the task is told
            self._loop.call_soon(self._look_for_company, self._task.cancelling() + 1)
        self._task.cancel(self._message)

    def _look_for_company(self, count: int) -> None:
        """Somebody else's cancellation in the same round: the task is told of both as one."""
        self._joined = self._task.cancelling() > count

    def _foreign(self, error: BaseException | None) -> bool:
        """Whether *error* is a cancellation of somebody else, or ended the handling of one."""
        while isinstance(error, CancelledError):
            if error.args != (self._message,):
                return True
            error = error.__context__
        return False
