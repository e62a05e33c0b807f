"""Splits and routed failures in a store: what the next state finds after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    Context,
    JoinFailedError,
    MemoryCheckpoints,
    ProgressMismatchError,
    RouterTask,
    Split,
    Workflow,
)
from cano.checkpoints.store import CheckpointStore, Status
from cano.join import Any as AnyOf
from cano.join import Join, Settled, SplitResult
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash


class Step(StrEnum):
    FAN = auto()
    ROUTE = auto()
    AFTER = auto()
    LATER = auto()
    END = auto()


@dataclass
class Basket:
    items: list[str] = field(default_factory=lambda: ["x", "y"])


class Flow:
    """A workflow over one store whose state AFTER crashes once; a new object per process."""

    def __init__(self, split: Callable[[], Split[Step]], *, otherwise: Step | None = None) -> None:
        self.store: CheckpointStore = MemoryCheckpoints()
        self.split = split
        self.otherwise = otherwise
        self.seen: list[Any] = []
        self.crashes = 1

    def make(self, store: CheckpointStore | None = None) -> Workflow[Step, Basket]:
        flow = Workflow(Step, data=Basket, checkpoints=store or self.store).exits(Step.END)
        flow.register(Step.FAN, self.split(), otherwise=self.otherwise)

        async def look(ctx: Context[Any]) -> Literal[Step.END]:
            self.seen.append((ctx.split, ctx.error))
            if len(self.seen) <= self.crashes:
                raise SimulatedCrash
            return Step.END

        for state in (Step.ROUTE, Step.AFTER, Step.LATER):
            flow.register(state, look)
        return flow

    async def crash_and_resume(self, store: CheckpointStore | None = None) -> Step:
        with suppress(SimulatedCrash):
            await self.make(store).run(Step.FAN, run_id="r")
        await asyncio.sleep(16)
        return await self.make().resume("r")


async def one(ctx: Context[Any]) -> int:
    return 1


async def two(ctx: Context[Any]) -> int:
    await asyncio.sleep(1)
    return 2


async def bad(ctx: Context[Any]) -> int:
    raise ConnectionError("no line")


def split(*branches: Any, join: Join | None = None) -> Callable[[], Split[Step]]:
    return lambda: Split(branches, then=Step.AFTER, join=join)


def test_the_joined_split_is_rebuilt() -> None:
    """The state after a join finds the same result after a crash."""

    async def main() -> list[Any]:
        flow = Flow(split(one, two))
        assert Step.END is await flow.crash_and_resume()
        return flow.seen

    (before, _), (after, _) = run(main())
    assert before == after
    assert (1, 2) == after.values


def test_a_branch_that_failed_is_rebuilt_with_its_error() -> None:
    """A branch's exception comes back as its own class, with its text."""

    async def main() -> SplitResult[Any]:
        flow = Flow(split(one, bad, join=Settled()))
        await flow.crash_and_resume()
        found: SplitResult[Any] = flow.seen[-1][0]
        return found

    (failed,) = run(main()).errors
    assert (ConnectionError, "no line") == (type(failed.error), str(failed.error))
    assert any("recorded in an earlier process" in n for n in failed.error.__notes__)  # type: ignore[union-attr]


def test_losers_stay_losers() -> None:
    """A branch that was cancelled did not count, even if its end reached the disk."""

    async def fast(ctx: Context[Any]) -> int:
        return 3

    async def main() -> list[Any]:
        flow = Flow(split(one, fast, join=AnyOf()))
        await flow.crash_and_resume(FaultyStore(flow.store, latency=0.1))
        return flow.seen

    (before, _), (after, _) = run(main())
    assert (before.cancelled, before.values) == (after.cancelled, after.values)
    assert before == after


def test_never_started_stays_never_started() -> None:
    """A branch that never began is told from one that was cancelled, after a crash too."""

    async def main() -> list[Any]:
        flow = Flow(lambda: Split([one, two, two], then=Step.AFTER, join=AnyOf(), bulkhead=1))
        await flow.crash_and_resume()
        return flow.seen

    (before, _), (after, _) = run(main())
    assert ((), (1, 2)) == (after.cancelled, after.not_started)
    assert before == after


def test_a_failed_join_that_was_routed_is_rebuilt() -> None:
    """The state that `otherwise` leads to finds error and split after a crash."""

    async def main() -> list[Any]:
        flow = Flow(split(one, bad), otherwise=Step.LATER)
        assert Step.END is await flow.crash_and_resume()
        return flow.seen

    (before, failed), (after, recorded) = run(main())
    assert "JoinFailedError" == type(failed).__name__
    assert isinstance(recorded, JoinFailedError)
    assert after == recorded.result
    assert before.values == after.values
    assert [e.index for e in before.errors] == [e.index for e in after.errors]


def test_finished_branches_are_not_run_again() -> None:
    """A crash inside a split repeats only the branches that had not ended."""
    calls: list[str] = []
    crash = [True]

    async def quick(ctx: Context[Any]) -> str:
        calls.append("quick")
        return "quick"

    async def slow(ctx: Context[Any]) -> str:
        calls.append("slow")
        await asyncio.sleep(1)
        if crash:
            raise SimulatedCrash(crash.pop())
        return "slow"

    async def main() -> Any:
        flow = Flow(split(quick, slow))
        flow.crashes = 0
        await flow.crash_and_resume()
        return flow.seen[-1][0].values

    assert ("quick", "slow") == run(main())
    assert ["quick", "slow", "slow"] == calls


