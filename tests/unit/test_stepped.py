"""Work in steps: a cursor per visit, kept before the next step begins."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import (
    Context,
    DataError,
    Done,
    MemoryCheckpoints,
    More,
    Retry,
    RoutingError,
    SteppedTask,
    Workflow,
)
from cano.checkpoints.store import CheckpointStore
from cano.events import CursorSaved
from cano.testing import run
from cano.testing.faults import SimulatedCrash


class Step(StrEnum):
    COPY = auto()
    AGAIN = auto()
    END = auto()


@dataclass
class Page:
    number: int


@dataclass
class Book:
    pages: list[int] = field(default_factory=list)
    visits: int = 0


class Copy(SteppedTask[Step, Page]):
    """Three pages per visit; *deaths* are steps, counted over all lives, that end in a crash."""

    def __init__(self, *deaths: int) -> None:
        self.deaths = deaths
        self.seen: list[int | None] = []

    async def step(
        self, ctx: Context[Book], cursor: Page | None
    ) -> More[Page] | Done[Literal[Step.AGAIN]]:
        self.seen.append(cursor and cursor.number)
        if len(self.seen) in self.deaths:
            raise SimulatedCrash
        number = cursor.number if cursor else 0
        if number == 3:
            return Done(Step.AGAIN)
        ctx.data.pages.append(number)
        return More(Page(number + 1))


def copying(store: CheckpointStore | None, task: Any, *policies: Any) -> Workflow[Step, Book]:
    flow = Workflow(Step, data=Book, checkpoints=store).exits(Step.END)
    flow.register(Step.COPY, task, *policies)

    @flow.task(Step.AGAIN)
    async def again(ctx: Context[Book]) -> Literal[Step.COPY, Step.END]:
        ctx.data.visits += 1
        return Step.COPY if ctx.data.visits < 2 else Step.END

    return flow


async def lives(store: CheckpointStore, task: Any, count: int, *policies: Any) -> Book:
    with suppress(SimulatedCrash):
        await copying(store, task, *policies).run(Step.COPY, run_id="r")
    for _ in range(count - 1):
        await asyncio.sleep(16)
        with suppress(SimulatedCrash):
            await copying(store, task, *policies).resume("r")
    return await copying(store, task, *policies).handle("r").data()


@pytest.mark.parametrize("durable", [False, True])
def test_each_visit_begins_at_the_beginning(durable: bool) -> None:
    """A later visit of the same state never sees the cursor of an earlier one."""

    async def main() -> list[int | None]:
        task = Copy()
        await copying(MemoryCheckpoints() if durable else None, task).run(Step.COPY)
        return task.seen

    assert [None, 1, 2, 3] * 2 == run(main())


@pytest.mark.parametrize("death", range(1, 9))
def test_a_crash_repeats_one_step(death: int) -> None:
    """A resumed visit goes on with the last cursor, and the data that was saved with it."""

    async def main() -> tuple[list[int | None], list[int]]:
        task = Copy(death)
        book = await lives(MemoryCheckpoints(), task, 2)
        return task.seen, book.pages

    seen, pages = run(main())
    once: list[int | None] = [None, 1, 2, 3] * 2
    assert [*once[:death], *once[death - 1 :]] == seen
    assert [0, 1, 2] * 2 == pages


def test_the_data_travels_with_the_cursor() -> None:
    """A cursor and what its step changed are one event."""

    async def main() -> list[Any]:
        store = MemoryCheckpoints()
        await copying(store, Copy()).run(Step.COPY, run_id="r")
        saved = [e for e in await store.load("r") if isinstance(e, CursorSaved)]
        return [(bytes(e.value), bytes((e.patch or {})["pages"])) for e in saved[:2]]

    assert [(b'{"number":1}', b"[0]"), (b'{"number":2}', b"[0,1]")] == run(main())


def test_a_failed_step_is_repeated_with_the_same_cursor() -> None:
    """`Retry` goes around each step, and brings back the data the step began with."""

    class Flaky(Copy):
        async def step(
            self, ctx: Context[Book], cursor: Page | None
        ) -> More[Page] | Done[Literal[Step.AGAIN]]:
            outcome = await super().step(ctx, cursor)
            if ctx.attempt == 1:
                raise ConnectionError
            return outcome

    async def main() -> tuple[list[int | None], list[int]]:
        task = Flaky()
        flow = copying(MemoryCheckpoints(), task, Retry.fixed(2, 1))
        await flow.run(Step.COPY, run_id="r")
        return task.seen, (await flow.handle("r").data()).pages

    seen, pages = run(main())
    assert [None, None, 1, 1, 2, 2, 3, 3] * 2 == seen
    assert [0, 1, 2] * 2 == pages


def test_attempts_are_counted_per_step() -> None:
    """A step that is resumed goes on with its attempt; the next step begins with its first."""
    attempts: list[tuple[int, int]] = []

    class Flaky(SteppedTask[Step, int]):
        async def step(
            self, ctx: Context[Book], cursor: int | None
        ) -> More[int] | Done[Literal[Step.AGAIN]]:
            attempts.append((cursor or 0, ctx.attempt))
            if attempts[-1] == (1, 2):
                raise SimulatedCrash
            if ctx.attempt == 1:
                raise ConnectionError
            return More((cursor or 0) + 1) if (cursor or 0) < 2 else Done(Step.AGAIN)

    async def main() -> None:
        store = MemoryCheckpoints()

        flow = Workflow(Step, data=Book, checkpoints=store).exits(Step.END, Step.AGAIN)
        flow.register(Step.COPY, Flaky(), Retry.fixed(4, 1))
        with suppress(SimulatedCrash):
            await flow.run(Step.COPY, run_id="r")
        attempts.append((9, 9))
        await asyncio.sleep(16)
        flow = Workflow(Step, data=Book, checkpoints=store).exits(Step.END, Step.AGAIN)
        await flow.register(Step.COPY, Steady(), Retry.fixed(4, 1)).resume("r")

    class Steady(Flaky):
        async def step(
            self, ctx: Context[Book], cursor: int | None
        ) -> More[int] | Done[Literal[Step.AGAIN]]:
            attempts.append((cursor or 0, ctx.attempt))
            return More((cursor or 0) + 1) if (cursor or 0) < 2 else Done(Step.AGAIN)

    run(main())
    assert [(0, 1), (0, 2), (1, 1), (1, 2), (9, 9), (1, 2), (2, 1)] == attempts


def test_what_a_step_does_is_its_own() -> None:
    """Effects, sleeps and signals of one step are not taken for those of the next."""
    made: list[int] = []
    crash = [True]

    class Send(SteppedTask[Step, int]):
        async def step(
            self, ctx: Context[Book], cursor: int | None
        ) -> More[int] | Done[Literal[Step.AGAIN]]:
            number = cursor or 0

            async def send() -> int:
                made.append(number)
                return number

            await ctx.sleep(100)
            word = await ctx.wait_signal("go", int)
            assert (number, number) == (word, await ctx.effect("send", send))
            if number == 1 and crash:
                raise SimulatedCrash(crash.pop())
            return More(number + 1) if number < 2 else Done(Step.AGAIN)

    async def main() -> float:
        store = MemoryCheckpoints()

        def make() -> Workflow[Step, Book]:
            flow = Workflow(Step, data=Book, checkpoints=store).exits(Step.END, Step.AGAIN)
            return flow.register(Step.COPY, Send())

        task = asyncio.ensure_future(make().run(Step.COPY, run_id="r"))
        await asyncio.sleep(1)
        for number in range(3):
            await make().handle("r").signal("go", number)
        with suppress(SimulatedCrash):
            await task
        await asyncio.sleep(16)
        await make().resume("r")
        return asyncio.get_running_loop().time()

    assert 316 == pytest.approx(run(main()))
    assert [0, 1, 2] == made


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("wrong", [None, Step.END, "more"])
def test_a_wrong_outcome_is_an_error(wrong: Any, durable: bool) -> None:
    """A step says More or Done; anything else fails with the remedy."""

    class Wrong(SteppedTask[Step, int]):
        async def step(self, ctx: Context[Book], cursor: int | None) -> Any:
            return wrong

    async def main() -> None:
        flow = copying(MemoryCheckpoints() if durable else None, Wrong())
        with pytest.raises(RoutingError, match=r"Wrong.step returned .*More\(cursor\) or Done"):
            await flow.run(Step.COPY)

    run(main())


def test_a_cursor_that_cannot_be_written_is_an_error() -> None:
    """What a resumed visit could not begin with is refused at once."""

    class Odd(SteppedTask[Step, Any]):
        async def step(
            self, ctx: Context[Book], cursor: Any
        ) -> More[Any] | Done[Literal[Step.AGAIN]]:
            return More(object())

    async def main() -> None:
        with pytest.raises(DataError, match="the cursor of Odd returned an object that cannot be"):
            await copying(MemoryCheckpoints(), Odd()).run(Step.COPY)

    run(main())


def test_definition_errors() -> None:
    """A task without a step, or one that ends in no state, is found before the first run."""

    class Empty(SteppedTask[Step, int]):
        pass

    class Lost(SteppedTask[Step, int]):
        async def step(self, ctx: Context[Any], cursor: int | None) -> More[int] | Done[int]:  # type: ignore[type-var]
            return More(1)

    with pytest.raises(ValueError, match=r"Empty has no step\(\); write `async def step"):
        copying(None, Empty()).check()
    with pytest.raises(ValueError, match=r"Lost.step says Done\[.*int.*\], which is no state"):
        copying(None, Lost()).check()


def test_the_graph_knows_where_it_leads() -> None:
    """`Done[Literal[...]]` draws the edge."""
    graph = copying(None, Copy()).check(Step.COPY)
    assert "COPY" in (text := graph.mermaid())
    assert "AGAIN" in text


def test_ten_thousand_steps_stay_small() -> None:
    """What a step did is forgotten with it: a long visit does not grow in memory."""

    class Long(SteppedTask[Step, int]):
        async def step(
            self, ctx: Context[Book], cursor: int | None
        ) -> More[int] | Done[Literal[Step.AGAIN]]:
            number = (cursor or 0) + 1
            await ctx.effect(f"effect {number}", lambda: asyncio.sleep(0, number))
            held.append(len(ctx.host.history.visit.progress))
            return More(number) if number < 1000 else Done(Step.AGAIN)

    held: list[int] = []

    async def main() -> None:
        flow = Workflow(Step, data=Book, checkpoints=MemoryCheckpoints())
        flow.exits(Step.END, Step.AGAIN).register(Step.COPY, Long())
        await flow.run(Step.COPY)

    run(main())
    assert 3 > max(held)
