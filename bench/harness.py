"""How things are compared here: two candidates, turn and turn about, and the median of their ratios.

Rule 1: a figure is never an absolute time. It is the ratio of our cost to that of the same work
        written by hand, both measured within the same moment: noise then hits both.
Rule 2: CPU time of this process, so that what runs beside it does not count.
Rule 3: the garbage collector runs as in any program, because making it work is a cost too; what
        was there before the batch is none of its business.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Literal, TypeAlias

Batch: TypeAlias = Callable[[], float]
"""Does some work and returns what one operation cost: seconds, or bytes."""

ROOT = Path(__file__).resolve().parent.parent
UNITS = {"ns": 1e9, "µs": 1e6, "ms": 1e3, "B": 1.0, "KiB": 1 / 1024, "": 1.0}


@dataclass(frozen=True)
class Line:
    """One comparison: *ours* against the *limit*, by `ratio` or by `difference`."""

    name: str
    ours: Batch
    limit: Batch
    must: float | None = None
    aim: float | None = None
    unit: str = "ns"
    by: Literal["ratio", "difference"] = "ratio"
    rounds: int | None = None
    """Instead of the rounds asked for, where a round is long or few would say nothing."""


@dataclass(frozen=True)
class Result:
    """What a line came to: medians, and how the rounds spread."""

    name: str
    unit: str
    by: str
    ours: float
    limit: float
    figure: float
    low: float
    high: float
    must: float | None
    aim: float | None

    @property
    def met(self) -> bool | None:
        """Whether the figure is as it must be; None where nothing is demanded."""
        return None if self.must is None else self.figure <= self.must


def measure(lines: Sequence[Line], rounds: int) -> list[Result]:
    """Run all lines round by round, so that a noisy minute is shared by all of them."""
    samples: list[list[tuple[float, float]]] = [[] for _ in lines]
    wanted = [line.rounds or rounds for line in lines]
    for line in lines:
        _pair(line, swapped=False)  # the first time warms caches, and does not count
    for number in range(max(wanted, default=0)):
        for line, taken, enough in zip(lines, samples, wanted, strict=True):
            if number < enough:
                taken.append(_pair(line, swapped=number % 2 == 1))
    return [_result(line, taken) for line, taken in zip(lines, samples, strict=True)]


def timed(work: Callable[[], Awaitable[object]], operations: int = 1) -> Batch:
    """A batch that awaits *work*, which does *operations* of what is measured."""

    async def batch() -> float:
        before = process_time()
        await work()
        return (process_time() - before) / operations

    return lambda: asyncio.run(batch())


def repeated(work: Callable[[], Awaitable[object]], times: int) -> Batch:
    """A batch that awaits *work* so many *times*, one after the other."""

    async def again() -> None:
        for _ in range(times):
            await work()

    return timed(again, times)


def in_fresh_process(*arguments: str, errors: bool = False) -> str:
    """What an interpreter of its own prints, called with *arguments*; or what it complains of."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "src")))
    environment = {**os.environ, "PYTHONPATH": paths}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling is not what we measure
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, check=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    return done.stderr if errors else done.stdout


def table(subject: str, results: Iterable[Result]) -> str:
    """The results as people read them."""
    head = ("", "ours", "by hand", "figure", "min to max", "must", "aim", "")
    rows = [head, *(_row(result) for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index in (0, 7) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    version = ".".join(map(str, sys.version_info[:3]))
    return "\n".join([f"{subject} (CPython {version})", *(f"  {line}" for line in lines)])


def _pair(line: Line, *, swapped: bool) -> tuple[float, float]:
    """Our cost and the limit's; every other round the limit goes first."""
    if swapped:
        limit = _quietly(line.limit)
        return _quietly(line.ours), limit
    ours = _quietly(line.ours)
    return ours, _quietly(line.limit)


def _quietly(batch: Batch) -> float:
    gc.collect()
    gc.freeze()
    try:
        return batch()
    finally:
        gc.unfreeze()


def _result(line: Line, taken: Sequence[tuple[float, float]]) -> Result:
    scale = UNITS[line.unit]
    figures = [
        ours / limit if line.by == "ratio" else (ours - limit) * scale for ours, limit in taken
    ]
    return Result(
        name=line.name,
        unit=line.unit,
        by=line.by,
        ours=median(ours for ours, _ in taken) * scale,
        limit=median(limit for _, limit in taken) * scale,
        figure=median(figures),
        low=min(figures),
        high=max(figures),
        must=line.must,
        aim=line.aim,
    )


def _row(result: Result) -> tuple[str, ...]:
    figure = f"{_short(result.figure)} ×"
    if result.by == "difference":
        figure = f"{result.figure:+.0f} {result.unit}"
    verdict = {None: "", True: "met", False: "MISSED"}[result.met]
    if result.met and result.aim is not None and result.figure <= result.aim:
        verdict = "met, aim too"
    return (
        result.name,
        f"{_short(result.ours)} {result.unit}",
        f"{_short(result.limit)} {result.unit}",
        figure,
        f"{_short(result.low)} to {_short(result.high)}",
        "" if result.must is None else f"≤ {result.must:g}",
        "" if result.aim is None else f"{result.aim:g}",
        verdict,
    )


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
