"""Split: what becomes of the branches that the join no longer needs, and at the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Literal

import pytest

from cano import Branch, Context, Retry, Split, Timeout, Workflow
from cano import join as joins
from cano.errors import JoinFailedError, SplitTimeoutError, StrayCancelledError
from cano.testing import run

Work = Callable[[Context[Any]], Awaitable[Any]]


class Step(Enum):
    SPLIT = "split"
    NEXT = "next"
    DONE = "done"


def now() -> float:
    return asyncio.get_running_loop().time()


def after(seconds: float, value: Any = None) -> Work:
    """A branch that returns *value*, or raises it, after a while."""

    async def work(ctx: Context[Any]) -> Any:
        await asyncio.sleep(seconds)
        if isinstance(value, Exception):
            raise value
        return value

    return work


def tidy(cleanup: float, log: list[Any]) -> Work:
    """A branch that runs for ever, and takes its time to clean up when it is cancelled."""

    async def work(ctx: Context[Any]) -> None:
        try:
            await asyncio.sleep(10_000)
        finally:
            await asyncio.sleep(cleanup)
            log.append(("tidied", now()))

    return work


def stubborn(times: int, log: list[Any], value: Any = None) -> Work:
    """A branch that swallows *times* cancellations, then heeds one, or returns *value* if any."""

    async def work(ctx: Context[Any]) -> Any:
        for _ in range(times):
            try:
                await asyncio.sleep(10_000)
            except asyncio.CancelledError:
                log.append(("swallowed", now()))
        if value is None:
            await asyncio.sleep(10_000)
        return value

    return work


class Outcome:
    """What a run of a split came to: its result or failure, and when the next state began."""

    def __init__(self, split: Split[Step], *policies: Any) -> None:
        self.entered: float | None = None
        self.error: Any = None
        self.result: Any = None
        self.left: set[Any] = set()
        run(self._run(split, policies))

    async def _run(self, split: Split[Step], policies: Any) -> None:
        async def look(ctx: Context[Any]) -> Literal[Step.DONE]:
            self.entered, self.result = now(), ctx.split
            return Step.DONE

        built = Workflow(Step).register(Step.SPLIT, split, *policies).register(Step.NEXT, look)
        try:
            await built.exits(Step.DONE).run(Step.SPLIT)
        except JoinFailedError as error:
            self.error, self.result, self.entered = error, error.result, now()
        self.left = asyncio.all_tasks() - {asyncio.current_task()}

    @property
    def parts(self) -> tuple[Any, ...]:
        """The indices in each list, and the reason."""
        result = self.result
        indices = [
            tuple(branch.index for branch in part) for part in (result.successes, result.errors)
        ]
        return (*indices, result.cancelled, result.not_started, result.reason)


def test_losers_are_awaited_before_the_next_state() -> None:
    """A cancelled loser finishes its cleanup before the next state begins."""
    log: list[Any] = []
    outcome = Outcome(Split([after(1), tidy(0.03, log)], then=Step.NEXT, join=joins.Any()))
    assert (1.03, [("tidied", 1.03)]) == (outcome.entered, log)
    assert ((0,), (), (1,), (), "enough") == outcome.parts
    assert set() == outcome.left


@pytest.mark.parametrize("times", [1, 3])
def test_a_loser_that_swallows_its_cancellation_is_cancelled_again(times: int) -> None:
    """The cancellation is sent again every 50 ms until the branch ends."""
    log: list[Any] = []
    outcome = Outcome(Split([after(1), stubborn(times, log)], then=Step.NEXT, join=joins.Any()))
    assert [pytest.approx(1 + 0.05 * i) for i in range(times)] == [at for _, at in log]
    assert pytest.approx(1 + 0.05 * times) == outcome.entered
    assert ((0,), (), (1,), (), "enough") == outcome.parts


def test_a_loser_that_returns_after_all_has_succeeded() -> None:
    """What a cancelled branch returns instead of ending is kept: nothing that happened is lost."""
    outcome = Outcome(Split([after(1, "a"), stubborn(1, [], "late")], then=Step.NEXT,
                            join=joins.Any()))  # fmt: skip
    assert ("a", "late") == outcome.result.values
    assert ((0, 1), (), (), (), "all") == outcome.parts


def test_a_loser_that_raises_while_it_ends_is_an_error() -> None:
    """An exception of the cleanup is kept among the errors; the verdict stands."""

    async def clumsy(ctx: Context[Any]) -> None:
        try:
            await asyncio.sleep(10_000)
        finally:
            raise ValueError("cleanup")

    outcome = Outcome(Split([after(1), clumsy], then=Step.NEXT, join=joins.Any()))
    assert (None, ((0,), (1,), (), (), "all")) == (outcome.error, outcome.parts)


def test_a_loser_is_not_retried() -> None:
    """A `Retry` around a branch does not make another attempt of a branch that lost."""
    calls: list[float] = []

    async def failing(ctx: Context[Any]) -> None:
        calls.append(now())
        try:
            await asyncio.sleep(10)
        finally:
            raise OSError

    outcome = Outcome(
        Split([after(1), failing], then=Step.NEXT, join=joins.Any()), Retry.fixed(9, 1)
    )
    assert [0] == calls
    assert pytest.approx(1.05) == outcome.entered


def test_a_timeout_at_the_moment_of_the_verdict_leaves_no_branch_running() -> None:
    """A branch whose own `Timeout` strikes as it loses is not tried again."""
    calls: list[float] = []

    async def slow(ctx: Context[Any]) -> None:
        calls.append(now())
        await asyncio.sleep(9)

    timed = Branch(slow, Retry.fixed(9, 0.2), Timeout(1))
    outcome = Outcome(Split([after(1), timed], then=Step.NEXT, join=joins.Any()))
    assert ([0], ((0,), (), (1,), (), "enough")) == (calls, outcome.parts)
    assert set() == outcome.left


def test_waiting_losers_finish_and_their_results_are_kept() -> None:
    """With `losers="wait"` a satisfied join lets the others end as they will."""
    split = Split([after(1, "a"), after(5, "b"), after(3, OSError())], then=Step.NEXT,
                  join=joins.Any(), losers="wait")  # fmt: skip
    outcome = Outcome(split)
    assert (5, ("a", "b")) == (outcome.entered, outcome.result.values)
    assert ((0, 1), (2,), (), (), "all") == outcome.parts


def test_waiting_losers_that_have_not_begun_never_do() -> None:
    """`losers="wait"` is for branches that run; from the verdict on none is started."""
    split = Split([after(1), after(5), after(3), after(3)], then=Step.NEXT, join=joins.Any(),
                  losers="wait", bulkhead=2)  # fmt: skip
    outcome = Outcome(split)
    assert ((0, 1), (), (), (2, 3), "enough") == outcome.parts


def test_the_deadline_ends_waiting_losers() -> None:
    """A split's deadline also ends the branches that `losers="wait"` would let finish."""
    split = Split([after(1, "a"), after(50, "b")], then=Step.NEXT, join=joins.Any(),
                  losers="wait", timeout=5)  # fmt: skip
    outcome = Outcome(split)
    assert (None, 5) == (outcome.error, outcome.entered)
    assert ((0,), (), (1,), (), "deadline") == outcome.parts


