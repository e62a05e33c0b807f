"""Where the inputs of many runs come from, asked one by one."""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Generic, TypeVar

from cano._deadline import AGAIN

D = TypeVar("D")
_log = logging.getLogger("cano.concurrent")
_END: Any = object()


class Inputs(Generic[D]):
    """An iterable of either kind."""

    __slots__ = ("_asking", "_given")

    def __init__(self, given: Iterable[D] | AsyncIterable[D]) -> None:
        self._given = given
        self._asking = False

    async def each(self, room: Callable[[], Awaitable[bool]]) -> AsyncIterator[D]:
        """The inputs, each asked for when there is *room*, until there is none any more.

        What can be closed is closed at the end, by the task that asked it; what that raises is
        logged and goes no further.
        """
        if isinstance(self._given, AsyncIterable):
            source = aiter(self._given)
            try:
                while await room() and (given := await self._ask(source)) is not _END:
                    yield given
            finally:
                await _close(source)
        else:
            remaining = iter(self._given)
            while await room() and (given := next(remaining, _END)) is not _END:
                yield given
                await asyncio.sleep(0)  # or an endless source would never let a run begin

    async def _ask(self, source: AsyncIterator[D]) -> D:
        self._asking = True
        try:
            return await anext(source, _END)
        finally:
            self._asking = False

    async def end(self, asking: asyncio.Task[Any]) -> None:
        """Wait for the task that asks, which has been told that there is no room any more.

        Where the source keeps it waiting it is cancelled, again every 50 ms if need be; never
        while it closes the source.
        """
        cancelled = False
        while not asking.done():
            if self._asking:
                asking.cancel()
            try:
                await asyncio.wait((asking,), timeout=AGAIN)
            except CancelledError:
                cancelled = True
        if cancelled:
            raise CancelledError


async def _close(source: AsyncIterator[Any]) -> None:
    close = getattr(source, "aclose", None)
    if close is None:
        return
    try:
        await close()
    except Exception:  # noqa: BLE001 -- what the runs came to is worth more
        _log.exception("closing the inputs failed")
