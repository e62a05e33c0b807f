"""What `thread` and `process` have in common: an ordinary function dressed as an async one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import copy
from functools import partial, update_wrapper
from typing import Any, ClassVar, Generic, ParamSpec, Self, TypeVar

from cano.errors import DefinitionError

P = ParamSpec("P")
T = TypeVar("T")


class Offloaded(Generic[P, T]):
    """An async callable that has *function* run elsewhere.

    It keeps the function's name, signature and annotations, so that a workflow reads its edges and
    resources as if it were the function; in a class body it binds like a method.
    """

    where: ClassVar[str]
    """The name of the wrapper, for messages."""

    __wrapped__: Callable[P, T]

    def __init__(self, function: Callable[P, T], limit: int | None) -> None:
        if not callable(function):
            raise DefinitionError(f"{self.where}({function!r}): pass a function")
        name = name_of(function)
        if _is_async(function):
            raise DefinitionError(
                f"{self.where}({name}): {name} is async already and needs no {self.where}; use it "
                "as it is"
            )
        if limit is not None and limit < 1:
            raise DefinitionError(
                f"{self.where}({name}, limit={limit}) lets nothing run; pass 1 or more"
            )
        update_wrapper(self, function)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        raise NotImplementedError

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Self:
        """Bind like a function: a copy, sharing the limit, that calls the bound method."""
        if instance is None:
            return self
        function: Any = self.__wrapped__
        bound = copy(self)
        update_wrapper(bound, function.__get__(instance, owner))
        return bound

    def __repr__(self) -> str:
        return f"<{self.where} {name_of(self.__wrapped__)}>"


def name_of(function: Callable[..., Any]) -> str:
    """What messages call *function*."""
    plain = function.func if isinstance(function, partial) else function
    name: str = getattr(plain, "__qualname__", type(plain).__name__)
    return name.replace("<locals>.", "")


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, partial):
        function = function.func
    call = getattr(type(function), "__call__", None)  # noqa: B004 -- the method is wanted
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.iscoroutinefunction(call)
    )
