"""SqliteCheckpoints: one writer, shared transactions, and what happens to a change that fails."""

import asyncio
import sqlite3
import threading
import time
import zlib
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import msgspec
import pytest

from cano.checkpoints import _rows, _sqlite_appends, _sqlite_readers, _sqlite_writer
from cano.checkpoints._sqlite_lock import FileLock
from cano.checkpoints._sqlite_writer import AHEAD, FRAME, Writer
from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, Owner, RunQuery, Status
from cano.errors import (
    CheckpointError,
    CorruptHistoryError,
    DefinitionError,
    RunExistsError,
    RunLostError,
)
from cano.events import CursorSaved, Event, RunFinished, RunStarted, StateEntered, TaskCompleted
from cano.testing import run
from cano.testing.contracts import check_checkpoint_store

BIG = msgspec.Raw(b'"' + b"x" * 50_000 + b'"')


def new(name: str, time: float = 1.0) -> NewRun:
    return NewRun(name, "flow", "me", time)


def started() -> Event:
    return RunStarted(sequence=1, state="A", time=1.0)


def entered(number: int) -> Event:
    return StateEntered(sequence=number, state="A", time=float(number))


async def begun(store: SqliteCheckpoints, name: str = "r") -> None:
    await store.create(new(name), [started()])


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as db:
        found = db.execute(sql).fetchall()
    db.close()
    return found


@pytest.mark.parametrize("runner", [asyncio.run, run])
def test_contract(tmp_path: Path, runner: object) -> None:
    """The store keeps every rule of the contract, in real and in virtual time."""
    numbers = count()
    make = lambda: SqliteCheckpoints(tmp_path / f"{next(numbers)}.db")  # noqa: E731

    runner(check_checkpoint_store(make, persistent=True))  # type: ignore[operator]


def test_nothing_happens_before_use(tmp_path: Path) -> None:
    """Making a store touches no file, and closing one that was not used makes none."""
    store = SqliteCheckpoints(tmp_path / "no" / "x.db", synchronous="normal")
    asyncio.run(store.close())

    assert [] == list(tmp_path.iterdir())
    assert f"SqliteCheckpoints('{tmp_path}/no/x.db', synchronous='normal')" == repr(store)


def test_settings_are_checked(tmp_path: Path) -> None:
    """A synchronous level that does not exist is refused at once."""
    with pytest.raises(DefinitionError, match='"full" or "normal"'):
        SqliteCheckpoints(tmp_path / "x.db", synchronous="off")  # type: ignore[arg-type]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """A directory that is not there is an error that says so, and is not made."""

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "no" / "x.db") as store:
            await begun(store)

    with pytest.raises(CheckpointError, match="no is no directory; create it"):
        asyncio.run(main())
    assert [] == list(tmp_path.iterdir())


def test_closing_leaves_one_file_and_a_lock(tmp_path: Path) -> None:
    """Closing folds the write-ahead log into the file; using the store again reopens it."""

    async def main() -> None:
        store = SqliteCheckpoints(tmp_path / "x.db")
        await begun(store)
        await store.load("r")
        await store.close()

        assert ["x.db", "x.db-lock"] == sorted(path.name for path in tmp_path.iterdir())
        await store.append("r", 1, [entered(2)])
        assert 2 == len(await store.load("r"))
        await store.close()

    asyncio.run(main())
    threads = [thread for thread in threading.enumerate() if "x.db" in thread.name]
    for thread in threads:
        thread.join(5.0)
    assert [] == [thread for thread in threads if thread.is_alive()]


def test_one_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    """Of changes that share a transaction, those that cannot be made fail, and the others are kept."""

    async def main() -> list[object]:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            await begun(store, "good")
            asked = [
                store.append("good", 1, [entered(2)]),
                store.create(new("good"), [started()]),
                store.append("good", 2, [entered(3)]),
                store.append("good", 1, [entered(2)]),
                store.append("good", 1, [entered(4)]),
                store.create(new("bad\ud800"), [started()]),
                store.append("no", 1, [entered(2)]),
                store.create(new("other"), [started()]),
                store.append("good", 1, [entered(3)]),
            ]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert 3 == len(await store.load("good"))
            assert 1 == len(await store.load("other"))
            assert [] == await store.check()
            return answers

    kinds = [type(answer) for answer in asyncio.run(main())]
    lost, none = RunLostError, type(None)
    assert [
        none, RunExistsError, lost, lost, CheckpointError, CheckpointError, lost, none, none,
    ] == kinds  # fmt: skip


