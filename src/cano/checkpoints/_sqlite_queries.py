"""Questions to the file. Each is answered within one read transaction, by index.

Lists of runs are read newest first from one index, (workflow, status, created, run_id): one stream
for each workflow and status that is asked for, merged. So no combination of filters reads more
than it returns, and a run that is created or ends touches one index and not five.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from math import inf
from typing import Any, cast

import msgspec

from cano.checkpoints._rows import Codec, state_of, unpack, unpack_all, whole
from cano.checkpoints._sqlite_schema import NUMBERS, STATUSES
from cano.checkpoints.store import Due, Message, Owner, RunQuery, RunSummary
from cano.errors import RunNotFoundError
from cano.events import Event

_SUMMARY = """
    SELECT r.run_id, r.workflow, r.status, r.created, r.ended, r.version, r.fingerprint, r.tags,
        r.epoch, r.wake, r.crashes, r.claimed, o.id, o.until, e.sequence, e.body
    FROM runs r LEFT JOIN owners o ON o.number = r.owner
    LEFT JOIN events e
    ON e.run = r.id AND e.sequence = (SELECT max(sequence) FROM events WHERE run = r.id)
"""
_ROWS = """
    SELECT sequence, body, large FROM events
    WHERE run = (SELECT id FROM runs WHERE run_id = ?) AND sequence > ? ORDER BY sequence LIMIT ?
"""
_LARGE = """
    SELECT sequence, large FROM events
    WHERE run = (SELECT id FROM runs WHERE run_id = ?) AND sequence > ? AND sequence <= ?
    AND large IS NOT NULL
