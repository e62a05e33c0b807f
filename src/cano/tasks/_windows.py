"""When a window of a stream is full, and why a stream ends. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from math import inf, isfinite
from typing import Any

import msgspec

from cano.errors import DefinitionError

COUNT = 100
"""Items of a window for which nothing is said."""
MOST = 10_000
"""Items of a window for which only a time is said: what is held in memory has a bound."""
_EARLY = 1e-6
"""A loop's timer may be early by the resolution of its clock."""


class CloseReason(StrEnum):
    """Why a stream is closed."""

    EXHAUSTED = "exhausted"
    """The source has nothing more."""
    STOPPED = "stopped"
    """`flush` said `Done`."""
    CANCELLED = "cancelled"
    """The run was cancelled, or its process shuts down."""
    TIMED_OUT = "timed out"
    """The run, or the split around it, has no time left."""
    FAILED = "failed"
    """Something raised, or more items failed than are tolerated."""


class Window(msgspec.Struct, frozen=True):
    """When a window is flushed: at whichever of these comes first.

    Args:
        count: After so many items, those that were dropped included. 100, or 10,000 where a time
            is given and no count.
        seconds: So long after its first item was read. The next window begins with its own first
            item, so there are no empty windows, no window waits longer than this, and nothing
            drifts; boundaries do not follow the clock on the wall.
        idle: When no item came for so many seconds after the last one was done with.

    Raises `DefinitionError` for what is no number of items or seconds.
    """

    count: int | None = None
    seconds: float | None = None
    idle: float | None = None

    def __post_init__(self) -> None:
        if bad := ", ".join(self._problems()):
            raise DefinitionError(f"Window cannot work with {bad}")

    def _problems(self) -> Iterator[str]:
        if self.count is not None and not _is_count(self.count):
            yield f"count={self.count!r}: a whole number, 1 or more"
        for name in ("seconds", "idle"):
            value = getattr(self, name)
            if value is not None and not is_duration(value):
                yield f"{name}={value!r}: finite seconds > 0, or None"

    @property
    def timed(self) -> bool:
        """Whether time alone can fill it."""
        return self.seconds is not None or self.idle is not None

    @property
    def most(self) -> int:
        """How many items it holds at most."""
        return self.count or (MOST if self.timed else COUNT)


class Filling:
    """The times of a window while it fills. A clock that jumps back neither shortens nor lengthens it."""

    __slots__ = ("_idle", "_latest", "_opened", "_quiet", "_seconds")

    def __init__(self, window: Window) -> None:
        self._seconds = inf if window.seconds is None else window.seconds
        self._idle = inf if window.idle is None else window.idle
        self._opened = self._quiet = self._latest = 0.0

    def begin(self, now: float) -> None:
        """The first item was read."""
        self._opened = self._quiet = self._latest = now

    def worked(self, now: float) -> None:
        """An item was done with."""
        self._follow(now)
        self._quiet = now

    def left(self, now: float, *, working: bool = False) -> float:
        """Seconds until the window is due, 0 if it is; infinity if time alone never fills it.

        While an item is worked on, there is no silence.
        """
        self._follow(now)
        left = self._opened + self._seconds - now
        if not working:
            left = min(left, self._quiet + self._idle - now)
        return left if left > _EARLY else 0.0

    def pause(self, now: float) -> float:
        """Seconds after which to ask again, if it is not due *now*."""
        return min(self.left(now, working=True), self.left(now) or self._idle)

    def _follow(self, now: float) -> None:
        back = self._latest - now
        if back > 0:
            self._opened -= back
            self._quiet -= back
        self._latest = now


def is_duration(value: Any) -> bool:
    """Whether *value* is a time one can wait: finite seconds > 0."""
    return _is_number(value) and isfinite(value) and value > 0


def tolerated(value: Any) -> bool:
    """Whether *value* is a number of failures to tolerate: 0 or more, or None for any."""
    return value is None or (type(value) is int and value >= 0)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
