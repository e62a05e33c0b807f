"""Our own task models keep the contract that `cano.testing.check_task` tries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, ClassVar, Literal

import pytest

from cano import (
    BatchTask,
    Branch,
    CloseReason,
    CompensatableTask,
    Context,
    Done,
    More,
    Node,
    Outcomes,
    Pending,
    PollTask,
    Ready,
    Resources,
    RouterTask,
    Signal,
    SignalTask,
    Split,
    SteppedTask,
    StreamTask,
    Task,
    TimerTask,
    Window,
    Workflow,
    poll,
    thread,
)
from cano.tasks.function import FunctionTask
from cano.tasks.task import Model
from cano.testing import run
from cano.testing.tasks import check_task


class Step(StrEnum):
    WORK = auto()
    DONE = auto()
    OTHER = auto()


@dataclass
class Data:
    total: int = 0


class Plain(Task[Step]):
    """A task that adds up, to be broken in one way at a time."""

    async def run(self, ctx: Context[Data]) -> Literal[Step.DONE]:
        await asyncio.sleep(1)
        ctx.data.total += 1
        return Step.DONE


class Route(RouterTask[Step]):
    async def route(self, ctx: Context[Data]) -> Literal[Step.DONE, Step.OTHER]:
        return Step.OTHER if ctx.data.total else Step.DONE


class Ask(PollTask[Step]):
    async def poll(self, ctx: Context[Data]) -> Ready[Literal[Step.DONE]] | Pending:
        ctx.data.total += 1
        return Ready(Step.DONE) if ctx.data.total == 3 else Pending(60)


class Count(SteppedTask[Step, int]):
    async def step(
        self, ctx: Context[Data], cursor: int | None
    ) -> More[int] | Done[Literal[Step.DONE]]:
        await asyncio.sleep(0)
        ctx.data.total = number = (cursor or 0) + 1
        return More(number) if number < 4 else Done(Step.DONE)


class Sum(BatchTask[Step, int, int]):
    concurrency = 3

    async def load(self, ctx: Context[Data]) -> list[int]:
        return [*range(7)]

    async def process(self, ctx: Context[Data], item: int) -> int:
        await asyncio.sleep(item)
        return item

    async def finish(self, ctx: Context[Data], outcomes: Outcomes[int]) -> Literal[Step.DONE]:
        ctx.data.total = sum(outcomes.values)
        return Step.DONE


class Kept(Sum):
    durable_items = True


class Read(StreamTask[Step, int, int, int]):
    window = Window(count=2)

    async def open(self, ctx: Context[Data], cursor: int | None) -> AsyncIterator[int]:
        for item in range((cursor or 0) + 1, 6):
            await asyncio.sleep(1)
            yield item

    async def process(self, ctx: Context[Data], item: int) -> int:
        return item

    def position(self, item: int) -> int:
        return item

    async def flush(self, ctx: Context[Data], window: Sequence[int]) -> None:
        ctx.data.total += sum(window)

    async def close(self, ctx: Context[Data], reason: CloseReason) -> Literal[Step.DONE]:
        return Step.DONE


class Book(CompensatableTask[Step, int]):
    async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.DONE], int]:
        await asyncio.sleep(1)
        ctx.data.total = 5
        return Step.DONE, 5

    async def compensate(self, ctx: Context[Data], output: int) -> None: ...


class Think(Node[Step, int, int]):
    async def prep(self, ctx: Context[Data]) -> int:
        return 1

    async def exec(self, ctx: Context[Data], prepared: int, db: str) -> int:
        await asyncio.sleep(1)
        return prepared + len(db)

    async def post(self, ctx: Context[Data], result: int) -> Literal[Step.OTHER]:
        ctx.data.total = result
        return Step.OTHER


class Wait(SignalTask[Step]):
    signals: ClassVar[dict[str, Any]] = {"go": int}

    async def on_signal(self, ctx: Context, signal: Signal[int]) -> Literal[Step.DONE]:
        return Step.DONE


async def branch(ctx: Context[Data]) -> int:
    await asyncio.sleep(1)
    return 1


async def undo(ctx: Context[Data], output: int) -> None: ...


async def each(ctx: Context[Data], item: int) -> int:
    await asyncio.sleep(item)
    return item


async def asked(ctx: Context[Data]) -> bool:
    return True


def in_thread(ctx: Context[Data]) -> Literal[Step.DONE]:
    ctx.data.total += 2
    return Step.DONE


class Inner(StrEnum):
    PART = auto()
    END = auto()


async def part(ctx: Context) -> Literal[Inner.END]:
    await asyncio.sleep(1)
    return Inner.END


def nested() -> Model[Step]:
    inner = Workflow(Inner, start=Inner.PART).register(Inner.PART, part).exits(Inner.END)
    return inner.as_task(then=Step.DONE)


OURS: dict[str, tuple[Callable[[], Model[Step]], dict[str, Any]]] = {
    "Task": (Plain, {}),
    "a function": (lambda: FunctionTask(Plain().run), {}),
    "a function in a thread": (lambda: FunctionTask(thread(in_thread)), {}),
    "RouterTask": (Route, {}),
    "PollTask": (Ask, {}),
    "poll": (lambda: poll(asked, then=Step.DONE), {}),
    "SteppedTask": (Count, {}),
    "TimerTask": (lambda: TimerTask(60, then=Step.DONE), {}),
    "BatchTask": (Sum, {}),
    "BatchTask, durable": (Kept, {}),
    "CompensatableTask": (Book, {}),
    "StreamTask": (Read, {}),
    "Node": (Think, {}),
    "Split": (lambda: Split([branch, branch], then=Step.DONE), {}),
    "Split, undoable": (
        lambda: Split([branch, Branch(branch, compensate=undo)], then=Step.DONE),
        {},
    ),
    "Split.over": (lambda: Split.over(lambda data: [1, 2, 3], run=each, then=Step.DONE), {}),
    "SignalTask": (Wait, {"only": ["describes_itself", "problems_are_texts"]}),
    "a sub-workflow": (nested, {}),
}


@pytest.mark.parametrize("name", OURS)
def test_our_own_keep_the_contract(name: str) -> None:
    """Each model of ours passes the test that those of others must pass."""
    make, settings = OURS[name]
    resources = Resources(db="abc") if name == "Node" else None
    run(check_task(make, Step.WORK, data=Data, resources=resources, **settings))
