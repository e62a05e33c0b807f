"""Policies around any async function, outside of any workflow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from enum import Enum
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from cano._clock import wall_offset
from cano._data import DataType
from cano._history import History
from cano._host import Resolution
from cano._mailbox import Mailbox
from cano.context import Context
from cano.errors import DefinitionError
from cano.events import Event
from cano.policies.policy import P, Policy, T, compose, problems_of
from cano.resources import NO_RESOURCES, Resources

_outer: ContextVar[Context[Any] | None] = ContextVar("cano_guarded", default=None)
"""The guarded call that is being made, so that one inside of it knows how much time it has."""


def guarded(
    *policies: Policy,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Put *policies* around an async function, outermost first, whatever its parameters.

    `@guarded(Retry(3), Timeout(5))` above `async def fetch(url)` makes it
    `Retry(Timeout(fetch))`, once: all calls share the policies, each has attempts of its own.
    What a guarded function calls, and the tasks it starts, know the deadline they are under.
    Nothing is observed or kept outside of a workflow. One policy alone decorates by itself:
    `@Retry(3)`.

    Raises `DefinitionError` for what is no policy, for none, and for what is no async function.
    """
    problems = list(problems_of(policies, None))
    if not policies:
        problems = ["no policy was given; pass some, as in @guarded(Retry(3), Timeout(5))"]
    if problems:
        raise DefinitionError("guarded(): " + "; ".join(problems))

    def decorate(function: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]:
        _check(function)
        path = [place(function)]
        anyhow: Any = function

        def made(ctx: Context[Any]) -> Awaitable[T]:
            args, kwargs = ctx.item
            return anyhow(*args, **kwargs)  # type: ignore[no-any-return]

        call = compose(policies, made)

        @wraps(function)
        async def careful(*args: P.args, **kwargs: P.kwargs) -> T:
            ctx: Context[Any] = Context(_HOST, path, None)
            ctx.item = args, kwargs
            if (outer := _outer.get()) is not None:
                ctx._outer_deadline = outer.deadline
            token = _outer.set(ctx)
            try:
                return await call(ctx)
            finally:
                if ctx._alarm is not None:
                    ctx.close()
                try:  # noqa: SIM105 -- contextlib.suppress would cost as much as all the rest
                    _outer.reset(token)
                except ValueError:  # dropped together with its loop, from within another call
                    pass

        return careful

    return decorate


class Function(Enum):
    """What stands in `ctx.state` outside of a workflow: the function that is guarded."""


def place(function: Any) -> Enum:
    """A state of the function's own name, made without a class of its own."""
    made = object.__new__(Function)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    made._name_ = made._value_ = name.rpartition("<locals>.")[2]
    return made


def _check(function: Any) -> None:
    """Raise `DefinitionError` unless *function* is async."""
    if (kind := type(function).__name__) in {"staticmethod", "classmethod"}:
        raise DefinitionError(f"a {kind} cannot be guarded; put @{kind} above the policies")
    inner = getattr(function, "func", function)  # of a functools.partial
    if not callable(function) or isinstance(function, type):
        raise DefinitionError(f"{function!r} is no async function; put the policies above one")
    if not (iscoroutinefunction(inner) or iscoroutinefunction(getattr(inner, "__call__", None))):  # noqa: B004
        name = getattr(function, "__qualname__", repr(function))
        raise DefinitionError(
            f"{name} is no async function; write `async def`, or wrap what blocks in "
            "`asyncio.to_thread` within one"
        )


class Nobody:
    """The host of calls that belong to no run: it keeps nothing, and nobody listens."""

    run_id = ""
    data_type: DataType[Any] | None = None
    durable = False
    may_park = False
    fence = 0
    visits = 0
    inherited = 0
    resources: Resources = NO_RESOURCES
    resolutions: Mapping[str, Resolution] = {}
    # Never written to: without a store nothing is recorded, and nobody can send a signal.
    history: History = History()
    mailbox: Mailbox = Mailbox()

    def now(self) -> float:
        loop = asyncio.get_running_loop()
        return loop.time() + wall_offset(loop)

    def listens(self, kind: type[Event], /) -> bool:
        return False

    def announce(self, event: Event, /) -> None: ...

    def defer(self, event: Event, /) -> None: ...

    def stops(self, error: Exception, /) -> bool:
        return False

    async def record(self, event: Event, /) -> None: ...

    def not_begun(self) -> None: ...

    async def look(self) -> None: ...


_HOST = Nobody()
