"""Items of a stream that fail: what is tolerated, what is dropped, what is told."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cano import (
    Context,
    EffectInDoubtError,
    MemoryCheckpoints,
    Retry,
    StrayCancelledError,
    Timeout,
    TooManyFailuresError,
    Window,
    Workflow,
    on,
)
from cano.events import CursorSaved, ItemFailed, WindowFlushed
from cano.testing import run
from cano.testing.faults import SimulatedCrash

sys.path.insert(0, str(Path(__file__).parent))

from _streams import Numbers, Step, flow


class Poison(Numbers):
    """Some items fail; dead letters go into `letters`."""

    def __init__(self, *poison: int, upto: int = 5, errors: int | None = None) -> None:
        super().__init__(upto)
        self.poison = poison
        self.errors = errors
        self.letters: list[tuple[int, str]] = []

    async def process(self, ctx: Context[Any], item: int) -> int:
        if item in self.poison:
            raise ValueError(f"bad {item}")
        return await super().process(ctx, item)

    async def rejected(self, ctx: Context[Any], item: int, error: Exception) -> None:
        self.letters.append((item, str(error)))


async def cursors(store: MemoryCheckpoints) -> list[str]:
    events = await store.load("r")
    return [bytes(e.value).decode() for e in events if isinstance(e, CursorSaved)]


@pytest.mark.parametrize(
    ("poison", "windows", "cursor"),
    [
        ((2,), [[1], [3, 4], [5]], ["2", "4", "5"]),
        ((5,), [[1, 2], [3, 4]], ["2", "4", "5"]),  # at the end: it is not met again
        ((1, 2), [[3, 4], [5]], ["2", "4", "5"]),  # a window of dropped items alone
        ((1, 2, 3, 4, 5), [], ["2", "4", "5"]),
    ],
)
def test_a_dropped_item_has_its_place_and_its_letter(
    poison: tuple[int, ...], windows: list[list[int]], cursor: list[str]
) -> None:
    """It counts for the window and the cursor, not for what is flushed; `rejected` takes it."""

    async def main() -> tuple[Poison, Step, list[str]]:
        store, task = MemoryCheckpoints(), Poison(*poison)
        return task, await flow(task, store=store).run(Step.READ, run_id="r"), await cursors(store)

    task, state, saved = run(main())
    assert (windows, cursor, Step.END) == (task.windows, saved, state)
    assert [(item, f"bad {item}") for item in poison] == task.letters


def test_by_default_the_first_failure_ends_the_stream() -> None:
    """It is raised as it is; what was held is not flushed, and the stream is closed."""

    async def main() -> tuple[Poison, list[str], list[str]]:
        store, task = MemoryCheckpoints(), Poison(4, errors=0)
        with pytest.raises(ValueError, match="bad 4") as caught:
            await flow(task, store=store).run(Step.READ, run_id="r")
        return task, await cursors(store), caught.value.__notes__

    task, saved, notes = run(main())
    assert ([[1, 2]], ["2"], []) == (task.windows, saved, task.letters)
    assert ["open None", "aclose", "failed"] == task.texts
    assert "cano: item 3 of the stream Poison" in notes


def test_failures_are_counted_in_a_row() -> None:
    """`errors` of them are tolerated, also across windows; a success begins anew."""

    async def main() -> Poison:
        task = Poison(1, 2, 4, 5, upto=6, errors=2)
        await flow(task).run(Step.READ)
        return task

    task = run(main())
    assert [1, 2, 4, 5] == [item for item, _ in task.letters]
    assert [[3], [6]] == task.windows


def test_one_failure_too_many_tells_of_all_in_the_row() -> None:
    """The group holds them; the last item is no dead letter, since it will come again."""

    async def main() -> Poison:
        task = Poison(2, 3, 4, errors=2)
        with pytest.raises(TooManyFailuresError, match="3 items in a row failed in READ") as caught:
            await flow(task).run(Step.READ)
        assert ["bad 2", "bad 3", "bad 4"] == [str(error) for error in caught.value.exceptions]
        return task

    task = run(main())
    assert [2, 3] == [item for item, _ in task.letters]
    assert "failed" == task.texts[-1]


def test_who_listens_hears_of_failed_items() -> None:
    """ItemFailed says which, shortly; WindowFlushed how many were left out."""
    told: list[Any] = []

    @on(ItemFailed, WindowFlushed)
    def listen(event: Any) -> None:
        told.append(event)

    class Long(Poison):
        async def process(self, ctx: Context[Any], item: Any) -> int:
            if item == 3:
                raise ValueError("x")
            return 1

    async def main() -> None:
        made = Workflow(Step, observers=[listen]).exits(Step.END, Step.LEFT, Step.AGAIN)
        await made.register(Step.READ, Long(upto=3)).run(Step.READ)

    run(main())
    assert [(2, 0), ("3", 2, "ValueError('x')"), (0, 1)] == [
        (event.item, event.index, event.error)
        if isinstance(event, ItemFailed)
        else (event.items, event.failed)
        for event in told
    ]


def test_a_dead_letter_that_is_not_taken_ends_the_stream() -> None:
    """What `rejected` raises is raised; the item was not dropped, and comes again."""

    class Full(Poison):
        async def rejected(self, ctx: Context[Any], item: int, error: Exception) -> None:
            raise ConnectionError("full")

    async def main() -> tuple[Full, list[str]]:
        store, task = MemoryCheckpoints(), Full(3)
        with pytest.raises(ConnectionError, match="full"):
            await flow(task, store=store).run(Step.READ, run_id="r")
        return task, await cursors(store)

    task, saved = run(main())
    assert ["2"] == saved
    assert "failed" == task.texts[-1]


def test_a_hanging_item_has_its_timeout() -> None:
    """A Timeout around each item makes a failure of one that hangs."""

    class Slow(Poison):
        async def process(self, ctx: Context[Any], item: int) -> int:
            if item == 2:
                await asyncio.sleep(1e6)
            return item

    async def main() -> tuple[Slow, float]:
        task = Slow()
        await flow(task, Retry.fixed(2, 1.0), Timeout(5.0)).run(Step.READ)
        return task, asyncio.get_running_loop().time()

    task, ended = run(main())
    assert ([[1], [3, 4], [5]], 11) == (task.windows, ended)
    assert [2] == [item for item, _ in task.letters]
    assert "took longer than 5 s" in task.letters[0][1]


def test_an_effect_in_doubt_is_no_item_to_drop() -> None:
    """What only a person can decide stops the run, whatever `errors` says."""

    class Charge(Poison):
        async def process(self, ctx: Context[Any], item: int) -> int:
            async def charge() -> int:
                if item == 3:
                    raise SimulatedCrash
                return item

            return await ctx.effect(f"charge {item}", charge)

    async def main() -> Charge:
        store, task = MemoryCheckpoints(), Charge()
        with suppress(SimulatedCrash):
            await flow(task, store=store).run(Step.READ, run_id="r")
        await asyncio.sleep(16)
        with pytest.raises(EffectInDoubtError):
            await flow(task, store=store).resume("r")
        return task

    task = run(main())
    assert ([], [[1, 2]]) == (task.letters, task.windows)
    assert "failed" in task.texts


def test_a_cancellation_out_of_the_blue_is_no_item_to_drop() -> None:
    """CancelledError that nobody sent fails the run, whatever `errors` says."""

    class Stray(Poison):
        async def process(self, ctx: Context[Any], item: int) -> int:
            if item == 2:
                raise asyncio.CancelledError
            return item

    async def main() -> Stray:
        task = Stray()
        with pytest.raises(StrayCancelledError):
            await flow(task).run(Step.READ)
        return task

    task = run(main())
    assert ([], []) == (task.letters, task.windows)
    assert "failed" == task.texts[-1]


def test_a_long_item_is_shown_shortly() -> None:
    """An event is no place for a whole item."""
    told: list[str] = []

    class Long(Poison):
        window = Window(count=1)

        async def open(self, ctx: Context[Any], cursor: int | None) -> AsyncIterator[Any]:
            yield "x" * 10_000

        async def process(self, ctx: Context[Any], item: Any) -> int:
            raise ValueError("x")

    @on(ItemFailed)
    def listen(event: ItemFailed) -> None:
        told.append(event.item)

    async def main() -> None:
        made = Workflow(Step, observers=[listen]).exits(Step.END, Step.LEFT, Step.AGAIN)
        await made.register(Step.READ, Long()).run(Step.READ)

    run(main())
    assert [80] == [len(text) for text in told]
