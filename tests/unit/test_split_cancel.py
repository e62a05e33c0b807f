"""Split: cancelled from outside, from inside and by accident, it takes its branches along."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Literal

import pytest

from cano import Context, Resources, Split, Workflow
from cano import join as joins
from cano.errors import (
    JoinFailedError,
    RunCancelledError,
    RunTimeoutError,
    StrayCancelledError,
)
from cano.testing import VirtualLoop, run

Work = Callable[[Context[Any]], Awaitable[Any]]


class Step(Enum):
    SPLIT = "split"
    NEXT = "next"
    DONE = "done"


def now() -> float:
    return asyncio.get_running_loop().time()


def after(seconds: float, value: Any = None) -> Work:
    async def work(ctx: Context[Any]) -> Any:
        await asyncio.sleep(seconds)
        return value

    return work


class Branches:
    """Branches that say when they begin and end; a stubborn one swallows some cancellations."""

    def __init__(self, stubborn: int = 0, cleanup: float = 0.0) -> None:
        self.begun: list[int] = []
        self.ended: dict[int, float] = {}
        self.stubborn = stubborn
        self.cleanup = cleanup

    async def __call__(self, ctx: Context[Any]) -> None:
        assert ctx.branch is not None
        self.begun.append(ctx.branch.index)
        try:
            for _ in range(self.stubborn):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(10_000)
            await asyncio.sleep(10_000)
        finally:
            await asyncio.sleep(self.cleanup)
            self.ended[ctx.branch.index] = now()


def flow(split: Split[Step], **settings: Any) -> Any:
    """A workflow whose state after the split must not be reached."""

    async def look(ctx: Context[Any]) -> Literal[Step.DONE]:
        raise AssertionError("the state after the split was entered")

    built = Workflow(Step, **settings).register(Step.SPLIT, split).register(Step.NEXT, look)
    return built.exits(Step.DONE)


def alone() -> bool:
    """Whether no other task is left in the loop."""
    return asyncio.all_tasks() == {asyncio.current_task()}


def test_cancelling_the_run_cancels_and_awaits_every_branch() -> None:
    """The run ends when its last branch has, and no task is left."""
    branches = Branches(cleanup=0.03)

    async def main() -> None:
        task = asyncio.ensure_future(flow(Split([branches] * 3, then=Step.NEXT)).run(Step.SPLIT))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert alone()

    run(main())
    assert {0: 5.03, 1: 5.03, 2: 5.03} == branches.ended


def test_cancelling_the_handle_cancels_and_awaits_every_branch() -> None:
    """`handle.cancel()` reaches the branches, and the run ends with `RunCancelledError`."""
    branches = Branches()

    async def main() -> None:
        handle = await flow(Split([branches] * 3, then=Step.NEXT)).start_run(Step.SPLIT)
        await asyncio.sleep(5)
        await handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle.result()
        assert alone()

    run(main())
    assert {0: 5, 1: 5, 2: 5} == branches.ended


@pytest.mark.parametrize("stubborn", [1, 3])
def test_a_cancelled_run_outlives_its_most_stubborn_branch(stubborn: int) -> None:
    """Branches that swallow the cancellation are cancelled again every 50 ms, and awaited."""
    branches = Branches(stubborn)

    async def main() -> float:
        task = asyncio.ensure_future(flow(Split([branches], then=Step.NEXT)).run(Step.SPLIT))
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.wait((task,))
        assert (True, True) == (task.cancelled(), alone())
        return now()

    assert pytest.approx(5 + 0.05 * stubborn) == run(main())


def test_cancelling_again_while_branches_clean_up_abandons_none() -> None:
    """However often the run is cancelled, it waits for the cleanup of its branches."""
    branches = Branches(cleanup=0.04)

    async def main() -> None:
        task = asyncio.ensure_future(flow(Split([branches] * 2, then=Step.NEXT)).run(Step.SPLIT))
        await asyncio.sleep(5)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        await asyncio.wait((task,))
        assert (True, True) == (task.cancelled(), alone())

    run(main())
    assert {0: 5.04, 1: 5.04} == branches.ended


def test_cancelling_while_losers_clean_up_awaits_them() -> None:
    """A run cancelled between the verdict and the next state ends cancelled, the losers awaited."""
    branches = Branches(cleanup=0.04)

    async def main() -> None:
        split = Split([after(5), branches], then=Step.NEXT, join=joins.Any())
        task = asyncio.ensure_future(flow(split).run(Step.SPLIT))
        await asyncio.sleep(5.01)
        task.cancel()
        await asyncio.wait((task,))
        assert (True, True) == (task.cancelled(), alone())

    run(main())
    assert {1: 5.04} == branches.ended


def test_a_run_cancelled_by_its_last_branch() -> None:
    """A cancellation that meets the last branch's end ends the run; nothing hangs."""

    async def main() -> None:
        async def work(ctx: Context[Any]) -> None:
            await asyncio.sleep(1)
            task.cancel()

        task = asyncio.ensure_future(flow(Split([work], then=Step.NEXT)).run(Step.SPLIT))
        await asyncio.wait((task,))
        assert (True, True) == (task.cancelled(), alone())

    run(main())


