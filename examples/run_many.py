"""One workflow, many runs at once: a window, a bar of progress, and an outcome for each.

Twelve houses are surveyed, four at a time. At two of them nobody is at home, which is no concern of
the others: they come to their ends, and every outcome stands where its house stands in the list.

Prints:
    [            ]  0 of 12
    [##########!!] 12 of 12
    0 needs repair:  worth 160000
    2 sold:          worth 310000
    5 not surveyed:  ValueError: nobody was at home
    7 not surveyed:  ValueError: nobody was at home
    10 of 12 are surveyed, 2 are not, in ... ms; one after the other it would be 240
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Workflow, run_many
from cano.concurrent import ManyRuns, ManyStatus, RunOutcome


class Step(StrEnum):
    SURVEY = auto()
    SOLD = auto()
    NEEDS_REPAIR = auto()


@dataclass
class House:
    number: int
    rooms: int
    at_home: bool = True
    worth: int = 0


flow = Workflow(Step, data=House, start=Step.SURVEY).exits(Step.SOLD, Step.NEEDS_REPAIR)


@flow.task(Step.SURVEY)
async def survey(ctx: Context[House]) -> Literal[Step.SOLD, Step.NEEDS_REPAIR]:
    await ctx.sleep(0.02)
    if not ctx.data.at_home:
        raise ValueError("nobody was at home")
    ctx.data.worth = 10_000 + 50_000 * ctx.data.rooms
    return Step.SOLD if ctx.data.worth > 200_000 else Step.NEEDS_REPAIR


def bar() -> Callable[[ManyStatus], None]:
    """Draws how far it is, on one line; drawn anew only when it looks different."""
    drawn = ""

    def draw(status: ManyStatus) -> None:
        nonlocal drawn
        marks = "#" * status.succeeded + "!" * status.failed
        line = f"[{marks:{status.total}}] {status.finished:2} of {status.total}"
        if line != drawn:
            drawn = line
            print(line, end="\r", flush=True)
        if status.complete:
            print()

    return draw


def say(outcome: RunOutcome[Step, House]) -> str:
    if outcome.status == "failed" or outcome.state is None or outcome.data is None:
        return f"not surveyed:  {type(outcome.error).__name__}: {outcome.error}"
    return f"{outcome.state.replace('_', ' ') + ':':14} worth {outcome.data.worth}"


async def main() -> None:
    houses = [House(n, rooms=3 + n * 5 % 7, at_home=n not in {5, 7}) for n in range(12)]

    runs: ManyRuns[Step, House] = await run_many(flow, houses, concurrency=4, on_change=bar())

    for index in (0, 2, 5, 7):
        print(f"{index} {say(runs[index])}")
    done, total = len(runs.successes), len(runs)
    took = f"in {runs.status.seconds * 1000:.0f} ms; one after the other it would be 240"
    print(f"{done} of {total} are surveyed, {len(runs.errors)} are not, {took}")


if __name__ == "__main__":
    asyncio.run(main())
