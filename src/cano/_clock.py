"""The only place that asks the machine what time it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def clock() -> Callable[[], float]:
    """A run's clock: wall time now plus loop time since. It never jumps, and tests can move it."""
    elapsed = asyncio.get_running_loop().time
    offset = time.time() - elapsed()  # noqa: TID251 -- here it is
    return lambda: offset + elapsed()
