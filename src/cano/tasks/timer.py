"""Wait for a time, or until a moment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, ClassVar, TypeAlias

from cano import _progress
from cano.context import Context
from cano.errors import DefinitionError
from cano.tasks.task import Guard, Runner, S, Task

Moment: TypeAlias = float | timedelta | datetime
"""Seconds from now, or a moment: an aware datetime."""


class TimerTask(Task[S]):
    """Wait, then go on to *then*.

    With a store a resumed run waits only for what is left, and inside ``async with workflow:`` a
    run in the background holds no asyncio task while it waits. How long is a fixed number of
    seconds, or what `moment`, written in a subclass, works out. Example::

        flow.register(Step.COOL_DOWN, TimerTask(3600, then=Step.RETRY))
    """

    verb: ClassVar[str] = "moment"

    def __init__(self, delay: Moment | None = None, *, then: S) -> None:
        self.delay = delay
        self.then = then

    async def moment(self, ctx: Context[Any], /, *args: Any, **kwargs: Any) -> Moment:
        """When to go on: seconds or a `timedelta` from now, or an aware `datetime`."""
        assert self.delay is not None  # noqa: S101 -- `problems` asks first
        return self.delay

    def bind(self, guard: Guard, /) -> Runner[S]:
        ask = guard(self.moment)

        async def run(ctx: Context[Any]) -> S:
            key = ctx.next_name()
            known = ctx.host.durable and ctx.host.history.visit.of("timer", ctx.branch_name, key)
            seconds = 0.0 if known else _seconds(await ask(ctx), ctx.now())
            if ctx.host.durable:
                await _progress.sleep(ctx, seconds, key, park=True)
            else:
                await ctx.pause(seconds)
            return self.then

        return run

    def targets(self) -> frozenset[S]:
        return frozenset((self.then,))

    def problems(self, total: float | None, /) -> Iterable[str]:
        written: object = type(self).moment
        if written is not _AS_GIVEN:
            return
        if self.delay is None:
            yield f"{self.label} does not know how long; pass seconds, or write moment(self, ctx)"
            return
        try:
            _seconds(self.delay, 0.0)
        except DefinitionError as error:
            yield str(error)


_AS_GIVEN: object = vars(TimerTask)["moment"]


def _seconds(moment: Moment, now: float) -> float:
    """How long to wait. Raises `DefinitionError` for what is no time."""
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise DefinitionError(f"{moment!r} has no time zone; pass an aware datetime")
        return max(moment.timestamp() - now, 0.0)
    seconds: object = moment.total_seconds() if isinstance(moment, timedelta) else moment
    if not isinstance(seconds, int | float) or not isfinite(seconds):
        raise DefinitionError(f"{moment!r} is no time; pass finite seconds, or an aware datetime")
    return max(float(seconds), 0.0)
