"""Decide where to go, and nothing else."""

from __future__ import annotations

from typing import Any, ClassVar

from cano.context import Context
from cano.tasks.task import S, Task


class RouterTask(Task[S]):
    """Branch on what is known, without side effects; leaves no trace in a store.

    Example::

        class BySize(RouterTask[Step]):
            async def route(self, ctx: Context[Order]) -> Literal[Step.SMALL, Step.LARGE]:
                return Step.LARGE if ctx.data.total > 1000 else Step.SMALL
    """

    recorded: ClassVar[bool] = False
    verb: ClassVar[str] = "route"

    async def route(self, ctx: Context[Any], /, *args: Any, **kwargs: Any) -> S:
        """Return the next state."""
        raise NotImplementedError
