"""A bound on how many calls are made at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from cano.context import Context
from cano.errors import DefinitionError
from cano.policies.policy import Call, T


class Bulkhead:
    """At most *limit* calls at once; the others wait in line, first come, first served.

    The limit holds for all states, runs and workflows that share the object, in one event loop at
    a time. Waiting counts towards a `Timeout` outside of it, not inside.
    """

    __slots__ = ("_free", "_waiting", "limit")

    def __init__(self, limit: int) -> None:
        if not limit >= 1 or limit % 1:  # a fraction would never count down to 0
            raise DefinitionError(f"Bulkhead({limit}) is no number of calls; pass 1 or more")
        self.limit: int = limit
        self._free = limit
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Bulkhead {self.limit - self._free}/{self.limit}, {len(self._waiting)} waiting>"

    def wrap(self, call: Call[T], /) -> Call[T]:
        """Let *call* through when there is room."""

        async def bounded(ctx: Context[Any]) -> T:
            if self._free:  # then nobody waits: a place is handed on before it is freed
                self._free -= 1
            else:
                await self._wait()
            try:
                return await call(ctx)
            finally:
                self._leave()

        return bounded

    async def _wait(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[place] = None
        try:
            await place
        except BaseException:  # cancelled, or dropped together with its loop
            if place.done() and not place.cancelled():
                self._leave()  # the place was handed over in the moment of the cancellation
            else:
                self._waiting.pop(place, None)
            raise

    def _leave(self) -> None:
        """Hand the place to the next in line, or free it."""
        while self._waiting:
            place, _ = self._waiting.popitem(last=False)
            if not (place.done() or place.get_loop().is_closed()):
                place.set_result(None)
                return
        self._free += 1
