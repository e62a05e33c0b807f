"""Policies around policies: the first is the outermost, and the order is what it reads like."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum, auto
from typing import Any, ClassVar, Literal

import pytest

from cano import Branch, Bulkhead, Context, Policy, Retry, Split, Task, Timeout, Workflow
from cano.errors import AttemptTimeoutError, DefinitionError
from cano.policies import compose
from cano.testing import run


class Step(StrEnum):
    WORK = auto()
    DONE = auto()


class Noting:
    """A policy that notes when a call goes through it, in and out."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.name = name
        self.wrapped = 0

    def wrap(self, call: Callable[[Context], Awaitable[Any]], /) -> Any:
        self.wrapped += 1

        async def noting(ctx: Context) -> Any:
            self.log.append(f"{self.name}(")
            try:
                return await call(ctx)
            finally:
                self.log.append(")")

        return noting


class Work:
    """A task that takes its time per attempt, fails so often, and notes how many are at it."""

    def __init__(self, seconds: float, failures: int = 0) -> None:
        self.seconds = seconds
        self.failures = failures
        self.calls: list[float] = []
        self.inside = 0
        self.peak = 0

    async def __call__(self, ctx: Context) -> Step:
        self.calls.append(round(asyncio.get_running_loop().time(), 6))
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.inside -= 1
        if ctx.attempt <= self.failures:
            raise ValueError(ctx.attempt)
        return Step.DONE


def ends(work: Work, policies: list[Any], runs: int = 1) -> list[tuple[object, float]]:
    """What became of that many runs at once, and when."""
    flow = Workflow(Step).register(Step.WORK, work, *policies).exits(Step.DONE)

    async def one() -> tuple[object, float]:
        try:
            end: object = await flow.run(Step.WORK)
        except Exception as error:
            end = type(error)
        return end, round(asyncio.get_running_loop().time(), 6)

    async def main() -> list[tuple[object, float]]:
        return await asyncio.gather(*(one() for _ in range(runs)))

    return run(main())


def test_the_first_policy_is_the_outermost() -> None:
    """`[A, B]` around f is the call A(B(f))."""
    log: list[str] = []

    async def f(ctx: Context) -> None:
        log.append("f")

    context: Any = None
    asyncio.run(compose([Noting(log, "A"), Noting(log, "B")], f)(context))  # type: ignore[arg-type]
    assert "A(B(f))" == "".join(log)


def test_nothing_is_left_out_between_a_retry_and_a_timeout() -> None:
    """What is between two policies stays there, also if it looks like the inner one."""
    log: list[str] = []

    class Disguised(Noting):
        def wrap(self, call: Callable[[Context], Awaitable[Any]], /) -> Any:
            return functools.wraps(call)(super().wrap(call))

    work = Work(1, failures=1)
    found = ends(work, [Retry.fixed(2, 0), Disguised(log, "A"), Timeout(10)])
    assert ([(Step.DONE, 2)], ["A(", ")", "A(", ")"]) == (found, log)


def test_no_policy_is_no_wrapper() -> None:
    """What is not asked for is not there."""

    async def f(ctx: Context) -> None: ...

    assert f is compose([], f)


def test_wraps_once_however_often_it_is_called() -> None:
    """A policy is asked when the workflow is compiled, not per visit or run."""
    log: list[str] = []
    policy = Noting(log, "A")
    flow = Workflow(Step).register(Step.WORK, Work(0), policy).exits(Step.DONE)
    run(flow.run(Step.WORK))
    run(flow.run(Step.WORK))
    assert (1, ["A(", ")"] * 2) == (policy.wrapped, log)


def test_policies_of_the_registration_replace_those_of_the_class() -> None:
    """What `register` is given counts instead of what the task's class has."""
    log: list[str] = []

    class Careful(Task[Step]):
        policies: ClassVar[Sequence[Policy]] = [Noting(log, "class")]

        async def run(self, ctx: Context) -> Literal[Step.DONE]:
            return Step.DONE

    run(Workflow(Step).register(Step.WORK, Careful()).exits(Step.DONE).run(Step.WORK))
    assert ["class(", ")"] == log
    log.clear()
    own = Noting(log, "own")
    run(Workflow(Step).register(Step.WORK, Careful(), own).exits(Step.DONE).run(Step.WORK))
    assert ["own(", ")"] == log


def test_policies_of_a_branch_are_inside_those_of_the_state() -> None:
    """A split's policies go around each branch, and the branch's own go inside of them."""
    log: list[str] = []

    async def f(ctx: Context) -> None:
        log.append("f")

    split = Split([Branch(f, Noting(log, "B")), f], then=Step.DONE)
    run(Workflow(Step).register(Step.WORK, split, Noting(log, "A")).exits(Step.DONE).run(Step.WORK))
    assert "A(B(f))A(f)" == "".join(log)


