"""Histories in a file on this machine, kept by SQLite.

Every change goes through one thread, which puts all that is waiting into one transaction; reading
has threads of its own. `_sqlite_writer` says how the file is kept safe between processes.
Nothing of SQLite is loaded before the store is used.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from cano.checkpoints._rows import Codec
from cano.checkpoints.store import (
    CheckpointStore,
    Claim,
    Due,
    Message,
    NewRun,
    Owner,
    RunQuery,
    RunSummary,
    Status,
)
from cano.errors import DefinitionError
from cano.events import Event

if TYPE_CHECKING:
    import sqlite3

    from cano.checkpoints._sqlite_changes import Change
    from cano.checkpoints._sqlite_writer import Writer

T = TypeVar("T")


class SqliteCheckpoints(CheckpointStore):
    """Keeps histories in the file *path*, for any number of processes of one machine.

    With ``synchronous="full"`` what was kept survives a power failure; ``"normal"`` spares the
    wait for the disk, survives the death of any process, and may lose the last moments when the
    machine itself stops. *codec* changes bodies and large values on their way to the file and
    back: compression, encryption. What is locked is waited for *busy_timeout* seconds.

    The file is opened at first use, and made if it is not there; its directory must be. Beside it
    lie ``-wal`` and ``-shm``, which belong to it, and ``-lock``, which must not be deleted while
    the store is in use; ``-wal`` grows to about 16 MB, and beyond while somebody reads for long. Not for network file systems. A forked process needs a store of its own.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Literal["full", "normal"] = "full",
        codec: Codec | None = None,
        busy_timeout: float = 30.0,
    ) -> None:
        if synchronous not in ("full", "normal"):
            raise DefinitionError(f'synchronous is "full" or "normal", not {synchronous!r}')
        self.path: Path = Path(path).absolute()
        self._synchronous: str = synchronous
        self._codec: Codec | None = codec
        self._busy_timeout: float = busy_timeout
        self._writer: Writer | None = None
        self._starting = Lock()

    def __repr__(self) -> str:
        return f"SqliteCheckpoints({str(self.path)!r}, synchronous={self._synchronous!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # Events.

    def create(self, run: NewRun, events: Sequence[Event], /) -> Future[None]:
        return (self._writer or self._begin()).create(asyncio.get_running_loop(), run, events)

    def append(
        self,
        run_id: str,
        epoch: int,
        events: Sequence[Event],
        status: Status | None = None,
        /,
    ) -> Future[None]:
        writer = self._writer or self._begin()
        return writer.append(asyncio.get_running_loop(), run_id, epoch, events, status)

    async def load(self, run_id: str, after: int = 0, limit: int | None = None, /) -> list[Event]:
        return await self._read(lambda q, db: q.load(db, run_id, after, limit, self._codec))

    # Owners.

    async def claim(self, run_id: str, owner: str, now: float, /) -> Claim:
        claimed: Claim = await self._change(lambda to: to.claim(run_id, owner, now))
        return claimed

    async def reopen(
        self, run_id: str, owner: str, now: float, /, *, finished: bool = False
    ) -> Claim:
        claimed: Claim = await self._change(lambda to: to.reopen(run_id, owner, now, finished))
        return claimed

    async def release(
        self, run_id: str, epoch: int, status: Status, wake: float = 0.0, seen: int = 0, /
    ) -> None:
        await self._change(lambda to: to.release(run_id, epoch, status, wake, seen))

    async def renew(self, owner: Owner, now: float, until: float, /) -> bool:
        return bool(await self._change(lambda to: to.renew(owner, now, until)))

    async def owners(self, host: str, now: float, /) -> Sequence[Owner]:
        return await self._read(lambda q, db: q.owners(db, host, now))

    async def expire(self, owner: str, /) -> None:
        await self._change(lambda to: to.expire(owner))

    # Looking.

    async def summary(self, run_id: str, /) -> RunSummary:
        return await self._read(lambda q, db: q.summary(db, run_id, self._codec))

    async def runs(self, query: RunQuery, /) -> Sequence[RunSummary]:
        return await self._read(lambda q, db: q.runs(db, query, self._codec))

    async def due(self, workflow: str, now: float, limit: int, crashes: int, /) -> Due:
        return await self._read(lambda q, db: q.due(db, workflow, now, limit, crashes))

    async def ended(
        self, workflow: str | None, before: float, keep: int, limit: int, /
    ) -> list[str]:
        return await self._read(lambda q, db: q.ended(db, workflow, before, keep, limit))

    async def delete(self, run_ids: Sequence[str], /) -> int:
        return int(await self._change(lambda to: to.delete(run_ids)))

    # Messages.

    async def send(self, run_id: str, name: str, value: bytes, now: float, key: str = "", /) -> int:
        return int(await self._change(lambda to: to.send(run_id, name, value, now, key)))

    async def inbox(self, run_id: str, after: int = 0, /) -> Sequence[Message]:
        return await self._read(lambda q, db: q.inbox(db, run_id, after, self._codec))

    def listen(self, tell: Callable[[str], None], /) -> Callable[[], None]:
        return (self._writer or self._begin()).listen(asyncio.get_running_loop(), tell)

    # The store itself.

    async def define(self, fingerprint: str, shape: bytes, /) -> None:
        await self._change(lambda to: to.define(fingerprint, shape))

    async def definition(self, fingerprint: str, /) -> bytes | None:
        return await self._read(lambda q, db: q.definition(db, fingerprint))

    async def note(self, key: str, value: bytes, was: bytes | None, /) -> bool:
        return bool(await self._change(lambda to: to.note(key, value, was)))

    async def noted(self, key: str, /) -> bytes | None:
        return await self._read(lambda q, db: q.noted(db, key))

    async def check(self) -> Sequence[str]:
        from cano.checkpoints import _sqlite_check  # noqa: PLC0415 -- rarely needed

        return await self._read(lambda _, db: _sqlite_check.check(db, self._codec))

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer.close(asyncio.get_running_loop())

    # How.

    def _begin(self) -> Writer:
        from cano.checkpoints._sqlite_readers import Readers  # noqa: PLC0415 -- loads sqlite3
        from cano.checkpoints._sqlite_writer import Writer  # noqa: PLC0415

        with self._starting:  # loops of several threads may be the first
            if self._writer is None:
                readers = Readers(self.path, self._busy_timeout)
                self._writer = Writer(
                    self.path, self._synchronous, self._codec, self._busy_timeout, readers
                )
            return self._writer

    async def _change(self, change: Change) -> Any:
        return await (self._writer or self._begin()).change(asyncio.get_running_loop(), change)

    async def _read(self, question: Callable[[Any, sqlite3.Connection], T]) -> T:
        from cano.checkpoints import _sqlite_queries  # noqa: PLC0415 -- loads sqlite3

        loop = asyncio.get_running_loop()
        writer = self._writer or self._begin()
        if not writer.opened:  # it makes the file, and brings it to the newest schema
            await writer.open(loop)
        return await writer.readers.read(loop, lambda db: question(_sqlite_queries, db))