def test_known_results_may_decide_alone() -> None:
    """Where what is known satisfies the join, a resumed split starts nothing."""
    calls: list[str] = []

    async def slow(ctx: Context[Any]) -> str:
        calls.append("slow")
        await asyncio.sleep(100)
        return "slow"

    async def fast(ctx: Context[Any]) -> str:
        calls.append("fast")
        await asyncio.sleep(1)
        return "fast"

    async def main() -> SplitResult[Any]:
        flow = Flow(split(slow, fast, join=AnyOf()))
        flow.crashes = 0
        await flow.crash_and_resume(FaultyStore(flow.store, crash_after=2))
        found: SplitResult[Any] = flow.seen[-1][0]
        return found

    result = run(main())
    assert ["slow", "fast"] == calls
    assert (("fast",), (0,)) == (result.values, result.cancelled)


def over(items: Callable[[Basket], list[str]], crash: list[bool]) -> Callable[[], Split[Step]]:
    async def work(ctx: Context[Any], item: str) -> str:
        if item == "y" and crash:
            raise SimulatedCrash(crash.pop())
        return item

    return lambda: Split.over(items, run=work, name=str, then=Step.AFTER)


def test_run_time_items_are_found_again() -> None:
    """A split over items goes on with the items it began with."""

    async def main() -> Any:
        flow = Flow(over(lambda data: data.items, [True]))
        flow.crashes = 0
        await flow.crash_and_resume()
        return flow.seen[-1][0]

    result = run(main())
    assert (("x", "y"), ("x", "y")) == (result.values, result.names)


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (["x"], r"began with 2 branches, and was resumed with 1; what differs: y\."),
        (["y", "x"], r"what differs: their order\."),
        (["x", "z"], r"what differs: y, z\."),
    ],
)
def test_changed_items_stop_the_run(later: list[str], said: str) -> None:
    """Items that differ after a crash are an error that says which, and the run is set aside."""
    rounds = [["x", "y"], later]

    async def main() -> Status:
        flow = Flow(over(lambda _: rounds.pop(0), [True]))
        with pytest.raises(ProgressMismatchError, match=said):
            await flow.crash_and_resume()
        return (await flow.store.summary("r")).status

    assert Status.IN_DOUBT is run(main())


def test_what_a_router_was_given_is_not_for_the_state_behind_it() -> None:
    """`ctx.split` is the split joined immediately before, after a crash as well."""

    class Way(RouterTask[Step]):
        async def route(self, ctx: Context[Any]) -> Literal[Step.AFTER]:
            return Step.AFTER

    async def main() -> list[Any]:
        seen: list[Any] = []
        store = MemoryCheckpoints()

        def make() -> Workflow[Step, Basket]:
            flow = Workflow(Step, data=Basket, checkpoints=store).exits(Step.END)
            flow.register(Step.FAN, Split([one], then=Step.ROUTE)).register(Step.ROUTE, Way())

            async def after(ctx: Context[Any]) -> Literal[Step.LATER]:
                seen.append(ctx.split)
                if len(seen) == 1:
                    raise SimulatedCrash
                return Step.LATER

            async def later(ctx: Context[Any]) -> Literal[Step.END]:
                seen.append(ctx.split)
                return Step.END

            flow.register(Step.AFTER, after, otherwise=Step.LATER)
            return flow.register(Step.LATER, later)

        with suppress(SimulatedCrash):
            await make().run(Step.FAN, run_id="r")
        await asyncio.sleep(16)
        await make().resume("r")
        return seen

    assert [None, None, None] == run(main())


def test_a_run_that_failed_in_a_split_can_be_tried_again() -> None:
    """`retry` runs the branches that failed again, and no other."""
    calls: list[str] = []
    down = [True]

    async def sound(ctx: Context[Any]) -> int:
        calls.append("sound")
        return 1

    async def flaky(ctx: Context[Any]) -> int:
        calls.append("flaky")
        if down:
            raise ConnectionError("no line")
        return 2

    async def main() -> Any:
        flow = Flow(split(sound, flaky))
        flow.crashes = 0
        with pytest.raises(ExceptionGroup, match="1 of 2 branches succeeded"):
            await flow.make().run(Step.FAN, run_id="r")
        down.clear()
        assert Step.END is await flow.make().retry("r")
        return flow.seen[-1][0].values

    assert (1, 2) == run(main())
    assert ["sound", "flaky", "flaky"] == calls


def test_an_error_of_a_branch_about_another_run_is_the_joins_affair() -> None:
    """Only this run's own trouble with its history ends a split over the join's head."""

    async def lookup(ctx: Context[Any]) -> int:
        other = Flow(split(one)).make()
        await other.handle("nobody").summary()
        return 0

    async def main() -> SplitResult[Any]:
        flow = Flow(split(one, lookup, join=Settled()))
        flow.crashes = 0
        await flow.make().run(Step.FAN, run_id="r")
        found: SplitResult[Any] = flow.seen[-1][0]
        return found

    assert ["RunNotFoundError"] == [type(e.error).__name__ for e in run(main()).errors]
