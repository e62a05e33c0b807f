"""A crash test of one's own saga: it finds a payment that is made twice, and how to see it again.

A trip is a seat and a payment. `trips` books the seat as something that can be undone, and pays: in
the first version just so, in the second as an effect that the bank can be asked about. The test
runs the workflow once for every way in which its process can be troubled, at each of its writes.
The bank outlives every process, so it is kept by the world; whatever is done is told to the world.

Prints:
    careless: found
    after Crash("before", 4): 'charge trip-1' was done 2 times, and 1 without a crash
    run 'trip-1' on record:
           1 RunStarted SEAT
           2 StateEntered SEAT
           3 TaskCompleted SEAT → PAY 17
           4 StateEntered PAY
         --- process 1 died: Crash("before", 4) ---
           5 RunClaimed PAY
           6 RunFinished DONE
    done outside more or less often than without it:
        charge trip-1 (process 1)
        charge trip-1 (process 2)
    again:
        crash_everywhere(careless, start=Step.SEAT, run_id="trip-1", only=[Crash("before", 4)])
    careful: nothing found
    after, backward, before, duplicate, forward, frozen, shutdown, unanswered, unavailable
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum, auto
from typing import Any, Literal

from cano import CompensatableTask, Context, Workflow
from cano.testing.crash import CrashFoundError, World, crash_everywhere


class Step(StrEnum):
    SEAT = auto()
    PAY = auto()
    DONE = auto()


class Bank:
    """A fake of the bank: it remembers what was paid, by whose key."""

    def __init__(self) -> None:
        self.paid: dict[str, int] = {}

    def charge(self, key: str) -> int:
        self.paid[key] = 40
        return 40


class BookSeat(CompensatableTask[Step, int]):
    def __init__(self, world: World) -> None:
        self.world = world

    async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.PAY], int]:
        self.world.ran(ctx, "book")
        return Step.PAY, 17

    async def compensate(self, ctx: Context[Any], output: int) -> None:
        self.world.ran(ctx, "free")


def trips(world: World, pay: Callable[[Context[Any]], Awaitable[object]]) -> Workflow[Step, None]:
    async def paying(ctx: Context[Any]) -> Literal[Step.DONE]:
        await pay(ctx)
        return Step.DONE

    flow = Workflow(Step, checkpoints=world.store).exits(Step.DONE)
    return flow.register(Step.SEAT, BookSeat(world)).register(Step.PAY, paying)


def careless(world: World) -> Workflow[Step, None]:
    """Pays, and hopes that nothing happens before that is on record."""

    async def pay(ctx: Context[Any]) -> None:
        world.did("charge", ctx.run_id)
        world.keep(Bank).charge(ctx.run_id)

    return trips(world, pay)


def careful(world: World) -> Workflow[Step, None]:
    """Pays once: who comes after a crash asks the bank first."""
    bank = world.keep(Bank)

    async def pay(ctx: Context[Any]) -> None:
        async def charge() -> int:
            world.did("charge", ctx.run_id)
            return bank.charge(ctx.run_id)

        async def look() -> int | None:
            return bank.paid.get(ctx.run_id)

        await ctx.effect("charge", charge, verify=look)

    return trips(world, pay)


def main() -> None:
    for make in (careless, careful):
        try:
            report = crash_everywhere(make, start=Step.SEAT, run_id="trip-1")
        except CrashFoundError as error:
            print(f"{make.__name__}: found\n{error}")
        else:
            print(f"{make.__name__}: nothing found")
            print(", ".join(sorted(report.faults)))


if __name__ == "__main__":
    main()
