"""Events, new runs and ends: what is written most, and so gathered and written together.

Rule 1: a change looks first and writes then: when it raises `CheckpointError`, it wrote nothing.
Rule 2: what is known of a run is what this connection read or wrote, and holds only as long as
        no other connection has written: `begin` asks SQLite and forgets everything if one has.
        So looking an epoch up in memory is as good as asking the database, and costs nothing.
Rule 3: what was gathered is written by `flush`, before anything else looks at the tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import msgspec

from cano.checkpoints._rows import LARGE, Codec, encode, pack
from cano.checkpoints._sqlite_schema import NUMBERS, STATUSES, check_version
from cano.checkpoints.store import NewRun, Status
from cano.errors import (
    CheckpointError,
    RunExistsError,
    RunLostError,
)
from cano.events import Event, RunMigrated

MOST_KNOWN = 100_000
"""So many runs are kept in mind, at some 200 bytes each."""

_RUN = "INSERT INTO runs (id, run_id, workflow, version, fingerprint, tags, created, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_TAG = "INSERT INTO tags VALUES (?, ?, ?, ?, ?, ?)"
_FOLLOW = "UPDATE tags SET status = ? WHERE run = ?"
_EVENT = "INSERT INTO events (run, sequence, epoch, owner, time, body) VALUES (?, ?, ?, ?, ?, ?)"
_APART = "UPDATE events SET large = ? WHERE run = ? AND sequence = ?"
_AT_ONCE = (64, 16, 4, 1)
"""How many rows one statement may insert; 64 rows stay below the 999 variables of old versions."""
_END = """
    UPDATE runs SET status = ?, owner = NULL, wake = 0, ended = coalesce(
        ?, (SELECT time FROM events WHERE run = ? ORDER BY sequence DESC LIMIT 1))
    WHERE id = ?
"""
_MIGRATE = "UPDATE runs SET version = ?, fingerprint = ? WHERE id = ?"
_THERE = "SELECT 1 FROM runs WHERE run_id = ?"
_LOOK = """
    SELECT r.id, r.epoch, coalesce(e.sequence, 0), coalesce(e.owner, r.owner), r.status,
        r.tags IS NOT NULL
    FROM runs r LEFT JOIN events e
    ON e.run = r.id AND e.sequence = (SELECT max(sequence) FROM events WHERE run = r.id)
    WHERE r.run_id = ?