def test_no_gaps(tmp_path: Path) -> None:
    """After an append that failed, a later one of the same run is refused: there would be a hole."""

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            await begun(store)
            bad = store.append("r", 1, [StateEntered(sequence=2, state="half \ud800")])
            after = store.append("r", 1, [entered(3)])

            with pytest.raises(CheckpointError, match="cannot be written down"):
                await bad
            with pytest.raises(CheckpointError, match="an earlier append failed"):
                await after
            assert 1 == len(await store.load("r"))

    asyncio.run(main())


def test_waiting_cannot_be_cancelled(tmp_path: Path) -> None:
    """Whoever waits for an append learns of a cancellation when the append is done."""

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            await begun(store)
            future = store.append("r", 1, [entered(2)])
            assert not future.cancel()

            async def wait() -> None:
                await future

            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert future.done()
            assert 2 == len(await store.load("r"))

    asyncio.run(main())


def test_virtual_time_stands_still(tmp_path: Path) -> None:
    """While a change is on its way to the disk, a loop in virtual time does not leap ahead."""

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            loop = asyncio.get_running_loop()
            timer = asyncio.create_task(asyncio.sleep(3600))
            await begun(store)
            await asyncio.gather(*(store.append("r", 1, [entered(n)]) for n in range(2, 50)))
            await store.runs(RunQuery())
            assert 0.0 == loop.time()
            await timer
            assert 3600.0 == loop.time()

    run(main())


def test_two_loops_share_a_store(tmp_path: Path) -> None:
    """One store serves several event loops, each answered on its own."""
    store = SqliteCheckpoints(tmp_path / "x.db")

    async def work(name: str) -> int:
        await begun(store, name)
        await asyncio.gather(*(store.append(name, 1, [entered(n)]) for n in range(2, 102)))
        return len(await store.load(name))

    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda name=name: counts.append(asyncio.run(work(name))))
        for name in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(store.close())

    assert [101, 101, 101] == counts


def test_a_loop_that_was_closed_harms_nobody(tmp_path: Path) -> None:
    """Answers and news for a loop that is gone are dropped."""
    store = SqliteCheckpoints(tmp_path / "x.db")

    async def leave() -> None:
        store.listen(lambda _: None)
        store.create(new("r"), [started()])

    async def look() -> int:
        while not await store.load("r"):
            await asyncio.sleep(0.01)
        await store.append("r", 1, [RunFinished(sequence=2, time=2.0)], Status.FINISHED)
        await store.close()
        return len(store._writer._listeners)  # type: ignore[union-attr]

    asyncio.run(leave())
    assert 0 == asyncio.run(look())


