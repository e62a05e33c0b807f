"""Ordinary functions in processes, which can be ended.

How it works: the arguments are pickled here and sent to a worker process (`_workers`), which looks
the function up by its name, calls it and sends back what came of it (`_worker`).
"""

from __future__ import annotations

import inspect
import os
import pickle
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar, Self, TypeAlias, TypeGuard, TypeVar, cast

from msgspec import Struct
from msgspec.structs import force_setattr

from cano._data import DataType
from cano.context import Context
from cano.errors import CanoError, DataError, DefinitionError, RemoteError
from cano.executors._workers import Pool
from cano.executors.offload import Offloaded, P, name_of

T = TypeVar("T")

Target: TypeAlias = bytes | tuple[str, str]
"""How a function is found in another process: by module and name, or by its pickle."""

_SHARED = Pool(os.cpu_count() or 2)


def process(
    function: Callable[P, T], /, *, limit: int | None = None
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make *function* an async one that runs in another process: for work that keeps a core busy.

    Usable as a task, as a branch of a split, as a decorator, and by itself::

        flow.register(Step.PARSE, Split.over(files, run=process(parse), then=Step.REPORT))
        tree = await process(parse)(text)

    Processes are started when needed and kept for a minute without work. At most as many calls
    run at once as there are cores, the others wait in line; with *limit*, the function has
    processes of its own, so many, however often it is called. (So wrap it once, not per call.)

    A call that is cancelled, times out or loses a race is *ended*: its process is killed, with
    every process that it has started, and gone when the call is over. A process that dies in the
    middle of a call (out of memory, `os._exit`, a crash in C) fails that call alone, with
    `WorkerCrashedError`, which `Retry` tries again.

    *function* must be importable: no lambda, nothing defined in a function or typed into a prompt.
    It gets copies, made by pickling, and its result is one. Raises `DefinitionError` for another
    function, `DataError` where a value cannot be sent, saying which. An exception comes back as
    itself, with the traceback it had there as a note, or as `RemoteError`.

    `ctx` knows run_id, state, data, attempt, branch, item, split and error there, and nothing else
    (`DetachedContextError`). If the function is a state's own task and changes `ctx.data`, the
    fields that it changed are put into the run's data when it returns; changes by a branch, or by
    a call that raises, are not.

    In the process, stdin is empty, and what is printed goes to stderr, at once. A program that is
    a script keeps its start-up under ``if __name__ == "__main__":``, because processes load it too
    where the function, or a value, is defined in it.
    """
    return _Process(function, limit)


class _Process(Offloaded[P, T]):
    where: ClassVar[str] = "process"

    def __init__(self, function: Callable[P, T], limit: int | None) -> None:
        super().__init__(function, limit)
        if problem := _unfindable(function):
            raise DefinitionError(f"process({name_of(function)}): {problem}")
        self._pool = _SHARED if limit is None else Pool(limit)
        self._target: Target | None = None

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Self:
        bound = super().__get__(instance, owner)
        if bound is not self:
            bound._target = None
        return bound

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        function = self.__wrapped__
        if self._target is None:  # a decorator sees the function before its module has it
            self._target = _target(function)
        if getattr(sys.modules.get("__main__"), "loading_main", False):
            raise DefinitionError(
                f"{name_of(function)} was called while its worker process loads the program; put "
                'what starts the program under `if __name__ == "__main__":`'
            )
        owner = _Owner.of(args)
        try:
            arguments = pickle.dumps((args, kwargs))
        except Exception as error:
            what, why = _culprit(function, args, kwargs, error)
            raise DataError(
                f"{name_of(function)}: {what} cannot be sent to another process: {_brief(why)}; "
                "send what it is made from, and make it in the function"
            ) from error
        program = _program() if _mentions_main(self._target, arguments) else None
        fields = owner.fields if owner else ()
        request = pickle.dumps((self._target, arguments, program, fields))
        answer = await self._pool.call(request, name_of(function))
        return cast("T", _understood(name_of(function), answer, owner))


@dataclass(frozen=True, slots=True)
class _Owner:
    """The context whose run data a call may change: a state's own, not a branch's."""

    ctx: Context[Any]
    kind: DataType[Any]

    @classmethod
    def of(cls, args: tuple[Any, ...]) -> _Owner | None:
        ctx = args[0] if args else None
        if not _is_context(ctx):
            return None
        kind = ctx.host.data_type
        return None if ctx.branch is not None or kind is None else cls(ctx, kind)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.kind.fields)

    def put(self, changed: dict[str, Any]) -> None:
        """Give the run's data the new values: in the object itself, unless it is frozen."""
        data = self.ctx.data
        put: Callable[[Any, str, Any], None] = setattr
        if self.kind.frozen and changed:
            self.ctx.data = data = copy(data)
            put = force_setattr if isinstance(data, Struct) else object.__setattr__
        for name, value in changed.items():
            put(data, name, value)


def _understood(name: str, answer: bytes, owner: _Owner | None) -> Any:
    """What the worker's answer says. Raises what it says was raised."""
    kind, *rest = pickle.loads(answer)  # noqa: S301 -- from our own process
    if kind == "error":
        raise _brought_back(*rest)
    if kind == "fault":
        raise _fault(name, *rest)
    value, changed = rest
    what = "result"
    try:
        result = pickle.loads(value)  # noqa: S301 -- from our own process
        what = "ctx.data"
        news = {field: pickle.loads(raw) for field, raw in changed.items()}  # noqa: S301
    except Exception as error:
        raise _fault(name, what, _brief(error)) from error
    if owner is not None:
        owner.put(news)
    return result


def _brought_back(itself: bytes, kind: str, message: str, traceback: str) -> Exception:
    """The exception that was raised in the worker, or one that says what it was."""
    error: Exception = RemoteError(kind, message)
    if itself:
        with suppress(Exception):  # it is told anyway, if not as itself
            error = pickle.loads(itself)  # noqa: S301 -- from our own process
    error.add_note(f"cano: in a worker process:\n{traceback}")
    return error


def _fault(name: str, what: str, why: str) -> CanoError:
    """A call that failed on the way, not in the function."""
    if what == "main module":
        return DefinitionError(
            f"{name}: the program's main module could not be loaded in a worker process: {why}; "
            'put what starts the program under `if __name__ == "__main__":`'
        )
    if what == "function":
        return DefinitionError(
            f"{name} cannot be found in a worker process: {why}; define it in a module that can "
            "be imported"
        )
    if what == "arguments":
        return DataError(f"{name}: its arguments could not be read in a worker process: {why}")
    said = f"its {what}" if what == "result" else what
    return DataError(f"{name}: {said} cannot be sent back: {why}; return plain values")


def _unfindable(function: Callable[..., Any]) -> str | None:
    """Why another process will not find *function*, as far as can be told when it is wrapped."""
    if not isinstance(function, FunctionType):
        try:
            pickle.dumps(function)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is the reason
            return f"it cannot be sent to another process: {_brief(error)}"
        return None
    problem = None
    if function.__name__ == "<lambda>":
        problem = "a lambda has no name to find it by in another process; write a function"
    elif "<locals>" in function.__qualname__:
        problem = (
            "another process cannot find a function defined in a function; define it at the top "
            "of its module"
        )
    elif function.__module__ == "__main__" and _program() is None:
        problem = (
            "another process cannot find what was typed into a prompt; define the function in a "
            "module and import it"
        )
    else:
        found = _look_up(function)
        # A decorator is called when the name is not there yet, or is what a reload replaces.
        if found is not None and found is not function and not isinstance(found, Offloaded):
            problem = _other(function, found)
    return problem


def _target(function: Callable[..., Any]) -> Target:
    """How *function* is found. Raises `DefinitionError` if it is not, after all."""
    if not isinstance(function, FunctionType):
        return pickle.dumps(function)
    found = _look_up(function)
    if isinstance(found, _Process):
        found = found.__wrapped__
    if found is not function:
        raise DefinitionError(f"process({name_of(function)}): {_other(function, found)}")
    return function.__module__, function.__qualname__


def _look_up(function: FunctionType) -> Any:
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found


def _other(function: FunctionType, found: object) -> str:
    return (
        f"another process looks for {function.__module__}.{function.__qualname__} and finds "
        f"{'nothing' if found is None else repr(found)}; give the function that name"
    )


def _program() -> tuple[str, str] | None:
    """How the program's main module is loaded elsewhere; None if it is a prompt's."""
    main = sys.modules.get("__main__")
    if (spec := getattr(main, "__spec__", None)) is not None:
        return "module", spec.name
    file = getattr(main, "__file__", None)
    if not isinstance(file, str) or not Path(file).is_file():
        return None
    return "path", str(Path(file).resolve())


def _mentions_main(target: Target, arguments: bytes) -> bool:
    """Whether the main module is needed, which may be slow to load, and strange to run."""
    names = target if isinstance(target, bytes) else target[0].encode()
    found = any(name in text for text in (names, arguments) for name in _MAIN)
    if found:  # what comes back from there says so
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
    return found


_MAIN = (b"__main__", b"__mp_main__")


def _culprit(
    function: Callable[..., Any], args: Any, kwargs: Any, error: Exception
) -> tuple[str, Exception]:
    """The argument, or the part of the context, that cannot be pickled."""
    try:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return "an argument", error
    for name, value in given.items():
        for part, inner in _parts(name, value):
            try:
                pickle.dumps(inner)
            except Exception as reason:  # noqa: BLE001 -- whatever it is, it is the reason
                return part, reason
    return "an argument", error


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if _is_context(value):
        kind = value.host.data_type
        for field in kind.fields if kind else ():
            yield f"{name}.data.{field}", getattr(value.data, field, None)
        for part in ("data", "item", "split", "error"):
            yield f"{name}.{part}", getattr(value, part)
    yield f"argument {name!r}", value


def _is_context(value: object) -> TypeGuard[Context[Any]]:
    return isinstance(value, Context)


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
