"""Sources, stores and verbs of a stream that fail: everything is closed, and nothing hidden."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from cano import (
    AttemptTimeoutError,
    CheckpointError,
    CloseReason,
    Context,
    Done,
    MemoryCheckpoints,
    Workflow,
)
from cano.events import CursorSaved
from cano.testing import run
from cano.testing.faults import FaultyStore

sys.path.insert(0, str(Path(__file__).parent))

from _streams import Numbers, Step, flow


async def cursors(store: MemoryCheckpoints) -> list[str]:
    events = await store.load("r")
    return [bytes(e.value).decode() for e in events if isinstance(e, CursorSaved)]


class Broken(Numbers):
    """Raises in one place, or several."""

    def __init__(self, *where: str) -> None:
        super().__init__(3)
        self.where = where

    def fail(self, verb: str) -> None:
        if verb in self.where:
            raise ConnectionError(verb)

    async def open(self, ctx: Context[Any], cursor: int | None) -> Any:
        self.fail("open")
        return self.source(cursor)

    async def source(self, cursor: int | None) -> AsyncIterator[int]:
        try:
            for number in range((cursor or 0) + 1, 4):
                yield number
            self.fail("source")
        finally:
            self.log.append("aclose")
            self.fail("aclose")

    async def process(self, ctx: Context[Any], item: int) -> int:
        if item == 2:
            self.fail("process")
        return item

    def position(self, item: int) -> int:
        self.fail("position")
        return item

    async def flush(
        self, ctx: Context[Any], window: Sequence[int]
    ) -> Done[Literal[Step.LEFT]] | None:
        self.fail("flush")
        return await super().flush(ctx, window)

    async def close(self, ctx: Context[Any], reason: CloseReason) -> Literal[Step.END]:
        await super().close(ctx, reason)
        self.fail("close")
        return Step.END


@pytest.mark.parametrize(
    ("where", "log", "saved"),
    [
        ("open", [], []),  # nothing is open, so nothing is closed
        ("source", [[1, 2], "aclose", "failed"], ["2"]),
        ("process", ["aclose", "failed"], []),
        ("flush", ["aclose", "failed"], []),
        ("position", [[1, 2], "aclose", "failed"], []),
        ("aclose", [[1, 2], "aclose", "failed"], ["2"]),
        ("close", [[1, 2], "aclose", [3], "exhausted"], ["2", "3"]),
    ],
)
def test_whatever_fails_the_source_and_the_stream_are_closed(
    where: str, log: list[Any], saved: list[str]
) -> None:
    """The error is raised as it is; windows that were kept stay kept."""

    async def main() -> tuple[list[Any], list[str]]:
        store, task = MemoryCheckpoints(), Broken(where)
        with pytest.raises(ConnectionError, match=where):
            await flow(task, store=store).run(Step.READ, run_id="r")
        return task.log, await cursors(store)

    assert (log, saved) == run(main())


def test_later_errors_are_noted_on_the_first() -> None:
    """None hides another."""

    async def main() -> list[str]:
        task = Broken("process", "aclose", "close")
        with pytest.raises(ConnectionError, match="process") as caught:
            await flow(task).run(Step.READ)
        return [text for text in caught.value.__notes__ if "then" in text]

    assert [
        "cano: then the source's aclose of Broken raised ConnectionError('aclose')",
        "cano: then close of Broken raised ConnectionError('close')",
    ] == run(main())


@pytest.mark.parametrize("where", ["aclose", "close"])
def test_a_clean_up_that_hangs_has_a_limit(where: str) -> None:
    """After a failure, `drain_timeout` bounds what is left to do, and the failure is raised."""

    class Stuck(Broken):
        drain_timeout = 4.0

        async def source(self, cursor: int | None) -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                if where == "aclose":
                    await asyncio.sleep(1e6)

        async def close(self, ctx: Context[Any], reason: CloseReason) -> Literal[Step.END]:
            self.log.append(str(reason))
            if where == "close":
                await asyncio.sleep(1e6)
            return Step.END

    async def main() -> tuple[list[Any], float, list[str]]:
        task = Stuck("process")
        with pytest.raises(ConnectionError, match="process") as caught:
            await flow(task).run(Step.READ)
        return task.log, asyncio.get_running_loop().time(), caught.value.__notes__

    log, ended, notes = run(main())
    assert (["failed"], 4) == (log, ended)
    assert any(f"{where} of Stuck took longer than 4 s" in text for text in notes)


def test_a_source_left_by_done_that_does_not_close_is_an_error() -> None:
    """What holds a connection for ever is not passed over, even when the work is done."""

    class Stuck(Broken):
        drain_timeout = 4.0

        async def source(self, cursor: int | None) -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                await asyncio.sleep(1e6)

        async def flush(self, ctx: Context[Any], window: Sequence[int]) -> Any:
            return Done(Step.LEFT)

    async def main() -> list[Any]:
        task = Stuck()
        with pytest.raises(AttemptTimeoutError, match="aclose of Stuck took longer than 4 s"):
            await flow(task).run(Step.READ)
        return task.log

    assert ["failed"] == run(main())


def test_a_broken_store_ends_the_stream() -> None:
    """A window that cannot be kept stops the run where it is; it can be resumed, and comes again."""

    async def main() -> tuple[Numbers, Step]:
        store, task = MemoryCheckpoints(), Numbers(3)
        broken = FaultyStore(store, fail_at=2)
        with pytest.raises(CheckpointError):
            await flow(task, store=broken).run(Step.READ, run_id="r")
        await asyncio.sleep(16)
        return task, await flow(task, store=store).resume("r")

    task, state = run(main())
    assert (Step.END, [[1, 2], [1, 2], [3]]) == (state, task.windows)
    assert ["open None", "aclose", "failed", "open None", "aclose", "exhausted"] == task.texts


@pytest.mark.parametrize("opened", [[1, 2], None, 5])
def test_what_cannot_be_read_is_an_error(opened: Any) -> None:
    """`open` has to return something for `async for`; the error says what to do."""

    class Wrong(Broken):
        async def open(self, ctx: Context[Any], cursor: int | None) -> Any:
            return opened

    async def main() -> list[Any]:
        task = Wrong()
        with pytest.raises(TypeError, match=r"Wrong.open returned .*return an async iterator"):
            await flow(task).run(Step.READ)
        return task.log

    assert ["failed"] == run(main())


def test_an_error_may_lead_to_a_state() -> None:
    """`otherwise` catches what ended a stream, after it was closed."""

    async def main() -> Step:
        made = Workflow(Step).exits(Step.END, Step.LEFT, Step.AGAIN)
        made.register(Step.READ, Broken("flush"), otherwise=Step.LEFT)
        with suppress(ConnectionError):
            return await made.run(Step.READ)
        return Step.END

    assert Step.LEFT == run(main())
