"""`Hedge` inside of runs: data, events, attempts, and what must not happen twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    Branch,
    CompensatableTask,
    Context,
    CursorSaved,
    DefinitionError,
    Event,
    Hedge,
    HedgeStarted,
    MemoryCheckpoints,
    Retry,
    RunLostError,
    Split,
    TaskRetried,
    TaskSucceeded,
    Timeout,
    Workflow,
    guarded,
)
from cano.policies.guarded import Nobody
from cano.testing import SimulatedCrash, run


class Step(StrEnum):
    WORK = auto()
    NEXT = auto()
    DONE = auto()


@dataclass
class Found:
    names: list[str] = field(default_factory=list[str])
    count: int = 0


@dataclass(frozen=True)
class Frozen:
    name: str = "before"


Work = Callable[[Context[Any]], Awaitable[Literal[Step.DONE]]]


def flow(work: Work, *policies: Any, data: Any = Found, **settings: Any) -> Workflow[Step, Any]:
    made = Workflow(Step, data=data, **settings).register(Step.WORK, work, *policies)
    return made.exits(Step.DONE, Step.NEXT)


def slow_then_quick(*, quick: float = 1, fails: bool = False) -> Work:
    """The first call takes a minute, the second a second; each leaves its mark in the data."""
    made: list[str] = []

    async def work(ctx: Context[Found]) -> Literal[Step.DONE]:
        name = "second" if made else "first"
        made.append(name)
        ctx.data.names.append(f"{name} began")
        await asyncio.sleep(60 if name == "first" else quick)
        ctx.data.names.append(f"{name} ended")
        if fails:
            raise ValueError(name)
        return Step.DONE

    return work


def test_the_data_of_the_winner_count() -> None:
    """What the loser did to the data is gone, whichever of the two it was."""
    data = Found(["before"])
    run(flow(slow_then_quick(), Hedge(5)).run(Step.WORK, data=data))
    assert ["before", "second began", "second ended"] == data.names
    data = Found(["before"])
    run(flow(slow_then_quick(quick=90), Hedge(5)).run(Step.WORK, data=data))
    assert ["before", "first began", "first ended"] == data.names


def test_a_call_that_fails_has_changed_nothing() -> None:
    """When all attempts fail, the data are what they were before the call."""
    data = Found(["before"])
    with pytest.raises(ValueError):
        run(flow(slow_then_quick(fails=True), Hedge(5)).run(Step.WORK, data=data))
    assert ["before"] == data.names


def test_a_call_that_is_cancelled_has_changed_nothing() -> None:
    """Cancelled from outside, the call leaves the data as they were."""
    data = Found(["before"])

    async def main() -> None:
        task = asyncio.ensure_future(flow(slow_then_quick(), Hedge(59)).run(Step.WORK, data=data))
        await asyncio.sleep(59.5)
        task.cancel()
        await asyncio.wait({task})

    run(main())
    assert ["before"] == data.names


@pytest.mark.parametrize("winner", [0, 1])
def test_frozen_data_are_replaced_by_the_winner(winner: int) -> None:
    """Data that are replaced, not changed, are the winner's too, whichever it is."""
    made: list[int] = []
    seen: list[str] = []

    async def work(ctx: Context[Frozen]) -> Literal[Step.NEXT]:
        made.append(len(made))
        number = made[-1]
        ctx.data = Frozen(f"call {number}")
        await asyncio.sleep(1 if number == winner else 60)
        return Step.NEXT

    async def following(ctx: Context[Frozen]) -> Literal[Step.DONE]:
        seen.append(ctx.data.name)
        return Step.DONE

    workflow = Workflow(Step, data=Frozen).register(Step.WORK, work, Hedge(5))
    run(workflow.register(Step.NEXT, following).exits(Step.DONE).run(Step.WORK))
    assert [f"call {winner}"] == seen


def test_the_winners_data_are_stored() -> None:
    """With a store, what the winner changed is in the history, and nothing of the loser."""

    async def main() -> None:
        workflow = flow(slow_then_quick(), Hedge(5), checkpoints=MemoryCheckpoints())
        await workflow.run(Step.WORK, run_id="a")
        data = await workflow.handle("a").data()
        assert ["second began", "second ended"] == data.names

    run(main())


