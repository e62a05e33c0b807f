"""A real-time ad exchange: two budgets of milliseconds, and an answer whatever happens.

Who looks at which page on what device is looked up at once, within 100 ms. Then five bidders,
who answer after 45, 80, 120, 190 and 250 ms, get 200 ms: `PartialTimeout` goes on with whoever
bid by then, errors or not. Bids are weighed by relevance, and the winner pays what it takes to stay
ahead of the second. Where a budget is blown or nobody bids, `otherwise` leads to an ad of the
house. Four slots are auctioned at the same time, by runs of one workflow.

Prints:
    ada reads sports: SOLD
    known: a regular, sports page, phone
    Alpha bids 2.10 × 0.9 = 1.89
    Beta bids 2.60 × 0.8 = 2.08
    Gamma bids 1.80 × 0.7 = 1.26
    Delta bids 3.10 × 0.6 = 1.86
    Epsilon is too late
    sold to Beta for 2.36
    bob reads news: SOLD
    known: a regular, news page, phone
    Alpha bids 1.20 × 0.9 = 1.08
    Beta bids 0.90 × 0.8 = 0.72
    Gamma has nothing on offer for news
    Delta bids 2.50 × 0.6 = 1.50
    Epsilon is too late
    sold to Delta for 1.80
    cyd reads chess: UNSOLD
    house ad: nothing on offer for chess; the split of BID ran out of its 1 s
    dan reads news: UNSOLD
    house ad: the split of LOOK_UP ran out of its 0.5 s
"""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Literal

from cano import Branch, Context, JoinFailedError, Split, Workflow
from cano.join import PartialTimeout

MS = 0.005  # five times life-size, as between a bid at 190 and the deadline lie only 10 ms


class Step(StrEnum):
    LOOK_UP = auto()
    INVITE = auto()
    BID = auto()
    SCORE = auto()
    AUCTION = auto()
    HOUSE_AD = auto()
    SOLD = auto()
    UNSOLD = auto()


@dataclass
class Bid:
    bidder: str
    price: float
    relevance: float

    @property
    def score(self) -> float:
        return self.price * self.relevance


@dataclass
class Slot:
    """One place for one ad, and what becomes of it."""

    user: str = ""
    topic: str = ""
    bids: list[Bid] = field(default_factory=list[Bid])
    report: list[str] = field(default_factory=list[str])


class NoInterestError(Exception): ...


@dataclass
class Bidder:
    name: str
    takes: int
    relevance: float
    prices: dict[str, float]

    async def bid(self, ctx: Context[Slot]) -> Bid:
        await ctx.sleep(self.takes * MS)
        topic = ctx.data.topic
        if topic not in self.prices:
            raise NoInterestError(f"nothing on offer for {topic}")
        return Bid(self.name, self.prices[topic], self.relevance)


BIDDERS = [
    Bidder("Alpha", 45, 0.9, {"sports": 2.10, "news": 1.20}),
    Bidder("Beta", 80, 0.8, {"sports": 2.60, "news": 0.90}),
    Bidder("Gamma", 120, 0.7, {"sports": 1.80}),
    Bidder("Delta", 190, 0.6, {"sports": 3.10, "news": 2.50}),
    Bidder("Epsilon", 250, 0.5, {"sports": 9.99, "news": 9.99}),
]


async def user(ctx: Context[Slot]) -> str:
    await ctx.sleep((300 if ctx.data.user == "dan" else 30) * MS)  # dan has a long history
    return "a regular"


async def page(ctx: Context[Slot]) -> str:
    await ctx.sleep(45 * MS)
    return f"{ctx.data.topic} page"


async def device(ctx: Context[Slot]) -> str:
    await ctx.sleep(20 * MS)
    return "phone"


async def invite(ctx: Context[Slot]) -> Literal[Step.BID]:
    known = [str(branch.value) for branch in ctx.split or ()]
    ctx.data.report.append(f"known: {', '.join(known)}")
    return Step.BID


async def score(ctx: Context[Slot]) -> Literal[Step.AUCTION]:
    slot, silent = ctx.data, {bidder.name for bidder in BIDDERS}
    for branch in ctx.split or ():
        silent.remove(branch.name)
        if isinstance(bid := branch.value, Bid):
            slot.bids.append(bid)
            offer = f"{bid.price:.2f} × {bid.relevance} = {bid.score:.2f}"
            slot.report.append(f"{bid.bidder:8} bids {offer}")
        else:
            slot.report.append(f"{branch.name:8} has {branch.error}")
    slot.report += [f"{name:8} is too late" for name in sorted(silent)]
    return Step.AUCTION


async def auction(ctx: Context[Slot]) -> Literal[Step.SOLD]:
    """Second price: as much as keeps the winner's score above the runner-up's."""
    first, *others = sorted(ctx.data.bids, key=lambda bid: -bid.score)
    to_beat = max((bid.score for bid in others), default=0.0)
    ctx.data.report.append(f"sold to {first.bidder} for {to_beat / first.relevance:.2f}")
    return Step.SOLD


async def house_ad(ctx: Context[Slot]) -> Literal[Step.UNSOLD]:
    causes = ctx.error.exceptions if isinstance(ctx.error, JoinFailedError) else ()
    reasons = dict.fromkeys(str(cause) for cause in causes)  # without those said before
    ctx.data.report.append(f"house ad: {'; '.join(reasons)}")
    return Step.UNSOLD


flow = (
    Workflow(Step, data=Slot)
    .register(
        Step.LOOK_UP,
        Split([user, page, device], then=Step.INVITE, timeout=100 * MS),
        otherwise=Step.HOUSE_AD,
    )
    .register(Step.INVITE, invite)
    .register(
        Step.BID,
        Split(
            [Branch(bidder.bid, name=bidder.name) for bidder in BIDDERS],
            then=Step.SCORE,
            join=PartialTimeout(),
            timeout=200 * MS,
        ),
        otherwise=Step.HOUSE_AD,
    )
    .register(Step.SCORE, score)
    .register(Step.AUCTION, auction)
    .register(Step.HOUSE_AD, house_ad)
    .exits(Step.SOLD, Step.UNSOLD)
)


async def main() -> None:
    slots = [Slot("ada", "sports"), Slot("bob", "news"), Slot("cyd", "chess"), Slot("dan", "news")]
    ends = await asyncio.gather(*(flow.run(Step.LOOK_UP, data=slot) for slot in slots))
    for slot, end in zip(slots, ends, strict=True):
        print(f"{slot.user} reads {slot.topic}: {end.name}", *slot.report, sep="\n  ")


if __name__ == "__main__":
    asyncio.run(main())
