"""A run outlives its process: another one goes on where the first was killed.

The program starts itself twice, as processes that share nothing but a file. The first is killed
with SIGKILL in the middle of a step. The second asks for a run of the same name, and so gets that
one: the paint is not ordered again, because an effect that is done stays done, and painting goes on
from the last cursor that was kept, with the data of that moment. Only the board that was half
painted is begun anew. Asked for once more, the run has its end on record, and nothing is done.

Prints:
    process 1: orders 4 l of paint
    process 1: paints board 1
    process 1: paints board 2
    process 1: paints half of board 3
    process 1 ended with -9
    process 2: paints board 3
    process 2: paints board 4
    process 2: DONE, 4 boards, receipt 4711
    process 2 ended with 0
    asked again: DONE
"""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from cano import Context, Done, More, SqliteCheckpoints, SteppedTask, Workflow


class Step(StrEnum):
    ORDER = auto()
    PAINT = auto()
    DONE = auto()


@dataclass
class Shed:
    boards: int = 4
    receipt: str = ""
    painted: int = 0


async def order(ctx: Context[Shed]) -> Literal[Step.PAINT]:
    async def buy() -> str:
        say(f"orders {ctx.data.boards} l of paint")
        return "4711"

    ctx.data.receipt = await ctx.effect("paint", buy)
    return Step.PAINT


class Paint(SteppedTask[Step, int]):
    async def step(
        self, ctx: Context[Shed], cursor: int | None
    ) -> More[int] | Done[Literal[Step.DONE]]:
        board = (cursor or 0) + 1
        if board == 3 and process() == "1":
            say("paints half of board 3")
            os.kill(os.getpid(), signal.SIGKILL)
        say(f"paints board {board}")
        ctx.data.painted += 1
        if board < ctx.data.boards:
            return More(board)
        return Done(Step.DONE)


def flow(store: SqliteCheckpoints) -> Workflow[Step, Shed]:
    return (
        Workflow(Step, data=Shed, start=Step.ORDER, name="shed", checkpoints=store)
        .register(Step.ORDER, order)
        .register(Step.PAINT, Paint())
        .exits(Step.DONE)
    )


async def paint(path: str) -> Step:
    async with SqliteCheckpoints(path) as store:
        shed = flow(store)
        end = await shed.run(run_id="garden shed")
        data = await shed.handle("garden shed").data()
        say(f"{end.name}, {data.painted} boards, receipt {data.receipt}")
        return end


def process() -> str:
    return sys.argv[2] if len(sys.argv) > 2 else ""


def say(text: str) -> None:
    if process():
        print(f"process {process()}: {text}", flush=True)


def main() -> None:
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "runs.db"))
        for number in ("1", "2"):
            program = [sys.executable, __file__, path, number]
            ended = subprocess.run(program, check=False)  # noqa: S603 -- this very program
            print(f"process {number} ended with {ended.returncode}", flush=True)
        print(f"asked again: {asyncio.run(paint(path)).name}")


if __name__ == "__main__":
    if process():
        asyncio.run(paint(sys.argv[1]))
    else:
        main()
