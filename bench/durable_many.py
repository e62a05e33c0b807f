"""Whether a store that is full of finished runs is as fast as an empty one.

It is filled once for each process, by SQL that multiplies one real run within the store's own
tables. How many runs is said by the environment variable `BENCH_RUNS`: a million unless told
otherwise, which takes about a gigabyte until the process ends.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

from bench import durable_flow
from bench.durable_disk import directory, new_file
from bench.durable_flow import WAVES, Step, flow
from bench.harness import ROOT, Batch, Line
from cano import RunQuery, SqliteCheckpoints

RUNS = int(os.environ.get("BENCH_RUNS", "1_000_000"))

FILL = """
WITH RECURSIVE copies(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copies WHERE n < :count)
INSERT INTO {table} ({names}) SELECT {values} FROM copies, {table} WHERE {table}.{key} = :original
"""
NEW = {
    "id": "id + n",
    "run": "run + n",
    "run_id": "printf('%032x', n)",
    "created": "created - :count + n",
    "ended": "ended - :count + n",
    "time": "time - :count + n",
}
"""What differs from copy to copy: one was created each second until now."""


@cache
def full() -> Path:
    """A database with so many finished runs."""
    path = directory() / "full.db"
    asyncio.run(_one_run(path))
    fill(path, RUNS)
    return path


async def _one_run(path: Path) -> None:
    """A short one: the last step, and the exit."""
    store = SqliteCheckpoints(path)
    last: Any = list(Step)[-2]
    await flow(store).run(last, run_id="original")
    await store.close()


def fill(path: Path, count: int) -> None:
    """Multiply the only run in the database."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")  # as it comes and goes with this process
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -200000")
    ((original,),) = connection.execute("SELECT id FROM runs WHERE run_id = 'original'")
    for table, key in (("runs", "id"), ("events", "run")):
        columns = connection.execute(f"PRAGMA table_info({table})")
        names: list[str] = [column[1] for column in columns]
        connection.execute(
            FILL.format(
                table=table,
                key=key,
                names=", ".join(names),
                values=", ".join([NEW.get(name, name) for name in names]),
            ),
            {"count": count, "original": original},
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def beside_many(at_once: int) -> Batch:
    """The cost of one step in a database that is full."""
    return lambda: asyncio.run(durable_flow.steps(full(), at_once, WAVES[at_once]))


def alone(at_once: int) -> Batch:
    """The same in one that is empty."""

    def batch() -> float:
        with new_file() as path:
            return asyncio.run(durable_flow.steps(path, at_once, WAVES[at_once]))

    return batch


def listed() -> float:
    """The seconds that finding the newest runs takes."""

    async def ask() -> float:
        store = SqliteCheckpoints(full())
        before = perf_counter()
        found = await store.runs(RunQuery())
        taken = perf_counter() - before
        assert len(found) == RunQuery().limit
        await store.close()
        return taken

    return asyncio.run(ask())


def command(*arguments: str) -> Batch:
    """The seconds that a command takes, from its start to its end."""

    def batch() -> float:
        before = perf_counter()
        subprocess.run(
            [sys.executable, "-m", "cano", *arguments], check=True, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
        return perf_counter() - before

    return batch


def listing() -> float:
    """The seconds that `cano runs` takes, with Python's own start."""
    return command("runs", "--store", str(full()))()


def lines() -> list[Line]:
    many = f"with {RUNS:,} finished runs in the store"
    return [
        *(
            Line(
                f"{at_once:,} at once, {many}", beside_many(at_once), alone(at_once),
                must=1.1, unit="µs",
            )
            for at_once in WAVES
        ),
        Line(
            f"store.runs(), {many}", listed, lambda: 0.0,
            must=100, unit="ms", by="difference", rounds=5,
        ),
        Line(
            "cano runs, over cano --version",
            listing, command("--version"),
            must=100, unit="ms", by="difference", rounds=5,
        ),
    ]  # fmt: skip
