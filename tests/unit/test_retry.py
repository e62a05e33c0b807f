"""`Retry`: how often, after which errors, within which time, and how it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum, auto
from itertools import pairwise
from typing import Any, Literal

import pytest

from cano import Context, Retry, TaskRetried, Timeout, Workflow, on
from cano.errors import CanoError, RunTimeoutError
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


class Flaky:
    """Fails so many times, then succeeds, and remembers when it was called."""

    def __init__(self, failures: int, error: Callable[[int], Exception] = ValueError) -> None:
        self.failures = failures
        self.error = error
        self.calls: list[float] = []

    async def __call__(self, ctx: Context) -> Step:
        self.calls.append(asyncio.get_running_loop().time())
        if len(self.calls) <= self.failures:
            raise self.error(len(self.calls))
        return Step.DONE

    @property
    def gaps(self) -> list[float]:
        """Seconds between the calls."""
        return [round(after - before, 6) for before, after in pairwise(self.calls)]


def flow(task: Any, *policies: Any, **settings: Any) -> Workflow[Step, Any]:
    return Workflow(Step, **settings).register(Step.WORK, task, *policies).exits(Step.DONE)


def failure(workflow: Workflow[Step, Any]) -> Exception:
    """Run *workflow*, which must fail, and return why."""
    with pytest.raises(Exception) as caught:
        run(workflow.run(Step.WORK))
    return caught.value


def notes(error: Exception) -> list[str]:
    """What was noted on *error*, without the engine's own note on the whereabouts."""
    return [note for note in error.__notes__ if not note.startswith("cano: run ")]


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_counts_the_first_attempt(attempts: int) -> None:
    """`attempts` is how often the call is made in all."""
    task = Flaky(99)
    failure(flow(task, Retry(attempts)))
    assert attempts == len(task.calls)


def test_stops_at_the_first_success() -> None:
    """A call that has succeeded is not made again."""
    task = Flaky(2)
    assert Step.DONE == run(flow(task, Retry(5)).run(Step.WORK))
    assert 3 == len(task.calls)


def test_numbers_the_attempts() -> None:
    """`ctx.attempt` counts from 1 within a visit, and is 1 again in the next one."""

    class Two(StrEnum):
        FIRST = auto()
        SECOND = auto()
        DONE = auto()

    seen: list[tuple[str, int]] = []

    async def first(ctx: Context) -> Literal[Two.SECOND]:
        seen.append(("first", ctx.attempt))
        if ctx.attempt < 3:
            raise ValueError
        return Two.SECOND

    async def second(ctx: Context) -> Literal[Two.FIRST, Two.DONE]:
        seen.append(("second", ctx.attempt))
        return Two.DONE if len(seen) > 4 else Two.FIRST

    workflow = Workflow(Two).register(Two.FIRST, first, Retry(3)).register(Two.SECOND, second)
    run(workflow.exits(Two.DONE).run(Two.FIRST))
    visit = [("first", 1), ("first", 2), ("first", 3), ("second", 1)]
    assert [*visit, *visit] == seen


@pytest.mark.parametrize("policies", [[Retry(2)], [Retry(2), Timeout(60)]])
def test_numbers_the_attempts_of_a_state_that_returns_to_itself(policies: list[Any]) -> None:
    """A number left by the visit before does not count in the next one of the same state."""
    seen: list[int] = []

    async def again(ctx: Context) -> Step:
        seen.append(ctx.attempt)
        if len(seen) in (1, 3):
            raise ValueError
        return Step.DONE if len(seen) > 3 else Step.WORK

    run(flow(again, *policies).run(Step.WORK))
    assert [1, 2, 1, 2] == seen


@pytest.mark.parametrize(
    "error",
    [TypeError, NameError, AttributeError, AssertionError, ImportError, NotImplementedError],
)
def test_leaves_programming_errors_alone(error: type[Exception]) -> None:
    """Without `on`, what trying again cannot mend is raised at once."""
    task = Flaky(1, error)
    assert isinstance(failure(flow(task, Retry())), error)
    assert 1 == len(task.calls)


class HopelessError(Exception):
    retryable = False


def test_heeds_errors_that_say_no() -> None:
    """Without `on`, an error marked as not retryable is raised at once."""
    task = Flaky(1, HopelessError)
    assert isinstance(failure(flow(task, Retry())), HopelessError)
    assert 1 == len(task.calls)


def test_says_when_an_error_ended_the_attempts_early() -> None:
    """An error that is not tried again after, in a later attempt, says which one that was."""
    task = Flaky(2, lambda n: ValueError() if n == 1 else HopelessError())
    error = failure(flow(task, Retry(5)))
    assert ["cano: attempt 2; not an error to try again after"] == notes(error)


