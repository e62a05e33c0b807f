"""Runs that leave a trace of everything they do, for processes that are killed while they do it.

Everything done outside is a line in the `Ledger`, on disk before the run goes on. Two things in it
are not done by a run: what its process was told of it, and what a person said of an effect.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from cano import (
    Branch,
    CheckpointError,
    CompensatableTask,
    Context,
    Done,
    More,
    Resources,
    RunQuery,
    RunSummary,
    Signal,
    SignalTask,
    Split,
    SqliteCheckpoints,
    Status,
    SteppedTask,
    Workflow,
)
from cano.checkpoints.store import RESOLVE
from cano.errors import RunEndedError
from cano.events import EffectIntended

OPEN = (Status.RUNNING, Status.WAITING, Status.IN_DOUBT)
AT_ONCE = 8
"""How many runs a process keeps going."""
STEPS = 4
BRANCHES = 4
PAUSE = 0.004
"""Seconds between doing and saying so, at most: the moment in which a kill hurts."""


class Step(StrEnum):
    BEGIN = auto()
    GATHER = auto()
    COUNT = auto()
    RESERVE = auto()
    WAIT = auto()
    PAY = auto()
    SHIP = auto()
    DONE = auto()


class RefusedError(Exception): ...


@dataclass
class Errand:
    number: int = 0
    began: int = 0
    gathered: list[int] = field(default_factory=list[int])
    counted: int = 0
    seat: str = ""


class Line(msgspec.Struct, frozen=True):
    """One thing done: what, for which run, by which of its owners, and as what it is known outside."""

    run: str
    what: str
    fence: int = 0
    key: str = ""


class Ledger:
    """A file that is appended to, line by line, each on disk before `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR)

    def write(self, line: Line) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")
        os.fsync(self._file)

    def lines(self, run: str = "") -> list[Line]:
        """What was written, of one run or of all."""
        mark = f'{{"run":"{run}'.encode()
        with self.path.open("rb") as file:
            found = [line for line in file if line.startswith(mark)]
        read = msgspec.json.Decoder(Line).decode
        return [line for line in map(read, found) if not run or line.run == run]

    def close(self) -> None:
        os.close(self._file)


async def do(ctx: Context[Errand], what: str) -> None:
    """Do something outside, and let some time pass before anybody hears of it."""
    ledger = ctx.get(Ledger)
    await nap(ctx, what)
    ledger.write(Line(ctx.run_id, what, ctx.fence, f"{ctx.idempotency_key} {what}"))
    await nap(ctx, what)


async def nap(ctx: Context[Any], what: str) -> None:
    """A pause that differs from one thing to the next."""
    seed = sum(f"{ctx.run_id}{what}{ctx.fence}".encode()) % 16
    if seed:
        await asyncio.sleep(PAUSE * seed / 16)


def noting(ctx: Context[Errand], what: str) -> Callable[[], Coroutine[Any, Any, str]]:
    async def call() -> str:
        await do(ctx, f"effect {what}")
        return f"{what} of {ctx.run_id}"

    return call


async def begin(ctx: Context[Errand]) -> Literal[Step.GATHER]:
    await do(ctx, "begin")
    ctx.data.began += 1
    return Step.GATHER


async def branch(ctx: Context[Errand]) -> int:
    assert ctx.branch is not None
    await do(ctx, f"branch {ctx.branch.name}")
    return ctx.data.number + ctx.branch.index


async def unbranch(ctx: Context[Errand], output: int) -> None:
    await do(ctx, f"undo GATHER {output - ctx.data.number}")


class Count(SteppedTask[Step, int]):
    """Reads the split in front of it, and counts."""

    async def step(
        self, ctx: Context[Errand], cursor: int | None
    ) -> More[int] | Done[Literal[Step.RESERVE]]:
        if cursor is None:
            assert ctx.split is not None
            ctx.data.gathered = ctx.split.values
        cursor = cursor or 0
        await do(ctx, f"count {cursor + 1}")
        ctx.data.counted += cursor + 1
        return More(cursor + 1) if cursor + 1 < STEPS else Done(Step.RESERVE)


class Reserve(CompensatableTask[Step, str]):
    """Its effect can be looked up: nobody need be asked after a crash."""

    async def run(self, ctx: Context[Errand]) -> tuple[Literal[Step.WAIT], str]:
        async def verify() -> str | None:
            lines = ctx.get(Ledger).lines(ctx.run_id)
            found = [line for line in lines if line.what == "effect reserve"]
            return f"reserve of {ctx.run_id}" if found else None

        seat = await ctx.effect("reserve", noting(ctx, "reserve"), verify=verify)
        ctx.get(Ledger).write(Line(ctx.run_id, "told reserve", ctx.fence))
        await do(ctx, "work RESERVE")
        ctx.data.seat = seat
        return Step.WAIT, seat

    async def compensate(self, ctx: Context[Errand], output: str) -> None:
        await do(ctx, f"undo RESERVE {output}")


class Wait(SignalTask[Step]):
    signals: ClassVar[Mapping[str, Any]] = {"go": int}

    async def on_signal(self, ctx: Context[Errand], signal: Signal[int]) -> Literal[Step.PAY]:
        ctx.data.counted += signal.value
        return Step.PAY


class Pay(CompensatableTask[Step, str]):
    """Its effect can be neither repeated nor looked up: a person has to."""

    async def run(self, ctx: Context[Errand]) -> tuple[Literal[Step.SHIP], str]:
        receipt = await ctx.effect("pay", noting(ctx, "pay"))
        ctx.get(Ledger).write(Line(ctx.run_id, "told pay", ctx.fence))
        await do(ctx, "work PAY")
        return Step.SHIP, receipt

    async def compensate(self, ctx: Context[Errand], output: str) -> None:
        await do(ctx, f"undo PAY {output}")


async def ship(ctx: Context[Errand]) -> Literal[Step.DONE]:
    await ctx.effect("mail", noting(ctx, "mail"), idempotent=True)
    ctx.get(Ledger).write(Line(ctx.run_id, "told mail", ctx.fence))
    await ctx.sleep(PAUSE)
    if refused(ctx.data.number):
        raise RefusedError(f"nobody takes number {ctx.data.number}")
    return Step.DONE


def refused(number: int) -> bool:
    """Whether the run of that number fails, and is rolled back."""
    return number % 3 == 0


def errands(folder: Path) -> tuple[Workflow[Step, Errand], SqliteCheckpoints, Ledger]:
    """The workflow, its store and its ledger, in *folder*."""
    store = SqliteCheckpoints(folder / "runs.db")
    ledger = Ledger(folder / "ledger")
    branches = [Branch(branch, name=str(n)) for n in range(BRANCHES - 1)]
    undoable = Branch(branch, name=str(BRANCHES - 1), compensate=unbranch)
    flow = (
        Workflow(
            Step, data=Errand, start=Step.BEGIN, name="errands", checkpoints=store,
            resources=Resources(ledger=ledger), max_crashes=1_000_000,
        )
        .register(Step.BEGIN, begin)
        .register(Step.GATHER, Split([*branches, undoable], then=Step.COUNT))
        .register(Step.COUNT, Count())
        .register(Step.RESERVE, Reserve())
        .register(Step.WAIT, Wait())
        .register(Step.PAY, Pay())
        .register(Step.SHIP, ship)
        .exits(Step.DONE)
    )  # fmt: skip
    return flow, store, ledger


async def work(folder: Path, first: int | None, *, person: bool) -> None:
    """Carry on what others left, and start runs, those numbered from *first* on, until killed.

    Without *first* it is over when every run is.
    """
    flow, store, ledger = errands(folder)
    waiting: set[asyncio.Task[None]] = set()
    async with flow:
        number = first
        while True:
            runs = await store.runs(RunQuery(statuses=OPEN, limit=1000))
            for run in runs:
                if run.status is Status.WAITING:
                    with suppress(RunEndedError):
                        await flow.handle(run.run_id).signal("go", 100, key="go")
                elif run.status is Status.IN_DOUBT and person:
                    await decide(store, ledger, run)
            if number is None and not runs:
                break
            if number is not None and len(runs) < AT_ONCE:
                handle = await flow.start_run(data=Errand(number), run_id=f"r{number}")
                ledger.write(Line(f"r{number}", "told started"))
                task = asyncio.create_task(told_end(handle.result(), ledger, f"r{number}"))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
                number += 1
            await asyncio.sleep(0.005 if number is not None else 0.05)
    await store.close()
    ledger.close()


async def told_end(result: Coroutine[Any, Any, Step], ledger: Ledger, run_id: str) -> None:
    """Write down how a run ended, as its process was told."""
    try:
        end = (await result).name
    except CheckpointError as error:  # it goes on elsewhere, or waits for a person
        end = type(error).__name__
    except Exception as error:
        end = f"{type(error).__name__}"
    ledger.write(Line(run_id, f"told end {end}"))


async def decide(store: SqliteCheckpoints, ledger: Ledger, run: RunSummary) -> None:
    """What a person does about an effect in doubt: look whether it happened, and say so.

    The key is what was seen: said late, or twice, it counts for nothing.
    """
    events = (await store.load(run.run_id))[: run.sequence]
    name = [event.name for event in events if isinstance(event, EffectIntended)][-1]
    happened = any(line.what == f"effect {name}" for line in ledger.lines(run.run_id))
    said = {"done": f"{name} of {run.run_id}"} if happened else {"again": True}
    told = json.dumps({"effect": name, **said}).encode()
    with suppress(RunEndedError):
        await store.send(run.run_id, RESOLVE, told, 0.0, f"{name} {run.sequence}")
