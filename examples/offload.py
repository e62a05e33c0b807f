"""Work that would hold up the event loop: blocking calls go to a thread, heavy ones to processes.

Two algorithms race for the factors of a number, each in a process of its own. Which is fast
depends on the number; the other might take minutes, but it has lost: its process is ended on the
spot, in the middle of a loop, as a thread could not be. Meanwhile the event loop ticks on.

Prints:
    1000000016000000063 = 1000000007 × 1000000009, found by Fermat's method
    3000000021 = 3 × 1000000007, found by trial division
    the event loop ticked ... times
"""

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum, auto
from math import isqrt
from typing import Literal

from cano import Branch, Context, Split, Workflow, process, thread
from cano.join import Any


class Step(StrEnum):
    FETCH = auto()
    RACE = auto()
    TELL = auto()
    DONE = auto()


@dataclass
class Riddle:
    number: int = 0
    answer: str = ""


def fetch(ctx: Context[Riddle]) -> Literal[Step.RACE]:
    """Blocks, as libraries without async do."""
    time.sleep(0.1)
    return Step.RACE


def trial_division(ctx: Context[Riddle]) -> int:
    """Quick if there is a small factor."""
    number = ctx.data.number
    return next(n for n in range(2, number) if number % n == 0)


def fermat(ctx: Context[Riddle]) -> int:
    """Quick if there are two factors of about the same size."""
    number = ctx.data.number
    middle = isqrt(number - 1) + 1
    while isqrt(square := middle**2 - number) ** 2 != square:
        middle += 1
    return middle - isqrt(square)


async def tell(ctx: Context[Riddle]) -> Literal[Step.DONE]:
    for winner in ctx.split or ():
        factor = int(winner.value or 1)
        ctx.data.answer = f"{factor} × {ctx.data.number // factor}, found by {winner.name}"
    return Step.DONE


flow = (
    Workflow(Step, data=Riddle)
    .register(Step.FETCH, thread(fetch))
    .register(
        Step.RACE,
        Split(
            [
                # A limit of their own: on a single core they would have to share one process.
                Branch(process(trial_division, limit=2), name="trial division"),
                Branch(process(fermat, limit=2), name="Fermat's method"),
            ],
            join=Any(),
            then=Step.TELL,
        ),
    )
    .register(Step.TELL, tell)
    .exits(Step.DONE)
)


async def main() -> None:
    riddles = [Riddle(1_000_000_016_000_000_063), Riddle(3_000_000_021)]
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(flow.run(Step.FETCH, data=riddle)) for riddle in riddles]
        ticks = 0
        while not all(run.done() for run in runs):
            await asyncio.sleep(0.01)
            ticks += 1
    for riddle in riddles:
        print(f"{riddle.number} = {riddle.answer}")
    print(f"the event loop ticked {ticks} times")


if __name__ == "__main__":
    asyncio.run(main())
