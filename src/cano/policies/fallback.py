"""Something else in place of an error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from inspect import isawaitable
from typing import Any, Generic, TypeVar, cast, overload

from cano._graph import targets_of
from cano._values import returns_of
from cano.context import Context
from cano.errors import DefinitionError
from cano.events import FallbackUsed
from cano.policies.policy import Call, P, T
from cano.policies.retry import PROGRAMMING_ERRORS, Which

V = TypeVar("V")


class Fallback(Generic[V]):
    """Where a call fails, return *instead*: a value, or what `instead(ctx, error)` returns.

    The function may be async or not; what it raises is raised, with the error of the call as its
    context. For the task of a state the value is the next state, and an edge of it; annotate a
    function (`-> Literal[Step.DEGRADED]`) so that its edges are known. Run data is brought back to
    what it was before the call.

    *on* says after which errors: types, or a predicate. By default it is every `Exception` but
    programming errors and `DefinitionError`, which should be seen; `on=(Exception,)` is taken at
    its word. Cancellations pass, and so do errors after which the run has to stop where it is.
    """

    @overload
    def __init__(
        self,
        instead: Callable[[Context[Any], Exception], Coroutine[Any, Any, V]],
        *,
        on: Which = ...,
    ) -> None: ...
    @overload
    def __init__(
        self, instead: Callable[[Context[Any], Exception], V], *, on: Which = ...
    ) -> None: ...
    @overload
    def __init__(self, instead: V, *, on: Which = ...) -> None: ...
    def __init__(self, instead: Any, *, on: Which = Exception) -> None:
        if not _picks(on):
            raise DefinitionError(
                f"Fallback(on={on!r}) picks no errors; pass exception types or a function of one"
            )
        self.instead: Any = instead
        self.on: Which = on

    def __repr__(self) -> str:
        return f"Fallback({getattr(self.instead, '__qualname__', repr(self.instead))})"

    def __call__(
        self, function: Callable[P, Awaitable[T]], /
    ) -> Callable[P, Coroutine[Any, Any, T | V]]:
        """Guard *function*, whatever its parameters; see `cano.guarded`."""
        from cano.policies.guarded import guarded  # noqa: PLC0415 -- few programs need it

        careful: Any = guarded(self)(function)
        return careful  # type: ignore[no-any-return]

    def picks(self, error: Exception) -> bool:
        """Whether *error* is one that something else is returned for."""
        which: Any = self.on
        if which is Exception:
            return not isinstance(error, (*PROGRAMMING_ERRORS, DefinitionError))
        if isinstance(which, type | tuple):
            return isinstance(error, which)
        return bool(which(error))

    def targets(self) -> frozenset[Any]:
        """The states that this may lead to, as far as can be told."""
        if isinstance(self.instead, Enum):
            return frozenset({self.instead})
        found = targets_of(returns_of(self.instead)) if callable(self.instead) else None
        return found if isinstance(found, frozenset) else frozenset()

    def wrap(self, call: Call[T], /) -> Call[T]:
        """Make *call*, and return something else if it fails."""
        instead, computed = self.instead, callable(self.instead)

        async def falling_back(ctx: Context[Any]) -> T:
            saved = ctx.snapshot() if ctx._kind is not None else None
            try:
                return await call(ctx)
            except Exception as error:
                if ctx.host.stops(error) or not self.picks(error):
                    raise
                if ctx.listens(FallbackUsed):
                    ctx.emit(FallbackUsed(error=repr(error)))
                ctx.restore(saved)
                if not computed:
                    return instead  # type: ignore[no-any-return]
                value = instead(ctx, error)
                return await value if isawaitable(value) else value  # type: ignore[no-any-return]

        return falling_back


def _picks(on: Any) -> bool:
    if type(on) is tuple:
        return on != () and all(_is_error(kind) for kind in cast("tuple[object, ...]", on))
    return _is_error(on) if isinstance(on, type) else callable(on)


def _is_error(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)
