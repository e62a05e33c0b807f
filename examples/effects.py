"""Effects outside: made once, looked up, or decided by a person.

A crash between a payment and the note of it leaves a question that no engine can answer: did it
happen? `ctx.effect` writes down an intent before and the value after, so that a resumed run knows
which of its effects are in doubt. It then asks `verify`, or makes an *idempotent* effect again, or
stops until a person has looked.

Prints:
    bank: charged 40 for order-1
    post: a parcel for order-1
    ... and the process dies before it hears from the post
    post: yes, there is a parcel 1
    bank has 1 payment, post has 1 parcel
    printer: invoice of order-1, and the process dies
    in doubt: effect 'invoice' of SHIP had begun when its process died, and may have happened...resolve order-1 ...
    a person looks into the printer: nothing there, again please
    printer: invoice of order-1
    -> DONE
"""

import asyncio
from contextlib import suppress
from enum import StrEnum, auto
from typing import Any, Literal

from cano import Context, EffectInDoubtError, MemoryCheckpoints, Workflow
from cano.testing import run


class Step(StrEnum):
    PAY = auto()
    SHIP = auto()
    DONE = auto()


class Crash(BaseException):
    """Ends the process, as far as the run is concerned."""


PAYMENTS: list[int] = []
PARCELS: list[str] = []
PRINTED: list[str] = []
DEATHS = [True, True]
"""Once at the post, once at the printer."""


async def charge() -> int:
    print("bank: charged 40 for order-1")
    PAYMENTS.append(40)
    return 40


async def send_parcel() -> int:
    print("post: a parcel for order-1")
    PARCELS.append("order-1")
    if DEATHS.pop():
        print("... and the process dies before it hears from the post")
        raise Crash
    return len(PARCELS)


async def look_for_parcel() -> int | None:
    """The post can be asked: the number of the parcel, or None if there is none."""
    if "order-1" not in PARCELS:
        return None
    print("post: yes, there is a parcel 1")
    return 1


async def print_invoice() -> None:
    dies = bool(DEATHS) and bool(DEATHS.pop())
    print("printer: invoice of order-1" + ", and the process dies" * dies)
    if dies:
        raise Crash
    PRINTED.append("order-1")


async def pay(ctx: Context[Any]) -> Literal[Step.SHIP]:
    await ctx.effect("charge", charge)
    await ctx.effect("parcel", send_parcel, verify=look_for_parcel)
    print(f"bank has {len(PAYMENTS)} payment, post has {len(PARCELS)} parcel")
    return Step.SHIP


async def ship(ctx: Context[Any]) -> Literal[Step.DONE]:
    await ctx.effect("invoice", print_invoice)
    return Step.DONE


def orders(store: MemoryCheckpoints) -> Workflow[Step, None]:
    flow = Workflow(Step, checkpoints=store).exits(Step.DONE)
    return flow.register(Step.PAY, pay).register(Step.SHIP, ship)


async def main() -> None:
    store = MemoryCheckpoints()
    for _ in range(2):
        with suppress(Crash):
            await orders(store).run(Step.PAY, run_id="order-1", wait=True)
    await asyncio.sleep(20)  # until the lease of the "process" that died is over
    try:
        await orders(store).resume("order-1")
    except EffectInDoubtError as error:
        print("in doubt:", error)
    print("a person looks into the printer: nothing there, again please")
    await orders(store).handle("order-1").resolve("invoice", again=True)
    print("->", (await orders(store).resume("order-1")).name)


if __name__ == "__main__":
    run(main())