def test_a_cancelled_run_starts_no_more_branches() -> None:
    """Branches that waited for room when the run was cancelled never begin."""
    branches = Branches()

    async def main() -> None:
        split = Split([branches] * 5, then=Step.NEXT, bulkhead=2)
        task = asyncio.ensure_future(flow(split).run(Step.SPLIT))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait((task,))

    run(main())
    assert [0, 1] == branches.begun


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_cancelling_every_task_of_the_loop_ends_the_run(turns: int) -> None:
    """Branches cancelled by a third party, even before their first step, leave nothing hanging."""
    branches = Branches()

    async def main() -> None:
        task = asyncio.ensure_future(flow(Split([branches] * 3, then=Step.NEXT)).run(Step.SPLIT))
        for _ in range(turns):
            await asyncio.sleep(0)
        for other in asyncio.all_tasks() - {asyncio.current_task()}:
            other.cancel()
        await asyncio.wait((task,))
        assert (True, True) == (task.cancelled(), alone())

    run(main())
    assert sorted(branches.begun) == sorted(branches.ended)


def test_the_cleanup_of_a_branch_somebody_cancelled_is_not_cut_short() -> None:
    """Branches that are cancelled already, as `asyncio.run` does at its end, are left to it."""
    branches = Branches(cleanup=0.04)

    async def main() -> None:
        task = asyncio.ensure_future(flow(Split([branches] * 2, then=Step.NEXT)).run(Step.SPLIT))
        await asyncio.sleep(1)
        for other in asyncio.all_tasks() - {task, asyncio.current_task()}:
            other.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))

    run(main())
    assert {0: 1.04, 1: 1.04} == branches.ended


def test_the_run_s_timeout_ends_the_branches() -> None:
    """The total timeout reaches into the branches as a cancellation does."""
    branches = Branches(stubborn=1)

    async def main() -> None:
        with pytest.raises(RunTimeoutError):
            await flow(Split([branches] * 2, then=Step.NEXT), timeout=7).run(Step.SPLIT)
        assert alone()

    run(main())
    assert {0: 7.05, 1: 7.05} == {index: round(at, 6) for index, at in branches.ended.items()}


def test_a_timeout_around_the_run_stays_right() -> None:
    """An `asyncio.timeout` of the caller's ends the run and its branches, and is a TimeoutError."""
    branches = Branches()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await flow(Split([branches] * 2, then=Step.NEXT)).run(Step.SPLIT)
        assert alone()

    run(main())
    assert {0: 3, 1: 3} == branches.ended


