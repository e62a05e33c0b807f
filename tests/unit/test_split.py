"""Split: what branches return and raise, how they are joined, and what the next state finds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Literal

import pytest

from cano import Branch, Context, Event, Resources, Retry, Split, SplitJoined, Timeout, Workflow
from cano import join as joins
from cano.errors import (
    AttemptTimeoutError,
    JoinFailedError,
    NotJoinedError,
    SplitTimeoutError,
)
from cano.join import SplitResult
from cano.testing import run

Work = Callable[[Context[Any]], Awaitable[Any]]


class Step(Enum):
    SPLIT = "split"
    NEXT = "next"
    LAST = "last"
    DONE = "done"


def after(seconds: float, value: Any) -> Work:
    """A branch that returns *value*, or raises it, after a while."""

    async def work(ctx: Context[Any]) -> Any:
        await asyncio.sleep(seconds)
        if isinstance(value, Exception):
            raise value
        return value

    return work


def flow(split: Split[Step], *policies: Any, **settings: Any) -> tuple[Any, list[Any]]:
    """A workflow that splits, and what its next state, and the one after that, find in ctx.split."""
    found: list[Any] = []

    async def look(ctx: Context[Any]) -> Literal[Step.LAST]:
        found.append(ctx.split)
        return Step.LAST

    async def look_again(ctx: Context[Any]) -> Literal[Step.DONE]:
        found.append(ctx.split)
        return Step.DONE

    built = Workflow(Step, **settings).register(Step.SPLIT, split, *policies).exits(Step.DONE)
    return built.register(Step.NEXT, look).register(Step.LAST, look_again), found


def result_of(split: Split[Step], *policies: Any, **settings: Any) -> SplitResult[Any]:
    """Run *split* and return its result, as the next state finds it."""
    built, found = flow(split, *policies, **settings)
    run(built.run(Step.SPLIT))
    return found[0]


def failure_of(split: Split[Step], *policies: Any, **settings: Any) -> JoinFailedError:
    """Run *split*, whose join fails, and return the failure."""
    built, _ = flow(split, *policies, **settings)
    with pytest.raises(JoinFailedError) as caught:
        run(built.run(Step.SPLIT))
    return caught.value


def parts(result: SplitResult[Any]) -> tuple[Any, ...]:
    """The indices in each list of a result, and its reason."""
    succeeded = tuple(branch.index for branch in result.successes)
    failed = tuple(branch.index for branch in result.errors)
    return succeeded, failed, result.cancelled, result.not_started, result.reason


def test_values_come_by_index_however_late() -> None:
    """Results are in the order of the branches, not of their ends."""
    result = result_of(Split([after(3, "a"), after(1, "b"), after(2, "c")], then=Step.NEXT))
    assert ("a", "b", "c") == result.values
    assert ((0, 1, 2), (), (), (), "all") == parts(result)


def test_branches_are_found_by_their_own_and_by_default_names() -> None:
    """A branch is named as it was told to be, else by its function and index."""

    async def plain(ctx: Context[Any]) -> str:
        return "plain"

    result = result_of(Split([Branch(plain, name="eu"), plain], then=Step.NEXT))
    expected = "test_branches_are_found_by_their_own_and_by_default_names.plain[1]"
    assert ["eu", expected] == [branch.name for branch in result]
    assert (0, 1) == (result["eu"].index, result[expected].index)
    assert ("eu", expected) == result.names


def test_branches_without_a_result_have_a_name_too() -> None:
    """Who was late, or never began, is told by its name."""
    branches = [Branch(after(1, "won"), name="fast"), Branch(after(9, "lost"), name="slow")]
    result = result_of(Split(branches, join=joins.Any(), then=Step.NEXT))
    assert ["slow"] == [result.names[index] for index in result.cancelled]


def test_branches_run_at_the_same_time() -> None:
    """A split takes as long as its longest branch."""

    async def main() -> float:
        built, _ = flow(Split([after(1000, i) for i in range(5)], then=Step.NEXT))
        await built.run(Step.SPLIT)
        return asyncio.get_running_loop().time()

    assert 1000 == run(main())


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        (joins.Any(), ((1,), (0,), (2, 3, 4), (), "enough")),
        (joins.Quorum(2), ((1, 2), (0,), (3, 4), (), "enough")),
        (joins.Percentage(0.55), ((1, 2, 4), (0, 3), (), (), "all")),
        (joins.PartialResults(3), ((1, 2, 4), (0, 3), (), (), "all")),
        (joins.PartialTimeout(), ((1, 2), (0, 3), (4,), (), "deadline")),
        (joins.Tolerate(failures=3), ((1, 2), (0, 3), (4,), (), "deadline")),
        (joins.Settled(), ((1, 2), (0, 3), (4,), (), "deadline")),
    ],
    ids=str,
)
def test_each_strategy_joins_when_it_has_enough(join: Any, expected: Any) -> None:
    """Failures at 1 and 4 s, successes at 2, 3 and 5 s: each strategy stops where it may."""
    timeout = 4.5 if expected[-1] == "deadline" else None
    branches = [after(1, ValueError()), after(2, "a"), after(3, "b"), after(4, OSError()),
                after(5, "c")]  # fmt: skip
    assert expected == parts(result_of(Split(branches, then=Step.NEXT, join=join, timeout=timeout)))


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        (joins.All(), ((), (0,), (1, 2, 3), (), "impossible")),
        (joins.All(fail_fast=False), ((3,), (0, 1, 2), (), (), "all")),
        (joins.Quorum(2), ((), (0, 1, 2), (3,), (), "impossible")),
        (joins.Percentage(0.75), ((), (0, 1), (2, 3), (), "impossible")),
        (joins.PartialResults(3), ((), (0, 1), (2, 3), (), "impossible")),
        (joins.PartialTimeout(minimum=2), ((), (0, 1, 2), (3,), (), "impossible")),
        (joins.Tolerate(failures=1), ((), (0, 1), (2, 3), (), "impossible")),
        (joins.Tolerate(failures=3, minimum=3), ((), (0, 1), (2, 3), (), "impossible")),
    ],
    ids=str,
)
def test_each_strategy_gives_up_when_it_cannot_be_met(join: Any, expected: Any) -> None:
    """Three failures, then a success: each strategy stops as soon as the rest is of no use."""
    branches = [after(1, ValueError()), after(2, OSError()), after(3, KeyError()), after(4, "a")]
    split = Split(branches, then=Step.NEXT, join=join, timeout=100)
    assert expected == parts(failure_of(split).result)


def test_a_failed_join_holds_the_exceptions_of_its_branches() -> None:
    """The group holds the very exceptions, by index, each with a note naming its branch."""
    first, second = ValueError("first"), OSError("second")
    split = Split([after(2, second), Branch(after(1, first), name="eu")], then=Step.NEXT,
                  join=joins.Any())  # fmt: skip
    error = failure_of(split)
    assert (True, True) == (error.exceptions[0] is second, error.exceptions[1] is first)
    assert ["cano: in branch 1 'eu'"] == first.__notes__
    assert (
        "the join of SPLIT failed: 0 of 2 branches succeeded, 2 failed; Any(), reason: all "
        "(2 sub-exceptions)"
    ) == str(error)


def test_except_star_takes_a_failed_join_apart() -> None:
    """`except*` finds the branches' exceptions by type, and both parts keep the result."""
    branches = [after(1, ValueError()), after(2, OSError())]
    built, _ = flow(Split(branches, then=Step.NEXT, join=joins.Any()))
    parted: list[Any] = []
    try:
        run(built.run(Step.SPLIT))
    except* ValueError as group:
        parted.append(group)
    except* OSError as group:
        parted.append(group)
    assert [JoinFailedError, JoinFailedError] == [type(group) for group in parted]
    assert [ValueError, OSError] == [type(group.exceptions[0]) for group in parted]
    assert [((), (0, 1), (), (), "all")] * 2 == [parts(group.result) for group in parted]