def test_tells_observers_of_each_further_call() -> None:
    """One event per call beyond the first, with its number."""
    told: list[tuple[str, int, float]] = []

    def note(event: Event) -> None:
        if isinstance(event, HedgeStarted):
            told.append((event.state, event.number, asyncio.get_running_loop().time()))

    async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
        await asyncio.sleep(12)
        return Step.DONE

    run(flow(work, Hedge(5, attempts=3), observers=[note]).run(Step.WORK))
    assert [("WORK", 2, 5), ("WORK", 3, 10)] == told


def test_the_attempt_is_that_of_the_retry_outside() -> None:
    """Retry(Hedge(f)): both calls of a hedge are the same attempt."""
    attempts: list[int] = []

    async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
        attempts.append(ctx.attempt)
        await asyncio.sleep(60)
        if len(attempts) < 4:
            raise ValueError
        return Step.DONE

    run(flow(work, Retry.fixed(2, 1), Hedge(5)).run(Step.WORK))
    assert [1, 1, 2, 2] == attempts


def test_retries_inside_count_for_each_call() -> None:
    """Hedge(Retry(f)): each call has its own attempts; the winner's number is what is told."""
    attempts: list[tuple[int, float]] = []
    told: list[int] = []

    async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
        attempts.append((ctx.attempt, asyncio.get_running_loop().time()))
        await asyncio.sleep(4)
        if len(attempts) < 4:
            raise ValueError
        return Step.DONE

    def note(event: Event) -> None:
        if isinstance(event, TaskSucceeded):
            told.append(event.attempt)

    store = MemoryCheckpoints()
    workflow = flow(work, Hedge(5), Retry.fixed(3, 2), observers=[note], checkpoints=store)
    run(workflow.run(Step.WORK, run_id="a"))
    assert [(1, 0), (1, 5), (2, 6), (2, 11), (3, 12)] == attempts
    assert [2] == told
    kept = run(store_events(store))
    assert [] == [event for event in kept if isinstance(event, TaskRetried)]


async def store_events(store: MemoryCheckpoints) -> list[Event]:
    return [*await store.load("a")]


async def _effect(ctx: Context[Any]) -> None:
    async def charge() -> int:
        return 1

    await ctx.effect("charge", charge)


async def _signal(ctx: Context[Any]) -> None:
    await ctx.wait_signal("go", str)


async def _signals(ctx: Context[Any]) -> None:
    await ctx.wait_signals(["go", "stop"], str)


async def _record(ctx: Context[Any]) -> None:
    await ctx.record(CursorSaved())


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    ("use", "what"),
    [
        (_effect, "effect 'charge' in WORK"),
        (_signal, "waiting for signal 'go' in WORK"),
        (_signals, "waiting for signals 'go', 'stop' in WORK"),
        (_record, "recording CursorSaved in WORK"),
    ],
)
def test_what_must_happen_once_is_refused(
    use: Callable[[Context[Any]], Awaitable[None]], what: str, *, stored: bool
) -> None:
    """Effects, signals and records inside a hedge are an error, with a store and without."""

    async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
        await use(ctx)
        return Step.DONE

    settings = {"checkpoints": MemoryCheckpoints()} if stored else {}
    with pytest.raises(DefinitionError) as caught:
        run(flow(work, Hedge(5), **settings).run(Step.WORK))
    assert (
        f"{what} is inside a Hedge, where it would happen in each of the calls made side by side; "
        "do it in a state of its own, or leave the Hedge out"
    ) == str(caught.value)


def test_a_sleep_inside_is_an_ordinary_one() -> None:
    """Nothing of a sleep inside a hedge is kept: after a crash the whole call is made again."""
    naps: list[int] = []

    def work(life: int) -> Work:
        async def nap(ctx: Context[Any]) -> Literal[Step.DONE]:
            naps.append(life)
            await ctx.sleep(3)
            if life == 1:
                raise SimulatedCrash
            return Step.DONE

        return nap

    async def main() -> None:
        store = MemoryCheckpoints()
        with pytest.raises(SimulatedCrash):
            await flow(work(1), Hedge(5), checkpoints=store, lease=0.1).run(Step.WORK, run_id="a")
        again = flow(work(2), Hedge(5), checkpoints=store, lease=0.1)
        assert Step.DONE == await again.run(Step.WORK, run_id="a", wait=True)

    run(main())
    assert [1, 2] == naps


