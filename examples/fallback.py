"""Something else in place of an error: a value, a function's result, another state.

A shop recommends books. Where the recommender fails, the shop shows its bestsellers: as a value, as
what a function makes of the error, and as the state that a run goes on with. Programming errors are
not hidden behind it, unless one asks for that.

Prints:
    for ann: ['Emma', 'Persuasion']
    for ben: ['Moby-Dick']
    for cat: ['Moby-Dick'] (no recommender: connection refused)
    RECOMMEND -> BESTSELLERS -> SHOWN
    a typo is not hidden: TypeError
"""

import asyncio
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Fallback, StateEntered, Workflow, on

BESTSELLERS = ["Moby-Dick"]


class Step(StrEnum):
    RECOMMEND = auto()
    BESTSELLERS = auto()
    SHOWN = auto()


@Fallback(BESTSELLERS)
async def recommend(customer: str) -> list[str]:
    if customer != "ann":
        raise ConnectionError("connection refused")
    return ["Emma", "Persuasion"]


async def explained(ctx: Context, error: Exception) -> list[str]:
    return [*BESTSELLERS, f"(no recommender: {error})"]


@Fallback(explained)
async def recommend_and_say_why(customer: str) -> list[str]:
    raise ConnectionError("connection refused")


@Fallback(BESTSELLERS)
async def mistaken(customer: str) -> list[str]:
    raise TypeError("recommend() takes no argument 'costumer'")


async def ask(ctx: Context) -> Literal[Step.SHOWN]:
    raise ConnectionError("connection refused")


async def show_bestsellers(ctx: Context) -> Literal[Step.SHOWN]:
    return Step.SHOWN


async def main() -> None:
    print("for ann:", await recommend("ann"))
    print("for ben:", await recommend("ben"))
    books, why = await recommend_and_say_why("cat")
    print(f"for cat: {[books]} {why}")

    path: list[str] = []

    @on(StateEntered)
    def follow(event: StateEntered) -> None:
        path.append(event.state)

    flow = Workflow(Step, observers=[follow])
    flow.register(Step.RECOMMEND, ask, Fallback(Step.BESTSELLERS))  # an edge like any other
    flow.register(Step.BESTSELLERS, show_bestsellers).exits(Step.SHOWN)
    await flow.run(Step.RECOMMEND)
    print(" -> ".join(path))

    try:
        await mistaken("dan")
    except TypeError as error:
        print("a typo is not hidden:", type(error).__name__)


if __name__ == "__main__":
    asyncio.run(main())