def test_a_deadline_that_fails_the_join_is_in_the_group() -> None:
    """The deadline is one more exception beside those of the branches that had failed."""
    split = Split([after(1, OSError()), after(9, 1), after(2, 2)], then=Step.NEXT, timeout=5,
                  join=joins.Quorum(2))  # fmt: skip
    error = failure_of(split)
    assert [OSError, SplitTimeoutError] == [type(part) for part in error.exceptions]
    assert "the split of SPLIT ran out of its 5 s" == str(error.exceptions[1])
    assert ((2,), (0,), (1,), (), "deadline") == parts(error.result)


def test_the_result_is_there_in_the_next_state_only() -> None:
    """`ctx.split` is the split joined immediately before; one state later it is gone."""
    built, found = flow(Split([after(1, "a")], then=Step.NEXT))
    run(built.run(Step.SPLIT))
    assert (("a",), None) == (found[0].values, found[1])


def test_joined_is_the_split_or_an_error() -> None:
    """`ctx.joined(kind)` is `ctx.split` with a type, and an error where no split was joined."""

    async def look(ctx: Context[Any]) -> Literal[Step.LAST]:
        assert ctx.split is ctx.joined(str)
        return Step.LAST

    async def look_again(ctx: Context[Any]) -> Literal[Step.DONE]:
        ctx.joined(str)
        return Step.DONE

    built = Workflow(Step).register(Step.SPLIT, Split([after(1, "a")], then=Step.NEXT))
    built.register(Step.NEXT, look).register(Step.LAST, look_again).exits(Step.DONE)
    with pytest.raises(NotJoinedError):
        run(built.run(Step.SPLIT))


