"""How streams end in odd moments: beside a silent source, with their loop, without their run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import (
    Context,
    Done,
    MemoryCheckpoints,
    RunCancelledError,
    RunLostError,
    RunTimeoutError,
    Timeout,
    Window,
    Workflow,
    on,
)
from cano._process import here
from cano.events import CursorSaved, Event
from cano.testing import run

sys.path.insert(0, str(Path(__file__).parent))

from _streams import Numbers, Step, flow


def now() -> float:
    return round(asyncio.get_running_loop().time(), 3)


async def cursors(store: MemoryCheckpoints) -> list[str]:
    events = await store.load("r")
    return [bytes(e.value).decode() for e in events if isinstance(e, CursorSaved)]


async def cancelled(task: Numbers, after: float, store: Any = None) -> float:
    """Cancel the stream through its handle, and say how long that took."""
    handle = await flow(task, store=store).start_run(Step.READ, run_id="r")
    await asyncio.sleep(after)
    before = now()
    await handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle.result()
    return round(now() - before, 3)


def test_a_cancellation_while_a_window_is_flushed_on_time() -> None:
    """A flush beside a silent source ends and is kept before the stream is closed."""

    class Slow(Numbers):
        window = Window(seconds=5.0)

        async def flush(
            self, ctx: Context[Any], window: Sequence[int]
        ) -> Done[Literal[Step.LEFT]] | None:
            await asyncio.sleep(3)
            return await super().flush(ctx, window)

    async def main() -> tuple[Numbers, float, list[str]]:
        store, task = MemoryCheckpoints(), Slow(2, pause=100.0)
        took = await cancelled(task, 106.0, store)
        return task, took, await cursors(store)

    task, took, saved = run(main())
    assert [[1]] == task.windows
    assert ["1"] == saved
    assert 2 == took
    assert ["open None", "aclose", "cancelled"] == task.texts


def test_a_flush_on_time_that_hangs_is_given_up() -> None:
    """Beside a silent source too, `drain_timeout` is a limit."""

    class Stuck(Numbers):
        window = Window(seconds=5.0)
        drain_timeout = 4.0

        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> None:
            await asyncio.sleep(1e6)

    async def main() -> tuple[Numbers, float, list[str]]:
        store, task = MemoryCheckpoints(), Stuck(2, pause=100.0)
        took = await cancelled(task, 106.0, store)
        return task, took, await cursors(store)

    task, took, saved = run(main())
    assert ([], 4) == (saved, took)
    assert ["open None", "aclose", "cancelled"] == task.texts


def test_the_end_of_the_loop_drains_too() -> None:
    """`asyncio.run` cancels every task; a stream still flushes and closes."""
    task = Numbers(9, pause=1.0)

    async def main() -> None:
        made = flow(task)
        await made.start_run(Step.READ)
        await asyncio.sleep(3.5)

    run(main())
    assert [[1, 2], [3]] == task.windows
    assert ["open None", "aclose", "cancelled"] == task.texts


def test_a_stream_that_lost_its_run_flushes_nothing() -> None:
    """What somebody else has taken over is his to flush; the source is closed all the same."""

    async def main() -> tuple[Numbers, list[str]]:
        store, task = MemoryCheckpoints(), Numbers(9, pause=4.0)
        made = flow(task, store=store, lease=1.0)
        running = asyncio.ensure_future(made.run(Step.READ, run_id="r"))
        await asyncio.sleep(5)  # one item is held
        for owner in await store.owners(here(), 0.0):
            await store.expire(owner.id)
        await store.claim("r", "thief", now())
        with pytest.raises(RunLostError):
            await running
        return task, await cursors(store)

    task, saved = run(main())
    assert ([], []) == (task.windows, saved)
    assert "aclose" in task.texts
    assert task.texts[-1] in {"cancelled", "failed"}


@pytest.mark.parametrize("timeout", [None, 3.5])
def test_observers_hear_of_the_end_in_order(timeout: float | None) -> None:
    """First of the windows, then of the stream, then once of its state, then of the run."""
    told: list[str] = []

    @on(Event)
    def listen(event: Event) -> None:
        told.append(type(event).__name__)

    async def main() -> None:
        made = Workflow(Step, observers=[listen], timeout=timeout)
        made.exits(Step.END, Step.LEFT, Step.AGAIN).register(Step.READ, Numbers(9, pause=1.0))
        handle = await made.start_run(Step.READ)
        await asyncio.sleep(3.7)
        if timeout is None:
            await handle.cancel()
        with suppress(RunCancelledError, RunTimeoutError):
            await handle.result()

    run(main())
    end = "RunCancelled" if timeout is None else "RunFailed"
    begin = ["RunStarted", "StateEntered", "TaskStarted"]
    assert [*begin, "WindowFlushed", "WindowFlushed", "StreamClosed", "TaskCancelled", end] == told


def test_quick_items_are_not_read_on_after_a_cancellation() -> None:
    """However rarely the clock is looked at: one item more at most is processed."""

    class Quick(Numbers):
        window = Window(count=5000)

    async def main() -> Quick:
        task = Quick(10**6, work=1e-5)
        await cancelled(task, 0.0203)
        return task

    task = run(main())
    assert [*range(1, 2032)] == pytest.approx(task.windows[0], abs=1)
    assert 2032 >= len(task.windows[0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_passes_straight_through(error: type[BaseException]) -> None:
    """Nothing is flushed and nothing closed; what asyncio does with generators it does."""

    class Ended(Numbers):
        async def process(self, ctx: Context[Any], item: int) -> int:
            if item == 4:
                raise error
            return item

    task = Ended(9)
    with pytest.raises(error):
        run(flow(task).run(Step.READ))
    assert [[1, 2]] == task.windows
    assert ["open None", "aclose"] == task.texts


def test_a_source_that_goes_on_after_its_cancellation_is_left() -> None:
    """An item that comes in place of the cancellation is the last."""

    class Stubborn(Numbers):
        async def open(self, ctx: Context[Any], cursor: int | None) -> Any:
            for number in range(1, 10):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(1)
                yield number

    async def main() -> tuple[Stubborn, float]:
        task = Stubborn()
        return task, await cancelled(task, 2.5)

    task, took = run(main())
    assert ([[1, 2], [3]], 0) == (task.windows, took)


def test_what_must_not_be_interrupted_reads_to_its_end() -> None:
    """`interruptible = False` lets a stream of known length finish before a cancellation."""

    class Whole(Numbers):
        interruptible = False

    async def main() -> tuple[Whole, float]:
        task = Whole(5, pause=1.0)
        return task, await cancelled(task, 1.5)

    task, took = run(main())
    assert ([[1, 2], [3, 4], [5]], 3.5) == (task.windows, took)
    assert "exhausted" == task.texts[-1]


@pytest.mark.parametrize("pause", [1.0, 7.0])
def test_a_source_may_take_its_time_to_clean_up(pause: float) -> None:
    """It is cancelled once, not again and again, as long as `drain_timeout` lets it."""
    told: list[str] = []

    class Tidy(Numbers):
        drain_timeout = 5.0

        async def open(self, ctx: Context[Any], cursor: int | None) -> Any:
            try:
                await asyncio.sleep(100)
                yield 1
            finally:
                await asyncio.sleep(pause)
                told.append("tidy")

    async def main() -> float:
        return await cancelled(Tidy(), 1.0)

    took = run(main())
    assert (([], 5.0) if pause > 5 else (["tidy"], 1.0)) == (told, took)


def test_a_timed_item_does_not_keep_the_drain_from_being_timed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The cancellation that began the drain is not taken for one that breaks it off."""

    class Stuck(Numbers):
        drain_timeout = 5.0

        async def close(self, ctx: Context[Any], reason: Any) -> Literal[Step.END]:
            await asyncio.sleep(1e6)
            return Step.END

    async def main() -> float:
        handle = await flow(Stuck(9, pause=1.0), Timeout(50.0)).start_run(Step.READ)
        await asyncio.sleep(2.5)
        await handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle.result()
        return now()

    assert 7.5 == run(main())
    assert ["close of Stuck"] == [text.partition(" in run")[0] for text in caplog.messages]


