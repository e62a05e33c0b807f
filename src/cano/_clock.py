"""The only place that asks the machine what time it is."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """Wall time at the start plus loop time since: it never jumps, and tests can move it."""

    __slots__ = ("_elapsed", "_offset")

    def __init__(self) -> None:
        self._elapsed = asyncio.get_running_loop().time
        self._offset = time.time() - self._elapsed()  # noqa: TID251 -- here it is

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._offset + self._elapsed()
