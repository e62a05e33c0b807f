"""When windows are flushed: by count, by time, by silence, whichever comes first."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from math import inf, nan
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import Context, DefinitionError, Done, MemoryCheckpoints, Window
from cano.events import CursorSaved
from cano.tasks._windows import Filling
from cano.testing import run

sys.path.insert(0, str(Path(__file__).parent))

from _streams import Numbers, Step, flow


class Timed(Numbers):
    """Item n comes at *moments*[n - 1]; *log* says when windows were flushed."""

    def __init__(self, window: Window, *moments: float, work: float = 0.0) -> None:
        super().__init__(len(moments), work=work)
        self.window = window
        self.moments = moments
        self.flushed: list[tuple[float, list[int]]] = []

    async def open(self, ctx: Context[Any], cursor: int | None) -> AsyncIterator[int]:
        loop = asyncio.get_running_loop()
        for number in range((cursor or 0) + 1, self.upto + 1):
            await asyncio.sleep(self.moments[number - 1] - loop.time())
            yield number

    async def flush(
        self, ctx: Context[Any], window: Sequence[int]
    ) -> Done[Literal[Step.LEFT]] | None:
        self.flushed.append((round(asyncio.get_running_loop().time(), 3), list(window)))
        return None


@pytest.mark.parametrize(
    ("window", "moments", "flushed"),
    [
        # the time of a window begins with its first item
        (Window(seconds=5), (3, 6, 9, 12), [(8, [1, 2]), (12, [3, 4])]),
        # a long silence makes no empty windows
        (Window(seconds=5), (3, 100), [(8, [1]), (100, [2])]),
        # whichever comes first: count
        (Window(count=2, seconds=5), (1, 2, 3, 20), [(2, [1, 2]), (8, [3]), (20, [4])]),
        # silence
        (Window(idle=4), (1, 2, 3, 10, 11), [(7, [1, 2, 3]), (11, [4, 5])]),
        (Window(seconds=5, idle=2), (1, 2, 3, 4, 5, 20), [(6, [1, 2, 3, 4, 5]), (20, [6])]),
        (Window(seconds=50, idle=2), (1, 2, 9), [(4, [1, 2]), (9, [3])]),
        # an item that comes in the moment a window is due belongs to the next one
        (Window(seconds=5), (1, 6, 7), [(6, [1]), (7, [2, 3])]),
    ],
)
@pytest.mark.parametrize("durable", [False, True])
def test_a_window_is_flushed_at_whichever_comes_first(
    window: Window,
    moments: tuple[float, ...],
    flushed: list[tuple[float, list[int]]],
    durable: bool,
) -> None:
    """Count, seconds since its first item, or silence; each window that is flushed is kept."""

    async def main() -> tuple[list[tuple[float, list[int]]], int]:
        task, store = Timed(window, *moments), MemoryCheckpoints()
        await flow(task, store=store if durable else None).run(Step.READ, run_id="r")
        rows = await store.load("r") if durable else []
        return task.flushed, sum(isinstance(event, CursorSaved) for event in rows)

    seen, saved = run(main())
    assert flushed == seen
    assert len(flushed) * durable == saved


def test_a_window_due_while_an_item_is_processed_is_flushed_after_it() -> None:
    """An item that is being processed still belongs to the window it began in."""

    async def main() -> list[tuple[float, list[int]]]:
        task = Timed(Window(seconds=5), 1, 4, 9, work=3.0)
        await flow(task).run(Step.READ)
        return task.flushed

    assert [(7, [1, 2]), (12, [3])] == run(main())


def test_silence_is_counted_from_the_end_of_the_last_item() -> None:
    """A slow `process` is no silence of the source."""

    async def main() -> list[tuple[float, list[int]]]:
        task = Timed(Window(idle=2), 1, 2, 20, work=5.0)
        await flow(task).run(Step.READ)
        return task.flushed

    assert [(13, [1, 2]), (25, [3])] == run(main())


def test_a_flush_on_time_does_not_end_the_source() -> None:
    """The item that was asked for comes after the flush; while that lasts, nothing is processed."""

    class Slow(Timed):
        async def flush(
            self, ctx: Context[Any], window: Sequence[int]
        ) -> Done[Literal[Step.LEFT]] | None:
            self.log.append("flush")
            await asyncio.sleep(10)
            self.log.append("flushed")
            return await super().flush(ctx, window)

    async def main() -> tuple[list[Any], list[tuple[float, list[int]]]]:
        task = Slow(Window(seconds=5), 1, 8, 30)
        await flow(task).run(Step.READ)
        return task.log, task.flushed

    log, flushed = run(main())
    assert [1, "flush", "flushed", 2, "flush", "flushed", 3, "flush", "flushed", "exhausted"] == log
    assert [(16, [1]), (31, [2]), (41, [3])] == flushed


@pytest.mark.parametrize("silent", [False, True])
def test_done_on_time_ends_a_source_that_has_nothing(silent: bool) -> None:
    """A flush on time may leave the stream although the source would wait for ever."""

    class Enough(Timed):
        async def flush(
            self, ctx: Context[Any], window: Sequence[int]
        ) -> Done[Literal[Step.LEFT]] | None:
            await super().flush(ctx, window)
            return Done(Step.LEFT)

    async def main() -> tuple[Step, float, list[str], int]:
        task, store = Enough(Window(seconds=5), 1, 1e6 if silent else 6), MemoryCheckpoints()
        state = await flow(task, store=store).run(Step.READ, run_id="r")
        rows = await store.load("r")
        saved = sum(isinstance(event, CursorSaved) for event in rows)
        return state, round(asyncio.get_running_loop().time(), 3), task.texts, saved

    assert (Step.LEFT, 6, ["stopped"], 0) == run(main())


@pytest.mark.parametrize("what", ["done", "raise", "end"])
def test_what_comes_while_a_flush_on_time_ends_the_stream_is_left(
    what: str,
) -> None:
    """An item, or the end of the source, that comes meanwhile waits for what the flush says."""

    class Slow(Timed):
        async def open(self, ctx: Context[Any], cursor: int | None) -> AsyncIterator[int]:
            yield 1
            await asyncio.sleep(7)  # the flush begins after 5 s, and takes 10
            if what != "end":
                yield 2

        async def flush(
            self, ctx: Context[Any], window: Sequence[int]
        ) -> Done[Literal[Step.LEFT]] | None:
            await asyncio.sleep(10)
            if what == "raise":
                raise ConnectionError
            await super().flush(ctx, window)
            return Done(Step.LEFT) if what == "done" else None

    async def main() -> tuple[Any, Slow, float]:
        task, state = Slow(Window(seconds=5)), None
        with suppress(ConnectionError):
            state = await flow(task).run(Step.READ)
        return state, task, asyncio.get_running_loop().time()

    state, task, ended = run(main())
    assert {"done": Step.LEFT, "raise": None, "end": Step.END}[what] is state
    assert ([1], 15) == ([entry for entry in task.log if isinstance(entry, int)], ended)
    assert {"done": "stopped", "raise": "failed", "end": "exhausted"}[what] == task.texts[-1]


def test_an_error_on_time_ends_the_stream() -> None:
    """What a flush on time raises is raised at once, though the source has nothing."""

    class Broken(Timed):
        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> None:
            raise ConnectionError("down")

    async def main() -> tuple[float, list[str]]:
        task = Broken(Window(seconds=5), 1, 1e6)
        with pytest.raises(ConnectionError, match="down"):
            await flow(task).run(Step.READ)
        return asyncio.get_running_loop().time(), task.texts

    assert (6, ["failed"]) == run(main())


@pytest.mark.parametrize("window", [Window(count=3), Window(seconds=1e-6)])
def test_what_never_suspends_lets_others_have_their_turn(window: Window) -> None:
    """A source and a process without a single await meet the run's timeout all the same."""

    class Busy(Numbers):
        async def open(self, ctx: Context[Any], cursor: int | None) -> AsyncIterator[int]:
            number = 0
            while True:
                number += 1
                yield number

        async def process(self, ctx: Context[Any], item: int) -> int:
            return item

        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> None:
            pass

    async def main() -> list[str]:
        task = Busy()
        task.window = window
        with pytest.raises(TimeoutError):
            await flow(task, timeout=0.05).run(Step.READ)
        return task.texts

    assert ["timed out"] == asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": 0}, "count=0: a whole number, 1 or more"),
        ({"count": -1}, "count=-1"),
        ({"count": 1.5}, "count=1.5"),
        ({"count": True}, "count=True"),
        ({"count": inf}, "count=inf"),
        ({"count": "2"}, "count='2'"),
        ({"seconds": 0}, "seconds=0: finite seconds > 0, or None"),
        ({"seconds": -1.0}, "seconds=-1.0"),
        ({"seconds": inf}, "seconds=inf"),
        ({"seconds": nan}, "seconds=nan"),
        ({"seconds": "5"}, "seconds='5'"),
        ({"idle": 0.0}, "idle=0.0: finite seconds > 0, or None"),
        ({"idle": nan}, "idle=nan"),
        ({"idle": True}, "idle=True"),
        ({"count": 0, "idle": 0}, "count=0.*idle=0"),
    ],
)
def test_settings_are_checked_when_a_window_is_made(settings: dict[str, Any], said: str) -> None:
    """Zero, negative, infinite, NaN and what is no number are refused with the remedy."""
    with pytest.raises(DefinitionError, match=f"Window cannot work with .*{said}"):
        Window(**settings)


def test_every_window_has_a_bound() -> None:
    """100 items by default; 10,000 where only a time is given, so that memory is bounded."""
    assert (100, 10_000, 10_000, 7) == (
        Window().most,
        Window(seconds=5).most,
        Window(idle=5).most,
        Window(count=7, seconds=5).most,
    )


def test_a_clock_that_jumps_back_neither_shortens_nor_lengthens_a_window() -> None:
    """Time that was seen to pass stays passed."""
    filling = Filling(Window(seconds=10.0, idle=4.0))
    filling.begin(1000.0)
    assert 4.0 == filling.left(1000.0)
    filling.worked(1003.0)
    assert 4.0 == filling.left(1003.0)
    assert 4.0 == filling.left(3.0)  # 1000 s back
    filling.worked(6.0)
    assert 4.0 == filling.left(6.0)
    assert 1.0 == filling.left(9.0)
    filling.worked(9.0)
    assert 1.0 == filling.left(9.0)  # 10 s since the first item
    assert 0.0 == filling.left(10.0)
