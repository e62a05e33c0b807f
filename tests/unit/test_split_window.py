"""Split: in which order branches start, how many at a time, and which never do."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from enum import Enum
from typing import Any

import pytest

from cano import Branch, Bulkhead, Context, Split, Workflow
from cano import join as joins
from cano.errors import JoinFailedError
from cano.join import SplitResult
from cano.testing import run


class Step(Enum):
    SPLIT = "split"
    NEXT = "next"
    DONE = "done"


class Watch:
    """Branches that note their order and how many are at work at once."""

    def __init__(self, seconds: Any = 1) -> None:
        self.seconds = seconds
        self.order: list[int] = []
        self.now = 0
        self.peak = 0

    async def __call__(self, ctx: Context[Any]) -> int:
        assert ctx.branch is not None
        self.order.append(ctx.branch.index)
        self.now += 1
        self.peak = max(self.peak, self.now)
        seconds = self.seconds[ctx.branch.index] if isinstance(self.seconds, list) else self.seconds
        if seconds is not None:
            await asyncio.sleep(seconds)
        self.now -= 1
        return ctx.branch.index


def result_of(split: Split[Step], *policies: Any) -> tuple[SplitResult[Any], float]:
    """The result of *split*, and how long it took."""
    found: list[Any] = []

    async def look(ctx: Context[Any]) -> Step:
        found.append(ctx.split)
        return Step.DONE

    async def main() -> float:
        built = Workflow(Step).register(Step.SPLIT, split, *policies).register(Step.NEXT, look)
        await built.exits(Step.DONE).run(Step.SPLIT)
        return asyncio.get_running_loop().time()

    return (took := run(main()), found[0])[1], took


def test_branches_start_in_order() -> None:
    """Branches begin by index, with a bulkhead and without one."""
    for bulkhead in (None, 1, 3):
        watch = Watch([5, 1, 4, 2, 3, 1])
        result_of(Split([watch] * 6, then=Step.NEXT, bulkhead=bulkhead))
        assert [0, 1, 2, 3, 4, 5] == watch.order


@pytest.mark.parametrize(("bulkhead", "peak", "seconds"), [(1, 1, 10), (2, 2, 5), (10, 10, 1),
                                                           (99, 10, 1), (None, 10, 1)])  # fmt: skip
def test_a_bulkhead_bounds_how_many_run(bulkhead: int | None, peak: int, seconds: float) -> None:
    """At most *bulkhead* branches run at once, and never fewer while some are waiting."""
    watch = Watch()
    _, took = result_of(Split([watch] * 10, then=Step.NEXT, bulkhead=bulkhead))
    assert (peak, seconds) == (watch.peak, took)


def test_a_bulkhead_fills_the_place_that_is_free() -> None:
    """The next branch starts the moment any has ended, not when a whole batch has."""
    watch = Watch([4, 1, 1, 1, 1])
    _, took = result_of(Split([watch] * 5, then=Step.NEXT, bulkhead=2))
    assert (4, [0, 1, 2, 3, 4]) == (took, watch.order)


def test_a_bulkhead_of_the_policies_bounds_branches_too() -> None:
    """A `Bulkhead` on the state lets that many branches through at a time."""
    watch = Watch()
    _, took = result_of(Split([watch] * 6, then=Step.NEXT), Bulkhead(2))
    assert (2, 3) == (watch.peak, took)


@pytest.mark.parametrize("bulkhead", [None, 2])
def test_no_branch_starts_after_the_deciding_result(bulkhead: int | None) -> None:
    """From the first success on, an `Any` starts nothing more, not even in the same turn."""
    watch = Watch([5, None, None, 5])
    result, _ = result_of(Split([watch] * 4, then=Step.NEXT, join=joins.Any(), bulkhead=bulkhead))
    assert [0, 1] == watch.order
    assert ((0,), (2, 3)) == (result.cancelled, result.not_started)


@pytest.mark.parametrize("bulkhead", [None, 2])
def test_no_branch_starts_after_the_deciding_failure(bulkhead: int | None) -> None:
    """From the first failure on, an `All` starts nothing more."""
    watch = Watch(5)

    async def fail(ctx: Context[Any]) -> None:
        raise OSError

    with pytest.raises(JoinFailedError) as caught:
        result_of(Split([watch, fail, watch, watch], then=Step.NEXT, bulkhead=bulkhead))
    assert [0] == watch.order
    assert ((0,), (2, 3)) == (caught.value.result.cancelled, caught.value.result.not_started)


def test_a_decision_leaves_the_waiting_ones_unstarted() -> None:
    """Branches that wait for room when the join is satisfied are listed as not started."""
    watch = Watch([1, 1.5, *[5] * 7])
    result, took = result_of(Split([watch] * 9, then=Step.NEXT, join=joins.Quorum(2), bulkhead=2))
    assert (1.5, [0, 1, 2]) == (took, watch.order)
    assert ((2,), (3, 4, 5, 6, 7, 8)) == (result.cancelled, result.not_started)


def test_a_branch_that_makes_room_lends_nothing_to_the_next() -> None:
    """Every branch starts with the context variables of the run, whoever made room for it."""
    seen: list[str] = []
    tenant: ContextVar[str] = ContextVar("tenant", default="none")

    async def work(ctx: Context[Any]) -> None:
        seen.append(tenant.get())
        tenant.set("of another branch")
        await asyncio.sleep(1)

    async def instant(ctx: Context[Any]) -> None:
        seen.append(tenant.get())
        tenant.set("of another branch")

    tenant.set("of the run")
    result_of(Split([work, instant, work, instant, work], then=Step.NEXT, bulkhead=1))
    assert ["of the run"] * 5 == seen
    assert "of the run" == tenant.get()


@pytest.mark.parametrize("bulkhead", [None, 1, 7])
def test_ten_thousand_branches_that_never_suspend(bulkhead: int | None) -> None:
    """A long row of branches without a single pause is no deeper than a short one."""
    watch = Watch(None)
    split = Split([Branch(watch, name=str(i)) for i in range(10_000)], then=Step.NEXT,
                  bulkhead=bulkhead)  # fmt: skip
    result, took = result_of(split)
    assert (tuple(range(10_000)), "all", 0) == (result.values, result.reason, took)


@pytest.mark.parametrize(("bulkhead", "seconds"), [(1, 10_000), (100, 100), (None, 1)])
def test_ten_thousand_branches_that_sleep(bulkhead: int | None, seconds: float) -> None:
    """Ten thousand branches keep to their bulkhead, down to one at a time."""
    watch = Watch()
    result, took = result_of(Split([watch] * 10_000, then=Step.NEXT, bulkhead=bulkhead))
    assert (10_000, seconds, bulkhead or 10_000) == (len(result.successes), took, watch.peak)
    assert list(range(10_000)) == watch.order


def test_the_first_of_ten_thousand_wins() -> None:
    """Ten thousand losers are cancelled and awaited."""
    watch = Watch([10_000 - i for i in range(10_000)])
    result, took = result_of(Split([watch] * 10_000, then=Step.NEXT, join=joins.Any()))
    assert (1, (9_999,), 9_999) == (took, result.values, len(result.cancelled))


def test_branches_are_tasks_of_their_name() -> None:
    """The task of a branch carries the branch's name, for debuggers and dumps of the loop."""

    async def who(ctx: Context[Any]) -> str:
        task = asyncio.current_task()
        return "" if task is None else task.get_name()

    result, _ = result_of(Split([Branch(who, name="eu"), Branch(who, name="us")], then=Step.NEXT))
    assert ("eu", "us") == result.values
