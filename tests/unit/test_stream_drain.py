"""A stream that has to end before its time: what is held is flushed and kept, and all is closed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import (
    CloseReason,
    Context,
    Done,
    MemoryCheckpoints,
    RunCancelledError,
    RunTimeoutError,
    Split,
    Window,
    Workflow,
)
from cano.checkpoints.store import Status
from cano.events import CursorSaved
from cano.testing import run

sys.path.insert(0, str(Path(__file__).parent))

from _streams import Numbers, Step, flow


def now() -> float:
    return round(asyncio.get_running_loop().time(), 3)


async def cursors(store: MemoryCheckpoints) -> list[str]:
    events = await store.load("r")
    return [bytes(e.value).decode() for e in events if isinstance(e, CursorSaved)]


async def cancelled(task: Numbers, after: float, store: Any = None) -> tuple[Numbers, float]:
    """Cancel the stream through its handle, and say how long that took."""
    handle = await flow(task, store=store).start_run(Step.READ, run_id="r")
    await asyncio.sleep(after)
    before = now()
    await handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle.result()
    return task, round(now() - before, 3)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(
    ("pause", "work", "after", "windows", "cursor"),
    [
        (1.0, 0.0, 3.5, [[1, 2], [3]], ["2", "3"]),  # waits for its source
        (0.0, 1.0, 2.5, [[1, 2], [3]], ["2", "3"]),  # the item in progress ends, and counts
        (0.0, 1.0, 3.5, [[1, 2], [3, 4]], ["2", "4"]),  # it fills the window
        (1.0, 0.0, 2.5, [[1, 2]], ["2"]),  # nothing is held
        (1.0, 0.0, 0.5, [], []),
    ],
)
def test_a_cancelled_stream_flushes_what_it_holds(
    pause: float,
    work: float,
    after: float,
    windows: list[list[int]],
    cursor: list[str],
    durable: bool,
) -> None:
    """The item in progress ends, the partial window is flushed once and kept, then all is closed."""

    async def main() -> tuple[Numbers, float, list[str]]:
        store = MemoryCheckpoints()
        task = Numbers(9, pause=pause, work=work)
        _, took = await cancelled(task, after, store if durable else None)
        return task, took, await cursors(store) if durable else cursor

    task, took, saved = run(main())
    assert windows == task.windows
    assert cursor == saved
    assert ["open None", "aclose", "cancelled"] == task.texts
    assert 0.5 >= took


def test_after_a_shutdown_every_item_is_processed_once() -> None:
    """A stream that was shut down goes on after its last, partial window."""

    async def main() -> tuple[Numbers, list[str], Step, list[str]]:
        store, task = MemoryCheckpoints(), Numbers(9, work=1.0)
        task.window = Window(count=5)
        running = asyncio.ensure_future(flow(task, store=store).run(Step.READ, run_id="r"))
        await asyncio.sleep(6.5)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert Status.RUNNING == (await store.summary("r")).status
        saved = await cursors(store)
        return task, saved, await flow(task, store=store).resume("r"), await cursors(store)

    task, saved, state, later = run(main())
    assert [*range(1, 10)] == [entry for entry in task.log if isinstance(entry, int)]
    assert [[1, 2, 3, 4, 5], [6, 7], [8, 9]] == task.windows
    assert (["5", "7"], ["5", "7", "9"]) == (saved, later)
    assert Step.END == state
    texts = ["open None", "aclose", "cancelled", "open 7", "aclose", "exhausted"]
    assert texts == task.texts


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(("pause", "work"), [(1.0, 0.0), (0.0, 1.0)])
def test_the_total_timeout_drains_too(pause: float, work: float, durable: bool) -> None:
    """A run out of time ends with RunTimeoutError, after its window was flushed and kept."""

    async def main() -> tuple[Numbers, float, list[str]]:
        store, task = MemoryCheckpoints(), Numbers(9, pause=pause, work=work)
        made = flow(task, store=store if durable else None, timeout=3.5)
        with pytest.raises(RunTimeoutError):
            await made.run(Step.READ, run_id="r")
        return task, now(), await cursors(store) if durable else []

    task, ended, saved = run(main())
    assert ([[1, 2], [3]] if pause else [[1, 2], [3, 4]]) == task.windows
    assert ["open None", "aclose", "timed out"] == task.texts
    assert (["2", "3"] if pause else ["2", "4"]) * durable == saved
    assert (3.5 if pause else 4.0) == ended


def test_the_deadline_of_a_split_drains_too() -> None:
    """Inside a branch it is the split's deadline that leaves no time."""
    task = Numbers(9, pause=1.0)

    async def main() -> None:
        inner = flow(task)

        async def branch(ctx: Context[Any]) -> int:
            await inner.run(Step.READ)
            return 1

        made = Workflow(Step).exits(Step.END, Step.LEFT, Step.AGAIN)
        made.register(Step.READ, Split([branch], then=Step.END, timeout=3.5))
        with suppress(ExceptionGroup):
            await made.run(Step.READ)

    run(main())
    assert [[1, 2], [3]] == task.windows
    assert ["open None", "aclose", "cancelled"] == task.texts


