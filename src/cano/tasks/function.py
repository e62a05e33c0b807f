"""The simplest model: one async function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar, cast

from cano._graph import Targets
from cano.tasks.task import Guard, Runner, S, Task
from cano.tasks.verb import describe


class FunctionTask(Task[S]):
    """A plain async function as a task."""

    verb: ClassVar[str] = "call"

    def __init__(self, call: Callable[..., Awaitable[S]]) -> None:
        self.call = call
        self._said = describe(call)

    def bind(self, guard: Guard, /) -> Runner[S]:
        return guard(self.call)

    def targets(self) -> frozenset[S] | None:
        found = self._said.targets
        return cast("frozenset[S]", found) if isinstance(found, frozenset) else None

    @property
    def returns(self) -> Targets:
        return self._said.targets

    def problems(self, total: float | None, /) -> Iterable[str]:
        return self._said.no_state

    @property
    def label(self) -> str:
        return self._said.name
