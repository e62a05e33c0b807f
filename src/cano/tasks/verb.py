"""What a function says of itself: its name, the resources it wants, where it leads.

Looked at once per function and remembered as long as the function lives, because a workflow may
be built anew for every request.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import (
    Annotated,
    Any,
    NamedTuple,
    TypeGuard,
    TypeVar,
    get_args,
    get_origin,
)
from weakref import ref

from cano._graph import Targets, targets_of
from cano.context import Context

T = TypeVar("T")


class Wanted(NamedTuple):
    """A resource that a function takes as a parameter."""

    name: str
    kind: Any
    """What it is annotated with; None if that says nothing."""
    optional: bool


class Verb(NamedTuple):
    """A function, described."""

    name: str
    wants: tuple[Wanted, ...]
    targets: Targets
    problem: str | None
    """Why it cannot serve as a task's work, with the remedy."""
    no_state: tuple[str, ...] = ()
    """Why what it returns is no state, if so: no matter for a branch."""
    data: type[Any] | None = None
    """The run data it works on, where its context says so: `Context[Order]`."""
    returns: Any = Any
    """What it is annotated to return, as written."""


_KNOWN: dict[ref[Any], dict[int, Verb]] = {}


def describe(call: Callable[..., Any], given: int = 1) -> Verb:
    """Describe *call*, whose first *given* parameters the engine fills: the context, the item."""
    try:
        return _KNOWN[ref(call)][given]
    except (KeyError, TypeError):
        return _describe_slowly(call, given)


def _describe_slowly(call: Callable[..., Any], given: int) -> Verb:
    """`describe` for what is not a function that was met before."""
    function, key = call, given
    if isinstance(call, MethodType):
        # A bound method is described without its self, the function it is made of with it.
        function, key = call.__func__, -given
        known = _KNOWN.get(ref(function), {}).get(key)
        if known is not None:
            return known
    verb = _look(call, given)
    with suppress(TypeError):  # neither hashable nor weakly referable, such as a slotted instance
        _KNOWN.setdefault(ref(function, _forget), {})[key] = verb
    return verb


def _forget(function: ref[Any]) -> None:
    _KNOWN.pop(function, None)


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
    function = _function_of(call)
    name = getattr(function, "__qualname__", type(call).__name__)
    name = name.replace("<locals>.", "").removesuffix(".__call__")
    if isinstance(call, type) or not callable(call):
        return Verb(name, (), None, _no_function(call, name))
    hints = _hints(function)
    problems: list[str] = []
    if not _is_async(call, hints.get("return")):
        problems.append(_how_not(call, name))
    try:
        parameters = _parameters(call)
    except (TypeError, ValueError):  # some builtins have no signature
        said = hints.get("return", Any)
        return Verb(name, (), targets_of(said), "; ".join(problems) or None, returns=said)
    taken = [p for p in parameters if p.kind in _POSITIONAL][:given]
    if len(taken) < given and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        problems.append(_too_few(call, name, given))
    wants: list[Wanted] = []
    bound = call.keywords if _is_partial(call) else ()
    for parameter in parameters:
        if parameter in taken or parameter.kind in _VARIABLE or parameter.name in bound:
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            problems.append(
                f"{name} takes {parameter.name} by position only, but resources are passed by "
                "name; drop the / from its parameters"
            )
        optional = parameter.default is not parameter.empty
        wants.append(Wanted(parameter.name, _kind(hints.get(parameter.name)), optional))
    said = hints.get("return", Any)
    targets = targets_of(said)
    data = _data(hints.get(taken[0].name)) if taken else None
    problem = "; ".join(problems) or None
    return Verb(name, tuple(wants), targets, problem, _no_state(name, targets), data, said)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_CONTEXT_ALONE = (inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD),)


def _parameters(call: Callable[..., Any]) -> Sequence[inspect.Parameter]:
    """What *call* takes."""
    if type(call) is FunctionType and not call.__dict__:
        code = call.__code__
        # A function of one argument need not be asked for long: it may be one of a request's own.
        if code.co_argcount == 1 and not (code.co_kwonlyargcount or code.co_flags & _VARIADIC):
            return _CONTEXT_ALONE
    return tuple(inspect.signature(call).parameters.values())


_VARIADIC = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


def _function_of(call: Any) -> Any:
    """The function that was written, under partials, bindings, decorators and objects."""
    while True:
        inner = getattr(call, "__wrapped__", None) or getattr(call, "__func__", None)
        if inner is None and not isinstance(call, FunctionType):
            inner = call.func if _is_partial(call) else _called(call)
        if inner is None:
            return call
        call = inner


