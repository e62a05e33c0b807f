"""Many deadlines, one timer.

`asyncio.timeout` costs a timer per use; here a deadline is a number in a chain, and one timer per
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
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, TypeAlias

from cano._clock import loop_time

AGAIN = 0.05
"""Seconds after which an unheeded cancellation is sent again."""

Deadline: TypeAlias = "tuple[float, Deadline | None]"
"""When it strikes, and the one around it."""

_COUNT_IS_RIGHT = sys.version_info >= (3, 13)


class Alarm:
    """The deadlines of one asyncio task, and the timer that minds them."""

    __slots__ = (
        "_again", "_before", "_due", "_handle", "_joined", "_loop", "_message", "_task",
        "armed", "innermost", "now", "sent",
    )  # fmt: skip

    def __init__(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = loop_time(loop)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine that runs has one
        self._task: asyncio.Task[Any] = task
        self._before = task.cancelling()
        self._handle: asyncio.TimerHandle | None = None
        self._message = ""
        self._due: Deadline | None = None
        self._again = 0.0
        self._joined = False
        self.innermost: Deadline | None = None
        """The deadline opened last. Each holds the one around it."""
        self.armed: float = inf
        """The loop time at which the timer rings."""
        self.sent: int = 0
        """How many cancellations have to be taken back."""

    @property
    def nearest(self) -> float:
        """The loop time of the earliest deadline, or infinity."""
        return min((when for when, _ in self._open()), default=inf)

    def push(self, seconds: float) -> None:
        """Open a deadline inside those that are open. Every push has a `pop`."""
        when = self.now() + seconds
        self.innermost = (when, self.innermost)
        if when < self.armed:
            self.arm(when)

    def pop(self) -> None:
        """Close the innermost deadline."""
        self.innermost = self.innermost and self.innermost[1]
        if self.sent:
            self.settle()

    def expired(self) -> bool:
        """Whether it was the innermost deadline that cancelled.

        To be asked where the cancellation was caught, and before `pop`.
        """
        if self._due is None or self._due is not self.innermost:
            return False
        if self._task.cancelling() <= self._before + self.sent:
            return True
        return not (_COUNT_IS_RIGHT or self._joined or self._foreign(sys.exception()))

    def close(self) -> None:
        """Let go of the timer, when every deadline is closed."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle, self.armed = None, inf

    def settle(self) -> None:
        """Take back what was sent, if what sent it is over."""
        if any(deadline is self._due for deadline in self._open()):
            return
        while self.sent:
            self.sent -= 1
            self._task.uncancel()
        self._due, self._joined = None, False

    def arm(self, when: float) -> None:
        """Set the timer, which was set for later or not at all."""
        if self._handle is not None:
            self._handle.cancel()
        self.armed = when
        self._handle = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        now = max(self.now(), self.armed)  # a loop may be early by the resolution of its clock
        self._handle, self.armed = None, inf
        overdue = [deadline for deadline in self._open() if deadline[0] <= now]
        if overdue:
            due = overdue[-1]  # the outermost one
            if due is not self._due or now >= self._again:
                self._due, self._again = due, now + AGAIN
                self._cancel()
            self.arm(min([self._again, *(when for when, _ in self._open() if when > now)]))
        elif self.innermost is not None:
            self.arm(self.nearest)

    def _open(self) -> Iterator[Deadline]:
        """The deadlines, innermost first."""
        deadline = self.innermost
        while deadline is not None:
            yield deadline
            deadline = deadline[1]

    def _cancel(self) -> None:
        self.sent += 1
        self._message = f"cano: out of time ({id(self):x})"
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
