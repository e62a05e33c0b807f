"""`Fallback`: something else in place of an error, but not in place of every one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    CheckpointError,
    Context,
    DefinitionError,
    Event,
    Fallback,
    FallbackUsed,
    MemoryCheckpoints,
    RoutingError,
    Timeout,
    Workflow,
)
from cano.testing import FaultyStore, run


class Step(StrEnum):
    WORK = auto()
    DEGRADED = auto()
    DONE = auto()


@dataclass
class Found:
    names: list[str] = field(default_factory=list[str])


async def fail(error: BaseException) -> str:
    raise error


async def degraded(ctx: Context, error: Exception) -> Literal[Step.DEGRADED]:
    await asyncio.sleep(1)
    return Step.DEGRADED


async def work(ctx: Context) -> Literal[Step.DONE]:
    raise ConnectionError("no answer")


async def after(ctx: Context) -> Literal[Step.DONE]:
    return Step.DONE


def flow(fallback: Any, **settings: Any) -> Workflow[Step, Any]:
    made = Workflow(Step, **settings).register(Step.WORK, work, fallback)
    return made.register(Step.DEGRADED, after).exits(Step.DONE)


def test_a_value_in_place_of_an_error() -> None:
    """A call that fails returns the value, one that succeeds its own result."""

    @Fallback("cached")
    async def fetch(answer: str) -> str:
        return answer or await fail(ConnectionError())

    assert ("fresh", "cached") == (run(fetch("fresh")), run(fetch("")))


@pytest.mark.parametrize("value", [None, 0, [], Step.DEGRADED, "text"], ids=repr)
def test_any_value_will_do(value: object) -> None:
    """Also one that looks like nothing."""
    careful = Fallback(value)(fail)
    assert value == run(careful(ConnectionError()))


def test_a_function_of_the_context_and_the_error() -> None:
    """A function is called with both, and what it returns is returned; async ones are awaited."""

    def said(ctx: Context, error: Exception) -> str:
        return f"{ctx.state.name}: {error}"

    async def said_later(ctx: Context, error: Exception) -> str:
        await asyncio.sleep(3)
        return said(ctx, error)

    assert "fail: no answer" == run(Fallback(said)(fail)(ConnectionError("no answer")))
    assert "fail: no answer" == run(Fallback(said_later)(fail)(ConnectionError("no answer")))


def test_an_error_of_the_function_goes_on_with_the_first_one_as_its_context() -> None:
    """When the fallback fails too, its error is raised, and shows what it was a fallback for."""

    async def broken(ctx: Context, error: Exception) -> str:
        raise OSError("no cache either")

    original = ConnectionError("no answer")
    with pytest.raises(OSError, match="no cache either") as caught:
        run(Fallback(broken)(fail)(original))
    assert original is caught.value.__context__


def busy(error: Exception) -> bool:
    return "busy" in str(error)


PICKED: list[tuple[Any, Exception, bool]] = [
    (Exception, ValueError(), True),
    (Exception, TypeError(), False),
    (Exception, DefinitionError("wrong"), False),
    ((Exception,), TypeError(), True),
    (TypeError, TypeError(), True),
    (OSError, ConnectionError(), True),
    (OSError, ValueError(), False),
    ((OSError, ValueError), ValueError(), True),
    (busy, OSError("busy"), True),
    (busy, OSError("gone"), False),
]


@pytest.mark.parametrize(("on", "error", "used"), PICKED)
def test_picks_its_errors(on: Any, error: Exception, used: bool) -> None:
    """Types or a predicate say which errors; by default all but programming errors."""
    careful = Fallback("instead", on=on)(fail)
    if used:
        assert "instead" == run(careful(error))
    else:
        with pytest.raises(type(error)) as caught:
            run(careful(error))
        assert error is caught.value


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError("x")], ids=repr)
def test_what_is_no_exception_passes(error: BaseException) -> None:
    """Cancellations, and what ends the program, are nobody's to replace."""

    async def main() -> None:
        with pytest.raises(type(error)):
            await Fallback("instead", on=lambda error: True)(fail)(error)

    run(main())