def _is_partial(call: object) -> TypeGuard[partial[Any]]:
    return isinstance(call, partial)


def _called(item: object) -> FunctionType | None:
    """The function that calling *item* calls, if its class has one."""
    method = inspect.getattr_static(type(item), "__call__", None)
    return method if isinstance(method, FunctionType) else None


def _is_async(call: Any, returns: Any) -> bool:
    """Whether calling it gives something to await, as far as can be seen."""
    if _is_partial(call):
        call = call.func
    if isinstance(call, FunctionType) and call.__code__.co_flags & inspect.CO_COROUTINE:
        return True
    if isinstance(call, BuiltinFunctionType):
        return False
    origin: Any = get_origin(returns) or returns
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        return True
    wrapped = getattr(call, "__wrapped__", None)
    if isinstance(call, FunctionType | MethodType):
        written: Any = call
        return inspect.iscoroutinefunction(written) or (
            wrapped is not None and _is_async(wrapped, None)
        )
    if inspect.iscoroutinefunction(type(call).__call__) or wrapped is not None:
        return True
    # What an object does when called is its own affair, unless it says that it returns a state.
    return not isinstance(targets_of(returns), frozenset | type)


def _no_state(name: str, targets: Targets) -> tuple[str, ...]:
    if not isinstance(targets, str):
        return ()
    return (
        f"{name} is annotated to return {targets}, which is no state; "
        "write -> Literal[Step.A, ...], or -> Step for anywhere",
    )


def _no_function(call: Any, name: str) -> str:
    """Say what to pass instead of *call*."""
    if isinstance(call, type):
        return f"{name} is a class; pass an instance, {name}(...)"
    verb = getattr(call, "verb", None)
    remedy = f"its method, .{verb}" if isinstance(verb, str) else "an async function"
    return f"{call!r} cannot be called; pass {remedy}"


def _how_not(call: Any, name: str) -> str:
    """Why *call* is not async, and what to do about it."""
    if inspect.isasyncgenfunction(call):
        return f"{name} is an async generator; return the next state instead of yielding"
    if name.endswith("<lambda>"):
        return f"{name} is not async; write an `async def` instead"
    block = f"{name} is a plain function, which would block every other run; make it `async def`"
    if isinstance(call, MethodType):
        return block
    return f"{block}, or say where it runs: thread({name}) or process({name})"


def _too_few(call: Any, name: str, given: int) -> str:
    takes = "the context" if given == 1 else "the context and the item"
    parameters = ["self"] * isinstance(call, MethodType) + ["ctx", "item"][:given]
    return (
        f"{name} does not take {takes}; "
        f"write `async def {name.rpartition('.')[2]}({', '.join(parameters)})`"
    )


def _kind(hint: Any) -> Any:
    """What a resource must be to fit a parameter, to be asked of it before it is used."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return None if hint is Any or hint is object else hint


def _data(hint: Any) -> type[Any] | None:
    """The run data that a context is annotated with."""
    of = get_args(hint) if get_origin(hint) is Context else ()
    kind = get_origin(of[0]) or of[0] if of else None
    return kind if isinstance(kind, type) and kind is not Any else None


def _hints(function: Any) -> dict[str, Any]:
    """The annotations of *function*. Those that cannot be read are left out: they prove nothing."""
    raw: dict[str, Any] = getattr(function, "__annotations__", {})
    if not isinstance(function, FunctionType) or not any(
        isinstance(hint, str) for hint in raw.values()
    ):
        return raw
    # An enum local to a function is among its nonlocals, if its body says the name.
    local = _nonlocals(function)
    found: dict[str, Any] = {}
    for name, hint in raw.items():
        with suppress(Exception):  # such as a name that is only imported for type checkers
            found[name] = _read(hint, function.__globals__, local)
    return found


def _read(hint: object, known: dict[str, Any], local: dict[str, Any]) -> object:
    """What `typing.get_type_hints` does, twenty times as fast."""
    for _ in range(2):  # a quoted annotation may be quoted once more by the __future__ import
        if isinstance(hint, str):
            hint = eval(_compiled(hint), known, local)  # noqa: S307 -- it is the program's own
    return hint


@lru_cache(maxsize=1024)
def _compiled(hint: str) -> CodeType:
    return compile(hint, "<annotation>", "eval")


def _nonlocals(function: FunctionType) -> dict[str, Any]:
    """What *function* sees of the functions around it, such as an enum that its body names."""
    found: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not assigned yet
            found[name] = cell.cell_contents
    return found