def test_a_waiting_loser_that_cancels_itself_is_an_error() -> None:
    """Where nobody cancels, a CancelledError out of the blue is a failure, before the verdict
    and after it."""

    async def stray(ctx: Context[Any]) -> None:
        await asyncio.sleep(2)
        raise asyncio.CancelledError

    outcome = Outcome(Split([after(1), stray], then=Step.NEXT, join=joins.Any(), losers="wait"))
    assert ((0,), (1,), (), (), "all") == outcome.parts
    assert isinstance(outcome.result[1].error, StrayCancelledError)


@pytest.mark.parametrize("losers", ["cancel", "wait"])
def test_an_impossible_join_cancels(losers: Any) -> None:
    """A join that can no longer be met ends the others, whatever *losers* says of a success."""
    split = Split([after(1, OSError()), after(9)], then=Step.NEXT, losers=losers)
    outcome = Outcome(split)
    assert (1, ((), (0,), (1,), (), "impossible")) == (outcome.entered, outcome.parts)


def test_all_may_hear_everybody_out() -> None:
    """`All(fail_fast=False)` fails when the last branch has ended."""
    split = Split([after(1, OSError()), after(9, "b")], then=Step.NEXT, join=joins.All(False))
    outcome = Outcome(split)
    assert (9, ((1,), (0,), (), (), "all")) == (outcome.entered, outcome.parts)
    assert [OSError] == [type(part) for part in outcome.error.exceptions]


FAST_AND_SLOW = [after(1, "a"), after(2, OSError()), after(50, "c"), after(60, "d")]


