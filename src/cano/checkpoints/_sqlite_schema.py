"""The tables of a file, how they came to be, and how connections to it are opened.

Rule 1: a script that was released is never changed; what comes later is a new one behind it.
Rule 2: `PRAGMA application_id` says that a file is ours, `PRAGMA user_version` how many of the
        scripts it has seen. All that are missing are run in one transaction.
Rule 3: nothing here needs more than SQLite 3.31.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cano.checkpoints.store import Status
from cano.errors import CheckpointError

STATUSES: Final = (
    Status.RUNNING,
    Status.WAITING,
    Status.IN_DOUBT,
    Status.FINISHED,
    Status.FAILED,
    Status.CANCELLED,
)
"""By the number that stands for them in the file; below 3 a run is open."""
NUMBERS: Final = {status: number for number, status in enumerate(STATUSES)}

_APPLICATION = 0x43414E4F  # "CANO"

_VERSION_1 = """
CREATE TABLE owners (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL DEFAULT '',
    pid INTEGER NOT NULL DEFAULT 0,
    started TEXT NOT NULL DEFAULT '',
    until REAL NOT NULL DEFAULT 0
);
CREATE INDEX owners_by_host ON owners (host, until);

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    workflow TEXT NOT NULL,
    version INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    tags TEXT,
    created REAL NOT NULL,
    status INTEGER NOT NULL DEFAULT 0,
    ended REAL,
    epoch INTEGER NOT NULL DEFAULT 1,
    owner INTEGER,
    wake REAL NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    claimed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX runs_listed ON runs (workflow, status, created, run_id);
CREATE INDEX runs_due ON runs (workflow, owner, wake) WHERE status < 3;
CREATE INDEX runs_ended ON runs (workflow, ended, run_id) WHERE ended IS NOT NULL;
CREATE INDEX runs_crashed ON runs (crashes) WHERE crashes > 0 AND status < 3;

CREATE TABLE tags (
    run INTEGER NOT NULL,
    tag TEXT NOT NULL,
    workflow TEXT NOT NULL,
    status INTEGER NOT NULL,
    created REAL NOT NULL,
    run_id TEXT NOT NULL,
    PRIMARY KEY (run, tag)
) WITHOUT ROWID;
CREATE INDEX tags_listed ON tags (tag, workflow, status, created, run_id);
CREATE TRIGGER tags_follow AFTER UPDATE OF status ON runs WHEN new.tags IS NOT NULL BEGIN
    UPDATE tags SET status = new.status WHERE run = new.id;
END;

CREATE TABLE events (
    run INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    owner INTEGER,
    time REAL NOT NULL,
    body BLOB NOT NULL,
    large TEXT
);
CREATE UNIQUE INDEX events_in_order ON events (run, sequence);

CREATE TABLE blobs (
    number INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    body BLOB NOT NULL
);
CREATE TABLE uses (
    run INTEGER NOT NULL,
    blob INTEGER NOT NULL,
    PRIMARY KEY (run, blob)
) WITHOUT ROWID;
CREATE INDEX uses_by_blob ON uses (blob);

CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    time REAL NOT NULL,
    key TEXT NOT NULL
);
CREATE UNIQUE INDEX messages_in_order ON messages (run, number);
CREATE UNIQUE INDEX messages_by_key ON messages (run, key) WHERE key <> '';

CREATE TABLE shapes (
    fingerprint TEXT PRIMARY KEY,
    shape BLOB NOT NULL
) WITHOUT ROWID;
"""

_VERSION_2 = """
CREATE TABLE notes (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
"""

# Each run paid for the question whether it had tags; now it is known of those that have.
_VERSION_3 = """
DROP TRIGGER tags_follow;
"""

MIGRATIONS: Final = (_VERSION_1, _VERSION_2, _VERSION_3)


def open_to_write(path: Path, synchronous: str, patience: float) -> sqlite3.Connection:
    """The connection that writes; call it with the lock held. Raises `CheckpointError`."""
    connection = _connect(path, "rwc", patience)
    try:
        _adopt(connection, path)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # we say when, under the lock
        connection.execute("PRAGMA cache_size = -16000")  # kB: the ends of all that grows
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path, patience: float) -> sqlite3.Connection:
    """A connection that cannot write, not even a checkpoint when it is closed."""
    connection = _connect(path, "ro", patience)
    connection.execute("PRAGMA query_only = 1")
    return connection


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """How many scripts the file has seen. Raises `CheckpointError` if we do not know them all."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise CheckpointError(
            f"{path} was written by a newer cano (schema {version}, and this one knows "
            f"{len(MIGRATIONS)}); update cano"
        )
    return version


def _connect(path: Path, mode: str, patience: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=patience,
        isolation_level=None,
        check_same_thread=False,  # one thread at a time, but not always the same
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA mmap_size = 0")
        connection.execute("PRAGMA trusted_schema = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def _adopt(connection: sqlite3.Connection, path: Path) -> None:
    """Make sure that the file is ours, in WAL mode, and has the newest schema."""
    if not _ours(connection):
        raise CheckpointError(
            f"{path} is a database of something else; give the store a file of its own"
        )
    check_version(connection, path)  # before anything is changed
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise CheckpointError(
            f"{path} cannot be used with a write-ahead log (it stays in mode {mode!r}); put it on "
            "a disk of this machine, not on a network file system"
        )
    if check_version(connection, path) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in MIGRATIONS[check_version(connection, path) :]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _ours(connection: sqlite3.Connection) -> bool:
    """Whether the file is a database of cano, or a new one."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application == _APPLICATION:
        return True
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return not application and not tables


def _statements(script: str) -> list[str]:
    """The statements of *script*; `executescript` would commit before each script."""
    found: list[str] = []
    text = ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            found.append(text.strip())
            text = ""
    return found