"""


class Known(msgspec.Struct):
    """What has to be known of a run to append to it."""

    id: int
    epoch: int
    last: int
    """The number of its last event."""
    owner: int | None
    """Whose epoch it is."""
    status: Status
    tagged: bool


class Appends:
    """Adds events on one connection, within transactions that somebody else begins and ends."""

    def __init__(self, connection: sqlite3.Connection, path: Path, codec: Codec | None) -> None:
        self.weight: int = 0
        """About how many pages were written since the last checkpoint."""
        self._db = connection
        self._path = path
        self._codec = codec
        self._known: dict[str, Known] = {}
        self._owners: dict[str, int] = {}
        self._over: list[str] = []
        self._news: list[str] = []
        self._last_id = 0
        self._bytes = 0
        self._data_version = -1
        self._new: list[Any] = []
        self._tags: list[Any] = []
        self._events: list[Any] = []
        """The values of all rows, one after the other: rows of their own would only cost."""
        self._apart: list[tuple[Any, ...]] = []
        """What was taken out of which events: nearly never anything, so it is no part of a row."""
        self._ends: list[tuple[Any, ...]] = []
        self._turns: list[tuple[int, int]] = []
        """Which tags have to follow their run to which status."""

    # Transactions.

    def begin(self) -> bool:
        """A transaction has begun. Whether somebody else may have written since the last one."""
        version = self.data_version()
        if version == self._data_version:
            if len(self._known) > MOST_KNOWN:
                self._known.clear()
            return False
        check_version(self._db, self._path)
        self.forget()
        self._data_version = version
        self._last_id = int(self._db.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()[0])
        return True

    def data_version(self) -> int:
        """A number that changes when another connection has written."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def forget(self) -> None:
        """Trust nothing but the database: it was written by others, or rolled back."""
        self._gather()
        self._known.clear()
        self._owners.clear()
        self._data_version = -1

    def committed(self) -> list[str]:
        """All is on disk; returns the runs that somebody who listens should look at."""
        for run_id in self._over:  # these need not be kept in mind
            self._known.pop(run_id, None)
        self._over.clear()
        news, self._news = self._news, []
        return news

    def flush(self) -> None:
        """Write what was gathered."""
        if self._new:
            self._insert(_RUN, self._new)
            self._insert(_TAG, self._tags)
        if self._events:
            rows = self._insert(_EVENT, self._events)
            self.weight += 3 + (self._bytes >> 12) + (rows >> 4)
        if self._apart:
            self._db.executemany(_APART, self._apart)
        if self._ends:
            self._db.executemany(_END, self._ends)
        if self._turns:
            self._db.executemany(_FOLLOW, self._turns)
        if self._new or self._events or self._ends or self._turns:
            self._gather()

    def _gather(self) -> None:
        self._new, self._tags, self._events, self._apart = [], [], [], []
        self._ends, self._turns = [], []
        self._bytes = 0

    def _insert(self, one: str, values: list[Any]) -> int:
        """Many rows in one statement: between statements the interpreter's lock changes hands."""
        at, width, execute = 0, one.count("?"), self._db.execute
        for many in _AT_ONCE:
            size = many * width
            while len(values) - at >= size:
                execute(_several(one, many), values[at : at + size])
                at += size
        return at // width

    # Events.

    def create(self, new: NewRun, events: Sequence[Event], bodies: Sequence[bytes]) -> None:
        """See `CheckpointStore.create`."""
        known = new.run_id in self._known
        if known or (not new.generated_id and self._db.execute(_THERE, (new.run_id,)).fetchone()):
            raise RunExistsError(
                f"run {new.run_id!r} exists already; resume it, or choose another run_id"
            )
        owner, tagged = self._owner(new.owner), bool(new.tags)
        run = Known(self._last_id + 1, 1, 0, owner, Status.RUNNING, tagged)
        rows = self._rows(new.run_id, run, events, bodies)
        tags = encode(new.tags).decode() if new.tags else None
        self._last_id = run.id
        self._known[new.run_id] = run
        self._new += (
            run.id, new.run_id, new.workflow, new.version, new.fingerprint, tags, new.time, run.owner
        )  # fmt: skip
        for tag in dict.fromkeys(new.tags):
            self._tags += (run.id, tag, new.workflow, 0, new.time, new.run_id)
        self._add(run, rows)

    def append(
        self,
        run_id: str,
        epoch: int,
        events: Sequence[Event],
        bodies: Sequence[bytes],
        status: Status | None,
    ) -> None:
        """See `CheckpointStore.append`."""
        run = self._known.get(run_id) or self._find(run_id)
        if run is None or run.epoch != epoch:
            raise _lost(run_id, epoch, run)
        if len(events) == 1 and len(bodies[0]) < LARGE and self._codec is None:
            event = events[0]  # what nearly all are, without the detours
            number = run.last + 1
            if event.sequence != number:
                raise _misplaced(run_id, event.sequence, number)
            self._events += (run.id, number, epoch, run.owner, event.time, bodies[0])
            self._bytes += len(bodies[0])
            run.last = number
        else:
            self._add(run, self._rows(run_id, run, events, bodies))
        for event in events:
            if type(event) is RunMigrated:
                self._db.execute(_MIGRATE, (event.version, event.fingerprint, run.id))
        if status is not None and status is not run.status:
            self._turn(run_id, run, status, events[-1].time if events else None)

    def _turn(self, run_id: str, run: Known, status: Status, time: float | None) -> None:
        self._be(run, status)
        if status.over:
            self._ends.append((NUMBERS[status], time, run.id, run.id))
            self._over.append(run_id)
            self._news.append(run_id)
        else:
            self.flush()
            ask = "UPDATE runs SET status = ? WHERE id = ?"
            self._db.execute(ask, (NUMBERS[status], run.id))

    def _be(self, run: Known, status: Status) -> None:
        run.status = status
        if run.tagged:
            self._turns.append((NUMBERS[status], run.id))

    def _rows(
        self, run_id: str, run: Known, events: Sequence[Event], bodies: Sequence[bytes]
    ) -> list[tuple[Any, ...]]:
        """The rows of *events*; raises if they cannot follow what the run has."""
        number = run.last
        rows: list[tuple[Any, ...]] = []
        apart: list[tuple[str, bytes]] = []
        large: list[tuple[bytes, int, int]] = []
        for event, body in zip(events, bodies, strict=True):
            number += 1
            if event.sequence != number:
                raise _misplaced(run_id, event.sequence, number)
            stored = body
            if len(body) >= LARGE:
                stored, names, values = pack(event, body)
                if names is not None:
                    large.append((names, run.id, number))
                    apart += values
            if self._codec is not None:
                stored = self._codec.encode(stored)
            self._bytes += len(stored)
            rows.append((run.id, number, run.epoch, run.owner, event.time, stored))
        if large:
            self._keep(run.id, apart)
            self._apart += large
        return rows

    def _add(self, run: Known, rows: list[tuple[Any, ...]]) -> None:
        for row in rows:
            self._events += row
        run.last += len(rows)

    def _keep(self, run: int, apart: Sequence[tuple[str, bytes]]) -> None:
        find = "SELECT number FROM blobs WHERE digest = ?"
        for digest, raw in apart:
            found = self._db.execute(find, (digest,)).fetchone()
            if found is None:
                body = raw if self._codec is None else self._codec.encode(raw)
                insert = "INSERT INTO blobs (digest, body) VALUES (?, ?)"
                found = (self._db.execute(insert, (digest, body)).lastrowid,)
                self.weight += len(body) >> 12
            self._db.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (run, found[0]))

    # Looking.

    def _find(self, run_id: str) -> Known | None:
        run = self._known.get(run_id)
        if run is None:
            row = self._db.execute(_LOOK, (run_id,)).fetchone()
            if row is not None:
                id_, epoch, last, owner, status, tagged = cast(
                    "tuple[int, int, int, int | None, int, int]", row
                )
                run = Known(id_, epoch, last, owner, STATUSES[status], bool(tagged))
                self._known[run_id] = run
        return run

    def _owner(self, owner: str) -> int:
        number = self._owners.get(owner)
        if number is None:
            self._db.execute("INSERT OR IGNORE INTO owners (id) VALUES (?)", (owner,))
            ask = "SELECT number FROM owners WHERE id = ?"
            number = self._owners[owner] = int(self._db.execute(ask, (owner,)).fetchone()[0])
        return number


def _lost(run_id: str, epoch: int, run: Known | None) -> RunLostError:
    if run is None:
        return RunLostError(f"run {run_id!r} is not in the store any more; somebody deleted it")
    return RunLostError(
        f"run {run_id!r} was taken over: it is in epoch {run.epoch}, and this was epoch {epoch}"
    )


def _misplaced(run_id: str, number: int, expected: int) -> CheckpointError:
    if number < expected:
        return RunLostError(
            f"run {run_id!r} has an event {number} already; somebody else carries it on"
        )
    return CheckpointError(
        f"event {number} of run {run_id!r} cannot be kept before event {expected}, which the store "
        "has not got: an earlier append failed; resume the run"
    )


@cache
def _several(one: str, many: int) -> str:
    """The statement *one*, for that many rows."""
    head, _, values = one.rpartition(" VALUES ")
    return f"{head} VALUES " + ", ".join([values] * many)
