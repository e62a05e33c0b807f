"""A loop until two agree: buyer and seller are states, and the run goes round between them.

The graph has a cycle, and the run data carry what one says to the other. Each gives way by a
share of the gap, never past a limit of its own, and leaves when patience is out: two ways out of
the loop, two exits.

Prints:
    a bicycle:
    1. I give you 84. - I want 123.
    2. I give you 96. - I want 115.
    3. I give you 102. - I want 111.
    4. I give you 104. - I want 109.
    DEAL, 5 apart in round 4
    a piano:
    1. I give you 600. - I want 810.
    ...
    5. I give you 600. - I want 700.
    WALK_AWAY, 100 apart in round 5
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Workflow

PATIENCE = 5  # rounds


class Turn(StrEnum):
    BUYER = auto()
    SELLER = auto()
    DEAL = auto()
    WALK_AWAY = auto()


@dataclass
class Haggle:
    thing: str
    offer: float
    asked: float
    at_most: float
    """What the buyer can pay."""
    at_least: float
    """What the seller can live with."""
    round: int = 0

    @property
    def gap(self) -> float:
        return self.asked - self.offer


flow = Workflow(Turn, data=Haggle, start=Turn.BUYER).exits(Turn.DEAL, Turn.WALK_AWAY)


@flow.task(Turn.BUYER)
async def buyer(ctx: Context[Haggle]) -> Literal[Turn.SELLER, Turn.DEAL]:
    deal = ctx.data
    deal.round += 1
    deal.offer = min(deal.offer + 0.3 * deal.gap, deal.at_most)
    print(f"  {deal.round}. I give you {deal.offer:.0f}.", end="")
    return Turn.DEAL if deal.gap < 5 else Turn.SELLER


@flow.task(Turn.SELLER)
async def seller(ctx: Context[Haggle]) -> Literal[Turn.BUYER, Turn.DEAL, Turn.WALK_AWAY]:
    deal = ctx.data
    deal.asked = max(deal.asked - 0.3 * deal.gap, deal.at_least)
    print(f" - I want {deal.asked:.0f}.")
    if deal.gap < 5:
        return Turn.DEAL
    return Turn.BUYER if deal.round < PATIENCE else Turn.WALK_AWAY


async def main() -> None:
    bicycle = Haggle("bicycle", offer=60, asked=140, at_most=110, at_least=90)
    piano = Haggle("piano", offer=500, asked=900, at_most=600, at_least=700)
    for deal in (bicycle, piano):
        print(f"a {deal.thing}:")
        end = await flow.run(data=deal)
        print(f"  {end.name}, {deal.gap:.0f} apart in round {deal.round}")


if __name__ == "__main__":
    asyncio.run(main())
