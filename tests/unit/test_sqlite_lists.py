"""Lists of runs are answered by index, whatever is asked for."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from itertools import product
from math import inf
from pathlib import Path

import pytest

from cano.checkpoints import _sqlite_queries as queries
from cano.checkpoints.sqlite import SqliteCheckpoints
from cano.checkpoints.store import NewRun, Owner, RunQuery, RunSummary, Status
from cano.events import RunFailed, RunFinished, RunStarted, StateEntered

STATUSES = (Status.RUNNING, Status.FINISHED, Status.FAILED)


async def fill(store: SqliteCheckpoints, runs: int = 240) -> None:
    """Runs of two workflows, two of each age, in three statuses, some with tags."""
    await store.renew(Owner("me"), 0.0, 50.0)
    for n in range(runs):
        tags = ("odd",) * (n % 2) + ("rare",) * (n % 50 == 0)
        run = NewRun(f"r{n:04}", f"flow{n % 3 % 2}", "me", float(n // 2), tags=tags)
        create = store.create(run, [RunStarted(sequence=1, state="A", time=run.time)])
        if n % 4 == 1:
            end = RunFailed(sequence=2, state="A", time=1000.0 - n)
            store.append(run.run_id, 1, [end], Status.FAILED)
        elif n % 4:
            end = RunFinished(sequence=2, state="Z", time=1000.0 - n)
            store.append(run.run_id, 1, [end], Status.FINISHED)
        await create


@pytest.fixture
def path(tmp_path: Path) -> Path:
    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db", synchronous="normal") as store:
            await fill(store)

    asyncio.run(main())
    return tmp_path / "x.db"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


def fits(run: RunSummary, query: RunQuery) -> bool:
    """The contract, written plainly."""
    return (
        query.workflow in (None, run.workflow)
        and (not query.statuses or run.status in query.statuses)
        and (query.tag is None or query.tag in run.tags)
        and (query.since is None or run.created >= query.since)
        and (query.before is None or run.created < query.before)
    )


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_every_filter(db: sqlite3.Connection, limit: int) -> None:
    """Any filters together give exactly the runs that fit all of them, in order, page by page."""
    everything = queries.runs(db, RunQuery(limit=10_000), None)
    assert 240 == len(everything)
    assert everything == sorted(everything, key=lambda r: (r.created, r.run_id), reverse=True)

    for workflow, statuses, tag, since, before in product(
        (None, "flow1", "none"),
        ((), (Status.FAILED,), STATUSES[:2]),
        (None, "odd", "rare"),
        (None, 30.0),
        (None, 61.0),
    ):
        query = RunQuery(workflow, statuses, tag, since, before, limit=limit)
        wanted = [run for run in everything if fits(run, query)]
        after = wanted[len(wanted) // 2].run_id if wanted else None
        rest = wanted[len(wanted) // 2 + 1 :]
        assert wanted[:limit] == queries.runs(db, query, None)
        again = RunQuery(workflow, statuses, tag, since, before, after=after, limit=limit)
        assert rest[:limit] == queries.runs(db, again, None)


def plans(db: sqlite3.Connection, ask: Callable[[], object]) -> set[str]:
    """How SQLite would carry out every statement of *ask*."""
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    ask()
    db.set_trace_callback(None)
    return {
        row[3]
        for statement in statements
        if statement.lstrip().startswith(("SELECT", "WITH"))
        for row in db.execute("EXPLAIN QUERY PLAN " + statement.replace("Inf", "9e999"))
    }


@pytest.mark.parametrize(
    "query",
    [
        RunQuery(),
        RunQuery(workflow="flow1", statuses=(Status.FAILED,), since=1.0, before=99.0),
        RunQuery(tag="odd", statuses=(Status.FINISHED,), after="r0100"),
        RunQuery(stuck=2),
    ],
)
def test_lists_use_an_index(db: sqlite3.Connection, query: RunQuery) -> None:
    """No list of runs scans a table or sorts what it found."""
    found = plans(db, lambda: queries.runs(db, query, None))

    assert found
    assert [] == [step for step in found if "B-TREE" in step]
    assert [] == [step for step in found if step.startswith("SCAN") and "INDEX" not in step]


def test_due_and_ended_use_an_index(db: sqlite3.Connection) -> None:
    """What is due, what has ended and what a run has are found by index."""
    found = plans(db, lambda: queries.due(db, "flow1", 100.0, 10, 5))
    found |= plans(db, lambda: queries.ended(db, "flow1", 900.0, 10, 10))
    found |= plans(db, lambda: queries.load(db, "r0001", 0, None, None))
    found |= plans(db, lambda: queries.inbox(db, "r0001", 0, None))
    found |= plans(db, lambda: queries.summary(db, "r0001", None))

    assert [] == [step for step in found if "TEMP B-TREE FOR ORDER" in step]
    tables = [step for step in found if step.startswith("SCAN") and "(sub" not in step]
    assert [] == [step for step in tables if "INDEX" not in step]


def test_a_page_reads_no_more_than_it_shows(path: Path, db: sqlite3.Connection) -> None:
    """The work for a page does not grow with the number of runs."""

    def work() -> int:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        with sqlite3.connect(path) as fresh:
            fresh.set_progress_handler(count, 10)
            queries.runs(fresh, RunQuery(limit=10), None)
            queries.runs(fresh, RunQuery(limit=10, tag="odd", statuses=(Status.FAILED,)), None)
            queries.due(fresh, "flow1", 10.0, 10, 5)
        fresh.close()
        return steps

    few = work()

    async def more() -> None:
        async with SqliteCheckpoints(path, synchronous="normal") as store:
            for n in range(2000):
                run = NewRun(f"s{n:04}", "flow1", "me", 500.0 + n, tags=("odd",))
                store.create(run, [RunStarted(sequence=1, state="A", time=run.time)])
                end = RunFinished(sequence=2, state="Z", time=2000.0 - n)
                await store.append(run.run_id, 1, [end], Status.FINISHED)

    asyncio.run(more())
    assert work() <= few + 10


def test_due(path: Path) -> None:
    """Due are runs without owner and runs of lost owners, the longest overdue first."""

    async def main() -> None:
        async with SqliteCheckpoints(path) as store:
            assert ((), 50.0) == astuple(await store.due("flow0", 49.0, 5, 3))
            lost = await store.due("flow0", 50.0, 500, 3)
            assert [run.run_id for run in await running(store)] == sorted(lost.runs)
            await store.release("r0000", 1, Status.WAITING, 20.0)
            await store.release("r0008", 1, Status.WAITING, 70.0)
            due = await store.due("flow0", 60.0, 2, 3)
            assert (("r0000", "r0002"), 70.0) != astuple(due)
            assert (("r0000", "r0012"), 70.0) == astuple(due)
            await store.release("r0012", 1, Status.WAITING, inf)
            assert inf == (await store.due("flow0", 80.0, 500, 3)).next

    def astuple(due: object) -> tuple[object, object]:
        return due.runs, due.next  # type: ignore[attr-defined]

    async def running(store: SqliteCheckpoints) -> list[RunSummary]:
        query = RunQuery(workflow="flow0", statuses=(Status.RUNNING,), limit=500)
        return sorted(await store.runs(query), key=lambda run: run.run_id)

    asyncio.run(main())


def test_crashes_count_until_an_event(tmp_path: Path) -> None:
    """Crashes in a row are listed as stuck, until an event follows the claim."""

    async def main() -> None:
        async with SqliteCheckpoints(tmp_path / "x.db") as store:
            await store.create(NewRun("r", "flow", "a", 1.0), [RunStarted(sequence=1)])
            for n in range(3):
                claim = await store.claim("r", "abc"[n], 5.0)
            assert 3 == (await store.summary("r")).crashes
            assert ["r"] == [run.run_id for run in await store.runs(RunQuery(stuck=3))]
            assert [] == list(await store.runs(RunQuery(stuck=4)))
            assert () == (await store.due("flow", 9.0, 5, 3)).runs
            await store.append("r", claim.epoch, [StateEntered(sequence=5, state="A")])
            assert 0 == (await store.summary("r")).crashes
            assert [] == list(await store.runs(RunQuery(stuck=1)))
            assert ("r",) == (await store.due("flow", 9.0, 5, 3)).runs
            assert 1 == len(await store.runs(RunQuery(stuck=0)))

    asyncio.run(main())


def test_retention(path: Path) -> None:
    """The oldest ends come first, of one workflow or of all."""

    async def main() -> None:
        async with SqliteCheckpoints(path) as store:
            ended = [run for run in await store.runs(RunQuery(limit=999)) if run.ended is not None]
            ended.sort(key=lambda run: (run.ended, run.run_id))
            names = [run.run_id for run in ended]
            first = [run.run_id for run in ended if run.workflow == "flow1"]
            assert names[:20] == await store.ended(None, inf, 9999, 20)
            assert names[: len(names) - 9] == await store.ended(None, 0.0, 9, 9999)
            assert first[:-9] == await store.ended("flow1", 0.0, 9, 9999)
            assert [] == await store.ended("flow1", 0.0, 9999, 9999)
            assert [name for name in names if int(name[1:]) > 900 - 800] == await store.ended(
                None, 900.0, 9999, 9999
            )
            assert 30 == await store.delete(names[:30])
            assert names[30:40] == await store.ended(None, inf, 0, 10)
            assert [] == await store.check()

    asyncio.run(main())
