"""What comes out of a run when a task fails: notes, `otherwise`, nested runs, orders to stop."""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum
from typing import Any, Literal

import pytest

from cano import Context, Resources, Retry, Workflow
from cano.errors import RoutingError
from cano.testing import run


class Step(Enum):
    A = "a"
    B = "b"
    C = "c"
    DONE = "done"
    FAILED = "failed"


def then(state: Any) -> Any:
    """A task that goes to *state*, or raises it."""

    async def task(ctx: Context[Any]) -> Any:
        if isinstance(state, BaseException):
            raise state
        return state

    return task


def flow_of(tasks: dict[Any, Any], **settings: Any) -> Any:
    """A workflow of *tasks*, given as functions, states to go to, or errors to raise.

    Every other state is an exit.
    """
    states = type(next(iter(tasks)))
    flow: Any = Workflow(states, **settings)
    for state, task in tasks.items():
        flow.register(state, task if callable(task) and not isinstance(task, Enum) else then(task))
    return flow.exits(*(state for state in states if state not in tasks))


def notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        ExceptionGroup("several", [ValueError("a"), TypeError("b")]),
        StopAsyncIteration(),
        TimeoutError(),
    ],
)
def test_exceptions_pass_as_they_are(error: Exception) -> None:
    """What a task raises comes out as the same object, with one note saying where."""
    flow = flow_of({Step.A: Step.B, Step.B: error}, name="Orders")
    with pytest.raises(type(error)) as caught:
        run(flow.run(Step.A, run_id="a7"))

    assert error is caught.value
    assert ["cano: run 'a7' of Orders: A → B"] == notes(error)


def test_the_note_tells_the_attempt() -> None:
    """An error after retries says which attempt it was."""
    flow = flow_of({Step.A: Step.B})
    flow.register(Step.A, then(ConnectionError()), Retry.fixed(3, 1))
    with pytest.raises(ConnectionError) as caught:
        run(flow.run(Step.A, run_id="a7"))

    assert "cano: run 'a7' of Step: A, attempt 3" in notes(caught.value)


def test_the_note_shows_the_end_of_a_long_way() -> None:
    """Of a long way the last eight states are shown."""

    async def c(ctx: Context[Any]) -> Literal[Step.A]:
        if len(ctx.path) > 20:
            raise ValueError
        return Step.A

    flow = flow_of({Step.A: Step.B, Step.B: Step.C, Step.C: c})
    with pytest.raises(ValueError) as caught:
        run(flow.run(Step.A, run_id="r"))

    assert ["cano: run 'r' of Step: … → B → C → A → B → C → A → B → C"] == notes(caught.value)


def test_an_error_raised_again_is_not_noted_again() -> None:
    """One exception object that is raised time after time keeps one note per place."""
    error = ValueError("the same")
    flow = flow_of({Step.A: error})

    async def main() -> None:
        for _ in range(3):
            with contextlib.suppress(ValueError):
                await flow.run(Step.A, run_id="r")

    run(main())

    assert ["cano: run 'r' of Step: A"] == notes(error)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_orders_to_stop_pass_after_cleaning_up(kind: type[BaseException]) -> None:
    """What is no `Exception` ends the run at once, uncaught, and resources are torn down."""
    calls = []

    class Watchful:
        async def teardown(self) -> None:
            await asyncio.sleep(0)
            calls.append("teardown")

    flow = flow_of({Step.A: Step.B}, resources=Resources(watch=Watchful()))
    flow.register(Step.A, then(kind()), Retry(), otherwise=Step.FAILED)
    caught: list[type[BaseException]] = []

    async def main() -> None:
        try:
            await flow.run(Step.A)
        except BaseException as error:
            caught.append(type(error))

    run(main())

    assert [kind] == caught
    assert ["teardown"] == calls


def test_nested_runs_keep_both_paths() -> None:
    """An error out of a run inside a run says where it was in both."""
    inner = flow_of({Step.A: Step.B, Step.B: ValueError("no")}, name="inner")

    async def within(ctx: Context[Any]) -> Literal[Step.DONE]:
        await inner.run(Step.A, run_id="i")
        return Step.DONE

    outer = flow_of({Step.A: Step.C, Step.C: within}, name="outer")
    with pytest.raises(ValueError) as caught:
        run(outer.run(Step.A, run_id="o"))

    assert ["cano: run 'i' of inner: A → B", "cano: run 'o' of outer: A → C"] == notes(caught.value)


def failing(error: Exception, otherwise: Any) -> tuple[Any, list[Any]]:
    """A workflow whose A fails, and what the states after it find in ctx.error."""
    seen: list[Any] = []

    async def look(ctx: Context[Any]) -> Literal[Step.DONE]:
        seen.append((ctx.state, ctx.error))
        return Step.DONE

    async def look_on(ctx: Context[Any]) -> Literal[Step.B]:
        seen.append((ctx.state, ctx.error))
        return Step.B

    flow = flow_of({Step.A: error, Step.B: look, Step.C: look_on})
    return flow.register(Step.A, then(error), otherwise=otherwise), seen


def test_a_failure_may_lead_to_a_state() -> None:
    """The state that a failure leads to finds it in ctx.error; the one after does not."""
    error = ValueError("no")
    flow, seen = failing(error, Step.C)

    assert Step.DONE == run(flow.run(Step.A))
    assert [(Step.C, error), (Step.B, None)] == seen


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (KeyError(), Step.B),
        (IndexError(), Step.C),
        (LookupError(), Step.C),
        (OSError(), Step.FAILED),
    ],
)
def test_failures_are_led_by_type(error: Exception, state: Step) -> None:
    """The first type in order that matches counts, subclasses included."""
    routes = {KeyError: Step.B, LookupError: Step.C, Exception: Step.FAILED}
    flow, seen = failing(error, routes)
    end = run(flow.run(Step.A))

    assert state == (seen[0][0] if seen else end)


def test_what_no_type_matches_fails_the_run() -> None:
    """A failure that nothing leads anywhere comes out as ever."""
    error = ValueError("no")
    flow, seen = failing(error, {KeyError: Step.B})
    with pytest.raises(ValueError) as caught:
        run(flow.run(Step.A))

    assert error is caught.value
    assert [] == seen


def test_a_failure_is_led_after_the_last_attempt() -> None:
    """`otherwise` takes what the policies leave over."""
    attempts = []

    async def never(ctx: Context[Any]) -> Step:
        attempts.append(ctx.attempt)
        raise ConnectionError

    flow = flow_of({Step.A: Step.B})
    flow.register(Step.A, never, Retry.fixed(3, 1), otherwise=Step.FAILED)

    assert Step.FAILED == run(flow.run(Step.A))
    assert [1, 2, 3] == attempts


def test_a_wrong_return_value_is_not_led_anywhere() -> None:
    """A routing error is a mistake in the program: `otherwise` does not hide it."""
    flow = flow_of({Step.A: then(None)})
    flow.register(Step.A, then(None), otherwise=Step.FAILED)
    with pytest.raises(RoutingError):
        run(flow.run(Step.A))
