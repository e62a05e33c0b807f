"""Work that a cancellation has to wait for."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from cano.context import Context

T = TypeVar("T")
Call: TypeAlias = Callable[[Context[Any]], Awaitable[T]]


async def outlast(work: asyncio.Future[Any]) -> bool:
    """Wait until *work* is done, however often we are cancelled meanwhile; whether we were."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait((work,))
        except CancelledError:
            cancelled = True
    return cancelled


def shielded(call: Call[T], *, then_cancelled: bool = True) -> Call[T]:
    """Let *call* finish before a cancellation continues, or, if not *then_cancelled*, is dropped.

    What the call raises takes precedence over the cancellation.
    """

    async def apart(ctx: Context[Any]) -> T:
        with ctx.apart():
            return await call(ctx)

    async def finish(ctx: Context[Any]) -> T:
        work = asyncio.ensure_future(apart(ctx))
        cancelled = await outlast(work)
        if cancelled and then_cancelled and not work.cancelled() and work.exception() is None:
            raise CancelledError
        return work.result()

    return finish