def test_a_cancellation_from_outside_passes() -> None:
    """Who is cancelled does not answer."""

    async def main() -> None:
        task = asyncio.ensure_future(Fallback("instead", on=(Exception,))(asyncio.Event().wait)())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    run(main())


def test_a_timeout_inside_is_an_error_like_others() -> None:
    """Fallback(Timeout(f)): who is late is replaced."""

    @Fallback("instead")
    @Timeout(5)
    async def slow() -> str:
        await asyncio.sleep(60)
        return "late"

    assert "instead" == run(slow())


def test_errors_after_which_the_run_stops_pass() -> None:
    """When the store is broken nothing is to be decided any more: the run stops where it is."""
    used: list[object] = []

    async def charge() -> int:
        return 1

    async def paying(ctx: Context) -> Literal[Step.DONE]:
        await ctx.effect("charge", charge)
        return Step.DONE

    def instead(ctx: Context, error: Exception) -> Literal[Step.DONE]:
        used.append(error)
        return Step.DONE

    store = FaultyStore(MemoryCheckpoints(), fail_at=3)
    workflow = Workflow(Step, checkpoints=store).register(
        Step.WORK, paying, Fallback(instead, on=(Exception,))
    )
    with pytest.raises(CheckpointError):
        run(workflow.exits(Step.DEGRADED, Step.DONE).run(Step.WORK))
    assert [] == used


def test_what_the_failed_call_did_to_the_data_is_gone() -> None:
    """The function sees the data as they were before the call, and its changes count."""

    async def half(ctx: Context[Found]) -> Literal[Step.DONE]:
        ctx.data.names.append("half")
        raise ConnectionError

    def instead(ctx: Context[Found], error: Exception) -> Literal[Step.DONE]:
        ctx.data.names.append("instead")
        return Step.DONE

    data = Found(["before"])
    workflow = Workflow(Step, data=Found).register(Step.WORK, half, Fallback(instead))
    run(workflow.exits(Step.DEGRADED, Step.DONE).run(Step.WORK, data=data))
    assert ["before", "instead"] == data.names


def test_tells_observers() -> None:
    """What was replaced is announced with its error."""
    told: list[tuple[str, str]] = []

    def note(event: Event) -> None:
        if isinstance(event, FallbackUsed):
            told.append((event.state, event.error))

    run(flow(Fallback(Step.DEGRADED), observers=[note]).run(Step.WORK))
    assert [("WORK", "ConnectionError('no answer')")] == told


@pytest.mark.parametrize("instead", [Step.DEGRADED, degraded])
def test_the_state_to_go_to_is_an_edge(instead: Any) -> None:
    """What a fallback leads to is known to the graph, to `check` and to strict runs."""
    workflow = flow(Fallback(instead), strict=True)
    edges = {(edge.source, edge.target) for edge in workflow.check(start=Step.WORK).edges}
    assert (Step.WORK, Step.DEGRADED) in edges
    assert Step.DONE == run(workflow.run(Step.WORK))


def test_a_state_that_nobody_declared_is_refused_by_strict_runs() -> None:
    """What an unannotated function returns is held to the declared edges like any result."""

    def instead(ctx: Context, error: Exception) -> Any:
        return Step.DEGRADED

    with pytest.raises(RoutingError, match="declares DONE"):
        run(flow(Fallback(instead), strict=True).run(Step.WORK))
    assert Step.DONE == run(flow(Fallback(instead)).run(Step.WORK))


@pytest.mark.parametrize("on", [(), ConnectionError(), "OSError", KeyboardInterrupt, (int,), None])
def test_refuses_what_picks_no_errors(on: Any) -> None:
    """An *on* that is neither types of exceptions nor a function is a definition error."""
    with pytest.raises(DefinitionError, match="picks no errors"):
        Fallback(0, on=on)


def test_says_what_it_is() -> None:
    """It can be read in errors and logs."""
    assert "Fallback(0)" == repr(Fallback(0))
    assert "Fallback(degraded)" == repr(Fallback(degraded))
