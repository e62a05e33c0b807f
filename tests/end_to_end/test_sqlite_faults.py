"""SqliteCheckpoints on real files that are full, locked, read-only, truncated or damaged."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, RunQuery
from cano.errors import CheckpointError, CorruptHistoryError
from cano.events import Event, RunStarted, StateEntered

SCHEMAS = Path(__file__).parent / "schemas"


def started() -> Event:
    return RunStarted(sequence=1, state="A", time=1.0)


def entered(number: int) -> Event:
    return StateEntered(sequence=number, state="A", time=1.0)


async def begin(store: SqliteCheckpoints, name: str, events: int = 1) -> None:
    await store.create(NewRun(name, "flow", "me", 1.0), [started()])
    await asyncio.gather(*(store.append(name, 1, [entered(n)]) for n in range(2, events + 1)))


def make(path: Path, events: int = 20) -> None:
    """A file with the runs ``a`` and ``b``."""

    async def main() -> None:
        async with SqliteCheckpoints(path) as store:
            await begin(store, "a", events)
            await begin(store, "b", events)

    asyncio.run(main())


def alter(path: Path, sql: str) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(sql)
    db.close()


def in_a_child(code: str, *args: object) -> str:
    """Run *code* in a process of its own."""
    texts = [str(arg) for arg in args]
    done = subprocess.run(
        [sys.executable, "-c", code, *texts],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


FULL = """
import asyncio, resource, sys
from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun
from cano.errors import CheckpointError
from cano.events import RunStarted, StateEntered
import msgspec

async def main():
    store = SqliteCheckpoints(sys.argv[1])
    await store.create(NewRun("a", "flow", "me", 1.0), [RunStarted(sequence=1, state="A")])
    await store.create(NewRun("b", "flow", "me", 1.0), [RunStarted(sequence=1, state="A")])
    limit = 400_000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    kept = 1
    try:
        while kept < 5000:
            patch = {"f": msgspec.Raw(b'"%s"' % (b"x" * 3000))}
            await store.append("a", 1, [StateEntered(sequence=kept + 1, state="A", patch=patch)])
            kept += 1
    except CheckpointError as error:
        print(error)
    assert kept == len(await store.load("a")), "an event that was kept is gone"
    assert 1 == len(await store.load("b"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await store.append("a", 1, [StateEntered(sequence=kept + 1, state="A")])
    await store.append("b", 1, [StateEntered(sequence=2, state="A")])
    assert [] == await store.check()
    print(kept + 1)

asyncio.run(main())
"""


def test_disk_full(tmp_path: Path) -> None:
    """On a full disk an append fails clearly, nothing kept is lost, and writing works again after."""
    pytest.importorskip("resource")
    said = in_a_child(FULL, tmp_path / "x.db")

    assert "look for a full or failing disk, or a size limit" in said or "disk is full" in said

    async def main() -> int:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            assert [] == await store.check()
            return len(await store.load("a"))

    assert int(said.split()[-1]) == asyncio.run(main())


READ_ONLY = """
import asyncio, concurrent.futures.thread, os, sys
from cano.checkpoints import _sqlite_queries, _sqlite_writer
from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, RunQuery
from cano.errors import CheckpointError
from cano.events import RunStarted, StateEntered

# Go.
if os.geteuid() == 0:
    os.setuid(65534)  # somebody without rights

async def main():
    store = SqliteCheckpoints(sys.argv[1])
    for ask in (
        lambda: store.create(NewRun("c", "flow", "me", 1.0), [RunStarted(sequence=1)]),
        lambda: store.runs(RunQuery()),
    ):
        try:
            print(await ask())
        except CheckpointError as error:
            print("refused:", error)
    await store.close()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of another kind")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_read_only(what: str) -> None:
    """A file or a directory that may not be written is an error that says so."""
    with TemporaryDirectory() as name:
        home = Path(name)
        path, lock = home / "x.db", home / "x.db-lock"
        make(path)
        if what == "file":
            lock.chmod(0o666)
        else:
            lock.unlink()
        path.chmod(0o444 if what == "file" else 0o666)
        home.chmod(0o777 if what == "file" else 0o555)
        said = in_a_child(READ_ONLY, path)

        assert said.startswith("refused:"), said
        assert "look at the permissions of" in said.splitlines()[0]
        home.chmod(0o777)
        for left in home.iterdir():
            left.chmod(0o666)

        async def main() -> None:
            async with SqliteCheckpoints(path) as store:
                assert [] == await store.check()

        asyncio.run(main())


def test_locked_by_a_foreign_program(tmp_path: Path) -> None:
    """A lock of another program is waited for; if it stays, that is a clear error, and passes."""
    make(tmp_path / "x.db")

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db", busy_timeout=0.3) as store:
            foreign = sqlite3.connect(
                tmp_path / "x.db", isolation_level=None, check_same_thread=False
            )
            foreign.execute("BEGIN EXCLUSIVE")
            with pytest.raises(CheckpointError, match="another program has locked it; end that"):
                await store.append("a", 1, [entered(21)])
            assert 20 == len(await store.load("a"))

            asyncio.get_running_loop().call_later(0.1, foreign.execute, "ROLLBACK")
            await store.append("a", 1, [entered(21)])
            foreign.close()
            assert 21 == len(await store.load("a"))

    asyncio.run(main())


def test_a_truncated_log(tmp_path: Path) -> None:
    """Of a write-ahead log that was cut short, whole transactions remain, and the store goes on."""
    path = tmp_path / "x.db"
    make(path)
    code = READ_ONLY.partition("# Go.")[0] + (
        "async def main():\n"
        "    store = SqliteCheckpoints(sys.argv[1])\n"
        "    for n in range(21, 61):\n"
        "        await store.append('a', 1, [StateEntered(sequence=n, state='A')])\n"
        "    os._exit(0)\n"
        "asyncio.run(main())\n"
    )
    in_a_child(code, path)
    log = path.with_name("x.db-wal")
    size = len(log.read_bytes().rstrip(b"\0"))  # it is written ahead
    assert size > 100_000
    os.truncate(log, size * 2 // 3 + 100)

    async def main() -> None:
        async with SqliteCheckpoints(path) as store:
            count = len(await store.load("a"))
            assert 30 < count < 60
            assert 20 == len(await store.load("b"))
            await store.append("a", 1, [entered(count + 1)])
            assert [] == await store.check()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE events SET body = 'no' WHERE run = 1 AND sequence = 7", "event 7 of run 'a' cann"),
        ("UPDATE events SET body = body || ',' || body WHERE run = 1 AND sequence = 7", "event 7"),
        ("UPDATE events SET body = x'fe' WHERE run = 1 AND sequence = 7", "event 7 of run 'a'"),
        ("UPDATE events SET sequence = 99 WHERE run = 1 AND sequence = 7", "numbered 1 to 99"),
        ("DELETE FROM events WHERE run = 1 AND sequence = 7", "has 19 events, but they are number"),
        ('UPDATE events SET large = \'{"value":"ab"}\' WHERE run = 1 AND sequence = 7', "event 7"),
        ("UPDATE events SET large = 'x' WHERE run = 1 AND sequence = 7", "event 7 of run 'a'"),
    ],
)
def test_a_damaged_row(tmp_path: Path, damage: str, found: str) -> None:
    """A row that cannot be read fails the loading of its run alone, and `check` names it."""
    make(tmp_path / "x.db")
    alter(tmp_path / "x.db", damage)

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            with pytest.raises(CorruptHistoryError, match=r"event (7|8|99) of run 'a'"):
                await store.load("a")
            assert 20 == len(await store.load("b"))
            await store.append("b", 1, [entered(21)])
            assert 2 == len(await store.runs(RunQuery()))
            assert found in " ".join(await store.check())

    asyncio.run(main())


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DELETE FROM events WHERE run = 1", ["run 'a' has no events"]),
        ("DELETE FROM runs WHERE id = 1", ["20 rows of 'events' belong to no run"]),
        ("DELETE FROM uses", ["1 large values belong to no run"]),
        ("DELETE FROM blobs", ["event 21 of run 'b' cannot be read: a large value of it is miss"]),
        ("UPDATE blobs SET body = 'x'", ["event 21 of run 'b' cannot be read: a large value"]),
    ],
)
def test_what_check_finds(tmp_path: Path, damage: str, found: list[str]) -> None:
    """`check` names what belongs together and is not there, or is there and belongs to nothing."""
    make(tmp_path / "x.db")

    async def big() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            patch = {"big": msgspec.Raw(b'"' + b"x" * 40_000 + b'"')}
            await store.append("b", 1, [StateEntered(sequence=21, state="A", patch=patch)])

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            problems = await store.check()
            assert problems[0].startswith(found[0]), problems

    asyncio.run(big())
    alter(tmp_path / "x.db", damage)
    asyncio.run(main())