def test_more_runs_than_are_kept_in_mind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of runs is bounded, and looked up again when it was forgotten."""
    monkeypatch.setattr(_sqlite_appends, "MOST_KNOWN", 3)

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            for n in range(10):
                await begun(store, str(n))
            for n in range(10):
                await store.append(str(n), 1, [entered(2)])
            assert len(store._writer._changes._known) <= 4  # type: ignore[union-attr]
            assert [2] * 10 == [len(await store.load(str(n))) for n in range(10)]

    asyncio.run(main())


def test_large_values_are_kept_once(tmp_path: Path) -> None:
    """A value of 32 kB or more is written once, however often it occurs, and goes with its last run."""

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            for name in "ab":
                await begun(store, name)
                for n in range(2, 102):
                    patch = {"big": BIG, "n": msgspec.Raw(str(n).encode())}
                    await store.append(name, 1, [StateEntered(sequence=n, patch=patch)])
                done = TaskCompleted(sequence=102, value=BIG, patch={"big": BIG}, time=3.0)
                await store.append(name, 1, [done], Status.FAILED)
            found = await store.load("a")
            assert isinstance(found[5], StateEntered)
            assert {"big": BIG, "n": msgspec.Raw(b"6")} == found[5].patch
            assert done == found[-1]
            assert [] == await store.check()
            await store.delete(["a"])
            assert done == (await store.load("b"))[-1]
            await store.delete(["b"])

    async def size() -> None:
        async with SqliteCheckpoints(tmp_path / "y.db") as store:
            await begun(store)
            for n in range(2, 202):
                await store.append("r", 1, [StateEntered(sequence=n, patch={"big": BIG})])

    asyncio.run(main())
    assert [(0,)] == rows(tmp_path / "x.db", "SELECT count(*) FROM blobs")
    asyncio.run(size())
    assert 200_000 > (tmp_path / "y.db").stat().st_size


@pytest.mark.parametrize(
    "text", [b'{"patch":{"f":"%s"},"value":"%s"}', b'["%s"]', b'"%s"', b'{"$large":"%s"}']
)
def test_users_json_is_never_taken_for_ours(tmp_path: Path, text: bytes) -> None:
    """Values that look like what a store might write come back as they were."""
    digest = _rows._hash(bytes(BIG)).encode()
    value = msgspec.Raw(text.replace(b"%s", digest))

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            await begun(store)
            events: Sequence[Event] = [
                StateEntered(sequence=2, patch={"big": BIG, "odd": value}),
                CursorSaved(sequence=3, value=value, patch={"large": value}),
                TaskCompleted(sequence=4, value=BIG, patch={"value": value, "patch": BIG}),
            ]
            await store.append("r", 1, events)
            assert list(events) == (await store.load("r"))[1:]

    asyncio.run(main())


def test_a_value_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value beyond the limit is refused with its name, and the run may go on without it."""
    monkeypatch.setattr(_rows, "LIMIT", 40_000)

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            await begun(store)
            events = [entered(2), StateEntered(sequence=3, state="B", patch={"film": BIG})]
            with pytest.raises(CheckpointError, match="'film' of StateEntered in state 'B' has"):
                await store.append("r", 1, events)
            await store.append("r", 1, [entered(2)])
            assert [] == await store.check()

    asyncio.run(main())


class Packer:
    """Compresses, and marks what it wrote."""

    def encode(self, plain: bytes, /) -> bytes:
        return b"packed" + zlib.compress(plain)

    def decode(self, stored: bytes, /) -> bytes:
        assert stored.startswith(b"packed")
        return zlib.decompress(stored[6:])


def test_codec(tmp_path: Path) -> None:
    """Bodies, large values and messages go through the codec; what it cannot read is corrupt."""
    path = tmp_path / "x.db"

    async def main() -> None:
        async with SqliteCheckpoints(path, codec=Packer()) as store:
            await begun(store)
            await store.append("r", 1, [StateEntered(sequence=2, state="B", patch={"big": BIG})])
            await store.send("r", "go", b'"now"', 2.0)
            assert BIG == (await store.load("r"))[1].patch["big"]  # type: ignore[attr-defined]
            assert "B" == (await store.summary("r")).state
            assert [b'"now"'] == [message.value for message in await store.inbox("r")]
            assert 3 == (await store.claim("r", "you", 9.0)).sequence
            assert [] == await store.check()

    async def without() -> None:
        async with SqliteCheckpoints(path) as store:
            with pytest.raises(CorruptHistoryError, match="event 1 of run 'r' cannot be read"):
                await store.load("r")
            assert "" == (await store.summary("r")).state

    asyncio.run(main())
    for sql in ("SELECT body FROM events", "SELECT body FROM blobs", "SELECT value FROM messages"):
        assert all(bytes(row[0]).startswith(b"packed") for row in rows(path, sql))  # type: ignore[call-overload]
    asyncio.run(without())


