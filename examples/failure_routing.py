"""Where a failure leads: to another attempt, to another state, or out, with a note of the way.

A shop charges four cards. For the first the bank is busy and says when to come back, which
`Retry` heeds. The second is declined and the third never answered: `otherwise` leads each failure
to a state of its own, where `ctx.error` says what happened. The fourth nobody foresaw, so it comes
out of `run` as the exception that it is, with a note of how the run got there.

Prints:
    visa: busy, come back in 0.05 s
    visa: charged 42 at attempt 2
    -> PAID
    amex: declined, the limit is reached
    -> REFUSED
    diners: no answer (attempt 1 in CHARGE took longer than 0.1 s); the clerk will call the bank
    -> PENDING
    shell: KeyError('shell')
    cano: run 'order-4' of Step: RING_UP → CHARGE
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Retry, Timeout, Workflow


class Step(StrEnum):
    RING_UP = auto()
    CHARGE = auto()
    DECLINED = auto()
    LATE = auto()
    PAID = auto()
    REFUSED = auto()
    PENDING = auto()


@dataclass
class Order:
    card: str = ""
    total: int = 0


class BankBusyError(Exception):
    """Carries `retry_after`: the pause before the next attempt will not be shorter."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"busy, come back in {retry_after} s")
        self.retry_after = retry_after


class CardDeclinedError(Exception): ...


flow = Workflow(Step, data=Order).exits(Step.PAID, Step.REFUSED, Step.PENDING)


@flow.task(Step.RING_UP)
async def ring_up(ctx: Context[Order]) -> Literal[Step.CHARGE]:
    ctx.data.total = 12 + 30
    return Step.CHARGE


@flow.task(
    Step.CHARGE,
    Retry(attempts=3, delay=0.01, on=BankBusyError),
    Timeout(0.1),
    otherwise={CardDeclinedError: Step.DECLINED, TimeoutError: Step.LATE},
)
async def charge(ctx: Context[Order]) -> Literal[Step.PAID]:
    answers = {"visa": 0.0, "amex": 0.0, "diners": 10.0}  # seconds; a shell is no card at all
    card = ctx.data.card
    await ctx.sleep(answers[card])
    if card == "visa" and ctx.attempt == 1:
        error = BankBusyError(retry_after=0.05)
        print(f"{card}: {error}")
        raise error
    if card == "amex":
        raise CardDeclinedError("the limit is reached")
    print(f"{card}: charged {ctx.data.total} at attempt {ctx.attempt}")
    return Step.PAID


@flow.task(Step.DECLINED)
async def declined(ctx: Context[Order]) -> Literal[Step.REFUSED]:
    print(f"{ctx.data.card}: declined, {ctx.error}")
    return Step.REFUSED


@flow.task(Step.LATE)
async def late(ctx: Context[Order]) -> Literal[Step.PENDING]:
    print(f"{ctx.data.card}: no answer ({ctx.error}); the clerk will call the bank")
    return Step.PENDING


async def main() -> None:
    for number, card in enumerate(("visa", "amex", "diners", "shell"), start=1):
        try:
            end = await flow.run(Step.RING_UP, data=Order(card), run_id=f"order-{number}")
        except KeyError as error:
            print(f"{card}: {error!r}", *error.__notes__, sep="\n  ")
        else:
            print(f"  -> {end.name}")


if __name__ == "__main__":
    asyncio.run(main())
