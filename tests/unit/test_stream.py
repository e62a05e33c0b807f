"""A stream: items in order, windows of them, a cursor for each window, and its end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import (
    CloseReason,
    Context,
    Done,
    MemoryCheckpoints,
    RoutingError,
    Window,
    Workflow,
    on,
)
from cano.events import CursorSaved, StreamClosed, WindowFlushed
from cano.testing import run
from cano.testing.faults import FaultyStore, SimulatedCrash

sys.path.insert(0, str(Path(__file__).parent))

from _streams import Numbers, Seen, Step, flow


async def cursors(store: MemoryCheckpoints, run_id: str = "r") -> list[str]:
    events = await store.load(run_id)
    return [bytes(e.value).decode() for e in events if isinstance(e, CursorSaved)]


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(
    ("upto", "windows"),
    [(0, []), (1, [[1]]), (4, [[1, 2], [3, 4]]), (5, [[1, 2], [3, 4], [5]])],
)
def test_windows_are_full_but_for_the_last(
    upto: int, windows: list[list[int]], durable: bool
) -> None:
    """Items are handed out in order, so many at a time; what is left at the end, before the close."""

    async def main() -> tuple[Step, Numbers]:
        task = Numbers(upto)
        store = MemoryCheckpoints() if durable else None
        return await flow(task, store=store).run(Step.READ), task

    state, task = run(main())
    assert windows == task.windows
    assert (Step.END, ["open None", "aclose", "exhausted"]) == (state, task.texts)
    assert ["exhausted"] == task.log[-1:]


def test_each_window_is_one_row() -> None:
    """A cursor is kept after each window, the last one included, and nothing else is."""

    async def main() -> tuple[list[str], list[str]]:
        store = MemoryCheckpoints()
        await flow(Numbers(5), store=store).run(Step.READ, run_id="r")
        kinds = [type(event).__name__ for event in await store.load("r")]
        return await cursors(store), kinds

    saved, kinds = run(main())
    assert ["2", "4", "5"] == saved
    assert ["RunStarted", "StateEntered", *["CursorSaved"] * 3, "RunFinished"] == kinds


def test_the_data_travels_with_the_cursor() -> None:
    """What a window changed of the run data is kept in the same row as its cursor."""

    class Keep(Numbers):
        async def process(self, ctx: Context[Seen], item: int) -> int:
            ctx.data.items.append(item)
            return item

    async def main() -> list[bytes]:
        store = MemoryCheckpoints()
        await flow(Keep(3), store=store).run(Step.READ, run_id="r")
        saved = [e for e in await store.load("r") if isinstance(e, CursorSaved)]
        return [bytes((event.patch or {})["items"]) for event in saved]

    assert [b"[1,2]", b"[1,2,3]"] == run(main())


class Dying(Numbers):
    """Dies, the first time, at one of its calls."""

    def __init__(self, at: str) -> None:
        super().__init__(5)
        self.at = at

    def die(self, where: str) -> None:
        if where == self.at:
            self.at = ""
            raise SimulatedCrash

    async def process(self, ctx: Context[Seen], item: int) -> int:
        self.die(f"process {item}")
        ctx.data.items.append(item)
        return await super().process(ctx, item)

    async def flush(
        self, ctx: Context[Any], window: Sequence[int]
    ) -> Done[Literal[Step.LEFT]] | None:
        self.die(f"flush {window[-1]}")
        return await super().flush(ctx, window)

    async def close(self, ctx: Context[Any], reason: CloseReason) -> Literal[Step.END]:
        self.die("close")
        return await super().close(ctx, reason)


@pytest.mark.parametrize(
    ("at", "again"),
    [
        ("process 1", [1, 2, 3, 4, 5]),
        ("flush 2", [1, 2, 1, 2, 3, 4, 5]),
        ("process 3", [1, 2, 3, 4, 5]),
        ("process 4", [1, 2, 3, 3, 4, 5]),
        ("flush 5", [1, 2, 3, 4, 5, 5]),
        ("close", [1, 2, 3, 4, 5]),
    ],
)
def test_a_crash_repeats_one_window_at_most(at: str, again: list[int]) -> None:
    """A resumed stream opens after the last window kept, with the data kept with it."""

    async def main() -> tuple[Numbers, Seen]:
        store, task = MemoryCheckpoints(), Dying(at)
        with suppress(SimulatedCrash):
            await flow(task, store=store).run(Step.READ, run_id="r")
        await asyncio.sleep(16)
        await flow(task, store=store).resume("r")
        return task, await flow(task, store=store).handle("r").data()

    task, seen = run(main())
    assert again == [entry for entry in task.log if isinstance(entry, int)]
    assert [[1, 2], [3, 4], [5]] == task.windows
    assert [1, 2, 3, 4, 5] == seen.items
    assert 1 == task.texts.count("exhausted")


def test_a_later_visit_begins_at_the_beginning() -> None:
    """A visit never sees the cursor of an earlier one, not even when it is resumed."""

    async def main() -> list[str]:
        store, task = MemoryCheckpoints(), Numbers(2)
        crash = [True]

        async def again(ctx: Context[Seen]) -> Literal[Step.READ, Step.LEFT]:
            ctx.data.visits += 1
            return Step.READ if ctx.data.visits < 2 else Step.LEFT

        class Once(Numbers):
            async def process(self, ctx: Context[Any], item: int) -> int:
                if ctx.data.visits and crash:
                    raise SimulatedCrash(crash.pop())
                return item

            async def close(self, ctx: Context[Any], reason: CloseReason) -> Any:
                return Step.AGAIN

        task = Once(2)

        def make() -> Workflow[Step, Seen]:
            made = Workflow(Step, data=Seen, checkpoints=store).exits(Step.END, Step.LEFT)
            return made.register(Step.READ, task).register(Step.AGAIN, again)

        with suppress(SimulatedCrash):
            await make().run(Step.READ, run_id="r")
        await asyncio.sleep(16)
        await make().resume("r")
        return task.texts

    assert ["open None"] * 3 == [text for text in run(main()) if text.startswith("open")]


def test_without_position_everything_comes_again() -> None:
    """A stream that does not say where it is keeps no cursor, and is opened with None."""

    class Nowhere(Dying):
        position = Numbers.__mro__[1].position  # type: ignore[assignment]  # as if not written

    async def main() -> tuple[list[Any], list[str]]:
        store, task = MemoryCheckpoints(), Nowhere("process 4")
        with suppress(SimulatedCrash):
            await flow(task, store=store).run(Step.READ, run_id="r")
        await asyncio.sleep(16)
        await flow(task, store=store).resume("r")
        return task.windows, await cursors(store)

    windows, saved = run(main())
    assert [[1, 2], [1, 2], [3, 4], [5]] == windows
    assert [] == saved


def test_done_leaves_the_stream() -> None:
    """`Done` of a flush ends the stream in that state, which keeps its window; close cleans up."""

    class Enough(Numbers):
        async def flush(
            self, ctx: Context[Any], window: Sequence[int]
        ) -> Done[Literal[Step.LEFT]] | None:
            await super().flush(ctx, window)
            return Done(Step.LEFT) if 3 in window else None

    async def main() -> tuple[Step, Numbers, list[str]]:
        store, task = MemoryCheckpoints(), Enough(10)
        return await flow(task, store=store).run(Step.READ, run_id="r"), task, await cursors(store)

    state, task, saved = run(main())
    assert Step.LEFT == state
    assert ["open None", "aclose", "stopped"] == task.texts
    assert [[1, 2], [3, 4]] == task.windows
    assert ["2"] == saved


@pytest.mark.parametrize("at", ["close", "END"])
def test_done_is_said_again_after_a_crash(at: str) -> None:
    """A crash before the next state brings the window again, with the data from before it."""

    class Enough(Dying):
        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> Any:
            await super().flush(ctx, window)
            return Done(Step.AGAIN) if 3 in window else None

    async def main() -> tuple[Step, Enough, Seen]:
        store, task = MemoryCheckpoints(), Enough(at)

        async def again(ctx: Context[Seen]) -> Literal[Step.LEFT]:
            return Step.LEFT

        def make(opened: Any) -> Workflow[Step, Seen]:
            made = Workflow(Step, data=Seen, checkpoints=opened).exits(Step.END, Step.LEFT)
            return made.register(Step.READ, task).register(Step.AGAIN, again)

        faults = {"crash_before": 3} if at == "END" else {}
        with suppress(SimulatedCrash):
            await make(FaultyStore(store, **faults)).run(Step.READ, run_id="r")
        await asyncio.sleep(16)
        state = await make(store).resume("r")
        return state, task, await make(store).handle("r").data()

    state, task, seen = run(main())
    assert Step.LEFT == state
    assert [[1, 2], [3, 4], [3, 4]] == task.windows
    assert [1, 2, 3, 4] == seen.items


def test_done_of_the_last_window_beats_the_close() -> None:
    """The last flush may lead somewhere else than close does."""

    class Enough(Numbers):
        async def flush(
            self, ctx: Context[Any], window: Sequence[int]
        ) -> Done[Literal[Step.LEFT]] | None:
            return Done(Step.LEFT) if 5 in window else None

    async def main() -> tuple[Step, list[str]]:
        task = Enough(5)
        return await flow(task).run(Step.READ), task.texts

    assert (Step.LEFT, ["open None", "aclose", "stopped"]) == run(main())


def test_an_effect_named_after_its_item_happens_once() -> None:
    """What a window did before a crash is not done again when it comes again."""
    made: list[int] = []

    class Charge(Dying):
        async def process(self, ctx: Context[Seen], item: int) -> int:
            async def charge() -> int:
                made.append(item)
                return item

            await ctx.effect(f"charge {item}", charge)
            return await super().process(ctx, item)

    async def main() -> list[int]:
        store, task = MemoryCheckpoints(), Charge("flush 4")
        with suppress(SimulatedCrash):
            await flow(task, store=store).run(Step.READ, run_id="r")
        await asyncio.sleep(16)
        await flow(task, store=store).resume("r")
        return made

    assert [1, 2, 3, 4, 5] == run(main())


def test_who_listens_hears_of_windows_and_the_end() -> None:
    """WindowFlushed and StreamClosed count what went in."""
    told: list[Any] = []

    @on(WindowFlushed, StreamClosed)
    def listen(event: Any) -> None:
        told.append(event)

    async def main() -> None:
        made = Workflow(Step, observers=[listen]).exits(Step.END, Step.LEFT, Step.AGAIN)
        await made.register(Step.READ, Numbers(3)).run(Step.READ)

    run(main())
    assert [(2, 0), (1, 0), ("exhausted", 3, 2)] == [
        (event.items, event.failed)
        if isinstance(event, WindowFlushed)
        else (event.reason, event.items, event.windows)
        for event in told
    ]


@pytest.mark.parametrize("said", [Step.LEFT, True, "done"])
def test_flush_says_done_or_nothing(said: Any) -> None:
    """Anything else than Done or None fails with the remedy."""

    class Wrong(Numbers):
        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> Any:
            return said

    with pytest.raises(RoutingError, match=r"Wrong.flush returned .*; return Done\(state\)"):
        run(flow(Wrong(3)).run(Step.READ))


def test_an_endless_stream_holds_one_window() -> None:
    """Memory is bounded by the window, and history by the newest cursor."""
    held: list[int] = []

    class Endless(Numbers):
        window = Window(count=7)

        async def flush(
            self, ctx: Context[Any], window: Sequence[int]
        ) -> Done[Literal[Step.LEFT]] | None:
            held.append(len(window) + len(ctx.host.history.visit.progress))
            return Done(Step.LEFT) if len(held) == 300 else None

    assert Step.LEFT == run(flow(Endless(10**9), store=MemoryCheckpoints()).run(Step.READ))
    assert 8 == max(held)


def test_a_stream_inside_a_branch_is_left_alone_by_the_others() -> None:
    """What the context held before the stream, it holds after it."""
    items: list[Any] = []

    class Look(Numbers):
        async def close(self, ctx: Context[Any], reason: CloseReason) -> Any:
            items.append(ctx.item)
            return Step.AGAIN

    async def after(ctx: Context[Any]) -> Literal[Step.END]:
        items.append(ctx.item)
        return Step.END

    async def main() -> None:
        made = Workflow(Step).exits(Step.END, Step.LEFT)
        await made.register(Step.READ, Look(1)).register(Step.AGAIN, after).run(Step.READ)

    run(main())
    assert ["exhausted", None] == items