@pytest.mark.parametrize("on_", [TypeError, (KeyError, TypeError), (Exception,)])
def test_takes_explicit_types_at_their_word(on_: Any) -> None:
    """Types given as `on` are tried again after, programming errors too."""
    task = Flaky(1, TypeError)
    assert Step.DONE == run(flow(task, Retry(on=on_)).run(Step.WORK))


def test_takes_explicit_types_for_errors_that_say_no() -> None:
    """A type given as `on` counts for more than its own `retryable = False`."""
    assert Step.DONE == run(flow(Flaky(1, HopelessError), Retry(on=HopelessError)).run(Step.WORK))


@pytest.mark.parametrize("on_", [KeyError, (KeyError, TypeError), (), lambda error: False])
def test_leaves_other_types_alone(on_: Any) -> None:
    """What `on` does not name is raised at once."""
    task = Flaky(1, ValueError)
    failure(flow(task, Retry(on=on_)))
    assert 1 == len(task.calls)


def test_asks_a_predicate() -> None:
    """A predicate given as `on` sees the error and decides alone."""
    task = Flaky(9, ValueError)
    failure(flow(task, Retry(9, on=lambda error: error.args[0] < 3)))
    assert 3 == len(task.calls)


def test_never_swallows_a_cancellation() -> None:
    """`CancelledError` is no error to try again after, whatever `on` says."""
    calls: list[int] = []

    async def work(ctx: Context) -> Step:
        calls.append(ctx.attempt)
        await asyncio.sleep(10)
        return Step.DONE

    async def main() -> None:
        running = asyncio.create_task(flow(work, Retry(on=lambda error: True)).run(Step.WORK))
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()

    run(main())
    assert [1] == calls


def test_raises_the_last_error_itself() -> None:
    """What comes out is the last attempt's own exception, saying how many there were."""
    raised: list[Exception] = []

    def make(number: int) -> Exception:
        raised.append(ValueError(number))
        return raised[-1]

    error = failure(flow(Flaky(99, make), Retry(3)))
    assert raised[-1] is error
    assert ["cano: gave up after 3 attempts"] == notes(error)


def test_a_single_try_says_nothing() -> None:
    """One attempt of one is not worth a note."""
    assert [] == notes(failure(flow(Flaky(9), Retry(1))))


def test_the_whereabouts_name_the_attempt() -> None:
    """The engine's own note says in which attempt the run was."""
    error = failure(flow(Flaky(9), Retry(3)))
    assert error.__notes__[-1].endswith("WORK, attempt 3")


def test_announces_every_pause() -> None:
    """`TaskRetried` names the failed attempt, its error and the pause; the last has none."""
    seen: list[TaskRetried] = []
    observer = on(TaskRetried)(seen.append)
    failure(flow(Flaky(9), Retry(3, delay=1, jitter=0), observers=[observer]))
    expected = [("WORK", 1, "ValueError(1)", 1.0), ("WORK", 2, "ValueError(2)", 2.0)]
    assert expected == [(e.state, e.attempt, e.error, e.delay) for e in seen]


def test_gives_up_rather_than_sleep_past_the_end_of_the_run() -> None:
    """A pause that the run's timeout would cut short is not begun: the error is raised at once."""
    task = Flaky(99)
    error = failure(flow(task, Retry(9, delay=1, factor=3, jitter=0), timeout=10))
    assert isinstance(error, ValueError)
    assert [1, 3] == task.gaps
    told = "cano: gave up after 3 of 9 attempts: the next pause of 9 s would outlast the 6 s left"
    assert [told] == notes(error)


def test_gives_up_rather_than_sleep_past_a_timeout_around_it() -> None:
    """The time of a `Timeout` outside of the `Retry` bounds the pauses too."""
    task = Flaky(99)
    error = failure(flow(task, Timeout(5), Retry.fixed(9, 2)))
    assert isinstance(error, ValueError)
    assert [2, 2] == task.gaps


def test_a_timeout_of_each_attempt_bounds_no_pause() -> None:
    """The time of a `Timeout` inside is over with its attempt."""
    task = Flaky(2)
    assert Step.DONE == run(flow(task, Retry.fixed(3, 60), Timeout(1)).run(Step.WORK))


def test_pauses_of_nothing_end_with_the_run() -> None:
    """A task that fails without ever suspending is not tried again once the time is over."""

    async def slow(ctx: Context) -> Step:
        asyncio.get_running_loop().now += 1  # type: ignore[attr-defined]
        raise ValueError(ctx.attempt)

    error = failure(flow(slow, Retry.fixed(10**9, 0), timeout=5))
    assert (5,) == error.args


def test_the_end_of_the_run_is_not_tried_again_after() -> None:
    """`RunTimeoutError` says that there is no time left, so there is none for another attempt."""
    assert not Retry().worth(RunTimeoutError())
    assert Retry().worth(CanoError())
