"""The verbs of a stream: what they may be, what they are given, which policies go around them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import (
    CloseReason,
    Context,
    DataError,
    MemoryCheckpoints,
    Resources,
    Retry,
    Timeout,
    Window,
    Workflow,
)
from cano.events import CursorSaved
from cano.testing import run
from cano.testing.faults import SimulatedCrash

sys.path.insert(0, str(Path(__file__).parent))

from _streams import Numbers, Seen, Step, flow


@pytest.mark.parametrize("way", ["iterator", "iterable", "generator", "resource"])
def test_the_source_may_be_anything_that_async_for_reads(way: str) -> None:
    """`open` yields, or returns an async iterator or iterable; resources come by name."""

    class Plain:
        """Neither a generator nor anything with `aclose`."""

        def __init__(self) -> None:
            self.left = [3, 2, 1]

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    class Again(Plain):
        def __aiter__(self) -> Plain:
            return Plain()

    class Returning(Numbers):
        async def open(self, ctx: Context[Any], cursor: int | None) -> AsyncIterable[int]:  # type: ignore[override]
            return Plain() if way == "iterator" else Again()

    class Wanting(Numbers):
        async def open(self, ctx: Context[Any], cursor: int | None, queue: Plain) -> Any:
            async for number in queue:
                yield number

    async def main() -> list[list[int]]:
        kinds = {"generator": Numbers, "resource": Wanting}
        task = kinds.get(way, Returning)(3)
        made = Workflow(Step, data=Seen, resources=Resources(queue=Plain()))
        await made.exits(Step.END, Step.LEFT, Step.AGAIN).register(Step.READ, task).run(Step.READ)
        return task.windows

    assert [[1, 2], [3]] == run(main())


def test_all_verbs_take_resources() -> None:
    """process, flush and close find resources by the names of their parameters."""

    class Wanting(Numbers):
        async def process(self, ctx: Context[Any], item: int, factor: int) -> int:
            return item * factor

        async def flush(self, ctx: Context[Any], window: Sequence[int], factor: int) -> None:
            self.log.append([*window, factor])

        async def close(
            self, ctx: Context[Any], reason: CloseReason, factor: int
        ) -> Literal[Step.END]:
            self.log.append(factor)
            return Step.END

    async def main() -> list[Any]:
        task = Wanting(2)
        made = Workflow(Step, resources=Resources(factor=10)).exits(Step.END, Step.LEFT, Step.AGAIN)
        await made.register(Step.READ, task).run(Step.READ)
        return task.log

    assert ["open None", [10, 20, 10], "aclose", 10] == run(main())


def test_flush_may_be_left_out() -> None:
    """A stream whose items do the work themselves needs no flush, and still keeps its cursor."""

    class Silent(Numbers):
        flush = Numbers.__mro__[1].flush  # type: ignore[assignment]  # as if not written

    async def main() -> list[str]:
        store = MemoryCheckpoints()
        await flow(Silent(3), store=store).run(Step.READ, run_id="r")
        events = await store.load("r")
        return [bytes(e.value).decode() for e in events if isinstance(e, CursorSaved)]

    assert ["2", "3"] == run(main())


def test_retry_goes_around_each_item_and_starts_anew_with_each() -> None:
    """The attempts of one item are none of the next, with a store as without."""
    attempts: list[tuple[int, int]] = []

    class Flaky(Numbers):
        async def process(self, ctx: Context[Any], item: int) -> int:
            attempts.append((item, ctx.attempt))
            if ctx.attempt < 3:
                raise ConnectionError
            return item

    async def main(store: Any) -> list[list[int]]:
        attempts.clear()
        task = Flaky(3)
        await flow(task, Retry.fixed(3, 1.0), store=store).run(Step.READ)
        return task.windows

    for store in (None, MemoryCheckpoints()):
        assert [[1, 2], [3]] == run(main(store))
        assert [(item, attempt) for item in (1, 2, 3) for attempt in (1, 2, 3)] == attempts


def test_sleeps_of_a_window_are_its_own() -> None:
    """What was slept in a window before a crash is not slept again, and windows do not mix."""

    class Sleepy(Numbers):
        crash = True

        async def process(self, ctx: Context[Any], item: int) -> int:
            await ctx.sleep(100)
            if item == 4 and self.crash:
                self.crash = False
                raise SimulatedCrash
            return item

    async def main() -> float:
        store, task = MemoryCheckpoints(), Sleepy(5)
        with suppress(SimulatedCrash):
            await flow(task, store=store).run(Step.READ, run_id="r")
        await asyncio.sleep(16)
        await flow(task, store=store).resume("r")
        return asyncio.get_running_loop().time()

    assert 516 == pytest.approx(run(main()))


def test_sleeps_of_an_item_are_its_own() -> None:
    """Neither a failed attempt of another item nor `open` takes one for its own."""

    class Sleepy(Numbers):
        window = Window(count=4)
        crash = True

        async def open(self, ctx: Context[Any], cursor: int | None) -> Any:
            await ctx.sleep(1)
            return super().open(ctx, cursor)

        async def process(self, ctx: Context[Any], item: int) -> int:
            await ctx.sleep(100)
            if ctx.attempt == 1:
                raise ConnectionError
            if item == 3 and self.crash:
                self.crash = False
                raise SimulatedCrash
            return item

        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> None:
            await ctx.sleep(1000)

    async def main() -> float:
        store, task, policy = MemoryCheckpoints(), Sleepy(4), Retry.fixed(2, 0)
        with suppress(SimulatedCrash):
            await flow(task, policy, store=store).run(Step.READ, run_id="r")
        await asyncio.sleep(16)
        await flow(task, policy, store=store).resume("r")
        return asyncio.get_running_loop().time()

    # two sleeps for each of four items, none of them again after the crash
    assert 1 + 800 + 16 + 1000 == pytest.approx(run(main()))


def test_flush_has_policies_of_its_own() -> None:
    """`flush_policies` go around flush; those of the state do not."""
    attempts: list[int] = []

    class Flaky(Numbers):
        flush_policies = (Retry.fixed(2, 1.0),)

        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> None:
            attempts.append(ctx.attempt)
            if ctx.attempt == 1:
                raise ConnectionError

    run(flow(Flaky(3), Retry.fixed(9, 1.0)).run(Step.READ))
    assert [1, 2, 1, 2] == attempts


def test_flush_begins_with_its_first_attempt() -> None:
    """What an item needed is no matter of the flush after it."""
    attempts: list[int] = []

    class Flaky(Numbers):
        async def process(self, ctx: Context[Any], item: int) -> int:
            if ctx.attempt < 3:
                raise ConnectionError
            return item

        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> None:
            attempts.append(ctx.attempt)

    run(flow(Flaky(3), Retry.fixed(3, 1.0)).run(Step.READ))
    assert [1, 1] == attempts


def test_a_flush_on_time_has_its_own_timeout() -> None:
    """A flush beside a silent source is timed as any other, and the source goes on."""

    class Slow(Numbers):
        window = Window(seconds=5.0)
        flush_policies = (Retry.fixed(2, 1.0), Timeout(2.0))

        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> None:
            self.log.append(list(window))
            if ctx.attempt == 1:
                await asyncio.sleep(1e6)

    async def main() -> tuple[Slow, float]:
        task = Slow(2, pause=100.0)
        await flow(task, Timeout(3.0)).run(Step.READ)
        return task, asyncio.get_running_loop().time()

    task, ended = run(main())
    assert [[1], [1], [2], [2]] == task.windows
    assert 203 == ended


def test_a_cursor_that_no_longer_decodes_is_an_error() -> None:
    """A cursor of another type than before fails with the state, the stream and the cursor."""

    class Renamed(Numbers):
        def position(self, item: int) -> Any:
            return {"offset": item}

    class Typed(Numbers):
        def position(self, item: int) -> int:
            return item

    async def main() -> list[str]:
        store = MemoryCheckpoints()
        with suppress(SimulatedCrash):
            await flow(Stopping(5), store=store).run(Step.READ, run_id="r")
        await asyncio.sleep(16)
        task = Typed()
        with pytest.raises(DataError, match=r'READ cannot go on: .*cursor of Typed.*"offset":2'):
            await flow(task, store=store).resume("r")
        return task.log

    class Stopping(Renamed):
        async def process(self, ctx: Context[Any], item: int) -> int:
            if item == 3:
                raise SimulatedCrash
            return item

    assert [] == run(main())


def test_a_cursor_that_cannot_be_written_is_an_error() -> None:
    """What a resumed visit could not begin with is refused at once, and the stream closed."""

    class Odd(Numbers):
        def position(self, item: int) -> Any:
            return object()

    async def main() -> list[str]:
        task = Odd(3)
        with pytest.raises(DataError, match="the cursor of Odd returned an object"):
            await flow(task, store=MemoryCheckpoints()).run(Step.READ)
        return task.texts

    assert ["open None", "aclose", "failed"] == run(main())
