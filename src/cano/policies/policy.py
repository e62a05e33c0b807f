"""The contract of a policy: how carefully a call is made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from enum import Enum
from math import inf
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, runtime_checkable

from cano.context import Context

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S", bound=Enum)

Call: TypeAlias = Callable[[Context[Any]], Awaitable[T]]
"""One piece of work."""


@runtime_checkable
class Policy(Protocol):
    """Turns a call into a more careful call: once per state, not once per visit.

    A policy owns one call: whether, when and how often it is made. It never sees states.
    """

    def wrap(self, call: Call[T], /) -> Call[T]: ...


class Decorating:
    """For policies that can be put around a function of one's own too, outside of any workflow."""

    __slots__ = ()

    def __call__(
        self: Policy, function: Callable[P, Awaitable[T]], /
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        """Guard *function*, whatever its parameters; see `cano.guarded`."""
        from cano.policies.guarded import guarded  # noqa: PLC0415 -- few programs need it

        return guarded(self)(function)


def problems_of(
    policies: Iterable[Policy], total: float | None, *, once: bool = False
) -> Iterable[str]:
    """Say which of *policies* are none, or make no sense where a run has *total* seconds.

    Nor, if the work is to be done *once*, policies that make a call twice side by side.
    """
    for policy in policies:
        if isinstance(policy, type):
            yield f"{policy.__name__} is a class; pass an instance, {policy.__name__}(...)"
        elif not hasattr(policy, "wrap"):
            yield f"{policy!r} is no policy; pass Retry(...), Timeout(...) or another with wrap()"
        else:
            if once and getattr(policy, "side_by_side", False):
                yield (
                    f"{policy!r} would do work twice side by side that is to be undone, or is a run "
                    "of its own; put it around the call inside that may be made twice"
                )
            problem = getattr(policy, "problem", None)
            if problem is not None and (found := problem(total)) is not None:
                yield found


def with_policies(targets: frozenset[S] | None, policies: Sequence[Policy]) -> frozenset[S] | None:
    """Where a state leads whose task leads to *targets*: a policy may return a state itself."""
    for policy in policies:
        own = getattr(policy, "targets", None)
        if own is not None and targets is not None and not isinstance(policy, type):
            targets = targets | own()
    return targets


def compose(policies: Sequence[Policy], call: Call[T]) -> Call[T]:
    """Wrap *call* in *policies*, outermost first: `[A, B]` is `A(B(call))`."""
    for policy in reversed(policies):
        call = policy.wrap(call)
    return call


def is_number(value: object, least: float, most: float = inf) -> bool:
    """Whether *value* is a number from *least* to *most*; NaN is none."""
    return isinstance(value, int | float) and least <= value <= most


def is_count(value: object, least: int) -> bool:
    """Whether *value* is a finite whole number, *least* or more."""
    # A fraction would never count down to 0.
    return isinstance(value, int | float) and least <= value < inf and not value % 1
