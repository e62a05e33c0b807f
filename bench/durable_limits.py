"""What the disk and SQLite allow, written by hand: one writer thread, and no engine.

Both limits keep rows of the same kind in the same table, in WAL mode with `synchronous=FULL`; the
thread takes them from a `SimpleQueue`, and every row has a future of its own that is done when
the row is on disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter
from typing import TypeAlias

STEPS = 10
BODY = b"x" * 200

TABLE = """
CREATE TABLE events (
    run TEXT NOT NULL, sequence INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (run, sequence)
) WITHOUT ROWID
"""
INSERT = "INSERT INTO events VALUES (?, ?, ?)"

Row: TypeAlias = tuple[str, int, bytes]
Item: TypeAlias = tuple[Row, asyncio.Future[None]]


class PerRow:
    """Every row is a transaction."""

    def __init__(self, path: Path) -> None:
        self.loop = asyncio.get_running_loop()
        self.queue: SimpleQueue[Item | None] = SimpleQueue()
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.execute(TABLE)
        self.thread = Thread(target=self.work)
        self.thread.start()

    def append(self, row: Row) -> asyncio.Future[None]:
        future = self.loop.create_future()
        self.queue.put((row, future))
        return future

    def close(self) -> None:
        self.queue.put(None)
        self.thread.join()
        self.connection.close()

    def work(self) -> None:
        while (item := self.queue.get()) is not None:
            row, future = item
            self.connection.execute(INSERT, row)
            self.loop.call_soon_threadsafe(future.set_result, None)


class Group(PerRow):
    """Whatever is pending is a transaction: G."""

    def work(self) -> None:
        while (item := self.queue.get()) is not None:
            items = [item, *self.pending()]
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany(INSERT, [row for row, _ in items])
            self.connection.execute("COMMIT")
            self.loop.call_soon_threadsafe(_done, [future for _, future in items])

    def pending(self) -> list[Item]:
        items: list[Item] = []
        try:
            while (item := self.queue.get_nowait()) is not None:
                items.append(item)
        except Empty:
            return items
        self.queue.put(None)  # the end, to be met again
        return items


def _done(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)


async def workflow(writer: PerRow, name: str) -> None:
    """A workflow without an engine: ten rows, each awaited."""
    for number in range(STEPS):
        await writer.append((name, number, BODY))


async def steps(kind: type[PerRow], path: Path, at_once: int, waves: int) -> float:
    """Seconds for each step, with so many workflows *at_once*.

    The names of their runs ascend: with random ones the limit would be half as high.
    """
    writer = kind(path)
    try:
        await workflow(writer, "first")
        before = perf_counter()
        for wave in range(waves):
            names = [f"{wave:016}{number:016}" for number in range(at_once)]
            await asyncio.gather(*(workflow(writer, name) for name in names))
        return (perf_counter() - before) / (waves * at_once * STEPS)
    finally:
        writer.close()
