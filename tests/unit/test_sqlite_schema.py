"""Which files are opened, and how they come to the newest schema."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from cano.checkpoints import _sqlite_schema as schema
from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, RunQuery, Status
from cano.errors import CheckpointError
from cano.events import RunFinished, RunStarted


async def opened(path: Path) -> None:
    async with SqliteCheckpoints(path) as store:
        await store.runs(RunQuery())


def write(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


def read(path: Path, sql: str) -> object:
    db = sqlite3.connect(path)
    row = db.execute(sql).fetchone()
    db.close()
    return row[0]


def test_a_new_file_has_the_newest_schema(tmp_path: Path) -> None:
    """An empty file is a new store; it is marked as ours, and uses a write-ahead log."""
    path = tmp_path / "odd name ?#%41.db"
    path.touch()
    asyncio.run(opened(path))

    assert len(schema.MIGRATIONS) == read(path, "PRAGMA user_version")
    assert 0x43414E4F == read(path, "PRAGMA application_id")
    assert "wal" == read(path, "PRAGMA journal_mode")


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    """A file of a newer cano is not touched."""
    path = tmp_path / "x.db"
    asyncio.run(opened(path))
    write(path, "PRAGMA user_version = 99")

    with pytest.raises(CheckpointError, match=r"newer cano \(schema 99, and this one knows"):
        asyncio.run(opened(path))
    assert 99 == read(path, "PRAGMA user_version")


def test_a_file_that_becomes_newer_is_refused(tmp_path: Path) -> None:
    """A store notices that another process has brought its file to a newer schema."""
    path = tmp_path / "x.db"

    async def main() -> None:
        async with SqliteCheckpoints(path) as store:
            await store.define("a", b"")
            write(path, "PRAGMA user_version = 99")
            with pytest.raises(CheckpointError, match="newer cano"):
                await store.define("b", b"")

    asyncio.run(main())


@pytest.mark.parametrize("mark", ["CREATE TABLE t (x)", "PRAGMA application_id = 7"])
def test_another_database_is_refused(tmp_path: Path, mark: str) -> None:
    """A database of something else is refused, and left as it was."""
    path = tmp_path / "x.db"
    write(path, mark)
    before = path.read_bytes()

    with pytest.raises(CheckpointError, match="is a database of something else"):
        asyncio.run(opened(path))
    assert before == path.read_bytes()


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """A path that is a directory is named as such, and nothing is made beside it."""
    path = tmp_path / "runs"
    path.mkdir()

    with pytest.raises(CheckpointError, match=r"runs is a directory; give the store a file in it"):
        asyncio.run(opened(path))
    assert [path] == list(tmp_path.iterdir())


def test_no_database_is_refused(tmp_path: Path) -> None:
    """A file that is no database is refused, and left as it was."""
    path = tmp_path / "x.db"
    path.write_bytes(b"no database, " * 1000)

    with pytest.raises(CheckpointError, match="it is not a database; give the store a file"):
        asyncio.run(opened(path))
    assert b"no database, " * 1000 == path.read_bytes()


def test_all_missing_scripts_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts that are missing are run in one transaction: one that fails undoes the others."""
    path = tmp_path / "x.db"
    asyncio.run(opened(path))
    ours = schema.MIGRATIONS
    good, bad = "CREATE TABLE more (x);\nCREATE INDEX m ON more (x);", "CREATE TABLE runs (x);"

    monkeypatch.setattr(schema, "MIGRATIONS", (*ours, good, bad))
    with pytest.raises(CheckpointError, match="table runs already exists"):
        asyncio.run(opened(path))
    assert len(ours) == read(path, "PRAGMA user_version")
    assert 0 == read(path, "SELECT count(*) FROM sqlite_master WHERE name = 'more'")

    monkeypatch.setattr(schema, "MIGRATIONS", (*ours, good))
    asyncio.run(opened(path))
    assert len(ours) + 1 == read(path, "PRAGMA user_version")
    assert 2 == read(path, "SELECT count(*) FROM sqlite_master WHERE tbl_name = 'more'")


@pytest.mark.parametrize("scripts", range(1, len(schema.MIGRATIONS)))
def test_older_files_are_carried_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: int
) -> None:
    """A file of any schema there ever was opens, and its runs go on and are found."""
    path, ours = tmp_path / "x.db", schema.MIGRATIONS

    async def old() -> None:
        async with SqliteCheckpoints(path) as store:
            new = NewRun("run", "flow", "me", 1.0, tags=("vip",))
            await store.create(new, [RunStarted(sequence=1, state="A", time=1.0)])
            await store.release("run", 1, Status.WAITING, 0.0)

    async def now() -> list[str]:
        async with SqliteCheckpoints(path) as store:
            claim = await store.claim("run", "you", 2.0)
            end = RunFinished(sequence=claim.sequence + 1, state="Z", time=3.0)
            await store.append("run", claim.epoch, [end], Status.FINISHED)
            found = await store.runs(RunQuery(tag="vip", statuses=(Status.FINISHED,)))
            return [f"{run.run_id} after {run.sequence} events" for run in found]

    monkeypatch.setattr(schema, "MIGRATIONS", ours[:scripts])
    asyncio.run(old())
    assert scripts == read(path, "PRAGMA user_version")

    monkeypatch.setattr(schema, "MIGRATIONS", ours)
    assert ["run after 3 events"] == asyncio.run(now())
    assert len(ours) == read(path, "PRAGMA user_version")
