"""Slips of the pen: each is told in words, at the place where it was made."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from enum import Enum, Flag, IntEnum, auto
from typing import Any, Literal

import pytest

from cano import Branch, Context, Event, Resources, Retry, Split, Timeout, Workflow, on
from cano.errors import DefinitionError, JoinFailedError, RoutingError
from cano.testing import run


class Step(Enum):
    A = 17
    B = 18
    DONE = 19


class Other(Enum):
    A = 17


class Number(IntEnum):
    ZERO = 0
    ONE = 1


class Bits(Flag):
    X = auto()
    Y = auto()


class Db:
    """A resource."""


async def to_b(ctx: Context[Any]) -> Literal[Step.B]:
    return Step.B


async def to_done(ctx: Context[Any]) -> Literal[Step.DONE]:
    return Step.DONE


def sound(task: Any = to_b, *policies: Any, **settings: Any) -> Workflow[Step, Any]:
    flow = Workflow(Step, **settings).register(Step.A, task, *policies)
    return flow.register(Step.B, to_done).exits(Step.DONE)


def returning(value: Any) -> Any:
    async def task(ctx: Context[Any]) -> Any:
        return value

    return task


@pytest.mark.parametrize("settings", [{}, {"start": Number.ZERO}])
def test_a_falsy_start(settings: dict[str, Any]) -> None:
    """A state whose value is 0 is a start like any other."""
    flow = Workflow(Number, **settings).register(Number.ZERO, returning(Number.ONE))

    assert Number.ONE is run(flow.exits(Number.ONE).run(Number.ZERO))


@pytest.mark.parametrize("start", [Other.A, "A", 17])
@pytest.mark.parametrize("before", [True, False])
def test_a_start_that_is_no_state(start: Any, before: bool) -> None:
    """It is refused, even if a start of the same name has been run before."""
    flow = sound()
    if before:
        run(flow.run(Step.A))
    with pytest.raises(DefinitionError, match="^start .* is no member of Step"):
        flow.run(start)


def test_a_start_of_two_flags() -> None:
    """A combination of flags is no state to start from."""
    flow = Workflow(Bits).register(Bits.X, returning(Bits.Y)).exits(Bits.Y)
    with pytest.raises(DefinitionError, match=r"^start X\|Y has no task and is not an exit"):
        flow.run(Bits.X | Bits.Y)


def test_a_state_that_is_none() -> None:
    """A text in place of a state is refused where it is written."""
    nothing: Any = "A"
    with pytest.raises(DefinitionError, match="'A' is no member of Step"):
        Workflow(Step).register(nothing, to_b)
    with pytest.raises(DefinitionError, match="'A' is no member of Step"):
        Workflow(Step).exits(nothing)


@pytest.mark.parametrize(
    ("task", "policies", "otherwise", "expected"),
    [
        (to_b, [], "DONE", "A: otherwise leads to 'DONE', which is no member of Step"),
        (to_b, [Retry], None, "A: Retry is a class; pass an instance, Retry"),
        (to_b, [5], None, "A: 5 is no policy; pass Retry"),
        (Split([Branch(to_b, Retry)], then=Step.B), [], None, "A: Retry is a class"),  # type: ignore[arg-type]
        (Split([Branch(to_b, Timeout(20))], then=Step.B), [], None, r"A: Timeout\(.*outlasts"),
    ],
)
def test_what_cannot_even_be_compiled(
    task: Any, policies: list[Any], otherwise: Any, expected: str
) -> None:
    """What would trip the compiler is a definition error all the same."""
    flow = sound(timeout=10).register(Step.A, task, *policies, otherwise=otherwise)
    with pytest.raises(DefinitionError, match=expected):
        flow.check()


def test_optional_resources_have_a_type() -> None:
    """A union is asked of a resource like a plain class; an int passes as a float."""

    async def wants(ctx: Context[Any], db: Db | None, rate: float) -> Literal[Step.B]:
        return Step.B

    sound(wants, resources=Resources(db=None, rate=5)).check()
    sound(wants, resources=Resources(db=Db(), rate=0.5)).check()
    with pytest.raises(DefinitionError, match=r"wants 'db' as .*Db \| None, but it is a int"):
        sound(wants, resources=Resources(db=5, rate=5)).check()


async def asynchronous(event: Event) -> None: ...


class Recorder:
    def __call__(self, event: Event) -> None: ...


@pytest.mark.parametrize(
    ("observer", "expected"),
    [
        (asynchronous, "observer <function asynchronous .* is async; make it a plain `def`"),
        (on(Event)(asynchronous), "observer <function asynchronous .* is async"),  # type: ignore[arg-type]
        (Recorder, r"observer Recorder is a class; pass an instance, Recorder\(\)"),
        (None, "observer None cannot be called; pass a function of one event"),
    ],
)
def test_observers_that_cannot_be_told(observer: Any, expected: str) -> None:
    """An observer that would never hear anything is a definition error."""
    with pytest.raises(DefinitionError, match=expected):
        sound(observers=[observer]).check()


def test_subscribing_to_nothing() -> None:
    """`on()` without a kind is refused."""
    with pytest.raises(DefinitionError, match="names no kind of event; say on"):
        on()


class Unprintable:
    def __repr__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("done", r"did you mean Step\.DONE\?$"),
        (19, r"did you mean Step\.DONE\?$"),
        (Other.A, r"did you mean Step\.A\?$"),
        (None, "member of Step; return one of its members: A, B, DONE. A task without a return"),
        (7, "returned 7; that is no member of Step; return one of its members: A, B, DONE$"),
        ("x" * 100_000, "returned 'xxx.*xxx'; that is no member"),
        (Unprintable(), "returned <Unprintable instance at .*>; that is no member"),
    ],
)
def test_what_may_have_been_meant(returned: Any, expected: str) -> None:
    """A task that leads nowhere is told which state it may mean, in few words, without a detour."""
    with pytest.raises(RoutingError) as caught:
        run(sound(returning(returned)).run(Step.A))
    message = caught.value.args[0]

    with pytest.raises(ValueError, match=expected):
        raise ValueError(message)
    assert len(message) < 500
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "make",
    [
        lambda task: sound(task, Retry.fixed(2, 1)),
        lambda task: sound(Split([task], then=Step.B)),
    ],
)
def test_notes_do_not_pile_up(make: Any) -> None:
    """An exception object that is raised again and again keeps each note once."""
    error = ConnectionError("down")

    async def task(ctx: Context[Any]) -> Step:
        raise error

    async def main() -> None:
        for _ in range(3):
            with contextlib.suppress(ConnectionError, JoinFailedError):
                await make(task).run(Step.A, run_id="r")

    run(main())

    assert sorted(set(error.__notes__)) == sorted(error.__notes__)


def test_status_after_a_failed_setup() -> None:
    """A run that ended before its first state has failed, and says so."""

    class Broken:
        async def setup(self) -> None:
            raise OSError("down")

    async def main() -> str:
        handle = await sound(resources=Resources(broken=Broken())).start_run(Step.A)
        with pytest.raises(OSError, match="down"):
            await handle.result()
        return handle.status

    assert "failed" == run(main())


async def nap(ctx: Context[Any]) -> Literal[Step.B]:
    await asyncio.sleep(10)
    return Step.B


def test_events_are_kept_from_when_they_are_asked_for() -> None:
    """`events()` listens at once, though the first event is awaited later, or in another task."""

    async def main() -> list[str]:
        events = (await sound(nap).start_run(Step.A)).events()
        await asyncio.sleep(100)
        return [type(event).__name__ async for event in events]

    assert "RunStarted" == run(main())[0]


def test_who_stops_watching_is_told_no_more() -> None:
    """Events do not pile up for a watcher that has left."""

    async def main() -> tuple[Any, ...]:
        handle = await sound(nap).start_run(Step.A)
        events = handle.events()
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        return handle._run.audience.observers

    assert () == run(main())


def test_nobody_need_wait_for_a_run_he_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio does not complain that the end of a cancelled run was never looked at."""

    async def main() -> None:
        handle = await sound(nap).start_run(Step.A)
        await asyncio.sleep(1)
        await handle.cancel()
        await asyncio.sleep(1)

    run(main())
    gc.collect()

    assert [] == caplog.records
