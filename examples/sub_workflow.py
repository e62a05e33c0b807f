"""A workflow as the task of another: resumed with it, and undone with it.

Shipping is a workflow of its own. An order uses it in one of its states. The first order is let go
of while the carrier is being booked, as at a shutdown, and is carried on: the parcel is not packed
again. The second is refused by the customer after it was sent: what shipping did is undone,
although its run had finished.

Prints:
    pack 1
    (shutdown)
    send 1
    order 1: Step.DONE, tracking T1
    pack 2
    send 2
    unpack 2
    order 2: ReturnedError: order 2 came back
    order 2: failed
    order 2/1/SHIP: cancelled
"""

import asyncio
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from cano import CompensatableTask, Context, MemoryCheckpoints, RunQuery, Workflow


class Ship(Enum):
    PACK = auto()
    SEND = auto()
    SENT = auto()


class Step(Enum):
    SHIP = auto()
    DELIVER = auto()
    DONE = auto()


@dataclass
class Order:
    number: int = 0
    tracking: str = ""


class ReturnedError(Exception):
    """The customer does not want it."""


class Pack(CompensatableTask[Ship, int]):
    async def run(self, ctx: Context[Order]) -> tuple[Literal[Ship.SEND], int]:
        print("pack", ctx.data.number)
        return Ship.SEND, ctx.data.number

    async def compensate(self, ctx: Context[Order], output: int) -> None:
        print("unpack", output)


async def send(ctx: Context[Order]) -> Literal[Ship.SENT]:
    booking.set()
    await ctx.sleep(0.05)  # the carrier takes its time
    print("send", ctx.data.number)
    ctx.data.tracking = f"T{ctx.data.number}"
    return Ship.SENT


async def deliver(ctx: Context[Order]) -> Literal[Step.DONE]:
    if ctx.data.number == 2:
        raise ReturnedError("order 2 came back")
    return Step.DONE


def take(ctx: Context[Order], parcel: Order) -> None:
    ctx.data.tracking = parcel.tracking


store = MemoryCheckpoints()
booking = asyncio.Event()

shipping = Workflow(Ship, data=Order, start=Ship.PACK, checkpoints=store)
shipping.register(Ship.PACK, Pack()).register(Ship.SEND, send).exits(Ship.SENT)

orders = Workflow(Step, data=Order, start=Step.SHIP, checkpoints=store)
orders.register(
    Step.SHIP,
    shipping.as_task(Step.DELIVER, data_in=lambda ctx: Order(ctx.data.number), data_out=take),
)
orders.register(Step.DELIVER, deliver).exits(Step.DONE)


async def main() -> None:
    going = asyncio.create_task(orders.run(data=Order(1), run_id="order 1"))
    await booking.wait()
    going.cancel()
    await asyncio.wait([going])
    print("(shutdown)")
    end = await orders.resume("order 1")
    data = await orders.handle("order 1").data()
    print(f"order 1: {end}, tracking {data.tracking}")

    try:
        await orders.run(data=Order(2), run_id="order 2")
    except ReturnedError as error:
        print(f"order 2: ReturnedError: {error}")
    for run in reversed(await store.runs(RunQuery())):
        if run.run_id.startswith("order 2"):
            print(f"{run.run_id}: {run.status}")


asyncio.run(main())
