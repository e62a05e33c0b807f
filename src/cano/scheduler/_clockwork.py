"""One timer for many: who is woken when, by the clock on the wall.

Rule 1: one heap, and one timer for what is on top of it. Nobody is asked who is not due.
Rule 2: the clock on the wall may jump. It is looked at again whenever the timer rings, and while
        anybody waits at least once a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Generic, Protocol, TypeVar

from cano._clock import loop_time, wall_offset

LOOK = 60.0
"""Seconds after which the clock on the wall is looked at again."""
JUMP = 1.0
"""Seconds by which it must differ to have jumped: less is how clocks are kept right."""
AT_ONCE = 100
"""How many are woken before others have their turn on the loop."""
PAST = 1e-6
"""Seconds the timer rings late, so that rounding never makes it early."""


class Sleeper(Protocol):
    """Anybody who can be woken."""

    wakes: float | None
    """When; None for never."""


W = TypeVar("W", bound=Sleeper)


class Clockwork(Generic[W]):
    """Calls *wake* with each sleeper when its time has come, on the loop that runs now.

    *jumped* is called with the seconds by which the clock was put forward, negative if back.
    """

    def __init__(
        self, wake: Callable[[W, float], None], jumped: Callable[[float, float], None]
    ) -> None:
        self._wake = wake
        self._jumped = jumped
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._time: Callable[[], float] = loop_time(self._loop)
        self._offset: float = wall_offset(self._loop)
        self._heap: list[tuple[float, int, W]] = []
        self._numbers = count()
        self._set = 0
        """How many are to be woken; what else is in the heap was set anew."""
        self._timer: asyncio.Handle | None = None
        self._rings = 0.0
        self._stopped = False

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._offset + self._time()

    @property
    def earliest(self) -> float:
        """When somebody is to be woken next; infinity if nobody is."""
        return self._heap[0][0] if self._heap else inf

    def set(self, sleeper: W, when: float | None) -> None:
        """Wake *sleeper* at *when* instead of when it was to be woken before."""
        if when == sleeper.wakes:
            return
        self._set += (when is not None) - (sleeper.wakes is not None)
        sleeper.wakes = when
        if when is not None:
            heappush(self._heap, (when, next(self._numbers), sleeper))
            if len(self._heap) > 2 * self._set + 64:
                self._heap = [entry for entry in self._heap if entry[2].wakes == entry[0]]
                heapify(self._heap)
            if self._timer is None or when < self._rings:
                self._arm()

    def stop(self) -> None:
        """Wake nobody any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap and not self._stopped:
            now = self.now()
            wait = min(self.earliest - now, LOOK)
            self._rings = now + wait
            self._timer = self._loop.call_later(max(wait, 0.0) + PAST, self._ring)

    def _ring(self) -> None:
        offset = wall_offset(self._loop)
        by, self._offset = offset - self._offset, offset
        now = self.now()
        if abs(by) > JUMP:
            self._jumped(by, now)
        self._rings = 0.0  # whoever is set meanwhile need not arm the timer
        for _ in range(AT_ONCE):
            if self._stopped or (sleeper := self.next(now)) is None:
                break
            self._wake(sleeper, now)
        self._timer = None
        self._arm()

    def next(self, now: float) -> W | None:
        """Whoever is to be woken next, if that is *now* or before."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            when, _, sleeper = heappop(heap)
            if sleeper.wakes == when:
                sleeper.wakes = None
                self._set -= 1
                return sleeper
        return None
