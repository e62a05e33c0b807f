"""A saga: what was done is undone, newest first, when the rest cannot be done.

A trip is a train, a hotel and a museum, each booked with somebody else, and no transaction spans
them. Each task says how it is undone; what undoing needs is its output, which is kept. The first
trip works out. For the second the museum is sold out: the hotel and the train are given back, the
hotel at the second attempt. Then the process that books the third dies while it is giving back;
another one finds out, goes on with the rollback where it was, and gives nothing back twice.

Prints:
    ada: train, hotel, museum
    -> BOOKED
    bob: train, hotel
    bob: the hotel does not answer
    bob: not the hotel, not the train
    -> SoldOutError: no tickets for bob
    cyd: train, hotel, not the hotel
    -> the process died
    cyd: not the train
    -> RunFailedError: run 'trip of cyd' failed in MUSEUM: SoldOutError: no tickets for cyd
    TaskCompleted of TRAIN: train ticket 3
    TaskCompleted of HOTEL: hotel room 3
    RollbackStarted of MUSEUM
    TaskCompensated of HOTEL
    RunClaimed of HOTEL
    TaskCompensated of TRAIN
    RunFailed of MUSEUM
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import (
    CheckpointStore,
    CompensatableTask,
    Context,
    MemoryCheckpoints,
    Resources,
    Retry,
    TaskCompleted,
    Workflow,
)
from cano.testing.faults import FaultyStore, SimulatedCrash


class Step(StrEnum):
    TRAIN = auto()
    HOTEL = auto()
    MUSEUM = auto()
    BOOKED = auto()


@dataclass
class Trip:
    who: str = ""


class SoldOutError(Exception):
    """There are no tickets left."""


class Agency:
    """The world outside, which no transaction spans."""

    def __init__(self) -> None:
        self.bookings = {"train ticket": 0, "hotel room": 0}
        self.answers = iter(["the hotel does not answer"])
        self.said: list[str] = []

    def book(self, what: str) -> str:
        self.bookings[what] += 1
        self.said.append(what.split(maxsplit=1)[0])
        return f"{what} {self.bookings[what]}"

    def give_back(self, what: str) -> None:
        self.said.append(f"not the {what.split(maxsplit=1)[0]}")

    def tell(self, who: str) -> None:
        """Print what happened since the last time."""
        print(f"{who}: {', '.join(self.said)}")
        self.said.clear()


class BookTrain(CompensatableTask[Step, str]):
    async def run(self, ctx: Context[Trip], agency: Agency) -> tuple[Literal[Step.HOTEL], str]:
        return Step.HOTEL, agency.book("train ticket")

    async def compensate(self, ctx: Context[Trip], output: str, agency: Agency) -> None:
        agency.give_back(output)


class BookHotel(CompensatableTask[Step, str]):
    compensation_policies = (Retry.fixed(3, 0.01),)

    async def run(self, ctx: Context[Trip], agency: Agency) -> tuple[Literal[Step.MUSEUM], str]:
        return Step.MUSEUM, agency.book("hotel room")

    async def compensate(self, ctx: Context[Trip], output: str, agency: Agency) -> None:
        if trouble := next(agency.answers, None):
            agency.tell(ctx.data.who)
            print(f"{ctx.data.who}: {trouble}")
            raise ConnectionError(trouble)
        agency.give_back(output)


async def visit_museum(ctx: Context[Trip], agency: Agency) -> Literal[Step.BOOKED]:
    if ctx.data.who != "ada":
        raise SoldOutError(f"no tickets for {ctx.data.who}")
    agency.said.append("museum")
    return Step.BOOKED


def trips(agency: Agency, store: CheckpointStore) -> Workflow[Step, Trip]:
    return (
        Workflow(Step, data=Trip, resources=Resources(agency=agency), checkpoints=store, lease=0.5)
        .register(Step.TRAIN, BookTrain())
        .register(Step.HOTEL, BookHotel())
        .register(Step.MUSEUM, visit_museum)
        .exits(Step.BOOKED)
    )


async def book(flow: Workflow[Step, Trip], agency: Agency, who: str) -> None:
    """Book a trip, or go on with its booking, and say how that ended."""
    try:
        end = (await flow.run(Step.TRAIN, data=Trip(who), run_id=f"trip of {who}", wait=True)).name
    except SimulatedCrash:
        end = "the process died"
    except Exception as error:  # noqa: BLE001 -- what it is, is what is shown
        end = f"{type(error).__name__}: {error}"
    agency.tell(who)
    print(f"-> {end}")


async def main() -> None:
    agency, store = Agency(), MemoryCheckpoints()
    for who in ("ada", "bob"):
        await book(trips(agency, store), agency, who)

    # Of the eight writes for the third trip, the seventh says that the hotel was given back.
    dying = trips(agency, FaultyStore(store, crash_after=7))
    await book(dying, agency, "cyd")
    await book(trips(agency, store), agency, "cyd")

    for event in await store.load("trip of cyd"):
        if type(event).__name__.startswith(("Task", "Rollback", "Run")) and event.sequence > 1:
            output = (
                bytes(event.value).decode().strip('"') if isinstance(event, TaskCompleted) else ""
            )
            print(f"{type(event).__name__} of {event.state}{': ' if output else ''}{output}")


if __name__ == "__main__":
    asyncio.run(main())