@pytest.mark.parametrize(
    ("join", "satisfied"),
    [
        (joins.All(False), False),
        (joins.Quorum(2), False),
        (joins.Percentage(0.5), False),
        (joins.PartialResults(2), False),
        (joins.PartialTimeout(), True),
        (joins.PartialTimeout(minimum=2), False),
        (joins.PartialTimeout(minimum=0), True),
        (joins.Tolerate(failures=3), True),
        (joins.Tolerate(failures=2), False),
        (joins.Tolerate(share=0.75), True),
        (joins.Tolerate(failures=4, minimum=2), False),
        (joins.Settled(), True),
    ],
    ids=str,
)
def test_the_deadline_judges_what_there_is(join: Any, satisfied: bool) -> None:
    """At the deadline one success of four, one failure and two unfinished are judged as they are."""
    outcome = Outcome(Split(FAST_AND_SLOW, then=Step.NEXT, join=join, timeout=10))
    assert (10, satisfied) == (outcome.entered, outcome.error is None)
    assert ((0,), (1,), (2, 3), (), "deadline") == outcome.parts


def test_a_satisfied_join_does_not_wait_for_the_deadline() -> None:
    """A join met before the deadline joins then, and the deadline is no longer heard of."""
    outcome = Outcome(Split(FAST_AND_SLOW, then=Step.NEXT, join=joins.Any(), timeout=10))
    assert (1, "enough") == (outcome.entered, outcome.result.reason)


@pytest.mark.parametrize(("first", "reason"), [("a", "enough"), (OSError(), "impossible")])
def test_a_deadline_while_losers_clean_up_changes_nothing(first: Any, reason: str) -> None:
    """The reason is the one of the verdict, though the deadline passes before the last has ended."""
    join = joins.Any() if reason == "enough" else joins.All()
    split = Split([after(1, first), tidy(0.04, [])], then=Step.NEXT, join=join, timeout=1.02)
    outcome = Outcome(split)
    assert (1.04, reason) == (outcome.entered, outcome.result.reason)
    causes = () if outcome.error is None else outcome.error.exceptions
    assert not any(isinstance(part, SplitTimeoutError) for part in causes)


def test_branches_that_wait_for_room_are_not_started_at_the_deadline() -> None:
    """What never ran is told from what was cancelled."""
    split = Split([after(4)] * 5, then=Step.NEXT, join=joins.Settled(), timeout=10, bulkhead=1)
    assert ((0, 1), (), (2,), (3, 4), "deadline") == Outcome(split).parts


def test_a_branch_that_swallows_the_deadline_is_cancelled_again() -> None:
    """The deadline is sent again every 50 ms, as any cancellation."""
    log: list[Any] = []
    outcome = Outcome(Split([stubborn(3, log)], then=Step.NEXT, timeout=10))
    assert pytest.approx(10.15) == outcome.entered
    assert [SplitTimeoutError] == [type(part) for part in outcome.error.exceptions]


def test_results_after_the_deadline_do_not_turn_the_verdict() -> None:
    """What a branch returns although the deadline cancelled it is kept, but comes too late."""
    outcome = Outcome(Split([after(1, "a"), stubborn(1, [], "late")], then=Step.NEXT, timeout=5))
    assert ((0, 1), (), (), (), "deadline") == outcome.parts
    assert [SplitTimeoutError] == [type(part) for part in outcome.error.exceptions]


@pytest.mark.parametrize("first", [1, 9])
def test_a_split_leaves_no_timer_behind(first: float) -> None:
    """Once a split has ended, by a success or by its deadline, none of its timers is armed."""

    async def main() -> list[Any]:
        branches = [after(first), stubborn(1, []), Branch(after(2), Timeout(50))]
        split = Split(branches, then=Step.DONE, join=joins.Any(), timeout=1.5)
        built = Workflow(Step).register(Step.SPLIT, split).exits(Step.DONE, Step.NEXT)
        with suppress(JoinFailedError):
            await built.run(Step.SPLIT)
        scheduled: Any = asyncio.get_running_loop()
        return [timer for timer in scheduled._scheduled if not timer.cancelled()]

    assert [] == run(main())


def test_branches_that_never_suspend_meet_the_deadline_too() -> None:
    """No branch is started once the time is up, even if the loop had no turn to ring the timer."""

    async def busy(ctx: Context[Any]) -> None:
        asyncio.get_running_loop().now += 3  # type: ignore[attr-defined]

    split = Split([busy] * 5, then=Step.NEXT, join=joins.Settled(), timeout=5)
    assert ((0, 1), (), (), (2, 3, 4), "deadline") == Outcome(split).parts
