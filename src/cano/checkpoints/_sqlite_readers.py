"""Reading from the file, in threads of their own, beside the one that writes."""

from __future__ import annotations

import sqlite3
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TypeVar

from cano.checkpoints._sqlite_errors import explain
from cano.checkpoints._sqlite_schema import open_to_read

T = TypeVar("T")

THREADS = 4
"""So many read at once; each keeps a connection."""


class Readers:
    """Threads and connections that only read. All are let go by `close`, and come again if needed."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._lock = Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._idle: list[sqlite3.Connection] = []

    def read(
        self, loop: AbstractEventLoop, question: Callable[[sqlite3.Connection], T]
    ) -> Future[T]:
        """Answer *question* from one moment's state of the file."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS, f"cano reads {self._path.name}")
            return loop.run_in_executor(self._threads, self._ask, question)

    def close(self) -> None:
        """Wait for those who read, and let go of the file."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()
        while self._idle:
            self._idle.pop().close()

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            db = self._idle.pop()
        except IndexError:
            db = None
        try:
            db = db or open_to_read(self._path, self._patience)
            db.execute("BEGIN")
            return question(db)
        except sqlite3.Error as error:
            raise explain(error, self._path) from error
        finally:
            if db is not None:
                self._put_back(db)

    def _put_back(self, db: sqlite3.Connection) -> None:
        try:
            db.execute("ROLLBACK")
        except sqlite3.Error:
            db.close()
        else:
            self._idle.append(db)