def test_a_split_after_a_split() -> None:
    """The branches of a second split see the first one's result, and the next state the second."""

    async def total(ctx: Context[Any]) -> int:
        assert ctx.split is not None
        return sum(ctx.split.values)

    found: list[Any] = []

    async def look(ctx: Context[Any]) -> Literal[Step.DONE]:
        found.append(ctx.split)
        return Step.DONE

    built = Workflow(Step).exits(Step.DONE).register(Step.LAST, look)
    built.register(Step.SPLIT, Split([after(1, 1), after(2, 2)], then=Step.NEXT))
    built.register(Step.NEXT, Split([total, total, total], then=Step.LAST))
    run(built.run(Step.SPLIT))
    assert (3, 3, 3) == found[0].values


def test_a_failed_join_may_lead_to_a_state() -> None:
    """With `otherwise` the failure is `ctx.error` there, and the split `ctx.split`."""
    found: list[Any] = []

    async def mend(ctx: Context[Any]) -> Literal[Step.DONE]:
        found.extend((ctx.error, ctx.split))
        return Step.DONE

    built = Workflow(Step).exits(Step.DONE, Step.NEXT).register(Step.LAST, mend)
    split = Split([after(1, "a"), after(2, OSError())], then=Step.NEXT)
    built.register(Step.SPLIT, split, otherwise={JoinFailedError: Step.LAST})
    assert Step.DONE is run(built.run(Step.SPLIT))
    assert found[0].result is found[1]
    assert ((0,), (1,), (), (), "all") == parts(found[1])


def test_policies_of_the_state_wrap_each_branch_around_its_own() -> None:
    """The state's policies are outermost, a branch's own nearest to the call."""
    log: list[str] = []

    class Say:
        def __init__(self, word: str) -> None:
            self.word = word

        def wrap(self, call: Any) -> Any:
            async def saying(ctx: Context[Any]) -> Any:
                log.append(self.word)
                return await call(ctx)

            return saying

    branches = [Branch(after(1, 1), Say("own")), after(2, 2)]
    result_of(Split(branches, then=Step.NEXT), Say("outer"), Say("inner"))
    assert ["outer", "inner", "own", "outer", "inner"] == log


