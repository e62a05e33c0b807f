"""A bound on how many calls are made at the same time.

Rule 1: who leaves hands the place to the first in line; it is free only when nobody waits.
Rule 2: who waits and goes, cancelled or out of patience, leaves the line at once, and gives on a
        place that was handed over in that very moment.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import OrderedDict
from math import inf
from typing import Any, Self
from weakref import WeakValueDictionary

from cano.context import Context
from cano.errors import BulkheadFullError, DefinitionError
from cano.events import CallDelayed, CallRefused
from cano.policies.policy import Call, Decorating, T, is_count, is_number


class Bulkhead(Decorating):
    """At most *limit* calls at once; the others wait in line, first come, first served.

    Who would wait for longer than *max_wait* seconds gets `BulkheadFullError`; with 0 at once.
    The limit holds for all states, runs and workflows that share the object, in one event loop at
    a time; copies are the same bulkhead. Waiting counts towards a `Timeout` outside of it, not
    inside. `async with bulkhead:` bounds a block. *name* is what errors and events call it.
    """

    __slots__ = ("__weakref__", "_free", "_waiting", "limit", "max_wait", "name")

    def __init__(self, limit: int, *, max_wait: float = inf, name: str = "") -> None:
        if not is_count(limit, 1):
            raise DefinitionError(f"Bulkhead({limit!r}) is no number of calls; pass 1 or more")
        if not is_number(max_wait, 0):
            raise DefinitionError(
                f"Bulkhead(max_wait={max_wait!r}) is no time to wait; pass seconds, 0 to refuse at "
                "once, inf to wait for as long as it takes"
            )
        self.limit: int = limit
        self.max_wait: float = max_wait
        self.name: str = name
        self._free = limit
        self._waiting: OrderedDict[Future[bool], None] = OrderedDict()

    @classmethod
    def shared(cls, name: str, limit: int, *, max_wait: float = inf) -> Bulkhead:
        """The bulkhead of that *name*: one for the process, as long as somebody has it.

        Raises `DefinitionError` if it is there already with other numbers.
        """
        if not name:
            raise DefinitionError("Bulkhead.shared() needs a name, such as 'db'")
        made = cls(limit, max_wait=max_wait, name=name)
        found = _shared.setdefault(name, made)
        if (found.limit, found.max_wait) != (limit, max_wait):
            raise DefinitionError(
                f"Bulkhead.shared({name!r}) is there with limit={found.limit}, "
                f"max_wait={found.max_wait:g}, and asked for with limit={limit}, "
                f"max_wait={max_wait:g}; say the same everywhere, or use another name"
            )
        return found

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        taken = self.limit - self._free
        return f"<Bulkhead{name} {taken}/{self.limit}, {len(self._waiting)} waiting>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def wrap(self, call: Call[T], /) -> Call[T]:
        """Let *call* through when there is room."""

        async def bounded(ctx: Context[Any]) -> T:
            if self._free:  # then nobody waits: a place is handed on before it is freed
                self._free -= 1
            else:
                await self._delayed(ctx)
            try:
                return await call(ctx)
            finally:
                self._leave()

        return bounded

    async def __aenter__(self) -> Self:
        if self._free:
            self._free -= 1
        else:
            await self._wait()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._leave()

    async def _delayed(self, ctx: Context[Any]) -> None:
        """`_wait`, and tell the observers."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            await self._wait()
        except BulkheadFullError:
            if ctx.listens(CallRefused):
                ctx.emit(CallRefused(by=self._label))
            raise
        if ctx.listens(CallDelayed):
            ctx.emit(CallDelayed(by=self._label, seconds=loop.time() - begun))

    async def _wait(self) -> None:
        """Until there is a place, which is then ours. Raises `BulkheadFullError`."""
        if not self.max_wait:
            raise self._full()
        loop = asyncio.get_running_loop()
        place: Future[bool] = loop.create_future()
        self._waiting[place] = None
        timer = (
            None if self.max_wait == inf else loop.call_later(self.max_wait, self._refuse, place)
        )
        try:
            placed = await place
        except BaseException:  # cancelled, or dropped together with its loop
            if place.done() and not place.cancelled() and place.result():
                self._leave()  # the place was handed over in the moment of the cancellation
            raise
        finally:
            self._waiting.pop(place, None)
            if timer is not None:
                timer.cancel()
        if not placed:
            raise self._full()

    def _refuse(self, place: Future[bool]) -> None:
        """Its patience is over."""
        if not place.done():
            del self._waiting[place]
            place.set_result(False)

    def _leave(self) -> None:
        """Hand the place to the next in line, or free it."""
        while self._waiting:
            place, _ = self._waiting.popitem(last=False)
            if not (place.done() or place.get_loop().is_closed()):
                place.set_result(True)
                return
        self._free += 1

    @property
    def _label(self) -> str:
        return self.name or "Bulkhead"

    def _full(self) -> BulkheadFullError:
        name = f"Bulkhead {self.name!r}" if self.name else "Bulkhead"
        waited = f" for its max_wait of {self.max_wait:g} s" if self.max_wait else ""
        return BulkheadFullError(
            f"{name} was full{waited}: {self.limit} calls at once, {len(self._waiting)} more in "
            "line; try again later, or raise its limit or max_wait"
        )


_shared: WeakValueDictionary[str, Bulkhead] = WeakValueDictionary()