def test_each_call_has_the_item_and_the_branch() -> None:
    """In a split, each branch is hedged; its calls know the branch and its item."""
    seen: list[tuple[str, int]] = []

    async def branch(ctx: Context[Any], item: int) -> int:
        assert ctx.branch is not None
        seen.append((f"branch {ctx.branch.index}", ctx.item))
        await asyncio.sleep(60 if len(seen) <= 2 else 1)
        return item

    async def following(ctx: Context[Any]) -> Literal[Step.DONE]:
        seen.append(("sum", sum(ctx.joined(int).values)))
        return Step.DONE

    def two(data: object) -> list[int]:
        return [1, 2]

    split = Split.over(two, run=branch, then=Step.NEXT)
    workflow = Workflow(Step).register(Step.WORK, split, Hedge(5))
    run(workflow.register(Step.NEXT, following).exits(Step.DONE).run(Step.WORK))
    assert [*[("branch 0", 1), ("branch 1", 2)] * 2, ("sum", 3)] == seen


def test_an_error_after_which_the_run_stops_ends_it_at_once() -> None:
    """When the run has to stop where it is, no further call is made."""

    class Stopping(Nobody):
        def stops(self, error: Exception, /) -> bool:
            return True

    made: list[int] = []
    host: Any = Stopping()

    async def lose(ctx: Context[Any]) -> None:
        made.append(len(made))
        raise RunLostError("taken over")

    async def main() -> None:
        with pytest.raises(RunLostError, match="taken over"):
            await Hedge(5).wrap(lose)(Context(host, [Step.WORK], None))

    run(main())
    assert [0] == made


def test_the_deadline_of_the_run_is_known_inside() -> None:
    """A call knows how much time the whole run has left."""
    left: list[float] = []

    async def work(ctx: Context[Any]) -> Literal[Step.DONE]:
        left.append(ctx.remaining)
        await asyncio.sleep(6)
        return Step.DONE

    run(flow(work, Hedge(5), timeout=30).run(Step.WORK))
    assert [30, 25] == left


def test_a_hedge_that_never_comes_is_a_definition_error() -> None:
    """Where the whole run has less time than the hedge waits, `check` says so."""
    workflow = flow(slow_then_quick(), Hedge(60), timeout=30)
    with pytest.raises(DefinitionError, match=r"never makes a second call within the 30 s"):
        workflow.check()


def test_work_that_is_to_be_undone_is_not_hedged() -> None:
    """What the loser did could not be undone: a definition error, with a remedy."""

    class Book(CompensatableTask[Step, str]):
        async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.DONE], str]:
            return Step.DONE, "room 7"

        async def compensate(self, ctx: Context[Any], output: str) -> None: ...

    async def give_back(ctx: Context[Any], output: str) -> None: ...

    async def book(ctx: Context[Any]) -> str:
        return "room 7"

    part = Workflow(Step, start=Step.WORK).register(Step.WORK, slow_then_quick())
    split = Split([Branch(book, Hedge(5), compensate=give_back)], then=Step.DONE)
    for workflow in (
        Workflow(Step).register(Step.WORK, Book(), Hedge(5)),
        Workflow(Step).register(Step.WORK, split),
        Workflow(Step).register(Step.WORK, part.as_task(then=Step.DONE), Hedge(5)),
    ):
        with pytest.raises(DefinitionError, match=r"WORK: Hedge\(.*would do work twice side by"):
            workflow.exits(Step.DONE, Step.NEXT).check()


def test_each_call_sees_the_split_that_led_here() -> None:
    """What a state finds in its context, each of the calls finds there too."""
    seen: list[tuple[int, ...]] = []

    async def branch(ctx: Context[Any]) -> int:
        return 7

    async def following(ctx: Context[Any]) -> Literal[Step.DONE]:
        seen.append(ctx.joined(int).values)
        await asyncio.sleep(6)
        return Step.DONE

    workflow = Workflow(Step).register(Step.WORK, Split([branch], then=Step.NEXT))
    run(workflow.register(Step.NEXT, following, Hedge(5)).exits(Step.DONE).run(Step.WORK))
    assert [(7,), (7,)] == seen


def test_calls_leave_no_timers() -> None:
    """The timers of a call, and of deadlines inside of it, go with it."""

    async def quick() -> None: ...

    async def main() -> None:
        for _ in range(10):
            await guarded(Hedge(60), Timeout(60))(quick)()
        loop: Any = asyncio.get_running_loop()
        assert [] == [handle for handle in loop._scheduled if not handle.cancelled()]

    run(main())
