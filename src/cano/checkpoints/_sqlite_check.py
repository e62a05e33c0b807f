"""A thorough look at a file: what in it is wrong, in plain sentences."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import cast

from cano.checkpoints._rows import Codec, Stored, unpack
from cano.checkpoints._sqlite_queries import blob
from cano.errors import CorruptHistoryError


def check(db: sqlite3.Connection, codec: Codec | None) -> list[str]:
    """See `CheckpointStore.check`. It reads everything there is."""
    problems = [f"the file is damaged: {text}" for text in _damage(db)]
    if not problems:
        problems += _gaps(db)
        problems += _unreadable(db, codec)
        problems += _strays(db)
    return problems


def _damage(db: sqlite3.Connection) -> Iterator[str]:
    try:
        for (text,) in db.execute("PRAGMA integrity_check"):
            if text != "ok":
                yield text
    except sqlite3.DatabaseError as error:  # too damaged to say more
        yield str(error)


def _gaps(db: sqlite3.Connection) -> Iterator[str]:
    """Runs without events, or whose events are not numbered from 1 without a gap."""
    counted = db.execute(
        "SELECT r.run_id, count(e.sequence), min(e.sequence), max(e.sequence) "
        "FROM runs r LEFT JOIN events e ON e.run = r.id GROUP BY r.id"
    )
    for run_id, count, first, last in counted:
        if not count:
            yield f"run {run_id!r} has no events"
        elif (first, last) != (1, count):
            yield f"run {run_id!r} has {count} events, but they are numbered {first} to {last}"


def _unreadable(db: sqlite3.Connection, codec: Codec | None) -> Iterator[str]:
    """Events that cannot be read, or whose large values are missing."""
    rows = db.execute(
        "SELECT r.run_id, e.sequence, e.body, e.large FROM events e JOIN runs r ON r.id = e.run "
        "ORDER BY e.run, e.sequence"
    )
    for run_id, *stored in rows:
        row = cast("Stored", stored)
        try:
            unpack(run_id, [row], row[0], lambda digest: blob(db, digest, codec), codec)
        except CorruptHistoryError as error:
            yield str(error)


def _strays(db: sqlite3.Connection) -> Iterator[str]:
    """What belongs to nothing."""
    for table in ("events", "messages", "tags", "uses"):
        ask = f"SELECT count(*) FROM {table} WHERE run NOT IN (SELECT id FROM runs)"  # noqa: S608
        if count := db.execute(ask).fetchone()[0]:
            yield f"{count} rows of {table!r} belong to no run"
    ask = "SELECT count(*) FROM blobs WHERE number NOT IN (SELECT blob FROM uses)"
    if count := db.execute(ask).fetchone()[0]:
        yield f"{count} large values belong to no run"
