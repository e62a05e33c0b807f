"""One branch per item, the items known only at run time; the state after the join merges.

How many twisters there are to read is what the first state finds out. Then each of them is a
branch, named by its title, two at a time; and the counts they return meet in the next state,
where `ctx.split` holds what every branch came to.

Prints:
    reading 6 twisters, 2 at a time
    Peter Piper 4 × peter
    Woodchuck 4 × wood
    Sea shells 2 × sea
    Fuzzy Wuzzy 4 × fuzzy
    Canner 6 × can
    Buttered 2 × butter
    all together: 6 × can, 4 × peter, 4 × piper
    took ... ms; one after the other it would be 300
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Literal

from cano import Context, Split, Workflow

SHELF = {
    "Peter Piper": "Peter Piper picked a peck of pickled peppers. A peck of pickled peppers Peter "
    "Piper picked. If Peter Piper picked a peck of pickled peppers, where's the peck of pickled "
    "peppers Peter Piper picked?",
    "Woodchuck": "How much wood would a woodchuck chuck if a woodchuck could chuck wood? As much "
    "wood as a woodchuck would, if a woodchuck could chuck wood.",
    "Sea shells": "She sells sea shells by the sea shore.",
    "Fuzzy Wuzzy": "Fuzzy Wuzzy was a bear. Fuzzy Wuzzy had no hair. Fuzzy Wuzzy wasn't very "
    "fuzzy, was he?",
    "Canner": "Can you can a can as a canner can can a can?",
    "Buttered": "Betty bought a bit of butter, but the butter was bitter.",
}


class Step(StrEnum):
    COLLECT = auto()
    READ = auto()
    MERGE = auto()
    DONE = auto()


@dataclass
class Twister:
    title: str
    text: str


@dataclass
class Anthology:
    twisters: list[Twister] = field(default_factory=list[Twister])
    favourites: dict[str, str] = field(default_factory=dict[str, str])
    overall: str = ""


async def collect(ctx: Context[Anthology]) -> Literal[Step.READ]:
    ctx.data.twisters = [Twister(title, text) for title, text in SHELF.items()]
    print(f"reading {len(ctx.data.twisters)} twisters, 2 at a time")
    return Step.READ


async def read(ctx: Context[Anthology], twister: Twister) -> Counter[str]:
    await ctx.sleep(0.05)
    words = (word.strip(".,?").lower() for word in twister.text.split())
    return Counter(word for word in words if len(word) > 2)


async def merge(ctx: Context[Anthology]) -> Literal[Step.DONE]:
    total = Counter[str]()
    for branch in ctx.split or ():
        counts: Counter[str] = branch.value or Counter()
        ctx.data.favourites[branch.name] = in_words(counts, 1)
        total += counts
    ctx.data.overall = in_words(total, 3)
    return Step.DONE


def in_words(counts: Counter[str], most: int) -> str:
    return ", ".join(f"{count} × {word}" for word, count in counts.most_common(most))


flow = (
    Workflow(Step, data=Anthology)
    .register(Step.COLLECT, collect)
    .register(
        Step.READ,
        Split.over(
            lambda anthology: anthology.twisters,
            run=read,
            name=lambda twister: twister.title,
            then=Step.MERGE,
            bulkhead=2,
        ),
    )
    .register(Step.MERGE, merge)
    .exits(Step.DONE)
)


async def main() -> None:
    anthology, clock = Anthology(), asyncio.get_running_loop().time
    began = clock()
    await flow.run(Step.COLLECT, data=anthology)
    for title, favourite in anthology.favourites.items():
        print(f"  {title:12} {favourite}")
    print(f"all together: {anthology.overall}")
    print(f"took {(clock() - began) * 1000:.0f} ms; one after the other it would be 300")


if __name__ == "__main__":
    asyncio.run(main())
