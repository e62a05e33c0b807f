"""What is read from a function: name, resources, edges, and why it cannot serve as a task."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pytest

from cano import Context, Task
from cano.executors import process, thread
from cano.tasks.verb import Verb, Wanted, describe

if TYPE_CHECKING:
    from elsewhere import Unknown  # type: ignore[import-not-found]


class Step(Enum):
    A = 1
    B = 2


class Db:
    """A resource."""


async def plain(ctx: Context[Any]) -> Literal[Step.A]:
    return Step.A


async def with_resources(
    ctx: Context[Any],
    db: Db,
    names: list[str],
    noted: Annotated[Db, "a note"],
    either: Db | None,
    maybe: Optional[Db] = None,  # noqa: UP045
    unannotated=3,
    *rest: int,
    last: Literal["a", "b"] = "a",
    **more: int,
) -> Step:
    return Step.A


def sync(ctx: Context[Any]) -> Literal[Step.A]:
    return Step.A


async def with_item(ctx: Context[Any], item: int, db: Db) -> int:
    return item


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of the ordinary kind: a plain function around an async one."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def run_elsewhere(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that makes a plain function async."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@dataclass
class Caller:
    """A callable object that has annotations of its own, and no hash."""

    url: str = ""

    async def __call__(self, ctx: Context[Any], db: Db) -> Literal[Step.B]:
        return Step.B


class Inherited(Caller):
    pass


class SyncCaller:
    def __call__(self, ctx: Context[Any]) -> Literal[Step.B]:
        return Step.B


class PromisingCaller:
    def __call__(self, ctx: Context[Any]) -> Awaitable[Literal[Step.B]]:
        return plain(ctx)


class SilentCaller:
    def __call__(self, ctx):
        return plain(ctx)


class Fetch(Task[Step]):
    async def run(self, ctx: Context[Any], db: Db) -> Literal[Step.B]:
        return Step.B

    def block(self, ctx: Context[Any]) -> Literal[Step.B]:
        return Step.B


def test_plain_function() -> None:
    """An async function of the context is all a task needs to be."""
    returns = Literal[Step.A]
    assert Verb("plain", (), frozenset({Step.A}), None, returns=returns) == describe(plain)


def test_parameters_after_the_context_are_resources() -> None:
    """They are wanted by name, by what they are annotated with, and maybe where they default."""
    expected = (
        Wanted("db", Db, False),
        Wanted("names", list[str], False),
        Wanted("noted", Db, False),
        Wanted("either", Db | None, False),
        Wanted("maybe", Db | None, True),
        Wanted("unannotated", None, True),
        Wanted("last", Literal["a", "b"], True),
    )
    assert expected == describe(with_resources).wants


def test_item_comes_after_the_context() -> None:
    """The branch of a `Split.over` is given its item, and resources come behind that."""
    assert (Wanted("db", Db, False),) == describe(with_item, 2).wants
    assert ("item", "db") == tuple(want.name for want in describe(with_item, 1).wants)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (functools.partial(with_resources, names=["x"], either=None), "with_resources"),
        (decorated(plain), "plain"),
        (decorated(decorated(plain)), "plain"),
        (run_elsewhere(sync), "sync"),
        (functools.partial(decorated(plain)), "plain"),
        (Caller(), "Caller"),
        (Inherited(), "Caller"),
        (PromisingCaller(), "PromisingCaller"),
        (SilentCaller(), "SilentCaller"),
        (Fetch().run, "Fetch.run"),
        (functools.partial(Fetch().run), "Fetch.run"),
        (Caller.__call__.__get__(Caller()), "Caller"),
        (thread(sync), "sync"),
        (process(sync), "sync"),
    ],
)
def test_async_in_every_guise(call: Any, name: str) -> None:
    """Partials, decorators, objects, bound methods and offloaded functions are tasks too."""
    verb = describe(call)

    assert (name, None) == (verb.name, verb.problem)


@pytest.mark.parametrize(
    ("call", "targets"),
    [
        (functools.partial(with_resources), Step),
        (decorated(plain), frozenset({Step.A})),
        (run_elsewhere(sync), frozenset({Step.A})),
        (Caller(), frozenset({Step.B})),
        (Inherited(), frozenset({Step.B})),
        (PromisingCaller(), frozenset({Step.B})),
        (SilentCaller(), None),
        (Fetch().run, frozenset({Step.B})),
        (thread(sync), frozenset({Step.A})),
    ],
)
def test_edges_in_every_guise(call: Any, targets: object) -> None:
    """The return annotation is found under all of them."""
    assert targets == describe(call).targets


@pytest.mark.parametrize("call", [Caller(), Inherited(), Fetch().run, functools.partial(Caller())])
def test_resources_in_every_guise(call: Any) -> None:
    """So are the annotations of the parameters, and never those of the object's own fields."""
    assert (Wanted("db", Db, False),) == describe(call).wants


def test_what_a_partial_gives_is_not_asked_of_the_resources() -> None:
    """A parameter that is bound already stays as it was bound."""
    verb = describe(functools.partial(with_resources, db=Db(), names=[]))

    assert {"db", "names"}.isdisjoint(want.name for want in verb.wants)


def test_what_cannot_be_read_proves_nothing() -> None:
    """A name for type checkers only is left out; the others are read all the same."""

    async def partly(ctx: Unknown, db: Db, other: Unknown) -> Literal[Step.B]:
        return Step.B

    async def not_at_all(ctx: Unknown) -> Literal[Unknown.B]:
        return Step.B

    assert (Wanted("db", Db, False), Wanted("other", None, False)) == describe(partly).wants
    assert frozenset({Step.B}) == describe(partly).targets
    assert None is describe(not_at_all).targets


