"""One workflow and a few things a process may do with its runs, for tests about who owns a run.

    python -m tests.end_to_end.programs.trips FOLDER COMMAND [RUN] [--lease SECONDS] ...

A process prints a line when its task holds the run in a state, and at the end what it came to. What
a task waits for is a file: see `open_gate`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, ClassVar, Literal

from cano import (
    CompensatableTask,
    Context,
    Resources,
    RouterTask,
    Signal,
    SignalTask,
    SqliteCheckpoints,
    Workflow,
)
from tests.end_to_end.programs.errands import Ledger, Line

FAR = 3600.0


class Step(StrEnum):
    BOOK = auto()
    PAY = auto()
    TURN = auto()
    HOLD = auto()
    WAIT = auto()
    DIE = auto()
    FAIL = auto()
    MARK = auto()
    DONE = auto()


@dataclass
class Trip:
    turn: str = "HOLD"
    """Where to go after paying."""
    heard: str = ""


def do(ctx: Context[Trip], what: str) -> None:
    ctx.get(Ledger).write(Line(ctx.run_id, what, ctx.fence))


def folder(ctx: Context[Trip]) -> Path:
    return ctx.get(Ledger).path.parent


def open_gate(where: Path, name: str) -> None:
    """Let whoever waits for *name* go on."""
    (where / name).touch()


async def gate(ctx: Context[Trip], name: str) -> None:
    """Hold the run until *name* is opened."""
    print(f"{ctx.state.name} {name} {ctx.fence}", flush=True)
    while not (folder(ctx) / name).exists():
        await asyncio.sleep(0.01)


class Book(CompensatableTask[Step, str]):
    async def run(self, ctx: Context[Trip]) -> tuple[Literal[Step.PAY], str]:
        do(ctx, "book")
        return Step.PAY, "a seat"

    async def compensate(self, ctx: Context[Trip], output: str) -> None:
        do(ctx, "unbook")


class Pay(CompensatableTask[Step, str]):
    async def run(self, ctx: Context[Trip]) -> tuple[Literal[Step.TURN], str]:
        do(ctx, "pay")
        return Step.TURN, "a receipt"

    async def compensate(self, ctx: Context[Trip], output: str) -> None:
        do(ctx, "unpay")
        if ctx.data.turn == "FAIL":
            await gate(ctx, "unpaid")


class Turn(RouterTask[Step]):
    async def route(
        self, ctx: Context[Trip]
    ) -> Literal[Step.HOLD, Step.WAIT, Step.DIE, Step.FAIL, Step.MARK]:
        return Step[ctx.data.turn]  # type: ignore[return-value]


async def hold(ctx: Context[Trip]) -> Literal[Step.DONE]:
    """Do one thing after the other, each recorded."""

    async def call() -> int:
        do(ctx, f"effect {number}")
        return number

    print(f"HOLD held {ctx.fence}", flush=True)
    number = 0
    while not (folder(ctx) / "held").exists():
        number += 1
        await ctx.effect(str(number), call, idempotent=True)
        await asyncio.sleep(0.01)
    return Step.DONE


class Wait(SignalTask[Step]):
    signals: ClassVar[Mapping[str, Any]] = {"go": str}

    async def on_signal(self, ctx: Context[Trip], signal: Signal[str]) -> Literal[Step.DONE]:
        ctx.data.heard = signal.value
        return Step.DONE


async def die(ctx: Context[Trip]) -> Literal[Step.DONE]:
    if not (folder(ctx) / "cured").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return Step.DONE


async def fail(ctx: Context[Trip]) -> Literal[Step.DONE]:
    raise ValueError("no trip after all")


async def mark(ctx: Context[Trip]) -> Literal[Step.DONE]:
    """The first owner never comes to it, the next does it once."""
    if ctx.fence == 1 and (folder(ctx) / "abandon").exists():
        await asyncio.sleep(FAR)
    do(ctx, "mark")
    await asyncio.sleep(0.001)
    return Step.DONE


def trips(
    where: Path, lease: float = FAR, max_crashes: int = 5
) -> tuple[Workflow[Step, Trip], SqliteCheckpoints]:
    """The workflow and its store, in the folder *where*."""
    store = SqliteCheckpoints(where / "runs.db")
    flow = (
        Workflow(
            Step, data=Trip, start=Step.BOOK, name="trips", checkpoints=store, lease=lease,
            max_crashes=max_crashes, resources=Resources(ledger=Ledger(where / "ledger")),
        )
        .register(Step.BOOK, Book())
        .register(Step.PAY, Pay())
        .register(Step.TURN, Turn())
        .register(Step.HOLD, hold)
        .register(Step.WAIT, Wait())
        .register(Step.DIE, die)
        .register(Step.FAIL, fail)
        .register(Step.MARK, mark)
        .exits(Step.DONE)
    )  # fmt: skip
    return flow, store


async def main(asked: argparse.Namespace) -> None:
    flow, store = trips(asked.folder, asked.lease, asked.max_crashes)
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    match asked.command:
        case "run":
            await told(flow.run(data=Trip(asked.turn), run_id=asked.run, wait=asked.wait))
        case "resume":
            await told(flow.resume(asked.run, even_if_stuck=asked.even_if_stuck))
        case "start":  # many, and abandon them
            for number in range(asked.many):
                await flow.start_run(data=Trip(asked.turn), run_id=f"{asked.run}{number}")
            print("started", flush=True)
            await asyncio.sleep(FAR)
        case "race":
            await race(flow)
        case "serve":
            await serve(flow, asked)
        case "recover":
            handles = await flow.recover()
            print(f"recovered {len(handles)}", flush=True)
            for handle in handles:
                await told(handle.result())
        case _:
            sys.exit(f"what is {asked.command}?")
    await store.close()


async def race(flow: Workflow[Step, Trip]) -> None:
    """Start or resume what is named on stdin, line by line, as fast as that is possible."""
    await flow.resources.acquire()  # so that every round begins at once
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        how, name = line
        if how == "resume":
            await told(flow.resume(name))
        else:
            await told(flow.run(data=Trip("MARK"), run_id=name))


async def serve(flow: Workflow[Step, Trip], asked: argparse.Namespace) -> None:
    """Keep a scope open, with a run of its own if one is named, until SIGTERM."""
    async with flow:
        if asked.run:
            await flow.start_run(data=Trip(asked.turn), run_id=asked.run)
        print("serving", flush=True)
        await asyncio.sleep(FAR)


async def told(result: Coroutine[Any, Any, Step]) -> None:
    """Print what becomes of a run."""
    try:
        print((await result).name, flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("command")
    parser.add_argument("run", nargs="?", default="")
    parser.add_argument("--turn", default="HOLD")
    parser.add_argument("--lease", type=float, default=FAR)
    parser.add_argument("--max-crashes", type=int, default=5)
    parser.add_argument("--many", type=int, default=1)
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--even-if-stuck", action="store_true")
    try:
        asyncio.run(main(parser.parse_args()))
    except asyncio.CancelledError:
        print("cancelled", flush=True)
