"""Tasks as classes: settings in the constructor, policies on the class, resources as parameters.

`Ship` is one class and two tasks. It carries its own `Retry`, and is handed the resources it
names: a line to the carrier, opened before the first run and closed after the last, and a
`MemoryStore`. `BySize` is a `RouterTask`: it decides where to go, and nothing else.

Prints:
    line opened
    3 kg: the line is busy (attempt 1)
    3 kg leaves by bike as TRACK-1
    40 kg leaves by truck as TRACK-2
    line closed
    in the store: ['TRACK-1', 'TRACK-2']
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import (
    Context,
    Key,
    MemoryStore,
    Resources,
    Retry,
    RouterTask,
    Task,
    Timeout,
    Workflow,
)


class Step(StrEnum):
    SORT = auto()
    BIKE = auto()
    TRUCK = auto()
    SHIPPED = auto()


@dataclass
class Parcel:
    kilos: int = 0


class Line:
    """A connection to the carrier. Its first call fails, as first calls do."""

    def __init__(self) -> None:
        self.calls = 0

    async def setup(self) -> None:
        print("line opened")

    async def teardown(self) -> None:
        print("line closed")

    async def book(self) -> str:
        self.calls += 1
        if self.calls == 1:
            raise ConnectionError("the line is busy")
        return f"TRACK-{self.calls - 1}"


TRACKS = Key("tracks", list[str])  # the spelling and the type of a stored value, said once


class BySize(RouterTask[Step]):
    async def route(self, ctx: Context[Parcel]) -> Literal[Step.BIKE, Step.TRUCK]:
        return Step.BIKE if ctx.data.kilos < 10 else Step.TRUCK


class Ship(Task[Step]):
    policies = (Retry.fixed(3, 0.01), Timeout(1.0))

    def __init__(self, vehicle: str) -> None:
        self.vehicle = vehicle

    async def run(
        self, ctx: Context[Parcel], line: Line, store: MemoryStore
    ) -> Literal[Step.SHIPPED]:
        kilos = ctx.data.kilos
        try:
            track = await line.book()
        except ConnectionError as error:
            print(f"{kilos} kg: {error} (attempt {ctx.attempt})")
            raise  # to the Retry
        print(f"{kilos} kg leaves by {self.vehicle} as {track}")
        store.append(TRACKS, track)
        return Step.SHIPPED


store = MemoryStore()
flow = (
    Workflow(Step, data=Parcel, resources=Resources(line=Line(), store=store))
    .register(Step.SORT, BySize())
    .register(Step.BIKE, Ship("bike"))
    .register(Step.TRUCK, Ship("truck"))
    .exits(Step.SHIPPED)
)


async def main() -> None:
    async with flow:  # both runs share the open line; without this, each would open it anew
        await flow.run(Step.SORT, data=Parcel(kilos=3))
        await flow.run(Step.SORT, data=Parcel(kilos=40))
    print(f"in the store: {store.get(TRACKS)}")


if __name__ == "__main__":
    asyncio.run(main())