class Hanging(Numbers):
    """Hangs in one of its verbs, as well as it can."""

    def __init__(self, where: str, *, upto: int = 3) -> None:
        super().__init__(upto, pause=1.0)
        self.where = where
        self.drain_timeout = 5.0

    async def hang(self, where: str) -> None:
        if where == self.where:
            self.log.append(f"hang in {where}")
            with suppress(asyncio.CancelledError):  # heeds the second cancellation only
                await asyncio.sleep(1e6)
            await asyncio.sleep(1e6)

    async def open(self, ctx: Context[Any], cursor: int | None) -> Any:
        await self.hang("open")
        return self.source(ctx, cursor)

    async def source(self, ctx: Context[Any], cursor: int | None) -> AsyncIterator[int]:
        try:
            for number in range(1, self.upto + 1):
                await asyncio.sleep(self.pause)
                yield number
            await self.hang("source")
        finally:
            self.log.append("aclose")
            await self.hang("aclose")

    async def process(self, ctx: Context[Any], item: int) -> int:
        if item == 3:
            await self.hang("process")
        return item

    async def flush(
        self, ctx: Context[Any], window: Sequence[int]
    ) -> Done[Literal[Step.LEFT]] | None:
        self.log.append(list(window))
        if window[-1] > 1:
            await self.hang("flush")
        return None

    async def close(self, ctx: Context[Any], reason: CloseReason) -> Literal[Step.END]:
        self.log.append(str(reason))
        await self.hang("close")
        return Step.END


@pytest.mark.parametrize(
    ("where", "log", "took"),
    [
        # nothing is opened, so nothing is closed
        ("open", ["hang in open"], 5.1),
        # a source is cancelled at once, and has its time to heed it
        ("source", [[1, 2], "hang in source", "aclose", [3], "cancelled"], 5.1),
        # an item has its time, then is left out
        ("process", [[1, 2], "hang in process", "aclose", "cancelled"], 5.1),
        # a window has its time, then is not kept
        ("flush", [[1, 2], "hang in flush", "aclose", "cancelled"], 5.1),
        ("close", [[1, 2], "aclose", [3], "exhausted", "hang in close"], 5.1),
    ],
)
def test_what_hangs_is_given_up(where: str, log: list[Any], took: float) -> None:
    """Nothing keeps a stream from ending for longer than `drain_timeout`, stubborn code included."""

    async def main() -> tuple[list[Any], float]:
        task, ended = await cancelled(Hanging(where), 100.0)
        return task.log, ended

    seen, ended = run(main())
    assert (sorted(map(str, log)), log[-1]) == (sorted(map(str, seen)), seen[-1])
    assert took == pytest.approx(ended, abs=0.1)


@pytest.mark.parametrize(
    ("where", "after", "took"), [("flush", 1.5, 0.0), ("aclose", 1.5, 5.1), ("close", 1.5, 5.1)]
)
def test_each_step_of_the_drain_has_its_own_time(
    where: str, after: float, took: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A step of the drain that hangs is cut off, said in the log, and the rest is done."""

    async def main() -> tuple[Numbers, float]:
        return await cancelled(Hanging(where), after)

    task, ended = run(main())
    assert ["aclose", "cancelled"] == [text for text in task.texts if "hang" not in text]
    assert [[1]] == task.windows
    assert took == pytest.approx(ended, abs=0.1)
    told = [record.getMessage() for record in caplog.records if record.name == "cano.streams"]
    what = {"flush": [], "aclose": ["the source"], "close": ["close"]}[where]
    assert what == [text.partition(" of Hanging in run 'r' did not end within")[0] for text in told]


def test_done_is_not_heard_in_a_drain() -> None:
    """The cancellation goes on; the window is not kept, so that a resumed stream hears of it again."""

    class Enough(Numbers):
        async def flush(
            self, ctx: Context[Any], window: Sequence[int]
        ) -> Done[Literal[Step.LEFT]] | None:
            await super().flush(ctx, window)
            return Done(Step.LEFT) if 3 in window else None

    async def main() -> tuple[Numbers, list[str], Step]:
        store, task = MemoryCheckpoints(), Enough(9, pause=1.0)
        running = asyncio.ensure_future(flow(task, store=store).run(Step.READ, run_id="r"))
        await asyncio.sleep(3.5)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        saved = await cursors(store)
        return task, saved, await flow(task, store=store).resume("r")

    task, saved, state = run(main())
    assert ["2"] == saved
    assert [[1, 2], [3], [3, 4]] == task.windows
    assert Step.LEFT == state


@pytest.mark.parametrize("where", ["flush", "aclose", "close", "process"])
def test_what_fails_in_a_drain_is_raised_and_all_is_closed(where: str) -> None:
    """An error of the drain is told rather than the cancellation, which its sender knows of."""

    class Failing(Numbers):
        async def open(self, ctx: Context[Any], cursor: int | None) -> AsyncIterator[int]:
            try:
                for number in range(1, 10):
                    yield number
            finally:
                self.fail("aclose")

        def fail(self, verb: str) -> None:
            if verb == where:
                raise ConnectionError(verb)

        async def process(self, ctx: Context[Any], item: int) -> int:
            await asyncio.sleep(1)
            if item == 2:
                self.fail("process")
            return item

        async def flush(
            self, ctx: Context[Any], window: Sequence[int]
        ) -> Done[Literal[Step.LEFT]] | None:
            self.fail("flush")
            return await super().flush(ctx, window)

        async def close(self, ctx: Context[Any], reason: CloseReason) -> Literal[Step.END]:
            await super().close(ctx, reason)
            self.fail("close")
            raise OSError("late")

    async def main() -> tuple[list[str], list[str]]:
        store, task = MemoryCheckpoints(), Failing(9)
        task.window = Window(count=5)
        handle = await flow(task, store=store).start_run(Step.READ, run_id="r")
        await asyncio.sleep(1.5)
        await handle.cancel()
        with pytest.raises(ConnectionError, match=where) as caught:
            await handle.result()
        if where != "close":
            assert any(
                "close of Failing raised OSError('late')" in n for n in caught.value.__notes__
            )
        return task.texts, await cursors(store)

    texts, saved = run(main())
    assert ("failed" if where == "process" else "cancelled") == texts[-1]
    assert ([] if where in {"flush", "process"} else ["2"]) == saved