def test_a_split_in_a_branch_is_ended_with_it() -> None:
    """Cancelling a run ends the branches of a workflow that one of its branches runs."""
    branches = Branches(cleanup=0.03)

    async def main() -> None:
        async def nested(ctx: Context[Any]) -> None:
            await flow(Split([branches] * 2, then=Step.NEXT)).run(Step.SPLIT)

        split = Split([nested, after(2)], then=Step.NEXT, join=joins.All(fail_fast=False))
        task = asyncio.ensure_future(flow(split).run(Step.SPLIT))
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.wait((task,))
        assert (True, True) == (task.cancelled(), alone())

    run(main())
    assert {0: 5.03, 1: 5.03} == branches.ended


@pytest.mark.parametrize("seconds", [None, 1])
def test_a_cancellation_out_of_the_blue_is_a_failed_branch(seconds: float | None) -> None:
    """A CancelledError that a branch raises on its own is a failure that says so."""

    async def stray(ctx: Context[Any]) -> None:
        if seconds is not None:
            await asyncio.sleep(seconds)
        raise asyncio.CancelledError

    with pytest.raises(JoinFailedError) as caught:
        run(flow(Split([stray, after(2)], then=Step.NEXT)).run(Step.SPLIT))
    (error,) = caught.value.exceptions
    assert isinstance(error, StrayCancelledError)
    assert "stray[0]' of SPLIT raised CancelledError, but nobody had cancelled it" in str(error)


class Fatal(BaseException):
    """What a test framework raises to leave in a hurry."""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Fatal])
@pytest.mark.parametrize("seconds", [None, 1])
def test_what_is_no_exception_leaves_through_the_run(
    kind: type[BaseException], seconds: float | None
) -> None:
    """KeyboardInterrupt and the like end the other branches, await them, and come out of the run."""
    branches = Branches(cleanup=0.03)
    log: list[Any] = []

    class Db:
        async def __aenter__(self) -> None:
            log.append("up")

        async def __aexit__(self, *exc: object) -> None:
            log.append("down")

    async def leave(ctx: Context[Any]) -> None:
        if seconds is not None:
            await asyncio.sleep(seconds)
        raise kind("now")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, said: log.append(said))
        split = Split([branches, leave, branches], then=Step.NEXT, bulkhead=2)
        await flow(split, resources=Resources(db=Db())).run(Step.SPLIT)

    with pytest.raises(kind, match="now"):
        run(main())
    gc.collect()
    assert ["up", "down"] == log
    assert ([0], {0: (seconds or 0) + 0.03}) == (branches.begun, branches.ended)


def test_a_cancellation_does_not_hide_what_is_worse() -> None:
    """A run cancelled while it ends for a KeyboardInterrupt ends with that all the same."""

    async def leave(ctx: Context[Any]) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        branches = Branches(cleanup=0.03)
        task = asyncio.ensure_future(flow(Split([branches, leave], then=Step.NEXT)).run(Step.SPLIT))
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(KeyboardInterrupt):
        run(main())


def test_the_first_of_several_that_are_no_exceptions_counts() -> None:
    """Another one raised by a branch that is being ended changes nothing."""

    async def leave(ctx: Context[Any]) -> None:
        raise Fatal("first")

    async def leave_too(ctx: Context[Any]) -> None:
        try:
            await asyncio.sleep(1)
        finally:
            raise Fatal("second")

    with pytest.raises(Fatal, match="first"):
        run(flow(Split([leave_too, leave], then=Step.NEXT)).run(Step.SPLIT))


def test_a_loop_that_is_closed_on_a_split_says_no_more_than_asyncio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Branches of a loop that was thrown away start no others and raise nothing of their own."""
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: said.append(what.exc_value))
    loop = VirtualLoop()
    loop.set_exception_handler(lambda loop, context: None)  # asyncio's own complaint
    split = Split([after(10)] * 3, then=Step.NEXT, bulkhead=1)
    task = loop.create_task(flow(split).run(Step.SPLIT))
    loop.run_until_complete(asyncio.sleep(1))
    loop.close()
    del task, loop
    gc.collect()
    assert [] == said