def test_retries_and_attempts_are_each_branch_its_own() -> None:
    """A `Retry` repeats the branch that failed, and `ctx.attempt` counts within it."""
    attempts: dict[str, list[int]] = {"a": [], "b": []}

    def failing_until(attempt: int, name: str) -> Branch[Any]:
        async def work(ctx: Context[Any]) -> int:
            attempts[name].append(ctx.attempt)
            await asyncio.sleep(1)
            if ctx.attempt < attempt:
                raise OSError
            return ctx.attempt

        return Branch(work, name=name)

    split = Split([failing_until(1, "a"), failing_until(3, "b")], then=Step.NEXT)
    assert (1, 3) == result_of(split, Retry.fixed(3, 1)).values
    assert {"a": [1], "b": [1, 2, 3]} == attempts


def test_state_retries_multiply_those_of_a_branch() -> None:
    """Policies nest: two attempts around three make six calls, then the branch has failed."""
    calls: list[int] = []

    async def work(ctx: Context[Any]) -> None:
        calls.append(1)
        raise OSError

    branch = Branch(work, Retry.fixed(3, 1))
    failure_of(Split([branch], then=Step.NEXT), Retry.fixed(2, 1))
    assert 6 == len(calls)


def test_timeouts_are_each_branch_its_own() -> None:
    """A `Timeout` ends the slow branch, and that alone."""
    branches = [after(1, "a"), after(9, "b"), Branch(after(9, "c"), Timeout(2))]
    result = result_of(Split(branches, then=Step.NEXT, join=joins.Settled()), Timeout(5))
    assert ((0,), (1, 2), (), (), "all") == parts(result)
    assert [AttemptTimeoutError] * 2 == [type(branch.error) for branch in result.errors]


def test_branches_know_their_deadline() -> None:
    """`ctx.remaining` in a branch counts to the split's deadline, so that retries can heed it."""

    async def work(ctx: Context[Any]) -> float:
        await asyncio.sleep(1)
        return ctx.remaining

    assert (6.0,) == result_of(Split([work], then=Step.NEXT, timeout=7), timeout=100).values
    assert (6.0,) == result_of(Split([work], then=Step.NEXT), timeout=7).values


def test_resources_are_injected_into_branches() -> None:
    """A branch's parameters after the context are resources, looked up by name."""

    async def work(ctx: Context[Any], rate: float) -> float:
        return rate * 2

    split = Split([work, Branch(work, Retry())], then=Step.NEXT)
    assert (3.0, 3.0) == result_of(split, resources=Resources(rate=1.5)).values


def test_a_split_within_a_branch_of_a_split() -> None:
    """A branch may run a workflow of its own, with a split of its own."""

    async def nested(ctx: Context[Any]) -> Any:
        assert ctx.branch is not None
        inner, found = flow(Split([after(ctx.branch.index, i) for i in (1, 2)], then=Step.NEXT))
        await inner.run(Step.SPLIT)
        return found[0].values

    assert ((1, 2), (1, 2)) == result_of(Split([nested, nested], then=Step.NEXT)).values


def test_the_join_is_announced() -> None:
    """`SplitJoined` carries the verdict, the reason and the size of every list."""
    events: list[Event] = []
    split = Split([after(1, OSError()), after(2, 1), after(3, 2)], then=Step.NEXT, join=joins.Any())
    result_of(split, observers=[events.append])
    (joined,) = (event for event in events if isinstance(event, SplitJoined))
    told = (joined.satisfied, joined.reason, joined.succeeded, joined.failed, joined.cancelled)
    assert (True, "enough", 1, 1, 1) == told
    assert ("SPLIT", "", 0) == (joined.state, joined.branch, joined.not_started)
