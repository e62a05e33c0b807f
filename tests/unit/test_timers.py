"""Waits that a restart does not begin again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from math import inf, nan
from typing import Any, Literal

import pytest

from cano import Context, MemoryCheckpoints, ProgressMismatchError, Retry, TimerTask, Workflow
from cano.checkpoints.store import Status
from cano.events import TimerSet
from cano.testing import run
from cano.testing.faults import SimulatedCrash


class Step(StrEnum):
    A = auto()
    B = auto()
    END = auto()


DAY = 24 * 3600.0


def time() -> float:
    return asyncio.get_running_loop().time()


async def leave(ctx: Context[Any]) -> Literal[Step.END]:
    return Step.END


async def stopped_after(seconds: float, flow: Workflow[Step, None], run_id: str = "r") -> None:
    """Run until the process is shut down, *seconds* later."""
    task = asyncio.ensure_future(flow.run(Step.A, run_id=run_id))
    await asyncio.sleep(seconds)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("name", ["", "pause"])
def test_a_resumed_sleep_waits_what_is_left(name: str) -> None:
    """Down time counts: the wait ends when it would have ended."""

    async def main() -> float:
        store = MemoryCheckpoints()

        def make() -> Workflow[Step, None]:
            flow = Workflow(Step, checkpoints=store).exits(Step.END).register(Step.B, leave)

            @flow.task(Step.A)
            async def a(ctx: Context[Any]) -> Literal[Step.B]:
                await ctx.sleep(1000, name)
                return Step.B

            return flow

        await stopped_after(100, make())
        await asyncio.sleep(300)
        await make().resume("r")
        return time()

    assert 1000 == pytest.approx(run(main()))


def test_waits_of_a_later_state_are_found_again() -> None:
    """Unnamed waits are counted anew in every visit, as a resumed process counts them."""

    async def main() -> float:
        store = MemoryCheckpoints()

        def make() -> Workflow[Step, None]:
            flow = Workflow(Step, checkpoints=store).exits(Step.END)

            @flow.task(Step.A)
            async def a(ctx: Context[Any]) -> Literal[Step.B]:
                await ctx.sleep(10)
                await ctx.sleep(10)
                return Step.B

            @flow.task(Step.B)
            async def b(ctx: Context[Any]) -> Literal[Step.END]:
                await ctx.sleep(1000)
                return Step.END

            return flow

        await stopped_after(500, make())
        await make().resume("r")
        return time()

    assert 1020 == pytest.approx(run(main()))


def test_waits_are_found_in_their_order() -> None:
    """The second of two waits goes on as the second."""

    async def main() -> float:
        store = MemoryCheckpoints()

        def make() -> Workflow[Step, None]:
            flow = Workflow(Step, checkpoints=store).exits(Step.END).register(Step.B, leave)

            @flow.task(Step.A)
            async def a(ctx: Context[Any]) -> Literal[Step.B]:
                await ctx.sleep(100)
                await ctx.sleep(200)
                return Step.B

            return flow

        await stopped_after(150, make())
        await make().resume("r")
        return time()

    assert 300 == pytest.approx(run(main()))


@pytest.mark.parametrize("seconds", [0, -5])
def test_no_time_is_no_wait(seconds: float) -> None:
    """A wait of zero, or less, is over at once."""

    async def main() -> float:
        flow = Workflow(Step, checkpoints=MemoryCheckpoints()).exits(Step.END, Step.B)

        @flow.task(Step.A)
        async def a(ctx: Context[Any]) -> Literal[Step.END]:
            await ctx.sleep(seconds)
            return Step.END

        await flow.run(Step.A)
        return time()

    assert 0 == run(main())


def test_a_wait_without_end_can_be_stored() -> None:
    """Infinity is kept as a very long time, so that the history can be read again."""

    async def main() -> float:
        store = MemoryCheckpoints()
        flow = Workflow(Step, checkpoints=store).exits(Step.END, Step.B)

        @flow.task(Step.A)
        async def a(ctx: Context[Any]) -> Literal[Step.END]:
            await ctx.sleep(inf)
            return Step.END

        await stopped_after(5, flow)
        (timer,) = [e for e in await store.load("r") if isinstance(e, TimerSet)]
        return timer.until - timer.time

    assert 1000 * 365 * DAY < run(main())


def test_nan_is_no_time() -> None:
    """What is no number of seconds fails the task, and leaves nothing behind."""

    async def main() -> list[str]:
        store = MemoryCheckpoints()
        flow = Workflow(Step, checkpoints=store).exits(Step.END, Step.B)

        @flow.task(Step.A)
        async def a(ctx: Context[Any]) -> Literal[Step.END]:
            await ctx.sleep(nan)
            return Step.END

        with pytest.raises(ValueError, match="nan is no time to wait; pass seconds"):
            await flow.run(Step.A, run_id="r")
        return [type(event).__name__ for event in await store.load("r")]

    assert ["RunStarted", "StateEntered", "RunFailed"] == run(main())


def test_each_attempt_waits_anew() -> None:
    """What waited before a failure waits again in the next attempt, unless it has a name."""

    async def main() -> float:
        flow = Workflow(Step, checkpoints=MemoryCheckpoints()).exits(Step.END, Step.B)

        @flow.task(Step.A, Retry.fixed(2, 1))
        async def a(ctx: Context[Any]) -> Literal[Step.END]:
            await ctx.sleep(100, "once")
            await ctx.sleep(10)
            if ctx.attempt == 1:
                raise ConnectionError
            return Step.END

        await flow.run(Step.A)
        return time()

    assert 100 + 10 + 1 + 10 == pytest.approx(run(main()))


def test_code_that_waits_for_something_else_is_found_out() -> None:
    """Where a resumed task waits for a signal instead of sleeping, it is told so by name."""

    async def main() -> Status:
        store = MemoryCheckpoints()

        def make(changed: bool) -> Workflow[Step, None]:
            flow = Workflow(Step, checkpoints=store).exits(Step.END, Step.B)

            @flow.task(Step.A)
            async def a(ctx: Context[Any]) -> Literal[Step.END]:
                if changed:
                    await ctx.wait_signal("go", str)
                await ctx.sleep(100)
                return Step.END

            return flow

        await stopped_after(5, make(False))
        said = r"A waits for 'go' at '1\.1', but when it ran before it slept there; .* a name"
        with pytest.raises(ProgressMismatchError, match=said):
            await make(True).resume("r")
        return (await store.summary("r")).status

    assert Status.IN_DOUBT is run(main())


def test_a_clock_that_is_back_after_a_restart_waits_no_longer() -> None:
    """A moment is kept, not a duration: `ctx.now` goes on where the last process left it."""

    async def main() -> list[float]:
        store, seen = MemoryCheckpoints(), list[float]()

        def make() -> Workflow[Step, None]:
            flow = Workflow(Step, checkpoints=store).exits(Step.END, Step.B)

            @flow.task(Step.A)
            async def a(ctx: Context[Any]) -> Literal[Step.END]:
                seen.append(ctx.now())
                await ctx.sleep(50)
                return Step.END

            return flow

        await stopped_after(20, make())
        await make().resume("r")
        return seen

    before, after = run(main())
    assert 20 == pytest.approx(after - before)


# TimerTask


def timed(store: MemoryCheckpoints | None, first: Any, second: Any = 0) -> Workflow[Step, None]:
    flow = Workflow(Step, checkpoints=store).exits(Step.END)
    flow.register(Step.A, TimerTask(first, then=Step.B))
    return flow.register(Step.B, TimerTask(second, then=Step.END))


@pytest.mark.parametrize("durable", [False, True])
def test_a_timer_task_waits(durable: bool) -> None:
    """Seconds and timedeltas are waited for, with a store and without."""

    async def main() -> float:
        store = MemoryCheckpoints() if durable else None
        await timed(store, 100, timedelta(minutes=1)).run(Step.A)
        return time()

    assert 160 == pytest.approx(run(main()))


@pytest.mark.parametrize("durable", [False, True])
def test_a_timer_task_waits_until_a_moment(durable: bool) -> None:
    """A moment of its own making is waited for; one that is past is not."""

    class Until(TimerTask[Step]):
        async def moment(self, ctx: Context[Any]) -> datetime:
            return datetime.fromtimestamp(ctx.now(), UTC) + timedelta(seconds=90)

    async def main() -> float:
        store = MemoryCheckpoints() if durable else None
        past = datetime(2001, 1, 1, tzinfo=UTC)
        await timed(store, 0, past).register(Step.A, Until(then=Step.B)).run(Step.A)
        return time()

    assert 90 == pytest.approx(run(main()))


def test_a_resumed_timer_task_waits_what_is_left() -> None:
    """Each of two timers in a row is found again, in whatever state it is."""

    async def main() -> float:
        store = MemoryCheckpoints()
        await stopped_after(60, timed(store, 100, 1000))
        again = asyncio.ensure_future(timed(store, 100, 1000).resume("r"))
        await asyncio.sleep(500)
        again.cancel()
        with suppress(asyncio.CancelledError):
            await again
        await timed(store, 100, 1000).resume("r")
        return time()

    assert 1100 == pytest.approx(run(main()))


def test_the_moment_is_asked_for_once() -> None:
    """A resumed timer does not ask again: the moment may depend on when it is asked."""
    asked: list[float] = []

    class Later(TimerTask[Step]):
        async def moment(self, ctx: Context[Any]) -> float:
            asked.append(ctx.now())
            return 100

    async def main() -> float:
        store = MemoryCheckpoints()
        for seconds in (30, 30):
            flow = timed(store, 0).register(Step.A, Later(then=Step.B))
            task = asyncio.ensure_future(flow.run(Step.A, run_id="r"))
            await asyncio.sleep(seconds)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await timed(store, 0).register(Step.A, Later(then=Step.B)).resume("r")
        return time()

    assert (100, 1) == (pytest.approx(run(main())), len(asked))


@pytest.mark.parametrize(
    ("delay", "said"),
    [
        (None, "does not know how long; pass seconds, or write moment"),
        (inf, "inf is no time; pass finite seconds"),
        (nan, "nan is no time"),
        (datetime(2030, 1, 1), "has no time zone; pass an aware datetime"),  # noqa: DTZ001
    ],
)
def test_wrong_delays_are_definition_errors(delay: Any, said: str) -> None:
    """What is no time is found before the first run, with the remedy."""
    with pytest.raises(ValueError, match=said):
        timed(None, delay).check(Step.A)


def test_a_crash_while_waiting_counts_as_progress() -> None:
    """A process that dies in a long wait is not a run that kills its process."""

    async def main() -> int:
        store = MemoryCheckpoints()

        def make() -> Workflow[Step, None]:
            flow = Workflow(Step, checkpoints=store, max_crashes=2).exits(Step.END, Step.B)

            @flow.task(Step.A)
            async def a(ctx: Context[Any]) -> Literal[Step.END]:
                for hour in range(4):
                    await ctx.sleep(3600)
                    if hour == len(deaths):
                        deaths.append(hour)
                        raise SimulatedCrash
                return Step.END

            return flow

        deaths: list[int] = []
        with suppress(SimulatedCrash):
            await make().run(Step.A, run_id="r")
        while len(deaths) < 4:
            await asyncio.sleep(16)
            with suppress(SimulatedCrash):
                await make().resume("r")
        await asyncio.sleep(16)
        assert Step.END is await make().resume("r")
        return len(deaths)

    assert 4 == run(main())