def test_the_log_is_folded_in_as_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write-ahead log does not grow with the number of events."""
    monkeypatch.setattr(_sqlite_writer, "CHECKPOINT_PAGES", 100)

    async def main() -> int:
        async with SqliteCheckpoints(tmp_path / "x.db", synchronous="normal") as store:
            await begun(store)
            for n in range(2, 1500):
                await store.append("r", 1, [entered(n)])
            return (tmp_path / "x.db-wal").stat().st_size

    assert 1_000_000 > asyncio.run(main())


def test_levels(tmp_path: Path) -> None:
    """Both levels of synchronous reach the connection that writes."""

    async def level(name: str) -> int:
        async with SqliteCheckpoints(tmp_path / f"{name}.db", synchronous=name) as store:  # type: ignore[arg-type]
            await begun(store)
            db = store._writer._db  # type: ignore[union-attr]
            assert db is not None
            return int(db.execute("PRAGMA synchronous").fetchone()[0])

    assert 2 == asyncio.run(level("full"))
    assert 1 == asyncio.run(level("normal"))


def test_leases_of_others_hold(tmp_path: Path) -> None:
    """Two stores on one file see each other's owners, runs and epochs at once."""

    async def main() -> None:
        a, b = (SqliteCheckpoints(tmp_path / "x.db") for _ in range(2))
        async with a, b:
            await a.renew(Owner("me", "h", 1), 0.0, 10.0)
            await begun(a)
            await a.append("r", 1, [entered(2)])
            assert ["me"] == [owner.id for owner in await b.owners("h", 5.0)]
            assert 3 == (await b.claim("r", "you", 10.0)).sequence
            with pytest.raises(RunLostError, match="is in epoch 2, and this was epoch 1"):
                await a.append("r", 1, [entered(3)])
            await b.append("r", 2, [entered(4)])
            assert 4 == len(await a.load("r"))

    asyncio.run(main())


def test_a_long_event_without_large_values(tmp_path: Path) -> None:
    """An event of many small values is kept whole, however long it is."""

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            await begun(store)
            patch = {f"field {n}": msgspec.Raw(b'"%s"' % (b"x" * 100)) for n in range(500)}
            event = StateEntered(sequence=2, state="A", patch=patch)
            await store.append("r", 1, [event])
            assert event == (await store.load("r"))[1]

    asyncio.run(main())
    assert [(0,)] == rows(tmp_path / "x.db", "SELECT count(*) FROM blobs")


def test_what_cannot_be_written_down_is_told_to_who_asked(tmp_path: Path) -> None:
    """An event that has no JSON fails the future, and leaves nothing behind."""

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            future = store.create(new("r"), [RunStarted(sequence=1, state="half \ud800")])
            with pytest.raises(CheckpointError, match="cannot be written down"):
                await future
            assert [] == list(await store.runs(RunQuery()))

    asyncio.run(main())


def test_pages_behind_an_unknown_run_are_empty(tmp_path: Path) -> None:
    """A list that is to go on behind a run that is gone has nothing more to show."""

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            await begun(store)
            assert [] == list(await store.runs(RunQuery(after="gone")))
            assert [] == list(await store.runs(RunQuery(after="gone", stuck=1)))

    asyncio.run(main())


def test_a_codec_that_fails(tmp_path: Path) -> None:
    """An event that the codec cannot encode fails alone, and a value it cannot decode is corrupt."""

    class Moody(Packer):
        def encode(self, plain: bytes, /) -> bytes:
            if b"never" in plain:
                raise ValueError("not this one")
            return super().encode(plain)

        def decode(self, stored: bytes, /) -> bytes:
            plain = super().decode(stored)
            if len(plain) < 10_000:
                return plain
            raise ValueError("forgotten")

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db", codec=Moody()) as store:
            await begun(store, "a")
            await begun(store, "b")
            bad = store.append("a", 1, [StateEntered(sequence=2, state="never")])
            good = store.append("b", 1, [StateEntered(sequence=2, patch={"big": BIG})])
            with pytest.raises(CheckpointError, match="not this one"):
                await bad
            await good
            with pytest.raises(CorruptHistoryError, match="event 2 of run 'b'"):
                await store.load("b")

    asyncio.run(main())


