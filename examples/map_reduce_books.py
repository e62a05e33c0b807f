"""Map and reduce on a schedule: which prepositions do our books live on?

The books are the pages of this project's guide. From two in the morning three flows each read a batch of
them, a branch per book, and count its prepositions, a branch per book again: one book is not to be found,
so `Tolerate` lets a quarter of a batch fail. At half past two another flow reduces the counts to a
ranking. All of them share a shelf, which is a resource: it stays up as long as the scheduler is open. Two nights
pass in a moment, in virtual time, in which nobody but the disk is waited for.

Prints:
    02:00 basics: 3 of 4 books, data, nodes, workflows
    02:05 growth: 4 of 4 books, batches, many, split, streams
    02:10 trouble: 4 of 4 books, failures, policies, rate-limits, sagas
    02:30 ranking of 11 books, from "... of" on
    02:30 most varied: ...
    02:00 basics: 3 of 4 books, data, nodes, workflows
    02:05 growth: 4 of 4 books, batches, many, split, streams
    02:10 trouble: 4 of 4 books, failures, policies, rate-limits, sagas
    02:30 ranking of 11 books, from "... of" on
    02:30 most varied: ...
    basics: 2 runs, finished
    growth: 2 runs, finished
    trouble: 2 runs, finished
    ranking: 2 runs, finished
"""

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum, auto
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cano import Context, Resources, Split, Workflow
from cano.join import Tolerate
from cano.scheduler import Cron, Scheduler
from cano.testing import run
from cano.testing.clock import VirtualLoop

GUIDE = Path(__file__).parents[1] / "docs" / "guide"
BATCHES = {
    "basics": ["workflows", "data", "nodes", "a-page-that-is-lost"],
    "growth": ["split", "many", "batches", "streams"],
    "trouble": ["failures", "policies", "rate-limits", "sagas"],
}
PREPOSITIONS = {
    *("about", "above", "after", "against", "among", "around", "at", "before", "behind", "below"),
    *("between", "by", "during", "for", "from", "in", "into", "of", "off", "on", "out", "over"),
    *("through", "to", "under", "until", "up", "upon", "with", "within", "without"),
}


class Step(StrEnum):
    READ = auto()
    KEEP = auto()
    COUNT = auto()
    SHELVE = auto()
    DONE = auto()


class Ranking(StrEnum):
    RANK = auto()
    DONE = auto()


@dataclass
class Batch:
    name: str = ""
    books: list[str] = field(default_factory=list[str])
    texts: dict[str, str] = field(default_factory=dict[str, str])


class Shelf:
    """What was counted, for all flows."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}


def clock(ctx: Context[Any]) -> str:
    return f"{datetime.fromtimestamp(ctx.now(), UTC):%H:%M}"


async def read(ctx: Context[Batch], book: str) -> tuple[str, str]:
    return book, await asyncio.to_thread((GUIDE / f"{book}.md").read_text, "utf-8")


async def count(ctx: Context[Batch], book: str) -> tuple[str, Counter[str]]:
    words = re.findall(r"[a-z]+", ctx.data.texts[book].lower())
    return book, Counter(word for word in words if word in PREPOSITIONS)


async def keep(ctx: Context[Batch]) -> Literal[Step.COUNT]:
    assert ctx.split is not None  # noqa: S101 -- the state before is one
    ctx.data.texts = dict(ctx.split.values)
    return Step.COUNT


async def shelve(ctx: Context[Batch], shelf: Shelf) -> Literal[Step.DONE]:
    assert ctx.split is not None  # noqa: S101 -- the state before is one
    shelf.counts |= dict(ctx.split.values)
    books = ", ".join(sorted(ctx.data.texts))
    print(
        f"{clock(ctx)} {ctx.data.name}: {len(ctx.data.texts)} of {len(ctx.data.books)} books, {books}"
    )
    return Step.DONE


async def rank(ctx: Context, shelf: Shelf) -> Literal[Ranking.DONE]:
    total = sum(shelf.counts.values(), Counter[str]())
    word, times = total.most_common(1)[0]
    varied = max(sorted(shelf.counts), key=lambda book: len(shelf.counts[book]))
    print(f'{clock(ctx)} ranking of {len(shelf.counts)} books, from "{times} {word}" on')
    print(f"{clock(ctx)} most varied: {varied}, {len(shelf.counts[varied])} prepositions")
    return Ranking.DONE


def books_of(batch: Batch) -> list[str]:
    return batch.books


def books_read(batch: Batch) -> list[str]:
    return list(batch.texts)


def mapping() -> Workflow[Step, Batch]:
    """Read a batch of books, and count."""
    most = Tolerate(share=0.25)
    reading = Split.over(books_of, run=read, name=str, join=most, then=Step.KEEP)
    counting = Split.over(books_read, run=count, name=str, then=Step.SHELVE)
    flow = Workflow(Step, data=Batch, start=Step.READ, name="map", resources=SHARED)
    flow.register(Step.READ, reading).register(Step.KEEP, keep)
    return flow.register(Step.COUNT, counting).register(Step.SHELVE, shelve).exits(Step.DONE)


def reducing() -> Workflow[Ranking, None]:
    """Make a ranking of what was counted."""
    flow = Workflow(Ranking, start=Ranking.RANK, name="reduce", resources=SHARED)
    return flow.register(Ranking.RANK, rank).exits(Ranking.DONE)


SHARED = Resources(shelf=Shelf())


async def main() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)  # noqa: S101 -- it is what cano.testing.run uses
    loop.wall_offset = datetime(2027, 5, 3, tzinfo=UTC).timestamp()

    scheduler, flow = Scheduler(), mapping()
    for number, (name, books) in enumerate(BATCHES.items()):
        night = Cron(f"{5 * number} 2 * * *")
        scheduler.add(name, flow, night, data=partial(Batch, name, books))
    scheduler.add("ranking", reducing(), Cron("30 2 * * *"))
    async with scheduler:
        await asyncio.sleep(2 * 24 * 3600)
        for status in scheduler.list():
            print(f"{status.flow}: {status.runs} runs, {status.outcome}")


if __name__ == "__main__":
    run(main())