"""
_NO_EVENT_SINCE = "(SELECT max(sequence) FROM events WHERE run = r.id) <= r.claimed"


def load(
    db: sqlite3.Connection, run_id: str, after: int, limit: int | None, codec: Codec | None
) -> list[Event]:
    """See `CheckpointStore.load`."""

    def fetch(digest: str) -> bytes | None:
        return blob(db, digest, codec)

    asked = (run_id, after, -1 if limit is None else limit)
    found = _load_at_once(db, asked) if codec is None else None
    if found is None:
        return unpack(run_id, db.execute(_ROWS, asked).fetchall(), after + 1, fetch, codec)
    events, incomplete = found
    if incomplete:
        for number, large in db.execute(_LARGE, (run_id, after, after + len(events))):
            place: int = number - after - 1
            events[place] = whole(run_id, events[place], large, fetch)
    return events


def _load_at_once(
    db: sqlite3.Connection, asked: tuple[str, int, int]
) -> tuple[list[Event], int] | None:
    """All events in one row, which is three times as fast; None if anything is wrong.

    And how many of them still lack their large values.
    """
    ask = (
        "SELECT count(*), count(large), CAST(group_concat(body, ',') AS BLOB) "  # noqa: S608
        f"FROM ({_ROWS})"
    )
    try:
        count, incomplete, joined = db.execute(ask, asked).fetchone()
    except (sqlite3.DataError, sqlite3.OperationalError):  # too long for one row
        return None
    if not count:
        return [], 0
    events = unpack_all(joined, count, asked[1] + 1)
    return None if events is None else (events, incomplete)


def blob(db: sqlite3.Connection, digest: str, codec: Codec | None) -> bytes | None:
    """The large value of that hash, if it is there and can be read."""
    row = db.execute("SELECT body FROM blobs WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        return None
    try:
        return bytes(row[0] if codec is None else codec.decode(row[0]))
    except Exception:  # noqa: BLE001 -- a codec may raise anything; the hash will not fit either
        return None


def summary(db: sqlite3.Connection, run_id: str, codec: Codec | None) -> RunSummary:
    """See `CheckpointStore.summary`."""
    row = db.execute(_SUMMARY + "WHERE r.run_id = ?", (run_id,)).fetchone()
    if row is None:
        raise RunNotFoundError(f"there is no run {run_id!r} in the store; see `cano runs`")
    return _summary(row, codec)


def runs(db: sqlite3.Connection, query: RunQuery, codec: Codec | None) -> list[RunSummary]:
    """See `CheckpointStore.runs`."""
    found = _crashed(db, query) if (query.stuck or 0) > 0 else _listed(db, query)
    rows = (
        db.execute(_SUMMARY + "WHERE r.run_id = ?", (run_id,)).fetchone()
        for _, run_id in islice(found, max(query.limit, 0))
    )
    return [_summary(row, codec) for row in rows]


def due(db: sqlite3.Connection, workflow: str, now: float, limit: int, crashes: int) -> Due:
    """See `CheckpointStore.due`."""
    fit = f"(r.crashes < ? OR NOT {_NO_EVENT_SINCE})"
    held = db.execute(
        "SELECT number, until FROM owners WHERE number IN (SELECT DISTINCT owner FROM runs "
        "WHERE workflow = ? AND status < 3 AND owner IS NOT NULL)",
        (workflow,),
    ).fetchall()
    waits = (  # what is put together in these texts is ours alone
        "SELECT r.wake, r.run_id FROM runs r INDEXED BY runs_due "  # noqa: S608
        f"WHERE r.workflow = ? AND r.status < 3 AND r.owner IS NULL AND r.wake {{}} ? AND {fit} "
        "ORDER BY r.wake LIMIT ?"
    )
    ready = db.execute(waits.format("<="), (workflow, now, crashes, limit)).fetchall()
    later = [wake for wake, _ in db.execute(waits.format(">"), (workflow, now, crashes, 1))]
    for owner, until in held:
        rows = db.execute(
            "SELECT r.run_id FROM runs r INDEXED BY runs_due "  # noqa: S608
            f"WHERE r.workflow = ? AND r.status < 3 AND r.owner = ? AND {fit} LIMIT ?",
            (workflow, owner, crashes, limit if until <= now else 1),
        ).fetchall()
        if until <= now:
            ready += [(until, run_id) for (run_id,) in rows]
        elif rows:
            later.append(until)
    return Due(tuple(run_id for _, run_id in sorted(ready)[:limit]), min(later, default=inf))


def ended(
    db: sqlite3.Connection, workflow: str | None, before: float, keep: int, limit: int
) -> list[str]:
    """See `CheckpointStore.ended`."""
    names = [workflow] if workflow is not None else [name for name, _ in _kinds(db)]
    ask = (
        "SELECT ended, run_id FROM runs INDEXED BY runs_ended "
        "WHERE workflow = ? AND ended IS NOT NULL ORDER BY ended {0}, run_id {0}"
    )
    names = list(dict.fromkeys(names))

    def stream(order: str) -> Iterator[tuple[float, str]]:
        cursors = (db.execute(ask.format(order), (name,)) for name in names)
        return merge(*cursors, reverse=order == "DESC")

    kept = next(islice(stream("DESC"), keep, None), None) if keep >= 0 else None
    found: list[str] = []
    for end, run_id in stream("ASC"):
        if len(found) >= limit or not (end < before or (kept and (end, run_id) <= kept)):
            break
        found.append(run_id)
    return found


def owners(db: sqlite3.Connection, host: str, now: float) -> list[Owner]:
    """See `CheckpointStore.owners`."""
    ask = "SELECT id, host, pid, started FROM owners WHERE host = ? AND until > ?"
    return [Owner(*row) for row in db.execute(ask, (host, now))]


def inbox(db: sqlite3.Connection, run_id: str, after: int, codec: Codec | None) -> list[Message]:
    """See `CheckpointStore.inbox`."""
    ask = (
        "SELECT number, name, value, time, key FROM messages "
        "WHERE run = (SELECT id FROM runs WHERE run_id = ?) AND number > ? ORDER BY number"
    )
    found = [Message(*row) for row in db.execute(ask, (run_id, after))]
    if codec is None:
        return found
    return [msgspec.structs.replace(one, value=codec.decode(one.value)) for one in found]


def definition(db: sqlite3.Connection, fingerprint: str) -> bytes | None:
    """See `CheckpointStore.definition`."""
    ask = "SELECT shape FROM shapes WHERE fingerprint = ?"
    row = db.execute(ask, (fingerprint,)).fetchone()
    return row[0] if row else None


def noted(db: sqlite3.Connection, key: str) -> bytes | None:
    """See `CheckpointStore.noted`."""
    row = db.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


# Lists: (created, run_id), newest first.


def _listed(db: sqlite3.Connection, query: RunQuery) -> Iterator[tuple[float, str]]:
    """Merge the streams of every workflow and status that is asked for."""
    last = _last(db, query)
    if last is None:
        return iter(())
    table, fixed = ("runs", "") if query.tag is None else ("tags", "tag = ? AND ")
    ask = (
        f"SELECT created, run_id FROM {table} INDEXED BY {table}_listed "  # noqa: S608
        f"WHERE {fixed}workflow = ? AND status = ? "
        "AND created >= ? AND (created, run_id) < (?, ?) ORDER BY created DESC, run_id DESC"
    )
    since = -inf if query.since is None else query.since
    tag = () if query.tag is None else (query.tag,)
    streams = (
        db.execute(ask, (*tag, workflow, status, since, *last))
        for workflow, status in _asked_for(db, query)
    )
    return merge(*streams, reverse=True)


def _last(db: sqlite3.Connection, query: RunQuery) -> tuple[float, str] | None:
    """What all runs to be listed are behind; None if there can be none."""
    bound = (inf if query.before is None else query.before, "")
    if query.after is None:
        return bound if query.before is not None else (inf, "\U0010ffff")
    ask = "SELECT created, run_id FROM runs WHERE run_id = ?"
    row = db.execute(ask, (query.after,)).fetchone()
    return None if row is None else min(bound, row)


def _asked_for(db: sqlite3.Connection, query: RunQuery) -> Iterable[tuple[str, int]]:
    statuses = query.statuses or STATUSES
    wanted = {NUMBERS[status] for status in statuses}
    if query.stuck is not None:
        wanted = {number for number in wanted if not STATUSES[number].over}
    if query.workflow is not None:
        return [(query.workflow, number) for number in sorted(wanted)]
    return [(name, number) for name, number in _kinds(db) if number in wanted]


def _kinds(db: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    """Which workflows and statuses there are; skips from one to the next."""
    same = "WHERE workflow = ? AND status > ? ORDER BY status LIMIT 1"
    other = "WHERE workflow > ? ORDER BY workflow, status LIMIT 1"
    ask = "SELECT workflow, status FROM runs INDEXED BY runs_listed "
    last = ("", -1)
    while True:
        row = (
            db.execute(ask + same, last).fetchone() or db.execute(ask + other, last[:1]).fetchone()
        )
        if row is None:
            return
        last = cast("tuple[str, int]", row)
        yield last


def _crashed(db: sqlite3.Connection, query: RunQuery) -> Iterator[tuple[float, str]]:
    """Those that are stuck are few: read them all."""
    last = _last(db, query)
    if last is None:
        return iter(())
    rows = db.execute(
        "SELECT r.created, r.run_id, r.workflow, r.status, r.id "  # noqa: S608
        "FROM runs r INDEXED BY runs_crashed "
        f"WHERE r.crashes > 0 AND r.status < 3 AND r.crashes >= ? AND {_NO_EVENT_SINCE}",
        (query.stuck,),
    )
    kinds = {NUMBERS[status] for status in query.statuses or STATUSES}
    tagged = "SELECT 1 FROM tags WHERE run = ? AND tag = ?"
    found = [
        (created, run_id)
        for created, run_id, workflow, status, number in rows
        if (created, run_id) < last
        and (query.since is None or created >= query.since)
        and query.workflow in (None, workflow)
        and status in kinds
        and (query.tag is None or db.execute(tagged, (number, query.tag)).fetchone())
    ]
    return iter(sorted(found, reverse=True))


def _summary(row: Sequence[Any], codec: Codec | None) -> RunSummary:
    (run_id, workflow, status, created, ended, version, fingerprint, tags) = row[:8]
    (epoch, wake, crashes, claimed, owner, until, sequence, body) = row[8:]
    number: int = status
    return RunSummary(
        run_id=run_id,
        workflow=workflow,
        status=STATUSES[number],
        state="" if body is None else state_of(body, codec),
        sequence=sequence or 0,
        created=created,
        ended=ended,
        version=version,
        fingerprint=fingerprint,
        tags=msgspec.json.decode(tags, type=tuple[str, ...]) if tags else (),
        epoch=epoch,
        owner=owner or "",
        lease=until or 0.0,
        wake=wake,
        crashes=crashes if (sequence or 0) <= claimed else 0,
    )
