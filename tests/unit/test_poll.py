"""PollTask: asked until it is ready, with a wait after every answer that is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    Context,
    Event,
    Pending,
    PollAnswered,
    PollExhaustedError,
    PollTask,
    Ready,
    Resources,
    Retry,
    RoutingError,
    TaskRetried,
    Timeout,
    Workflow,
)
from cano.testing import run


class Step(StrEnum):
    WAIT = auto()
    LATE = auto()
    END = auto()


NO = Pending()
YES = Ready(Step.END)


class Script(PollTask[Step]):
    """Answers as it is told, the last answer again and again; knows when it was asked."""

    def __init__(self, *answers: Any, **settings: Any) -> None:
        self.answers = answers
        self.asked: list[float] = []
        for name, value in settings.items():
            setattr(self, name, value)

    async def poll(self, ctx: Context[Any]) -> Ready[Literal[Step.END]] | Pending:
        self.asked.append(time())
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]


def time() -> float:
    return asyncio.get_running_loop().time()


def polling(task: Any, *policies: Any, **more: Any) -> Workflow[Step, None]:
    flow = Workflow(Step, **more).exits(Step.END, Step.LATE)
    return flow.register(Step.WAIT, task, *policies)


def answered(task: Script, *policies: Any) -> list[float]:
    """When *task* was asked, until it was ready."""
    assert Step.END is run(polling(task, *policies).run(Step.WAIT))
    return task.asked


def failed(task: Script, *policies: Any, **more: Any) -> tuple[Exception, list[float], float]:
    """What *task* fails with, when it was asked, and when it failed."""

    async def main() -> tuple[Exception, float]:
        with pytest.raises(Exception) as caught:
            await polling(task, *policies, **more).run(Step.WAIT)
        return caught.value, time()

    error, when = run(main())
    return error, task.asked, when


# Waits


def test_ready_at_once_waits_for_nothing() -> None:
    """The first poll comes at once, and leads on if it is ready."""
    assert [0] == answered(Script(YES))


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, [0, 1, 2, 3]),
        ({"delay": 5}, [0, 5, 10, 15]),
        ({"delay": 1, "factor": 3.0}, [0, 1, 4, 13]),
        ({"delay": 10, "factor": 3.0, "max_delay": 20}, [0, 10, 30, 50]),
        ({"delay": 10, "jitter": 0.5, "random": lambda: 0.0}, [0, 5, 10, 15]),
        ({"delay": 0}, [0, 0, 0, 0]),
    ],
)
def test_the_back_off(settings: dict[str, Any], asked: list[float]) -> None:
    """A `Pending()` waits as the settings say: delay × factor^(n-1), spread, at most max_delay."""
    assert asked == answered(Script(NO, NO, NO, YES, **settings))


@pytest.mark.parametrize(
    ("seconds", "asked"), [(7, [0, 7]), (0.5, [0, 0.5]), (0, [0, 0]), (-3, [0, 0])]
)
def test_a_wait_of_its_own(seconds: float, asked: list[float]) -> None:
    """`Pending(seconds)` is waited for as it is, whatever the settings; less than 0 is 0."""
    assert asked == answered(Script(Pending(seconds), YES, delay=99, max_delay=1))


def test_a_poll_takes_its_time() -> None:
    """The wait begins when the poll has answered."""

    class Slow(Script):
        async def poll(self, ctx: Context[Any]) -> Ready[Literal[Step.END]] | Pending:
            answer = await super().poll(ctx)
            await asyncio.sleep(10)
            return answer

    assert [0, 11, 22] == answered(Slow(NO, NO, YES))


def test_every_visit_begins_anew() -> None:
    """One task serves all runs: neither the back-off nor the counts go from one to the next."""
    task = Script(NO, NO, YES, factor=2.0, limit=3)
    flow = polling(task)

    async def main() -> None:
        await flow.run(Step.WAIT)
        task.answers = (YES, YES, YES, NO, NO, YES)
        await flow.run(Step.WAIT)

    run(main())
    assert [0, 1, 3, 3, 4, 6] == task.asked


def test_no_wait_is_a_turn_of_the_loop() -> None:
    """`Pending(0)` without end lets others work, and can be cancelled."""

    async def main() -> int:
        task = Script(Pending(0))
        running = asyncio.ensure_future(polling(task).run(Step.WAIT))
        for _ in range(20):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return len(task.asked)

    assert 10 < run(main()) < 30


def test_a_cancellation_ends_the_wait() -> None:
    """A run that is cancelled between two polls ends at once."""

    async def main() -> tuple[float, int]:
        task = Script(NO, delay=1000, max_delay=1000)
        handle = await polling(task).start_run(Step.WAIT)
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises(Exception, match="cancelled"):
            await handle.result()
        return time(), len(task.asked)

    assert (pytest.approx(1, abs=0.1), 1) == run(main())


# Failures


def test_a_failure_is_final_by_default() -> None:
    """The first error of a poll is raised as it is."""
    error, asked, _ = failed(Script(NO, problem := ConnectionError("gone")))
    assert problem is error
    assert [0, 1] == asked
    assert "cano: poll 2 failed" in error.__notes__


def test_a_first_failure_speaks_for_itself() -> None:
    """Where there was but one poll, nothing is noted of polls."""
    error, asked, _ = failed(Script(OSError("gone")))
    assert [0] == asked
    assert not any("poll" in text for text in error.__notes__)


@pytest.mark.parametrize("errors", [1, 2, 3])
def test_so_many_failures_in_a_row_are_tolerated(errors: int) -> None:
    """Success after exactly *errors* failures; each is waited after as the back-off says."""
    answers = [OSError(f"{number}") for number in range(errors)]
    asked = answered(Script(*answers, YES, errors=errors, delay=2, factor=2.0))
    assert [0, 2, 6, 14][: errors + 1] == asked


def test_one_more_is_raised_unchanged() -> None:
    """The error that the budget has no room for is the one that is raised."""
    errors = [OSError("1"), OSError("2"), OSError("3")]
    error, asked, when = failed(Script(*errors, YES, errors=2))
    assert errors[2] is error
    assert ([0, 1, 2], 2) == (asked, when)
    said = "cano: poll 3 failed, like the 2 before it; errors=2 tolerates no more"
    assert said in error.__notes__


def test_an_answer_resets_the_budget() -> None:
    """Failures are counted in a row: bursts with an answer between them are tolerated."""
    bad = OSError("busy")
    assert 8 == len(answered(Script(bad, bad, NO, bad, bad, NO, bad, YES, errors=2)))


@pytest.mark.parametrize(
    ("on", "tolerated"),
    [
        (Exception, OSError()),
        (OSError, ConnectionError()),
        ((OSError, ValueError), ValueError()),
        ((TypeError,), TypeError()),
        (lambda error: "busy" in str(error), RuntimeError("busy")),
    ],
)
def test_which_errors_are_tolerated(on: Any, tolerated: Exception) -> None:
    """`on` says which, as for `Retry`: types, or a function of the error."""
    assert [0, 1] == answered(Script(tolerated, YES, errors=1, on=on))


@pytest.mark.parametrize(
    ("on", "final"),
    [
        (Exception, TypeError("a bug")),
        (Exception, RoutingError("not retryable")),
        (OSError, ValueError()),
        (lambda error: False, OSError()),
    ],
)
def test_which_errors_are_not(on: Any, final: Exception) -> None:
    """By default programming errors and what is not retryable are final, whatever the budget."""
    error, asked, _ = failed(Script(final, YES, errors=9, on=on))
    assert final is error
    assert [0] == asked
    assert "cano: poll 1 failed; not an error to poll again after" in error.__notes__


def test_a_static_method_may_say_which() -> None:
    """In a class, `on` may be a static method."""

    class Picky(Script):
        errors = 1

        @staticmethod
        def on(error: Exception) -> bool:
            return str(error) == "busy"

    assert [0, 1] == answered(Picky(OSError("busy"), YES))


def test_who_asks_for_patience_gets_it() -> None:
    """After an error with `retry_after` the wait is at least that long."""
    busy = ConnectionError("busy")
    busy.retry_after = 30.0  # type: ignore[attr-defined]
    assert [0, 30] == answered(Script(busy, YES, errors=1))


def test_cancelled_error_is_no_failure() -> None:
    """A cancellation that a poll meets is passed on, however many errors are tolerated."""

    async def main() -> None:
        task = Script(NO, errors=9, delay=1000, max_delay=1000)
        running = asyncio.ensure_future(polling(task).run(Step.WAIT))
        await asyncio.sleep(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run(main())


# Limits


def test_a_limit() -> None:
    """After so many polls it is given up, without a wait, and says what to do."""
    error, asked, when = failed(Script(NO, limit=3, delay=10))
    assert isinstance(error, PollExhaustedError)
    assert ([0, 10, 20], 20) == (asked, when)
    assert (
        "WAIT: Script was not ready after 3 polls in 20 s; limit=3 allows no more; raise it, or "
        "lead PollExhaustedError to a state with otherwise=" == str(error)
    )


def test_a_deadline() -> None:
    """It is given up as soon as the next poll would come too late, rather than wait in vain."""
    error, asked, when = failed(Script(NO, deadline=25, delay=10))
    assert isinstance(error, PollExhaustedError)
    assert ([0, 10, 20], 20) == (asked, when)
    assert (
        "after 3 polls in 20 s; the next pause of 10 s would outlast the 5 s left; raise "
        "deadline=25 s, or give the run more time"
    ) in str(error)


def test_a_deadline_ends_a_poll_that_hangs() -> None:
    """What is under way at the deadline is cancelled: a poll that hangs does not hold the run."""

    class Hangs(Script):
        async def poll(self, ctx: Context[Any]) -> Ready[Literal[Step.END]] | Pending:
            await super().poll(ctx)
            await asyncio.sleep(1000)
            return YES

    error, asked, when = failed(Hangs(NO, deadline=25))
    assert isinstance(error, PollExhaustedError)
    assert ([0], 25) == (asked, when)
    assert "not ready after 1 poll in 25 s; deadline=25 s is over; raise it" in str(error)


def test_a_deadline_ends_with_its_visit() -> None:
    """The states after it have all the time they like."""

    async def slow(ctx: Context[Any]) -> Literal[Step.END]:
        await asyncio.sleep(1000)
        return Step.END

    class Late(PollTask[Step]):
        deadline = 10

        async def poll(self, ctx: Context[Any]) -> Ready[Literal[Step.LATE]] | Pending:
            return Ready(Step.LATE)

    flow = Workflow(Step).exits(Step.END).register(Step.WAIT, Late()).register(Step.LATE, slow)
    assert Step.END is run(flow.run(Step.WAIT))


def test_the_time_of_the_run_is_a_deadline_too() -> None:
    """Where the run itself would be out of time before the next poll, that is said at once."""
    error, asked, when = failed(Script(NO, delay=10), timeout=25.0)
    assert isinstance(error, PollExhaustedError)
    assert ([0, 10, 20], 20) == (asked, when)
    assert "would outlast the 5 s left; give the run more time" in str(error)


def test_the_last_failure_is_the_cause() -> None:
    """A tolerated failure that was the last poll is not lost."""
    problem = OSError("busy")
    error, _, _ = failed(Script(NO, problem, limit=2, errors=9))
    assert isinstance(error, PollExhaustedError)
    assert problem is error.__cause__


def test_giving_up_may_lead_to_a_state() -> None:
    """`otherwise` takes the run on when the poll is exhausted."""
    flow = Workflow(Step).exits(Step.END, Step.LATE)
    flow.register(Step.WAIT, Script(NO, limit=2), otherwise={PollExhaustedError: Step.LATE})
    assert Step.LATE is run(flow.run(Step.WAIT))


# Policies


def test_policies_go_around_each_poll() -> None:
    """A `Timeout` bounds one poll, and a `Retry` repeats one, with attempts of its own."""

    class Slow(Script):
        async def poll(self, ctx: Context[Any]) -> Ready[Literal[Step.END]] | Pending:
            attempts.append(ctx.attempt)
            answer = await super().poll(ctx)
            await asyncio.sleep(100 if ctx.attempt == 1 else 0)
            return answer

    attempts: list[int] = []
    asked = answered(Slow(NO, NO, NO, YES, delay=10), Retry.fixed(2, 1), Timeout(5))
    assert [0, 6, 16, 22] == asked
    assert [1, 2, 1, 2] == attempts


def test_a_failure_counts_after_the_policies() -> None:
    """What a `Retry` mends is no failure of the poll; what it cannot is one."""
    bad = OSError("busy")
    task = Script(bad, NO, bad, bad, NO, bad, bad, bad, bad, YES, errors=1)
    error, asked, _ = failed(task, Retry.fixed(2, 0.25))
    assert bad is error
    assert [0, 0.25, 1.25, 1.5, 2.5, 3.5, 3.75, 4.75, 5] == asked


def test_resources() -> None:
    """`poll` takes resources like any verb."""

    class Asking(PollTask[Step]):
        async def poll(
            self, ctx: Context[Any], carrier: Callable[[], bool]
        ) -> Ready[Literal[Step.END]] | Pending:
            return YES if carrier() else NO

    resources: Any = Resources(carrier=lambda: True)
    assert Step.END is run(polling(Asking(), resources=resources).run(Step.WAIT))


# Events


def test_every_answer_is_announced() -> None:
    """`PollAnswered` says what was answered, `TaskRetried` what failed, and how long it waits."""
    told: list[Event] = []
    task = Script(NO, Pending(-5), OSError("busy"), YES, errors=1, factor=2.0)
    run(polling(task, observers=[told.append]).run(Step.WAIT))

    answers = [(e.ready, e.delay) for e in told if isinstance(e, PollAnswered)]
    assert [(False, 1), (False, 0), (True, 0)] == answers
    failures = [(e.error, e.delay) for e in told if isinstance(e, TaskRetried)]
    assert [("OSError('busy')", 4)] == failures


@pytest.mark.parametrize("wrong", [None, Step.END, True, "ready"])
def test_a_wrong_answer_is_an_error(wrong: Any) -> None:
    """A poll says Ready or Pending; anything else fails with the remedy, however patient it is."""
    error, asked, _ = failed(Script(wrong, errors=9))
    assert isinstance(error, RoutingError)
    assert f"Script returned {wrong!r}; return Ready(state) or Pending()" == str(error)
    assert [0] == asked
