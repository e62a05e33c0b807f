"""What histories take: room on the disk, time to resume, and memory while a run only waits.

`python -m bench.durable_sizes PATH signal` parks runs, and prints what each holds in its process.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tracemalloc
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar, Literal

from bench.durable_disk import directory, new_file
from bench.harness import Batch, Line, in_fresh_process
from cano import (
    Context,
    RunParked,
    Signal,
    SignalTask,
    SqliteCheckpoints,
    Task,
    TimerTask,
    Workflow,
    on,
)

LARGE, STEPS = 100_000, 200
EVENTS = 10_000
PARKED = 5_000


class Turn(Enum):
    """Round and round, until there is nothing left; then it waits to be let go."""

    PING = "ping"
    PONG = "pong"
    WAIT = "wait"
    DONE = "done"


@dataclass
class Round:
    """What changes at every step, and what never does."""

    left: int = 0
    large: str = ""


class Arrival:
    """When a run came to `Turn.WAIT`, or to its end."""

    moment: asyncio.Future[float]


async def ping(ctx: Context[Round]) -> Literal[Turn.PONG]:
    ctx.data.left -= 1
    return Turn.PONG


async def pong(ctx: Context[Round]) -> Literal[Turn.PING, Turn.WAIT]:
    ctx.data.left -= 1
    return Turn.PING if ctx.data.left > 0 else Turn.WAIT


async def arrive(ctx: Context[Round]) -> Literal[Turn.DONE]:
    Arrival.moment.set_result(perf_counter())
    await asyncio.get_running_loop().create_future()
    return Turn.DONE


class Approval(SignalTask[Turn]):
    """Waits for somebody."""

    signals: ClassVar[Mapping[str, Any]] = {"go": str}

    async def on_signal(
        self, ctx: Context[Round], signal: Signal[str], /, *a: Any, **k: Any
    ) -> Literal[Turn.DONE]:
        return Turn.DONE


WAITS: Mapping[str, Task[Turn]] = {
    "signal": Approval(),
    "far timer": TimerTask(365 * 86_400.0, then=Turn.DONE),
}


class Parking:
    """How many runs have still to be let go."""

    left: int
    over: asyncio.Event


@on(RunParked)
def parked(event: RunParked) -> None:
    Parking.left -= 1
    if not Parking.left:
        Parking.over.set()


def flow(path: Path, last: Any) -> tuple[SqliteCheckpoints, Workflow[Turn, Round]]:
    store = SqliteCheckpoints(path)
    made = Workflow(Turn, data=Round, checkpoints=store, observers=[parked]).exits(Turn.DONE)
    made.register(Turn.PING, ping).register(Turn.PONG, pong).register(Turn.WAIT, last)
    return store, made


async def until_it_arrives(living: Coroutine[Any, Any, Turn]) -> float:
    """When a run came to `Turn.WAIT`. It is then let go as in a shutdown, and can be resumed."""
    Arrival.moment = asyncio.get_running_loop().create_future()
    task = asyncio.get_running_loop().create_task(living)
    either: tuple[asyncio.Future[Any], ...] = (task, Arrival.moment)
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()  # raises what went wrong
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return Arrival.moment.result()


async def walk(path: Path, steps: int, large: str = "") -> None:
    """A run of so many *steps* that waits at the end, left alone there."""
    store, made = flow(path, arrive)
    data = Round(left=steps, large=large)
    await until_it_arrives(made.run(Turn.PING, data=data, run_id="long"))
    await store.close()


def size(path: Path) -> int:
    """What a database occupies, its log included."""
    files = [path, path.with_name(f"{path.name}-wal")]
    return sum(file.stat().st_size for file in files if file.exists())


def growth() -> float:
    """The bytes that steps add to a database, with a large field that none of them changes."""
    with new_file() as path:
        asyncio.run(_emptied(path))
        before = size(path)
        asyncio.run(walk(path, STEPS, "x" * LARGE))
        return float(size(path) - before)


async def _emptied(path: Path) -> None:
    store = SqliteCheckpoints(path)
    await store.load("nobody")
    await store.close()


@cache
def _long_run() -> Path:
    path = directory() / "long.db"
    asyncio.run(walk(path, EVENTS))
    return path


async def resume(path: Path) -> float:
    """The seconds from asking for a run with many events to its state's task running."""
    store, made = flow(path, arrive)
    await store.summary("long")  # the store is open, as in any program that runs
    before = perf_counter()
    moment = await until_it_arrives(made.resume("long"))
    await store.close()
    return moment - before


async def park(made: Workflow[Turn, Round], count: int) -> None:
    """Begin so many runs that only wait, and keep nothing of them."""
    before = asyncio.all_tasks()
    Parking.left, Parking.over = count, asyncio.Event()
    for _ in range(0, count, 500):
        await asyncio.gather(*(made.start_run(Turn.WAIT) for _ in range(500)))
    await Parking.over.wait()
    while told := asyncio.all_tasks() - before:  # what is told of them afterwards is looked at
        await asyncio.wait(told)


async def weigh(path: Path, kind: str) -> None:
    """Print the memory that one parked run holds."""
    tracemalloc.start()
    _, made = flow(path, WAITS[kind])
    async with made:
        await park(made, 1_000)  # what all runs share is not theirs
        before = _held()
        await park(made, PARKED)
        print((_held() - before) / PARKED, flush=True)
        os._exit(0)  # the scope would wait for them


def _held() -> int:
    """The bytes that Python holds; SQLite's cache, which has a bound, is none of a run's."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def parked_run(kind: str) -> Batch:
    def batch() -> float:
        with new_file() as path:
            return float(in_fresh_process("-m", "bench.durable_sizes", str(path), kind))

    return batch


def lines() -> list[Line]:
    """Plain figures: what they are held against is nothing."""
    nothing: Batch = lambda: 0.0  # noqa: E731 -- it is no function worth a name
    return [
        Line(
            f"{STEPS} steps with an unchanged field of 100 kB", growth, nothing,
            must=400_000, unit="B", by="difference", rounds=1,
        ),
        Line(
            f"resume after {EVENTS:,} events", lambda: asyncio.run(resume(_long_run())), nothing,
            must=50, unit="ms", by="difference", rounds=5,
        ),
        *(
            Line(
                f"a run parked on a {kind}", parked_run(kind), nothing,
                must=400, unit="B", by="difference", rounds=1,
            )
            for kind in WAITS
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    asyncio.run(weigh(Path(sys.argv[1]), sys.argv[2]))
