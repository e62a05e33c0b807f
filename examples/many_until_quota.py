"""Many runs, as many as it takes: three good answers are enough, and the rest is called off.

Eight weather stations are asked how warm it is. Three good answers are enough, or whatever there
is after a second. The outcomes come as the runs end; those still under way then are cancelled,
and what they had opened they close before the block is left.

Prints:
    Harbour      is cut off
    Old Mill     says 14
    Summit       says 9
    Airport      says 13
    hung up on:  Lighthouse
    hung up on:  Forest
    hung up on:  Quarry
    on the average 12 degrees; 3 answers, 1 failure, 3 cancelled, 1 never asked
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Workflow
from cano.concurrent import QuotaOrDuration, many


class Step(StrEnum):
    CALL = auto()
    ANSWERED = auto()


@dataclass
class Station:
    name: str
    seconds: float
    celsius: int | None = None


STATIONS = [
    Station("Summit", 0.06, 9),
    Station("Old Mill", 0.03, 14),
    Station("Lighthouse", 30.0, 11),
    Station("Harbour", 0.01),
    Station("Airport", 0.07, 13),
    Station("Forest", 20.0, 12),
    Station("Quarry", 10.0, 15),
    Station("Island", 0.02, 10),
]


flow = Workflow(Step, data=Station, start=Step.CALL).exits(Step.ANSWERED)


@flow.task(Step.CALL)
async def call(ctx: Context[Station]) -> Literal[Step.ANSWERED]:
    try:
        await ctx.sleep(ctx.data.seconds)
    except asyncio.CancelledError:
        print(f"hung up on:  {ctx.data.name}")
        raise
    if ctx.data.celsius is None:
        raise ConnectionError("the line is dead")
    return Step.ANSWERED


async def main() -> None:
    enough = QuotaOrDuration(3, seconds=1.0, of="succeeded")
    degrees: list[int] = []
    async with many(flow, STATIONS, concurrency=4, wait=enough) as runs:
        async for outcome in runs:
            if outcome.status == "failed":
                print(f"{STATIONS[outcome.index].name:12} is cut off")
            elif outcome.status == "succeeded" and outcome.data and outcome.data.celsius:
                print(f"{outcome.data.name:12} says {outcome.data.celsius}")
                degrees.append(outcome.data.celsius)

    status = runs.status
    average = sum(degrees) / len(degrees)
    print(
        f"on the average {average:.0f} degrees; {status.succeeded} answers, {status.failed} failure, "
        f"{status.cancelled} cancelled, {status.not_started} never asked"
    )


if __name__ == "__main__":
    asyncio.run(main())
