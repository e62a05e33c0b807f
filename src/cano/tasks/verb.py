"""What a function says of itself: its name, the resources it wants, where it leads.

Looked at once per function and remembered as long as the function lives, because a workflow may
be built anew for every request.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial
from typing import Any, NamedTuple, TypeVar, get_origin, get_type_hints
from weakref import WeakKeyDictionary

from cano._graph import targets_of
from cano.context import Context

T = TypeVar("T")


class Wanted(NamedTuple):
    """A resource that a function takes as a parameter."""

    name: str
    kind: type[Any] | None
    """The class it is annotated with, where that is a plain class."""
    optional: bool


class Verb(NamedTuple):
    """A function, described."""

    name: str
    wants: tuple[Wanted, ...]
    targets: frozenset[Enum] | str | None
    """See `targets_of`."""
    problem: str | None
    """Why it cannot serve as a task's work, with the remedy."""


_KNOWN: WeakKeyDictionary[Any, dict[int, Verb]] = WeakKeyDictionary()


def describe(call: Callable[..., Any], given: int = 1) -> Verb:
    """Describe *call*, whose first *given* parameters the engine fills: the context, the item."""
    known = _known(getattr(call, "__func__", call))
    if known is None:
        return _look(call, given)
    # A bound method is described without its self, the function it is made of with it.
    key = -given if hasattr(call, "__func__") else given
    found = known.get(key)
    if found is None:
        found = known[key] = _look(call, given)
    return found


def _known(function: Any) -> dict[int, Verb] | None:
    """What is remembered of *function*; None if nothing can be."""
    try:
        known = _KNOWN.get(function)
        if known is None:
            known = _KNOWN[function] = {}
    except TypeError:  # neither hashable nor weakly referable, such as a slotted instance
        return None
    return known


def inject(
    call: Callable[..., Awaitable[T]], verb: Verb, present: Callable[[str], bool], *, item: bool
) -> Callable[[Context[Any]], Awaitable[T]]:
    """Fill the parameters after the context by name; an optional one only where *present*."""
    names = tuple(want.name for want in verb.wants if not want.optional or present(want.name))
    if not names:
        return (lambda ctx: call(ctx, ctx.item)) if item else call

    def filled(ctx: Context[Any]) -> Awaitable[T]:
        found = ctx.resources
        resources = {name: found[name] for name in names}
        return call(ctx, ctx.item, **resources) if item else call(ctx, **resources)

    return filled


def _look(call: Callable[..., Any], given: int) -> Verb:
    plain = inspect.unwrap(call.func if isinstance(call, partial) else call)
    name = getattr(plain, "__qualname__", type(call).__name__).replace("<locals>.", "")
    problem = (
        None
        if _is_async(call)
        else (
            f"{name} is a plain function, which would block every other run; make it `async def`, or "
            f"say where it runs: thread({name}) or process({name})"
        )
    )
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        return Verb(name, (), None, problem)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    swallows = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(positional) < given and not swallows and problem is None:
        takes = "the context" if given == 1 else "the context and the item"
        problem = (
            f"{name} does not take {takes}; write `async def {name}(ctx{', item' * (given > 1)})`"
        )
    hints = _hints(plain)
    wants = []
    for parameter in parameters:
        if parameter in positional[:given] or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        kind = hints.get(parameter.name)
        kind = get_origin(kind) or kind
        optional = parameter.default is not parameter.empty
        wants.append(Wanted(parameter.name, kind if isinstance(kind, type) else None, optional))
    return Verb(name, tuple(wants), targets_of(hints.get("return", Any)), problem)


def _is_async(call: Callable[..., Any]) -> bool:
    if not (inspect.isfunction(call) or inspect.ismethod(call)):
        return True  # an object; what its __call__ returns is its own affair
    return inspect.iscoroutinefunction(inspect.unwrap(call)) or (
        "return" in call.__annotations__
        and (
            "Awaitable" in str(call.__annotations__["return"])
            or "Coroutine" in str(call.__annotations__["return"])
        )
    )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, resolved also where they name an enum local to a function."""
    target = function if hasattr(function, "__annotations__") else type(function).__call__
    try:
        local = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
        return get_type_hints(target, localns={**local})
    except Exception:  # noqa: BLE001 -- an annotation that cannot be read proves nothing
        return {}