def test_enum_local_to_a_function() -> None:
    """An enum of the function around is found, where the body says its name."""

    class Local(Enum):
        X = 1

    async def task(ctx: Context[Any]) -> Literal[Local.X]:
        return Local.X

    async def silent(ctx: Context[Any]) -> Literal[Local.X]:
        return ctx.data

    class Method(Task[Local]):
        async def run(self, ctx: Context[Any]) -> Literal[Local.X]:
            return Local.X

    assert frozenset({Local.X}) == describe(task).targets
    assert frozenset({Local.X}) == describe(Method().run).targets
    assert None is describe(silent).targets


def test_what_is_not_assigned_yet_does_no_harm() -> None:
    """A function may be described before what it closes over exists."""

    async def early(ctx: Context[Any]) -> Literal[Step.A]:
        return later()

    verb = describe(early)

    def later() -> Any:
        return Step.A

    assert frozenset({Step.A}) == verb.targets


def yields(ctx: Any) -> Any:
    yield Step.A


async def async_yields(ctx: Any) -> Any:
    yield Step.A


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (
            sync,
            r"^sync is a plain function, .* `async def`, or .* thread\(sync\) or process\(sync\)",
        ),
        (yields, r"^yields is a plain function"),
        (async_yields, r"^async_yields is an async generator; return the next state"),
        (lambda ctx: plain(ctx), r"<lambda> is not async; write an `async def`"),
        (functools.partial(sync), r"^sync is a plain function"),
        (decorated(sync), r"^sync is a plain function"),
        (SyncCaller(), r"^SyncCaller is a plain function"),
        (functools.partial(SyncCaller()), r"^SyncCaller is a plain function"),
        (Fetch().block, r"^Fetch\.block is a plain function, .* make it `async def`$"),
        (print, r"^print is a plain function"),
        (max, r"^max is a plain function"),  # has no signature to read
        (Caller, r"^Caller is a class; pass an instance, Caller\(\.\.\.\)"),
        (Fetch(), r"^<Fetch task> cannot be called; pass its method, \.run"),
        ("text", r"^'text' cannot be called; pass an async function"),
    ],
)
def test_what_is_not_async(call: Any, problem: str) -> None:
    """What would block, or is nothing to call, is named with the remedy."""
    with pytest.raises(ValueError, match=problem):
        raise ValueError(describe(call).problem)


async def nothing_taken() -> Literal[Step.A]:
    return Step.A


async def by_name_only(*, ctx: Context[Any]) -> Literal[Step.A]:
    return Step.A


async def by_position_only(ctx: Context[Any], db: Db, /) -> Literal[Step.A]:
    return Step.A


async def anything(*args: Any, **kwargs: Any) -> Literal[Step.A]:
    return Step.A


class Forgetful(Task[Step]):
    async def run() -> Step:  # type: ignore[misc]
        return Step.A

    async def work(self) -> Step:
        return Step.A


@pytest.mark.parametrize(
    ("call", "given", "problem"),
    [
        (nothing_taken, 1, r"^nothing_taken does not take the context; .*nothing_taken\(ctx\)`$"),
        (by_name_only, 1, r"^by_name_only does not take the context"),
        (plain, 2, r"^plain does not take the context and the item; .*plain\(ctx, item\)`$"),
        (Forgetful().work, 1, r"^Forgetful\.work does not take .* `async def work\(self, ctx\)`$"),
        (by_position_only, 1, r"^by_position_only takes db by position only"),
    ],
)
def test_parameters_that_cannot_be_filled(call: Any, given: int, problem: str) -> None:
    """A function that takes no context, or a resource by position only, is refused."""
    with pytest.raises(ValueError, match=problem):
        raise ValueError(describe(call, given).problem)


def test_args_take_the_context() -> None:
    """A function of `*args` takes whatever it is given, and wants nothing by name."""
    returns = Literal[Step.A]
    expected = Verb("anything", (), frozenset({Step.A}), None, returns=returns)
    assert expected == describe(anything)


def test_every_problem_of_a_function_is_said() -> None:
    """Two mistakes in one function are two problems."""

    def both() -> Step:
        return Step.A

    problem = describe(both).problem or ""

    assert "plain function" in problem
    assert "does not take the context" in problem


def test_method_and_function_are_remembered_apart() -> None:
    """One function is described without `self` where it is bound, and with it where it is not."""
    assert None is describe(Fetch().run).problem
    assert ("ctx", "db") == tuple(want.name for want in describe(Fetch.run).wants)
    assert (Wanted("db", Db, False),) == describe(Fetch().run).wants


def test_looked_at_once() -> None:
    """What was found out is remembered for as long as the function lives."""
    assert describe(plain) is describe(plain)
    assert describe(Fetch().run) is describe(Fetch().run)


def test_functions_are_not_kept_alive() -> None:
    """Functions made for one request go with it."""
    import gc
    import weakref

    async def short_lived(ctx: Context[Any]) -> Literal[Step.A]:
        return Step.A

    describe(short_lived)
    gone = weakref.ref(short_lived)
    del short_lived
    gc.collect()

    assert None is gone()


def test_promised_awaitable() -> None:
    """A plain function that says it returns something to await is taken at its word."""

    def coroutine(ctx: Context[Any]) -> Coroutine[Any, Any, Literal[Step.A]]:
        return plain(ctx)

    def future(ctx: Context[Any]) -> asyncio.Future[Literal[Step.A]]:
        return asyncio.ensure_future(plain(ctx))

    assert (None, frozenset({Step.A})) == (describe(coroutine).problem, describe(coroutine).targets)
    assert (None, frozenset({Step.A})) == (describe(future).problem, describe(future).targets)
