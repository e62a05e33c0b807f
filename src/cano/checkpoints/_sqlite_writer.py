"""The one thread that writes.

Rule 1: whatever is queued when the last commit ends is the next transaction. Nothing waits for
        company, so a lone run waits for one sync and a thousand runs share it.
Rule 2: the file is opened, written, checkpointed and closed with the lock held, and only then. No
        two connections of any processes do so at once.
Rule 3: an answer is given when its transaction is on disk, and never before.
Rule 4: a change that fails takes no other with it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from cano.checkpoints._rows import Codec, encode
from cano.checkpoints._sqlite_asked import (
    Answer,
    Asked,
    AskedToAppend,
    AskedToChange,
    AskedToClose,
    AskedToCreate,
    Asker,
    Askers,
    announce,
    apply,
    deliver,
)
from cano.checkpoints._sqlite_changes import Change, Changes
from cano.checkpoints._sqlite_errors import explain, hopeless, spoiled
from cano.checkpoints._sqlite_lock import FileLock
from cano.checkpoints._sqlite_readers import Readers
from cano.checkpoints._sqlite_schema import open_to_write
from cano.checkpoints.store import NewRun, Status
from cano.errors import CheckpointError
from cano.events import Event

MOST_AT_ONCE = 10_000
"""So many changes share a transaction at most."""

CHECKPOINT_PAGES = 4_000
"""About so many pages, 16 MB, may be in the write-ahead log before they are copied into the file.