def test_a_damaged_file(tmp_path: Path) -> None:
    """A file with damaged pages is a clear error where they are read, and `check` sees it."""
    path = tmp_path / "x.db"
    make(path, 400)
    data = bytearray(path.read_bytes())
    page = next(at for at in range(0, len(data), 4096) if data[at : at + 4096].count(b"State") > 9)
    data[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(data)

    async def main() -> None:
        async with SqliteCheckpoints(path) as store:
            problems = [*await store.check()]
            assert any("damaged" in problem for problem in problems), problems

    asyncio.run(main())


@pytest.mark.parametrize("version", sorted(SCHEMAS.glob("*.sql")), ids=lambda path: path.stem)
def test_every_schema_opens(tmp_path: Path, version: Path) -> None:
    """A file of every schema that was ever released opens, with everything that was in it."""
    db = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    db.executescript(version.read_text())
    db.close()

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            assert [] == await store.check()
            done, parked = await store.runs(RunQuery(tag="golden"))
            assert ("done", "finished", 9.0) == (done.run_id, done.status, done.ended)
            assert ("parked", "waiting", "PAY") == (parked.run_id, parked.status, parked.state)
            events = await store.load("done")
            assert [1, 2, 3] == [event.sequence for event in events]
            assert 40_002 == len(bytes(events[1].patch["big"]))  # type: ignore[attr-defined]
            assert [b"true"] == [message.value for message in await store.inbox("parked")]
            assert b"{}" == await store.definition("f1")
            assert (b"1" if version.stem != "v1" else None) == await store.noted("k")
            claim = await store.claim("parked", "new", 99.0)
            assert (2, 3) == (claim.epoch, claim.sequence)

    asyncio.run(main())


def test_gaps_at_the_start_are_seen(tmp_path: Path) -> None:
    """A history without its first event is damaged, too."""
    make(tmp_path / "x.db")
    alter(tmp_path / "x.db", "DELETE FROM events WHERE run = 1 AND sequence = 1")

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            with pytest.raises(CorruptHistoryError, match="event 1 of run 'a'"):
                await store.load("a")
            assert 1 == len(await store.check())

    asyncio.run(main())
