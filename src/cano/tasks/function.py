"""The simplest model: one async function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from cano.tasks.task import Guard, Runner, S, Task
from cano.tasks.verb import describe


class FunctionTask(Task[S]):
    """A plain async function as a task."""

    __slots__ = ("call", "verb_")

    def __init__(self, call: Callable[..., Awaitable[S]]) -> None:
        self.call = call
        self.verb_ = describe(call)

    def bind(self, guard: Guard, /) -> Runner[S]:
        return guard(self.call)

    def targets(self) -> frozenset[S] | None:
        found: Any = self.verb_.targets
        return found if isinstance(found, frozenset) else None

    def problems(self, total: float | None, /) -> Iterable[str]:
        returns = self.verb_.targets
        if isinstance(returns, str):
            return (f"{self.label} is annotated to return {returns}, which is no state",)
        return ()

    @property
    def label(self) -> str:
        return self.verb_.name
