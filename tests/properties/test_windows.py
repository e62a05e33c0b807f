"""Streams against a model that reckons when which window is flushed; and cut off at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from enum import StrEnum, auto
from math import inf
from typing import Any, Literal, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from cano import CloseReason, Context, MemoryCheckpoints, StreamTask, Window, Workflow
from cano.tasks._windows import Filling
from cano.testing import run


class Step(StrEnum):
    READ = auto()
    END = auto()


class Arrival(NamedTuple):
    """Seconds until an item comes, and to work on it; whether that fails."""

    gap: int
    work: int
    fails: bool


Flushed = list[tuple[float, tuple[int, ...]]]
arrivals = st.lists(
    st.builds(Arrival, st.integers(0, 9), st.sampled_from([0, 0, 1, 4]), st.booleans()), max_size=12
)
windows = st.builds(
    Window,
    count=st.none() | st.integers(1, 4),
    seconds=st.none() | st.integers(1, 12),
    idle=st.none() | st.integers(1, 6),
)


class Read(StreamTask[Step, int, int, int]):
    errors = None

    def __init__(self, items: Sequence[Arrival], window: Window, flushing: int) -> None:
        self.items = items
        self.window = window
        self.flushing = flushing
        self.flushed: Flushed = []
        self.letters: list[int] = []
        self.closed: list[str] = []

    async def open(self, ctx: Context[Any], cursor: int | None) -> AsyncIterator[int]:
        for number in range(0 if cursor is None else cursor + 1, len(self.items)):
            await asyncio.sleep(self.items[number].gap)
            yield number

    async def process(self, ctx: Context[Any], item: int) -> int:
        if self.items[item].work:
            await asyncio.sleep(self.items[item].work)
        if self.items[item].fails:
            raise ValueError(item)
        return item

    def position(self, item: int) -> int:
        return item

    async def rejected(self, ctx: Context[Any], item: int, error: Exception) -> None:
        self.letters.append(item)

    async def flush(self, ctx: Context[Any], window: Sequence[int]) -> None:
        self.flushed.append((asyncio.get_running_loop().time(), tuple(window)))
        if self.flushing:
            await asyncio.sleep(self.flushing)

    async def close(self, ctx: Context[Any], reason: CloseReason) -> Literal[Step.END]:
        self.closed.append(str(reason))
        return Step.END


def foretold(items: Sequence[Arrival], window: Window, flushing: int) -> Flushed:
    """When which window is flushed, by arithmetic alone."""
    now, taken, held, opened, quiet = 0, 0, [], 0, 0
    flushed: Flushed = []

    def flush(at: float) -> None:
        nonlocal now, taken
        now = max(now, int(at))
        if held:
            flushed.append((at, tuple(held)))
            now = max(now, int(at) + flushing)
        taken = 0
        held.clear()

    for number, item in enumerate(items):
        comes = now + item.gap
        due = min(opened + (window.seconds or inf), quiet + (window.idle or inf))
        if taken and due <= comes:
            flush(due)
        now = max(now, comes)
        if not taken:
            opened = now
        now += item.work
        quiet = now
        taken += 1
        if not item.fails:
            held.append(number)
        if taken >= window.most or opened + (window.seconds or inf) <= now:
            flush(now)
    flush(now)
    return flushed


def flow(task: Read, store: MemoryCheckpoints | None = None) -> Workflow[Step, None]:
    return Workflow(Step, checkpoints=store).exits(Step.END).register(Step.READ, task)


@given(arrivals, windows, st.integers(0, 3), st.booleans())
@settings(max_examples=150, deadline=None)
def test_windows_are_flushed_when_they_are_foretold_to_be(
    items: list[Arrival], window: Window, flushing: int, durable: bool
) -> None:
    """Whatever comes when: each window at its time, each item once and in order."""
    task = Read(items, window, flushing)
    run(flow(task, MemoryCheckpoints() if durable else None).run(Step.READ))
    assert foretold(items, window, flushing) == task.flushed
    assert [n for n, item in enumerate(items) if item.fails] == task.letters
    assert ["exhausted"] == task.closed


@given(arrivals, windows, st.integers(0, 3), st.lists(st.integers(0, 60), max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_stream_that_is_shut_down_again_and_again_loses_and_repeats_nothing(
    items: list[Arrival], window: Window, flushing: int, shutdowns: list[int]
) -> None:
    """Drained at any moments and resumed, every item is flushed or rejected once, in order."""
    task = Read(items, window, flushing)

    async def main() -> None:
        store = MemoryCheckpoints()
        for seconds in [*shutdowns, None]:
            running = asyncio.ensure_future(flow(task, store).run(Step.READ, run_id="r"))
            if seconds is not None:
                await asyncio.sleep(seconds + 0.5)
                running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    run(main())
    seen = [number for _, window in task.flushed for number in window]
    assert [n for n, item in enumerate(items) if not item.fails] == seen
    assert [n for n, item in enumerate(items) if item.fails] == task.letters
    assert "exhausted" == task.closed[-1]
    assert all(len(window) <= task.window.most for _, window in task.flushed)


@given(
    windows.filter(lambda window: window.timed),
    st.lists(st.tuples(st.integers(-(10**6), 10**6), st.booleans()), max_size=20),
)
def test_no_clock_makes_a_window_wait_longer(window: Window, ticks: list[tuple[int, bool]]) -> None:
    """However the clock jumps, what passed forwards counts, what went backwards does not."""
    filling, now, passed, silence = Filling(window), 0, 0, 0
    filling.begin(0.0)
    for jump, worked in ticks:
        now += jump
        passed += max(jump, 0)
        silence = 0 if worked else silence + max(jump, 0)
        if worked:
            filling.worked(now)
        left = min((window.seconds or inf) - passed, (window.idle or inf) - silence)
        assert max(left, 0) == filling.left(now)
