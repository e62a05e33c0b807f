"""Every join strategy over the same five branches, side by side.

The branches take 40 to 250 ms, at most four run at once, and *c* fails. A strategy decides when
the split has seen enough: as soon as it is satisfied, and as soon as it cannot be any more. What
still runs then is cancelled; what has not started never will.

Prints:
    strategy outcome reason at a b c d e
    All() fails impossible ... ms ✓ ✓ ✗ ~ ~
    All(fail_fast=False) fails all ... ms ✓ ✓ ✗ ✓ ✓
    Any() joins enough ... ms ✓ ~ ~ ~ ·
    Quorum(3) joins enough ... ms ✓ ✓ ✗ ✓ ~
    Quorum(5) fails impossible ... ms ✓ ✓ ✗ ~ ~
    Percentage(0.8) joins all ... ms ✓ ✓ ✗ ✓ ✓
    PartialResults(2) joins enough ... ms ✓ ✓ ~ ~ ~
    PartialTimeout() joins deadline ... ms ✓ ✓ ✗ ✓ ~
    Tolerate(failures=1) joins all ... ms ✓ ✓ ✗ ✓ ✓
    Settled() joins all ... ms ✓ ✓ ✗ ✓ ✓
    ✓ succeeded ✗ failed ~ cancelled · never started
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Literal

from cano import Branch, Context, Split, Workflow, join

MILLISECONDS = {"a": 40, "b": 80, "c": 120, "d": 190, "e": 250}
MS = 0.002  # twice life-size, so that a busy machine keeps the order too

STRATEGIES: dict[str, join.Join] = {
    "All()": join.All(),
    "All(fail_fast=False)": join.All(fail_fast=False),
    "Any()": join.Any(),
    "Quorum(3)": join.Quorum(3),
    "Quorum(5)": join.Quorum(5),
    "Percentage(0.8)": join.Percentage(0.8),
    "PartialResults(2)": join.PartialResults(2),
    "PartialTimeout()": join.PartialTimeout(),
    "Tolerate(failures=1)": join.Tolerate(failures=1),
    "Settled()": join.Settled(),
}


class Race(StrEnum):
    RUN = auto()
    LOOK = auto()
    DONE = auto()


@dataclass
class Row:
    began: float = 0.0
    text: str = ""


def branch(name: str, milliseconds: int) -> Branch[str]:
    async def work(ctx: Context[Any]) -> str:
        await ctx.sleep(milliseconds * MS)
        if name == "c":
            raise ValueError("c always fails")
        return name

    return Branch(work, name=name)


async def look(ctx: Context[Row]) -> Literal[Race.DONE]:
    """Reached from a join that was satisfied and, by `otherwise`, from one that failed."""
    row, split = ctx.data, ctx.split
    if split is None:
        raise RuntimeError("no split was joined")
    signs = dict.fromkeys(range(split.total), "·")
    signs |= dict.fromkeys(split.cancelled, "~")
    signs |= {result.index: "✗" if result.error else "✓" for result in split}
    outcome = "fails" if ctx.error else "joins"
    elapsed = (asyncio.get_running_loop().time() - row.began) / MS
    row.text = f"{outcome}   {split.reason:10} {elapsed:4.0f} ms   {'  '.join(signs.values())}"
    return Race.DONE


async def race(strategy: join.Join) -> str:
    split = Split(
        [branch(name, duration) for name, duration in MILLISECONDS.items()],
        then=Race.LOOK,
        join=strategy,
        bulkhead=4,
        timeout=240 * MS if isinstance(strategy, join.PartialTimeout) else None,
    )
    flow = (
        Workflow(Race, data=Row)
        .register(Race.RUN, split, otherwise=Race.LOOK)
        .register(Race.LOOK, look)
        .exits(Race.DONE)
    )
    row = Row(began=asyncio.get_running_loop().time())
    await flow.run(Race.RUN, data=row)
    return row.text


async def main() -> None:
    rows = await asyncio.gather(*(race(strategy) for strategy in STRATEGIES.values()))
    print(f"{'strategy':21} outcome reason         at   {'  '.join(MILLISECONDS)}")
    for label, row in zip(STRATEGIES, rows, strict=True):
        print(f"{label:21} {row}")
    print("\n✓ succeeded   ✗ failed   ~ cancelled   · never started")


if __name__ == "__main__":
    asyncio.run(main())
