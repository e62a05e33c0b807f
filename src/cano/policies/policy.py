"""The contract of a policy: how carefully a call is made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from cano.context import Context

T = TypeVar("T")

Call: TypeAlias = Callable[[Context[Any]], Awaitable[T]]
"""One piece of work."""


@runtime_checkable
class Policy(Protocol):
    """Turns a call into a more careful call: once per state, not once per visit.

    A policy owns one call: whether, when and how often it is made. It never sees states.
    """

    def wrap(self, call: Call[T], /) -> Call[T]: ...


def problems_of(policies: Iterable[Policy], total: float | None) -> Iterable[str]:
    """Say which of *policies* are none, or make no sense where a run has *total* seconds."""
    for policy in policies:
        if isinstance(policy, type):
            yield f"{policy.__name__} is a class; pass an instance, {policy.__name__}(...)"
        elif not hasattr(policy, "wrap"):
            yield f"{policy!r} is no policy; pass Retry(...), Timeout(...) or another with wrap()"
        else:
            problem = getattr(policy, "problem", None)
            if problem is not None and (found := problem(total)) is not None:
                yield found


def compose(policies: Sequence[Policy], call: Call[T]) -> Call[T]:
    """Wrap *call* in *policies*, outermost first: `[A, B]` is `A(B(call))`."""
    for policy in reversed(policies):
        call = policy.wrap(call)
    return call
