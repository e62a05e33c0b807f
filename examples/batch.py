"""Many items in one state: three at once, each with patience of its own, and one that is lost.

`Prices` asks a shop for the price of everything on a list. An article that is busy is asked again
by the item's own `Retry`; one that does not exist fails, which does not disturb the others. `finish`
finds what every item came to, in the order of the list, and decides where to go.

Prints:
    cup costs 7
    pot costs 30
    tea costs 4
    jar: KeyError('jar')
    -> INCOMPLETE, 41 in all, cup asked 2 times
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import BatchTask, Context, Outcomes, Resources, Retry, Timeout, Workflow


class Step(StrEnum):
    PRICES = auto()
    COMPLETE = auto()
    INCOMPLETE = auto()


@dataclass
class Order:
    articles: tuple[str, ...] = ()
    total: int = 0


PRICES = {"tea": 4, "cup": 7, "pot": 30}


class Shop:
    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def price(self, article: str) -> int:
        self.asked[article] += 1
        await asyncio.sleep(0.01)
        if article == "cup" and self.asked[article] == 1:
            raise ConnectionError("busy, ask again")
        return PRICES[article]


class Prices(BatchTask[Step, str, int]):
    concurrency = 3
    item_policies = (Retry.fixed(3, 0.01, on=ConnectionError), Timeout(5))

    async def load(self, ctx: Context[Order]) -> tuple[str, ...]:
        return ctx.data.articles

    def key(self, item: str) -> str:
        return item

    async def process(self, ctx: Context[Order], item: str, shop: Shop) -> int:
        return await shop.price(item)

    async def finish(
        self, ctx: Context[Order], outcomes: Outcomes[int]
    ) -> Literal[Step.COMPLETE, Step.INCOMPLETE]:
        for outcome in outcomes:
            if outcome.error is None:
                print(f"{outcome.name} costs {outcome.value}")
        for index, error in outcomes.errors.items():
            print(f"{outcomes[index].name}: {error!r}")
        ctx.data.total = sum(outcomes.values)
        return Step.INCOMPLETE if outcomes.failed else Step.COMPLETE


async def main() -> None:
    shop = Shop()
    order = Order(("cup", "pot", "tea", "jar"))
    flow = (
        Workflow(Step, data=Order, resources=Resources(shop=shop))
        .register(Step.PRICES, Prices())
        .exits(Step.COMPLETE, Step.INCOMPLETE)
    )
    state = await flow.run(Step.PRICES, data=order)
    print(f"-> {state.name}, {order.total} in all, cup asked {shop.asked['cup']} times")


if __name__ == "__main__":
    asyncio.run(main())
