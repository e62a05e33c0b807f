"""Read a source without end: window by window, from where the last window ended.

`Read` takes orders from a topic, which knows them by their offsets. Two orders at a time go into
the books, and only then is the offset kept, in one commit with what changed of the run data. One
order cannot be read: it is dropped into the dead letters. The process is shut down while it waits
for more: what it holds is still booked. The next process opens the topic after the last offset
kept, and leaves when it meets the order that closes the day.

Prints:
    process 1 opens the topic after None
    booked ann 5, ben 7
    dead letter: ???
    booked cyd 1
    process 1: cancelled
    process 2 opens the topic after 3
    booked dan 4, eve 2
    process 2: stopped
    -> CLOSED, 19 in the books
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from cano import (
    CloseReason,
    Context,
    Done,
    Resources,
    SqliteCheckpoints,
    StreamTask,
    Window,
    Workflow,
)


class Step(StrEnum):
    READ = auto()
    CLOSED = auto()
    EMPTY = auto()


class Message(NamedTuple):
    offset: int
    text: str


class Order(NamedTuple):
    name: str
    amount: int


@dataclass
class Books:
    total: int = 0


class Topic:
    """What other programs write into; this one reads it."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.nothing_new = asyncio.Event()

    async def after(self, offset: int) -> AsyncIterator[Message]:
        for new in range(offset + 1, len(self.texts)):
            yield Message(new, self.texts[new])
        self.nothing_new.set()
        await asyncio.Event().wait()


class Read(StreamTask[Step, Message, Order, int]):
    window = Window(count=2, seconds=60.0)
    errors = 1  # in a row

    def __init__(self, process: int) -> None:
        self.number = process

    async def open(
        self, ctx: Context[Books], cursor: int | None, topic: Topic
    ) -> AsyncIterator[Message]:
        print(f"process {self.number} opens the topic after {cursor}")
        return topic.after(-1 if cursor is None else cursor)

    async def process(self, ctx: Context[Books], item: Message) -> Order:
        name, amount = item.text.split()
        return Order(name, int(amount))

    async def rejected(self, ctx: Context[Books], item: Message, error: Exception) -> None:
        print(f"dead letter: {item.text}")

    def position(self, item: Message) -> int:
        return item.offset

    async def flush(
        self, ctx: Context[Books], window: Sequence[Order]
    ) -> Done[Literal[Step.CLOSED]] | None:
        print("booked", ", ".join(f"{order.name} {order.amount}" for order in window))
        ctx.data.total += sum(order.amount for order in window)
        return Done(Step.CLOSED) if window[-1].name == "eve" else None

    async def close(self, ctx: Context[Books], reason: CloseReason) -> Literal[Step.EMPTY]:
        print(f"process {self.number}: {reason}")
        return Step.EMPTY


def workflow(number: int, topic: Topic, store: SqliteCheckpoints) -> Workflow[Step, Books]:
    flow = Workflow(Step, data=Books, checkpoints=store, resources=Resources(topic=topic))
    return flow.exits(Step.CLOSED, Step.EMPTY).register(Step.READ, Read(number))


async def process(number: int, path: Path, *texts: str) -> None:
    """One process: it is shut down when there is nothing to read, if the day was not closed."""
    topic = Topic(*texts)
    async with SqliteCheckpoints(path) as store:
        flow = workflow(number, topic, store)
        running = asyncio.ensure_future(flow.run(Step.READ, run_id="today"))
        idle = asyncio.ensure_future(topic.nothing_new.wait())
        await asyncio.wait((running, idle), return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        running.cancel()
        with suppress(asyncio.CancelledError):
            state = await running
            books = await flow.handle("today").data()
            print(f"-> {state.name}, {books.total} in the books")


def main() -> None:
    first = "ann 5", "ben 7", "???", "cyd 1"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        asyncio.run(process(1, path, *first))
        asyncio.run(process(2, path, *first, "dan 4", "eve 2"))


if __name__ == "__main__":
    main()
