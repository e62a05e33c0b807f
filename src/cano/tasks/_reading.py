"""What a batch reads its items from: a plain iterable, or an async one read by a task of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Generator
from typing import Any

from cano.errors import DataError

NOTHING: Any = object()
"""Stands for an item, where there is none; at least not yet."""


class Reading:
    """Reads *source* item by item, at most *ahead* of them before they are taken; then closes it.

    A plain iterator is asked when an item is taken. An async one is read in `feed`, which calls
    *more* soon after there is something new to take.
    """

    __slots__ = ("_ahead", "_filling", "_hungry", "_more", "_next", "_ready", "_source", "is_async")

    def __init__(self, source: Any, label: str, ahead: int, more: Callable[[], None]) -> None:
        self.is_async = isinstance(source, AsyncIterable)
        try:
            if isinstance(source, str | bytes):
                raise TypeError  # noqa: TRY301 -- letters are hardly ever what is meant
            self._source: Any = aiter(source) if self.is_async else iter(source)
        except TypeError:
            raise DataError(
                f"{label}.load returned {source!r:.100}, which is no collection of items; return a "
                "list or another iterable, or yield them"
            ) from None
        self._next = None if self.is_async else self._source.__next__
        self._ready: deque[Any] = deque()
        self._ahead = ahead
        self._more = more
        self._filling = False
        self._hungry: asyncio.Future[None] | None = None

    def next(self) -> Any:
        """The next item; `NOTHING` if there is none, or none was read so far."""
        if self._next is not None:
            try:
                return self._next()
            except StopIteration:
                self._next = None  # not every iterator bears being asked again
                return NOTHING
        if not self._ready:
            return NOTHING
        item = self._ready.popleft()
        if self._hungry is not None and not self._hungry.done():
            self._hungry.set_result(None)
        return item

    async def feed(self) -> None:
        """Read an async source to its end. It is opened, read and closed by one task alone."""
        loop = asyncio.get_running_loop()
        async for item in self._source:
            self._ready.append(item)
            if not self._filling:  # soon, and not at once: more may be there without waiting
                self._filling = True
                loop.call_soon(self._tell)
            if len(self._ready) >= self._ahead:
                self._hungry = loop.create_future()
                await self._hungry

    def _tell(self) -> None:
        self._filling = False
        self._more()

    async def close(self) -> None:
        """Close what was read, once. Raises whatever that raises."""
        source, self._source, self._next = self._source, None, None
        if isinstance(source, Generator):
            source.close()
        elif self.is_async and (aclose := getattr(source, "aclose", None)) is not None:
            await aclose()
