"""Policies around any async function, outside of any workflow."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, TypeVar

import pytest

from cano import Bulkhead, Context, DefinitionError, Fallback, Hedge, Retry, Timeout, guarded
from cano.errors import AttemptTimeoutError
from cano.testing import run

T = TypeVar("T")
Call = Callable[[Context], Awaitable[T]]


class Watching:
    """A policy that keeps the contexts it sees."""

    def __init__(self) -> None:
        self.wrapped = 0
        self.seen: list[Context] = []

    def wrap(self, call: Call[T], /) -> Call[T]:
        self.wrapped += 1

        async def watching(ctx: Context) -> T:
            self.seen.append(ctx)
            return await call(ctx)

        return watching


def now() -> float:
    return round(asyncio.get_running_loop().time(), 6)


def test_passes_parameters_and_result() -> None:
    """Whatever the parameters of the function are, they arrive, and so does the result."""

    @guarded(Timeout(5))
    async def f(a: int, /, b: int, *more: int, key: str = "k", **rest: int) -> tuple[object, ...]:
        return a, b, more, key, rest

    assert (1, 2, (3, 4), "x", {"y": 5}) == run(f(1, 2, 3, 4, key="x", y=5))
    assert (1, 2, (), "k", {}) == run(f(1, b=2))


def test_the_first_policy_is_the_outermost() -> None:
    """`guarded(A, B)` around f is A(B(f)): Retry(Timeout(f)) gives each attempt its own time."""

    @guarded(Retry.fixed(3, 10), Timeout(5))
    async def slow() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        with pytest.raises(AttemptTimeoutError, match=r"attempt 3 in slow took longer than 5 s"):
            await slow()
        assert 5 + 10 + 5 + 10 + 5 == now()

    run(main())


@pytest.mark.parametrize(
    "policy", [Retry.fixed(2, 0), Timeout(5), Bulkhead(1), Hedge(5), Fallback(0)], ids=repr
)
def test_each_policy_decorates(policy: Any) -> None:
    """`@policy` above a function is `guarded(policy)`."""

    async def twice(number: int) -> int:
        """Twice the number."""
        return 2 * number

    double = policy(twice)
    assert ("twice", "Twice the number.") == (double.__name__, double.__doc__)
    assert inspect.iscoroutinefunction(double)
    assert 14 == run(double(7))


def test_looks_like_the_function() -> None:
    """Name, docstring, module and signature are those of the function."""

    async def f(number: int, *, key: str) -> str:
        """Say it."""
        return key * number

    careful = guarded(Timeout(1))(f)
    assert inspect.signature(f) == inspect.signature(careful)
    assert (f.__name__, f.__doc__, f.__module__) == (
        careful.__name__,
        careful.__doc__,
        careful.__module__,
    )


def test_wraps_once() -> None:
    """The policies are put around the function when it is decorated, not per call."""
    policy = Watching()

    @guarded(policy)
    async def f() -> None: ...

    run(f())
    run(f())
    assert (1, 2) == (policy.wrapped, len(policy.seen))


def test_calls_have_attempts_of_their_own() -> None:
    """Calls at the same time do not share attempt numbers."""
    policy = Watching()
    attempts: dict[str, list[int]] = {}

    @guarded(Retry.fixed(3, 1), policy)
    async def f(name: str, fails: int) -> str:
        attempts.setdefault(name, []).append(policy.seen[-1].attempt)
        if len(attempts[name]) <= fails:
            raise ValueError
        return name

    async def main() -> None:
        assert ["a", "b", "c"] == [*await asyncio.gather(f("a", 0), f("b", 1), f("c", 2))]

    run(main())
    assert {"a": [1], "b": [1, 2], "c": [1, 2, 3]} == attempts


def test_what_a_policy_can_do_with_the_context() -> None:
    """Everything a policy may ask of its context works outside of a workflow too."""

    class Curious:
        def wrap(self, call: Call[T], /) -> Call[T]:
            async def curious(ctx: Context) -> T:
                assert ("f", 1, inf, inf) == (
                    ctx.state.name,
                    ctx.attempt,
                    ctx.remaining,
                    ctx.deadline,
                )
                assert ("", None, None) == (ctx.run_id, ctx.data, ctx.branch)
                assert "<Context of run '' in f>" == repr(ctx)
                ctx.restore(ctx.snapshot())
                await ctx.pause(3)
                await ctx.sleep(3)
                assert 6 == now()
                assert ctx.now() > 1e9
                assert not ctx.host.durable
                assert ctx.changes() is None
                return await call(ctx)

            return curious

    @guarded(Curious())
    async def f() -> str:
        return "done"

    assert "done" == run(f())


def test_methods() -> None:
    """A method is guarded once for all objects, and still gets its object."""

    class Client:
        def __init__(self, name: str) -> None:
            self.name = name

        @Retry.fixed(2, 0)
        async def fetch(self, path: str) -> str:
            return self.name + path

        @staticmethod
        @Timeout(5)
        async def ping() -> str:
            return "pong"

        @classmethod
        @Timeout(5)
        async def make(cls) -> str:
            return cls.__name__

    assert "a/b" == run(Client("a").fetch("/b"))
    assert ("pong", "Client") == (run(Client.ping()), run(Client.make()))


def test_the_place_is_named_as_in_the_class() -> None:
    """Errors name a method together with its class."""

    class Client:
        @Timeout(5)
        async def fetch(self) -> None:
            await asyncio.sleep(9)

    with pytest.raises(AttemptTimeoutError, match=r"attempt 1 in Client\.fetch took"):
        run(Client().fetch())


def test_partials_and_callable_objects() -> None:
    """What can be awaited when called can be guarded, also without a name."""

    class Fetch:
        async def __call__(self, number: int) -> int:
            return number

    async def add(a: int, b: int) -> int:
        return a + b

    assert 3 == run(guarded(Timeout(1))(functools.partial(add, 1))(2))
    assert 4 == run(guarded(Timeout(1))(Fetch())(4))


def test_policies_on_top_of_each_other() -> None:
    """Decorators stack like nested calls: the upper one is the outer one."""
    made: list[float] = []

    @Retry.fixed(2, 1)
    @Timeout(5)
    async def slow() -> None:
        made.append(now())
        await asyncio.sleep(60)

    async def main() -> None:
        with pytest.raises(AttemptTimeoutError):
            await slow()
        assert 11 == now()

    run(main())
    assert [0, 6] == made


def test_a_guarded_call_knows_the_deadline_of_the_one_it_is_in() -> None:
    """A Retry does not pause beyond the Timeout of the function that called it."""

    @Retry.fixed(3, 60)
    async def inner() -> None:
        raise ValueError("broken")

    @Timeout(5)
    async def outer() -> None:
        await inner()

    async def main() -> None:
        with pytest.raises(ValueError, match="broken"):
            await outer()
        assert 0 == now()
        with pytest.raises(ValueError, match="broken"):
            await inner()
        assert 120 == now()  # outside of it there is all the time in the world

    run(main())


def test_tasks_started_inside_know_the_deadline() -> None:
    """What a guarded function starts knows the deadline as well, as long as it is open."""
    policy = Watching()

    @guarded(policy)
    async def inner() -> None: ...

    @Timeout(5)
    async def outer() -> asyncio.Task[None]:
        await asyncio.ensure_future(inner())

        async def later() -> None:
            await asyncio.sleep(60)
            await inner()

        return asyncio.ensure_future(later())

    async def main() -> None:
        await (await outer())

    run(main())
    assert [5, inf] == [ctx.deadline for ctx in policy.seen]


def test_a_function_called_without_end_leaves_no_timers() -> None:
    """The timer of a call goes with it."""

    @Timeout(3600)
    async def quick() -> None: ...

    async def main() -> None:
        for _ in range(100):
            await quick()
        loop: Any = asyncio.get_running_loop()
        assert [] == [handle for handle in loop._scheduled if not handle.cancelled()]

    run(main())


def test_a_call_that_was_dropped_with_its_loop() -> None:
    """A call that never ended, because its loop did, goes quietly."""

    @Bulkhead(1)
    async def hang() -> None:
        await asyncio.sleep(60)

    call = hang()
    loop = asyncio.new_event_loop()
    task = loop.create_task(call)
    loop.call_later(0, loop.stop)
    loop.run_forever()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    del task
    call.close()


def _sync() -> int:
    return 1


def test_says_what_cannot_be_guarded() -> None:
    """Each mistake is an error where it is made, with a remedy."""

    async def f() -> None: ...

    async def generate() -> Any:
        yield 1

    anything: Any = guarded
    anything_at_all: Any = f
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: anything(Retry), r"Retry is a class; pass an instance, Retry\(...\)"),
        (lambda: anything(Retry(), 3), r"3 is no policy; pass Retry"),
        (lambda: anything(), r"no policy was given; pass some"),
        (lambda: anything(f), r"<function .*f at .*> is no policy"),
        (lambda: anything(Retry())(_sync), r"_sync is no async function; write `async def`"),
        (lambda: anything(Retry())(generate), r"generate is no async function"),
        (lambda: anything(Retry())(3), r"3 is no async function; put the policies above one"),
        (lambda: anything(Retry())(Watching), r"Watching'> is no async function"),
        (lambda: anything(Retry())(staticmethod(f)), r"put @staticmethod above the policies"),
        (
            lambda: anything(Retry())(classmethod(anything_at_all)),
            r"put @classmethod above the policies",
        ),
        (lambda: anything(Timeout(3))(_sync), r"_sync is no async function"),
    ]
    for wrong, message in cases:
        with pytest.raises(DefinitionError, match=message):
            wrong()