def test_a_lock_that_stays(tmp_path: Path) -> None:
    """While another process holds the lock, nothing is written; afterwards all goes on."""

    async def main() -> None:
        store = SqliteCheckpoints(tmp_path / "x.db", busy_timeout=0.1)
        await begun(store)
        other = FileLock(tmp_path / "x.db-lock", 0.1)
        with other:
            with pytest.raises(CheckpointError, match="was held by process"):
                await store.append("r", 1, [entered(2)])
            with pytest.raises(CheckpointError, match="was held by process"):
                await store.close()
        await store.append("r", 1, [entered(2)])
        await store.close()
        other.close()

    asyncio.run(main())


def test_a_connection_that_broke_is_replaced(tmp_path: Path) -> None:
    """After an error that may be the connection's own, the next change has another one."""

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            await begun(store)
            writer = store._writer
            assert writer is not None
            db = writer._db
            assert db is not None
            db.execute("PRAGMA query_only = 1")  # every change is now "readonly"
            with pytest.raises(CheckpointError, match="it may not be written"):
                await store.append("r", 1, [entered(2)])
            await store.append("r", 1, [entered(2)])
            assert db is not writer._db

    asyncio.run(main())


def test_the_log_is_written_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of a lone run seldom grows, has a bound, and holds all that was acknowledged."""
    path, limit = tmp_path / "runs.db", 600
    monkeypatch.setattr(_sqlite_writer, "CHECKPOINT_PAGES", limit)
    monkeypatch.setattr(Writer, "_checkpoint", lambda _: None)

    async def main() -> list[int]:
        store, sizes = SqliteCheckpoints(path), list[int]()
        events = [started()]
        await store.create(new("run"), events)
        for n in range(2, 300):
            events.append(StateEntered(sequence=n, state="A" * 200, time=1.0))
            await store.append("run", 1, events[-1:])
            sizes.append(path.with_name("runs.db-wal").stat().st_size)
        for name in ("runs.db", "runs.db-wal"):  # as a crash would leave them
            (tmp_path / f"left-{name}").write_bytes((tmp_path / name).read_bytes())
        async with SqliteCheckpoints(tmp_path / "left-runs.db") as left:
            assert events == await left.load("run")
            assert not await left.check()
        await store.close()
        return sizes

    sizes = asyncio.run(main())
    assert len({size for size in sizes[20:] if size < limit * FRAME}) < 6
    assert limit * FRAME <= max(sizes) < (limit + 2 * AHEAD) * FRAME


def test_a_store_that_is_opened_again_writes_ahead_again(tmp_path: Path) -> None:
    """`close` empties the log; what comes later begins a new one, which seldom grows either."""

    async def main() -> None:
        store = SqliteCheckpoints(tmp_path / "runs.db")
        for name in ("one", "two"):
            sizes: list[int] = []
            await begun(store, name)
            for n in range(2, 120):
                await store.append(name, 1, [entered(n)])
                sizes.append((tmp_path / "runs.db-wal").stat().st_size)
            assert len(set(sizes[20:])) < 6
            await store.close()

    asyncio.run(main())


def test_loops_of_many_threads_share_one_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes first, there is one thread that writes, and `close` ends it."""

    class Slow(_sqlite_readers.Readers):
        def __init__(self, path: Path, patience: float) -> None:
            time.sleep(0.02)  # others come meanwhile
            super().__init__(path, patience)

    monkeypatch.setattr(_sqlite_readers, "Readers", Slow)
    store, together = SqliteCheckpoints(tmp_path / "shared.db"), threading.Barrier(8)

    async def first() -> None:
        together.wait()
        await store.define("shape", b"{}")

    def writers() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "cano writes shared.db"]

    threads = [threading.Thread(target=lambda: asyncio.run(first())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (writer,) = writers()
    asyncio.run(store.close())
    writer.join(10)
    assert not writer.is_alive()
