"""The only place that asks the machine what time it is."""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections.abc import Callable


def loop_time(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The loop's clock; asyncio's own without the detour of a method, at half the price."""
    if getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time:
        return time.monotonic  # noqa: TID251 -- all that the method does
    return loop.time


def wall_offset(loop: asyncio.AbstractEventLoop) -> float:
    """What to add to the loop's time to have seconds since the epoch.

    A loop whose time is not real says so itself, in an attribute `wall_offset`.
    """
    own = getattr(loop, "wall_offset", None)
    return time.time() - loop.time() if own is None else own  # noqa: TID251 -- here it is


_chance: array[int] = array("Q")
"""Asking the system for chance lets another thread go first; so it is asked rarely."""
if hasattr(os, "register_at_fork"):  # or the child would use the chance its parent has left
    os.register_at_fork(after_in_child=lambda: _chance.__delitem__(slice(None)))


def time_ordered_id() -> str:
    """A name that nothing else has, made so that later ones sort later.

    A UUID of version 7 (RFC 9562) without its dashes: databases keep what is made together
    together.
    """
    milliseconds = int(time.time() * 1000)  # noqa: TID251 -- here it is
    if not _chance:
        _chance.frombytes(os.urandom(16 * 512))
    head = milliseconds << 16 | 0x7000 | _chance.pop() >> 52
    tail = 0x8000_0000_0000_0000 | _chance.pop() >> 2
    return (head << 64 | tail).to_bytes(16).hex()