def test_a_cancellation_while_the_source_is_closed_bounds_what_follows() -> None:
    """A stream that was about to end by itself has `drain_timeout` left for its `close`."""

    class Slow(Numbers):
        drain_timeout = 5.0

        async def open(self, ctx: Context[Any], cursor: int | None) -> Any:
            try:
                yield 1
                yield 2
                yield 3
            finally:
                await asyncio.sleep(2)

        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> Any:
            return Done(Step.LEFT)

        async def close(self, ctx: Context[Any], reason: Any) -> Literal[Step.END]:
            self.log.append(str(reason))
            await asyncio.sleep(1e6)
            return Step.END

    async def main() -> tuple[Slow, float]:
        task = Slow()
        return task, await cancelled(task, 1.0)

    task, took = run(main())
    assert (["stopped"], 6) == (task.texts, took)


def test_a_source_that_fails_beside_a_flush_waits_for_it() -> None:
    """Nothing is closed while a window is still being flushed and kept."""

    class Torn(Numbers):
        window = Window(seconds=5.0)

        async def open(self, ctx: Context[Any], cursor: int | None) -> Any:
            yield 1
            await asyncio.sleep(7)
            raise ConnectionError("torn")

        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> None:
            await asyncio.sleep(10)
            await super().flush(ctx, window)

    async def main() -> tuple[Torn, list[str]]:
        store, task = MemoryCheckpoints(), Torn()
        with pytest.raises(ConnectionError, match="torn"):
            await flow(task, store=store).run(Step.READ, run_id="r")
        return task, await cursors(store)

    task, saved = run(main())
    assert ([1, [1], "failed"], ["1"]) == (task.log, saved)


def test_a_source_opened_in_spite_of_a_cancellation_is_closed() -> None:
    """It is not read, and what `open` made is cleaned up."""

    class Late(Numbers):
        async def open(self, ctx: Context[Any], cursor: int | None) -> Any:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(100)
            return super().open(ctx, cursor)

    async def main() -> tuple[Late, float]:
        task = Late(5)
        return task, await cancelled(task, 1.0)

    task, took = run(main())
    assert (["cancelled"], 0) == (task.log, took)
