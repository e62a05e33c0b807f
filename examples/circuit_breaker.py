"""Leave a payment gateway alone that is down, and find out with one order when it is back.

Two failures in a row open the circuit. `Retry` makes no third attempt, since it would be refused;
the next order is put aside at once, without a call and without a wait. When the circuit has been
open for half a second one order is let through as a probe; it succeeds, and all go through
again. A refund, which is no workflow, shares the same breaker.

Prints:
    order 1: calls the gateway
    order 1: calls the gateway
    the circuit is open
    order 1: put aside, as the gateway did not answer
    order 2: put aside, as the circuit 'gateway' is open for another 0...
    half a second later
    the circuit is half-open
    order 3: calls the gateway
    the circuit is closed
    order 3: PAID
    order 4: calls the gateway
    order 4: PAID
    refund: 12.5
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import CircuitBreaker, CircuitState, Context, Retry, Timeout, Workflow


class Step(StrEnum):
    PAY = auto()
    ASIDE = auto()
    PAID = auto()
    LATER = auto()


@dataclass
class Order:
    number: int


def changed(before: CircuitState, after: CircuitState) -> None:
    print(f"the circuit is {after}")


class Gateway:
    """Somebody else's server."""

    up = False

    async def charge(self, amount: float) -> float:
        if not self.up:
            raise ConnectionError("the gateway did not answer")
        return amount


gateway = Gateway()
breaker = CircuitBreaker(failures=2, reset=0.5, name="gateway", on_change=changed)
"""One for all who call the gateway."""


async def pay(ctx: Context[Order]) -> Literal[Step.PAID]:
    print(f"order {ctx.data.number}: calls the gateway")
    await gateway.charge(12.5)
    return Step.PAID


async def put_aside(ctx: Context[Order]) -> Literal[Step.LATER]:
    print(f"order {ctx.data.number}: put aside, as {ctx.error}")
    return Step.LATER


@breaker
async def refund(amount: float) -> float:
    return await gateway.charge(amount)


async def main() -> None:
    flow = (
        Workflow(Step, data=Order)
        .register(Step.PAY, pay, Retry(delay=0.001), breaker, Timeout(1), otherwise=Step.ASIDE)
        .register(Step.ASIDE, put_aside)
        .exits(Step.PAID, Step.LATER)
    )
    for number in (1, 2, 3, 4):
        if number == 3:
            gateway.up = True
            await asyncio.sleep(0.5)
            print("half a second later")
        end = await flow.run(Step.PAY, data=Order(number))
        if end is Step.PAID:
            print(f"order {number}: {end.name}")
    amount: float = await refund(12.5)
    print(f"refund: {amount}")


if __name__ == "__main__":
    asyncio.run(main())
