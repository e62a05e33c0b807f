"""Signals that have come for a run and were not taken yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple


class Letter(NamedTuple):
    """A signal as it was sent: *value* is JSON."""

    name: str
    number: int
    value: bytes


class Mailbox:
    """First in, first out, per name."""

    __slots__ = ("_bells", "_keys", "_letters", "last")

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._letters: dict[str, deque[Letter]] = {}
        self._bells: dict[asyncio.Future[None], None] = {}  # who waits longest is woken first
        self.last: int = 0
        """The number of the latest letter that came."""

    def send(self, name: str, value: bytes, key: str) -> None:
        """For a run without a store: `put`, unless something came with that *key* before."""
        if key and key in self._keys:
            return
        self._keys.add(key)
        self.put(Letter(name, self.last + 1, value))

    def put(self, letter: Letter) -> None:
        """Keep *letter*, and wake who waits."""
        self.last = max(self.last, letter.number)
        self._letters.setdefault(letter.name, deque()).append(letter)
        self.ring()

    def ring(self) -> None:
        """Wake who waits, to look again."""
        for bell in self._bells:
            if not bell.done():
                bell.set_result(None)

    def take(self, names: Iterable[str]) -> Letter | None:
        """Take out the earliest letter of these names."""
        there = [self._letters[name] for name in names if self._letters.get(name)]
        if not there:
            return None
        return min(there, key=lambda letters: letters[0].number).popleft()

    async def wait(self, seconds: float | None) -> None:
        """Until something comes, or *seconds* are over."""
        loop = asyncio.get_running_loop()
        bell: asyncio.Future[None] = loop.create_future()
        timer = None
        if seconds is not None:
            timer = loop.call_later(max(seconds, 0), _over, bell)
        self._bells[bell] = None
        try:
            await bell
        finally:
            del self._bells[bell]
            if timer is not None:
                timer.cancel()


def _over(bell: asyncio.Future[None]) -> None:
    if not bell.done():
        bell.set_result(None)
