"""What durability costs: workflows whose every step is on disk, against bare writers.

Time on the wall, not of the processor: waiting for the disk is part of it. Each measurement has a
new database, on the filesystem of the checkout.

`python -m bench.durable ours PATH AT_ONCE` is what processes on a slowed disk run.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from bench import durable_flow, durable_limits, durable_many, durable_sizes
from bench.durable_disk import compiler, filesystem, new_file, on_slow_disk, sync_time
from bench.durable_flow import WAVES
from bench.harness import Batch, Line

Cost: TypeAlias = Coroutine[Any, Any, float]
Steps: TypeAlias = Callable[[Path, int, int], Cost]
"""Seconds for each step: at a path, with so many workflows at once, in so many waves."""

SLOWER = 0.005


def per_row(path: Path, at_once: int, waves: int) -> Cost:
    return durable_limits.steps(durable_limits.PerRow, path, at_once, waves)


def group(path: Path, at_once: int, waves: int) -> Cost:
    return durable_limits.steps(durable_limits.Group, path, at_once, waves)


SIDES: Mapping[str, Steps] = {"ours": durable_flow.steps, "per_row": per_row, "group": group}


def here(side: str, at_once: int) -> Batch:
    """The cost of one step, in this process."""

    async def measured() -> float:
        with new_file() as path:
            return await SIDES[side](path, at_once, WAVES[at_once])

    return lambda: asyncio.run(measured())


def slowed(side: str, at_once: int) -> Batch:
    """The cost of one step, in a process that waits longer for its disk."""

    def batch() -> float:
        with new_file() as path:
            command = ("-m", "bench.durable", side, str(path), str(at_once))
            return float(on_slow_disk(SLOWER, *command))

    return batch


def speed() -> list[Line]:
    """At least 0.6 of the limit is at most 1 / 0.6 of its time."""
    found = [
        Line(
            "10 steps, one workflow at a time", here("ours", 1), here("per_row", 1),
            must=_share(0.6), aim=_share(0.9), unit="µs",
        ),
        *(
            Line(
                f"10 steps, {at_once:,} at once", here("ours", at_once), here("group", at_once),
                must=_share(0.4), aim=_share(0.65), unit="µs",
            )
            for at_once in (100, 1_000)
        ),
    ]  # fmt: skip
    if compiler() is not None:
        slow = Line(
            "100 at once, syncs 5 ms slower", slowed("ours", 100), slowed("group", 100),
            must=_share(0.8), aim=_share(0.95), unit="µs", rounds=5,
        )  # fmt: skip
        found.append(slow)
    return found


def lines() -> list[Line]:
    return [*speed(), *durable_sizes.lines(), *durable_many.lines()]


def notes() -> list[str]:
    """Where it was measured, and what could not be."""
    kind = filesystem()
    found = [f"on {kind}, where a sync takes {sync_time() * 1e6:.0f} µs"]
    if kind in {"tmpfs", "ramfs"}:
        found.append(f"{kind} is no real disk: these figures say nothing")
    if compiler() is None:
        found.append("skipped: a slower disk, because there is no gcc to compile it with")
    return found


def _share(of_the_limit: float) -> float:
    return int(100 / of_the_limit) / 100


if __name__ == "__main__":
    _, chosen, where, at_once = sys.argv
    many = int(at_once)
    print(asyncio.run(SIDES[chosen](Path(where), many, WAVES[many])))
