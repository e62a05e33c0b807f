"""Many deadlines, one timer.

`asyncio.timeout` costs a timer per use; here a deadline is a number on a list, and one timer per
asyncio task, armed for the earliest and re-armed when it rings early, ends what is overdue.

Rule 1: level-triggered. On CPython 3.11 and 3.12 a `TaskGroup` inside the attempt can swallow a
        cancellation, and user code can on any version; so it is sent again until the attempt ends.
Rule 2: what ended is decided by our own flag. The task's cancel count is only asked whether
        somebody else cancelled too, and only where a failing `TaskGroup` does not leave it
        raised (CPython issues 128588 and 133747, mended in 3.13).
Rule 3: what we added to the cancel count we take off again, so that an `asyncio.timeout` around
        the run stays right.
"""

from __future__ import annotations

import asyncio
import sys
from math import inf
from typing import Any

AGAIN = 0.05
"""Seconds after which an unheeded cancellation is sent again."""

_COUNT_IS_RIGHT = sys.version_info >= (3, 13)
_NOBODY = sys.maxsize


class Alarm:
    """The deadlines of one asyncio task, outermost first, and the timer that minds them."""

    __slots__ = (
        "_armed",
        "_before",
        "_due",
        "_handle",
        "_loop",
        "_now",
        "_sent",
        "_stopping",
        "_task",
        "deadlines",
    )

    def __init__(self, task: asyncio.Task[Any] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        task = task or asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine that runs has one
        self._task: asyncio.Task[Any] = task
        self._before = task.cancelling()
        self._handle: asyncio.TimerHandle | None = None
        self._armed = inf
        self._due = _NOBODY
        self._sent = 0
        self._stopping = False
        self.deadlines: list[float] = []

    @property
    def nearest(self) -> float:
        """The loop time of the earliest deadline, or infinity."""
        return min(self.deadlines, default=inf)

    def push(self, seconds: float) -> None:
        """Open a deadline inside those that are open. Every push has a `pop`."""
        when = self._now() + seconds
        self.deadlines.append(when)
        if when < self._armed:
            self._arm(when)

    def pop(self) -> None:
        """Close the innermost deadline."""
        self.deadlines.pop()
        if self._sent and len(self.deadlines) <= self._due:
            self._settle()

    def expired(self) -> bool:
        """Whether it was the innermost deadline that cancelled. Ask before `pop`."""
        if self._due != len(self.deadlines) - 1 or self._stopping:
            return False
        return not (_COUNT_IS_RIGHT and self._task.cancelling() > self._before + self._sent)

    def stop(self) -> None:
        """Cancel the task, and again, until `close`."""
        if not self._stopping:
            self._stopping = True
            self._ring()

    def close(self) -> None:
        """Let go of the timer; the task goes on to other things."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle, self._armed = None, inf
        if self._sent:
            self._settle()

    def _settle(self) -> None:
        while self._sent:
            self._sent -= 1
            self._task.uncancel()
        self._due = _NOBODY

    def _arm(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = when
        self._handle = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._handle, self._armed = None, inf
        now = self._loop.time()
        due = next((i for i, when in enumerate(self.deadlines) if when <= now), _NOBODY)
        if due == _NOBODY and not self._stopping:
            if self.deadlines:
                self._arm(self.nearest)
            return
        self._due = min(due, self._due)
        self._sent += 1
        self._task.cancel()
        self._arm(now + AGAIN)