@pytest.mark.parametrize("policy", [Retry(), Timeout(1), Bulkhead(1)])
def test_what_is_here_is_a_policy(policy: object) -> None:
    """Each keeps to the contract that policies of other people's keep to."""
    assert isinstance(policy, Policy)


@pytest.mark.parametrize("policy", [Retry(), Timeout(1), Bulkhead(1)])
def test_a_policy_is_no_task(policy: Any) -> None:
    """Where a policy is registered as the task, the error says where it belongs."""
    with pytest.raises(DefinitionError, match=r"WORK: .* is a policy; pass it after the task"):
        Workflow(Step).register(Step.WORK, policy)


# How they go together in runs. Read each as nested calls; see test_policy_pairs.py for all of them.


def test_retry_of_timeout() -> None:
    """Retry(Timeout(f)): every attempt has the whole time, and the pauses cost none of it."""
    work = Work(9, failures=2)
    assert [(Step.DONE, 9 + 60 + 9 + 60 + 9)] == ends(work, [Retry.fixed(3, 60), Timeout(10)])
    assert [(AttemptTimeoutError, 5 + 60 + 5)] == ends(Work(9), [Retry.fixed(2, 60), Timeout(5)])


def test_timeout_of_retry() -> None:
    """Timeout(Retry(f)): one time for all attempts and pauses."""
    work = Work(9, failures=9)
    assert [(AttemptTimeoutError, 25)] == ends(work, [Timeout(25), Retry.fixed(9, 1)])
    assert [0, 10, 20] == work.calls


def test_retry_of_bulkhead() -> None:
    """Retry(Bulkhead(f)): who pauses makes room, and stands in line again."""
    work = Work(9, failures=1)
    found = ends(work, [Retry.fixed(2, 1), Bulkhead(1)], runs=2)
    assert [(Step.DONE, 27), (Step.DONE, 36)] == found
    assert ([0, 9, 18, 27], 1) == (work.calls, work.peak)


def test_bulkhead_of_retry() -> None:
    """Bulkhead(Retry(f)): who pauses keeps the place."""
    work = Work(9, failures=1)
    found = ends(work, [Bulkhead(1), Retry.fixed(2, 1)], runs=2)
    assert [(Step.DONE, 19), (Step.DONE, 38)] == found
    assert ([0, 10, 19, 29], 1) == (work.calls, work.peak)


def test_timeout_of_bulkhead() -> None:
    """Timeout(Bulkhead(f)): the time in line counts."""
    work = Work(9)
    found = ends(work, [Timeout(10), Bulkhead(1)], runs=3)
    assert [(Step.DONE, 9), (AttemptTimeoutError, 10), (AttemptTimeoutError, 10)] == found
    assert [0, 9] == work.calls


def test_bulkhead_of_timeout() -> None:
    """Bulkhead(Timeout(f)): the time in line does not count."""
    work = Work(9)
    found = ends(work, [Bulkhead(1), Timeout(10)], runs=3)
    assert [(Step.DONE, 9), (Step.DONE, 18), (Step.DONE, 27)] == found
    assert [0, 9, 18] == work.calls


def test_retry_of_retry() -> None:
    """Retry(Retry(f)): the attempts multiply, and each round counts from 1."""
    attempts: list[int] = []

    async def fail(ctx: Context) -> Step:
        attempts.append(ctx.attempt)
        raise ValueError

    flow = Workflow(Step).register(Step.WORK, fail, Retry.fixed(2, 0), Retry.fixed(3, 0))
    with pytest.raises(ValueError):
        run(flow.exits(Step.DONE).run(Step.WORK))
    assert [1, 2, 3] * 2 == attempts


def test_bulkhead_of_bulkhead() -> None:
    """Bulkhead(Bulkhead(f)): the narrower one counts, wherever it is."""
    for limits in ([1, 2], [2, 1]):
        work = Work(9)
        found = ends(work, [Bulkhead(limit) for limit in limits], runs=3)
        assert (1, 27) == (work.peak, found[-1][1])


def test_the_usual_order() -> None:
    """Retry(Bulkhead(Timeout(f))): neither line nor pause costs time, and pauses make room."""
    work = Work(9, failures=1)
    found = ends(work, [Retry.fixed(2, 1), Bulkhead(1), Timeout(10)], runs=2)
    assert [(Step.DONE, 27), (Step.DONE, 36)] == found
    assert [0, 9, 18, 27] == work.calls