Four times as many as SQLite's own: the pages that every transaction changes are copied less often.
"""

AHEAD = 128
"""So many pages of the log are written ahead at a time, where runs are alone with their syncs."""

FRAME = 24 + 4096
"""The bytes of a page in the log."""

POLL = 0.2
"""Seconds between looks whether another process has written, while somebody listens."""


class Writer:
    """Writes to one file. Its thread starts when it is first asked, and ends with `AskedToClose`."""

    def __init__(
        self, path: Path, synchronous: str, codec: Codec | None, patience: float, readers: Readers
    ) -> None:
        self._path = path
        self._synchronous = synchronous
        self._codec = codec
        self._patience = patience
        self.readers: Readers = readers
        self._queue: SimpleQueue[Sequence[Asked]] = SimpleQueue()
        self._askers = Askers()
        self._rest: list[Asked] = []
        """What was asked for after a request to close."""
        self._crowd = False
        """Whether the last transaction was for several: then there is more to come."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._listeners: dict[object, tuple[AbstractEventLoop, Callable[[str], None]]] = {}
        self._lock: FileLock | None = None
        self._db: sqlite3.Connection | None = None
        self._changes: Changes | None = None
        self._seen: int = 0
        self._heard: int = 0
        self._room: int = 0
        """So many pages may be written before the log is made longer."""

    # Called from event loops.

    def create(self, loop: AbstractEventLoop, new: NewRun, events: Sequence[Event]) -> Future[None]:
        """See `CheckpointStore.create`."""
        answer = Answer(loop=loop)
        answer.outcome = answer.waiter = None
        try:
            bodies = [encode(event) for event in events]
        except Exception as error:  # noqa: BLE001 -- such as half a surrogate pair in a text
            answer.set_exception(explain(error, self._path))
        else:
            self._ask(AskedToCreate(self._askers[loop], answer, new, events, bodies))
        return answer

    def append(
        self,
        loop: AbstractEventLoop,
        run_id: str,
        epoch: int,
        events: Sequence[Event],
        status: Status | None,
    ) -> Future[None]:
        """See `CheckpointStore.append`."""
        answer = Answer(loop=loop)
        answer.outcome = answer.waiter = None
        try:
            bodies = [encode(event) for event in events]
        except Exception as error:  # noqa: BLE001 -- such as half a surrogate pair in a text
            answer.set_exception(explain(error, self._path))
        else:
            self._ask(
                AskedToAppend(self._askers[loop], answer, run_id, epoch, events, bodies, status)
            )
        return answer

    def change(self, loop: AbstractEventLoop, change: Change) -> Future[Any]:
        """Make any other change; the answer is what it returns."""
        answer = Answer(loop=loop)
        answer.outcome = answer.waiter = None
        self._ask(AskedToChange(self._askers[loop], answer, change))
        return answer

    def open(self, loop: AbstractEventLoop) -> Future[Any]:
        """Open the file, if it is not open yet."""
        return self.change(loop, lambda _: None)

    def close(self, loop: AbstractEventLoop) -> Future[None]:
        """Do what was asked for, and let go of the file."""
        answer = Answer(loop=loop)
        answer.outcome = answer.waiter = None
        asker = self._askers[loop]
        self._ask(AskedToClose(asker, answer))
        answer.add_done_callback(lambda _: self._askers.part(asker))
        return answer

    @property
    def opened(self) -> bool:
        """Whether the file is there and has the newest schema."""
        return self._db is not None

    def listen(self, loop: AbstractEventLoop, tell: Callable[[str], None]) -> Callable[[], None]:
        """See `CheckpointStore.listen`."""
        me = object()
        self._listeners[me] = (loop, tell)
        self._put(())  # makes the thread look up

        def stop() -> None:
            self._listeners.pop(me, None)

        return stop

    def _ask(self, asked: Asked) -> None:
        """Take a place. Where many ask, the thread is woken once for all of a turn of the loop.

        Woken by the first of them it would begin with that one, and get in the way of the others.
        """
        asker = asked.asker
        if asker.gathered:
            asker.gathered.append(asked)
        elif self._crowd:
            asker.gathered.append(asked)
            asker.loop.call_soon(self._hand_over, asker)
        else:
            asker.expect(1)
            self._put((asked,))

    def _hand_over(self, asker: Asker) -> None:
        gathered, asker.gathered = asker.gathered, []
        asker.expect(len(gathered))
        self._put(gathered)

    def _put(self, asked: Sequence[Asked]) -> None:
        self._queue.put(asked)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name=f"cano writes {self._path.name}", daemon=True
                )
                self._thread.start()

    # The thread.

    def _serve(self) -> None:
        while True:
            batch = self._take()
            if not batch:
                self._look_around()
                continue
            last = batch[-1]
            closing = isinstance(last, AskedToClose)
            self._write(batch[:-1] if closing else batch)
            if closing:
                self._close(last)
                if self._retire():
                    return
            else:
                self._checkpoint()

    def _take(self) -> list[Asked]:
        """What is queued, up to a request to close; nothing if it is time to look around."""
        batch, self._rest = self._rest, []
        get = self._queue.get
        with suppress(Empty):
            if not batch:
                batch += get(timeout=POLL if self._listeners else None)
            while len(batch) < MOST_AT_ONCE:
                batch += get(block=False)
        self._crowd = len(batch) > 1
        for place, asked in enumerate(batch):
            if isinstance(asked, AskedToClose):
                self._rest = batch[place + 1 :]
                return batch[: place + 1]
        return batch

    def _retire(self) -> bool:
        """Whether this thread may end: nobody asked for anything since it closed the file."""
        self._thread = None
        if self._queue.empty() and not self._rest:
            return True  # whoever asks from now on sees that there is no thread, and starts one
        with self._starting:
            if self._thread is None:
                self._thread = threading.current_thread()
            return self._thread is not threading.current_thread()

    def _write(self, batch: list[Asked]) -> None:
        if not batch:
            return
        news: list[str] = []
        try:
            self._transact(batch, news)
        except Exception as error:  # noqa: BLE001 -- the thread goes on, and they must know
            for asked in batch:
                asked.answer.outcome = explain(error, self._path)
            if spoiled(error):
                self._drop()
        if news:
            self._tell(news)
        deliver(batch)  # last: a loop in virtual time may leap ahead then

    def _transact(self, batch: list[Asked], news: list[str]) -> None:
        """One transaction."""
        with self._locked():
            db, changes = self._opened()
            db.execute("BEGIN IMMEDIATE")
            try:
                if changes.weight >= self._room and not self._crowd:
                    self._lengthen(changes.weight)
                foreign = changes.begin()
                try:
                    apply(batch, changes)
                    changes.flush()
                except Exception as error:
                    if hopeless(error):
                        raise
                    db.execute("ROLLBACK")
                    db.execute("BEGIN IMMEDIATE")
                    self._one_by_one(db, changes, batch)
                db.execute("COMMIT")
            except BaseException:
                changes.forget()
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
        news += changes.committed()
        if foreign:
            news += self._foreign(changes)

    def _one_by_one(self, db: sqlite3.Connection, changes: Changes, batch: list[Asked]) -> None:
        """The same again, each for itself."""
        changes.forget()
        changes.begin()
        for asked in batch:
            db.execute("SAVEPOINT one")
            try:
                apply((asked,), changes)
                changes.flush()
            except Exception as error:
                if hopeless(error):
                    raise
                db.execute("ROLLBACK TO one")
                changes.forget()
                changes.begin()
                asked.answer.outcome = explain(error, self._path)
            db.execute("RELEASE one")

    def _tell(self, news: list[str]) -> None:
        for me, (loop, tell) in list(self._listeners.items()):
            try:
                loop.call_soon_threadsafe(announce, tell, news)
            except RuntimeError:  # its loop was closed
                self._listeners.pop(me, None)

    def _look_around(self) -> None:
        """Notice what another process has written."""
        try:
            if self._changes is None:
                with self._locked():
                    self._opened()
            elif self._changes.data_version() != self._seen:
                self._tell(self._foreign(self._changes))
        except Exception as error:  # noqa: BLE001 -- whoever asks for something learns of it
            if spoiled(error):
                self._drop()

    def _foreign(self, changes: Changes) -> list[str]:
        """What to tell when another process has written."""
        news = ["", *changes.addressed(self._heard)] if self._listeners else []
        self._seen, self._heard = changes.data_version(), changes.heard()
        return news

    # The file.

    def _locked(self) -> FileLock:
        if self._lock is None:
            if not self._path.parent.is_dir():
                raise CheckpointError(
                    f"{self._path.parent} is no directory; create it, or give the store another path"
                )
            if self._path.is_dir():
                raise CheckpointError(
                    f"{self._path} is a directory; give the store a file in it, such as runs.db"
                )
            lock = self._path.resolve().with_name(f"{self._path.resolve().name}-lock")
            self._lock = FileLock(lock, self._patience)
        return self._lock

    def _opened(self) -> tuple[sqlite3.Connection, Changes]:
        if self._db is None or self._changes is None:
            self._db = open_to_write(self._path, self._synchronous, self._patience)
            self._changes = Changes(self._db, self._path, self._codec)
            self._room = AHEAD // 4  # a log of a few steps is not worth it
            self._seen, self._heard = self._changes.data_version(), self._changes.heard()
        return self._db, self._changes

    def _lengthen(self, used: int) -> None:
        """Write zeros behind the log: a sync is dearer by a half where the file has grown.

        PostgreSQL fills its log ahead for the same reason. Zeros are no frames: to SQLite the log
        ends before them. It is written by nobody else while the transaction is ours.
        """
        self._room = used + AHEAD
        log = self._path.resolve().with_name(f"{self._path.resolve().name}-wal")
        with suppress(OSError), log.open("r+b", buffering=0) as file:  # if not, it grows by itself
            if 0 < file.seek(0, os.SEEK_END) < CHECKPOINT_PAGES * FRAME:
                file.write(bytes(AHEAD * FRAME))

    def _checkpoint(self) -> None:
        """Copy the write-ahead log into the file, so that it starts again from its beginning."""
        if self._changes is None or self._db is None or self._changes.weight < CHECKPOINT_PAGES:
            return
        self._changes.weight = 0
        with suppress(sqlite3.Error, CheckpointError), self._locked():
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")  # if not, all stays in the log

    def _drop(self) -> None:
        """Let go of a connection that is of no use any more; the next transaction opens another."""
        with suppress(Exception), self._locked():
            if self._db is not None:
                self._db.close()
            self._db = self._changes = None

    def _close(self, asked: Asked) -> None:
        self._listeners.clear()
        self.readers.close()
        db, self._db, self._changes = self._db, None, None
        try:
            if db is not None:
                with self._locked():
                    with suppress(sqlite3.Error):  # if not, all stays in the log
                        db.execute("PRAGMA busy_timeout = 100")
                        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    db.close()
        except CheckpointError as error:
            asked.answer.outcome = explain(error, self._path)
        finally:
            if db is not None:
                db.close()  # without the lock: SQLite checkpoints then only if it is quite alone
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        deliver((asked,))
