"""A stream of numbers that writes down whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal

from cano import CloseReason, Context, Done, StreamTask, Window, Workflow


class Step(StrEnum):
    READ = auto()
    AGAIN = auto()
    LEFT = auto()
    END = auto()


@dataclass
class Seen:
    items: list[int] = field(default_factory=list)
    visits: int = 0


class Numbers(StreamTask[Step, int, int, int]):
    """The numbers from 1 to *upto*, one each *pause* seconds; *log* is what happened."""

    window = Window(count=2)

    def __init__(self, upto: int = 5, *, pause: float = 0.0, work: float = 0.0) -> None:
        self.upto = upto
        self.pause = pause
        self.work = work
        self.log: list[Any] = []

    async def open(self, ctx: Context[Any], cursor: int | None) -> AsyncIterator[int]:
        self.log.append(f"open {cursor}")
        try:
            for number in range((cursor or 0) + 1, self.upto + 1):
                if self.pause:
                    await asyncio.sleep(self.pause)
                yield number
        finally:
            self.log.append("aclose")

    async def process(self, ctx: Context[Any], item: int) -> int:
        if self.work:
            await asyncio.sleep(self.work)
        self.log.append(item)
        return item

    def position(self, item: int) -> int:
        return item

    async def flush(
        self, ctx: Context[Any], window: Sequence[int]
    ) -> Done[Literal[Step.LEFT]] | None:
        self.log.append(list(window))
        return None

    async def close(self, ctx: Context[Any], reason: CloseReason) -> Literal[Step.END]:
        self.log.append(str(reason))
        return Step.END

    @property
    def windows(self) -> list[list[int]]:
        """What was flushed."""
        return [entry for entry in self.log if isinstance(entry, list)]

    @property
    def texts(self) -> list[str]:
        """Everything but items and windows."""
        return [entry for entry in self.log if isinstance(entry, str)]


def flow(task: Any, *policies: Any, store: Any = None, **settings: Any) -> Workflow[Step, Seen]:
    """A workflow of that stream alone."""
    made = Workflow(Step, data=Seen, checkpoints=store, **settings)
    made.exits(Step.END, Step.LEFT, Step.AGAIN)
    return made.register(Step.READ, task, *policies)
