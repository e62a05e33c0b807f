"""Workflows in which a planted bug shows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Literal, NamedTuple

from cano import (
    BatchTask,
    Branch,
    CompensatableTask,
    Context,
    Done,
    More,
    Outcomes,
    Retry,
    Split,
    SteppedTask,
    Workflow,
)
from cano.join import Settled
from cano.testing.crash import World


class Step(StrEnum):
    A = auto()
    B = auto()
    C = auto()
    D = auto()
    E = auto()
    F = auto()
    G = auto()
    H = auto()
    K = auto()
    J = auto()
    END = auto()


@dataclass
class Data:
    trail: list[str] = field(default_factory=list)
    total: int = 0


class Case(NamedTuple):
    """A workflow, and what goes on around it."""

    make: Callable[[World], Workflow[Any, Any]]
    outside: Callable[[World], Awaitable[None]] | None = None
    resolve: Callable[[World, str], Any] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {"start": Step.A, "outside": self.outside, "resolve": self.resolve}


def closed(made: Workflow[Any, Any]) -> Workflow[Any, Any]:
    """States without work are exits."""
    return made.exits(*set(Step).difference(made.registered))


def flow(world: World) -> Workflow[Any, Any]:
    made: Any = Workflow(Step, data=Data, checkpoints=world.store)
    return made.exits(Step.END)  # type: ignore[no-any-return]


class Book(CompensatableTask[Step, str]):
    """Books something, and takes it back."""

    def __init__(self, world: World, to: Step) -> None:
        self.world = world
        self.to = to

    async def run(self, ctx: Context[Data]) -> tuple[Step, str]:
        self.world.ran(ctx)
        ctx.data.total += 1
        return self.to, f"{ctx.state.name} of {ctx.data.total}"

    async def compensate(self, ctx: Context[Data], output: str) -> None:
        self.world.ran(ctx, "undo")
        ctx.data.trail.append(f"not {output}")


def saga(world: World) -> Workflow[Any, Any]:
    """Three bookings, the last thing fails, all is taken back."""

    async def refused(ctx: Context[Data]) -> Literal[Step.END]:
        world.ran(ctx)
        raise ValueError("refused")

    made = flow(world).register(Step.A, Book(world, Step.B)).register(Step.B, Book(world, Step.C))
    return closed(made.register(Step.C, Book(world, Step.D)).register(Step.D, refused))


def paid(world: World, name: str) -> Callable[[], Awaitable[int]]:
    async def call() -> int:
        world.did(name)
        return 5

    return call


def order(world: World) -> Workflow[Any, Any]:
    """Payments that a person has to look for, a failure that is tried again, a wait, two signals."""

    async def pay(ctx: Context[Data]) -> Literal[Step.B]:
        world.ran(ctx)
        ctx.data.total += await ctx.effect("rent", paid(world, "rent"))
        ctx.data.total += await ctx.effect("food", paid(world, "food"))
        if ctx.attempt < 3:
            raise ConnectionError("once more")
        return Step.B

    async def wait(ctx: Context[Data]) -> Literal[Step.C]:
        world.ran(ctx)
        await ctx.sleep(3)
        ctx.data.trail.append(await ctx.wait_signal("word", str))
        return Step.C

    async def more(ctx: Context[Data]) -> Literal[Step.END]:
        world.ran(ctx)
        ctx.data.trail.append(await ctx.wait_signal("word", str))
        return Step.END

    made = flow(world).register(Step.A, pay, Retry.fixed(4, 1.0))
    return closed(made.register(Step.B, wait).register(Step.C, more))


async def two_words(world: World) -> None:
    await world.send("word", "one", "1")
    await world.send("word", "two", "2")


def looked(world: World, name: str) -> int | None:
    """What a person finds out about a payment."""
    return 5 if world.times(name) else None


def split(world: World) -> Workflow[Any, Any]:
    """Four branches, two at a time, of which one fails; the next state adds up."""

    def branch(name: str, seconds: float) -> Branch[int]:
        async def work(ctx: Context[Data]) -> int:
            world.ran(ctx)
            await asyncio.sleep(seconds)
            if name == "cyd":
                raise ValueError("no")
            return int(seconds * 10)

        return Branch(work, name=name)

    async def add(ctx: Context[Data]) -> Literal[Step.C]:
        world.ran(ctx)
        found: Any = ctx.split
        ctx.data.total = sum(one.value for one in found.successes)
        return Step.C

    async def last(ctx: Context[Data]) -> Literal[Step.END]:
        world.ran(ctx)
        ctx.data.trail.append(f"{ctx.data.total}")
        return Step.END

    branches = [branch("ann", 0.3), branch("ben", 0.1), branch("cyd", 0.1), branch("dan", 0.2)]
    work = Split(branches, join=Settled(), then=Step.B, bulkhead=2)
    return closed(flow(world).register(Step.A, work).register(Step.B, add).register(Step.C, last))


def steps(world: World) -> Workflow[Any, Any]:
    """Three steps, then the same state once more."""

    class Count(SteppedTask[Step, int]):
        async def step(
            self, ctx: Context[Data], cursor: int | None
        ) -> More[int] | Done[Literal[Step.B]]:
            world.ran(ctx, f"step {cursor}")
            ctx.data.total += 1
            at = (cursor or 0) + 1
            return More(at) if at < 3 else Done(Step.B)

    async def again(ctx: Context[Data]) -> Literal[Step.A, Step.END]:
        world.ran(ctx)
        ctx.data.trail.append(str(ctx.data.total))
        return Step.A if ctx.data.total < 5 else Step.END

    return closed(flow(world).register(Step.A, Count()).register(Step.B, again))


def batch(world: World) -> Workflow[Any, Any]:
    """Five items, each kept."""

    class Items(BatchTask[Step, int, int]):
        durable_items = True
        concurrency = 2

        async def load(self, ctx: Context[Data]) -> Sequence[int]:
            return range(5)

        async def process(self, ctx: Context[Data], item: int) -> int:
            world.ran(ctx, f"item {item}")
            return item

        async def finish(self, ctx: Context[Data], outcomes: Outcomes[int]) -> Literal[Step.END]:
            ctx.data.total = sum(outcomes.values)
            return Step.END

    return closed(flow(world).register(Step.A, Items()))


class Part(StrEnum):
    X = auto()
    Y = auto()
    OVER = auto()


def parts(world: World) -> Workflow[Any, Any]:
    """A workflow within the workflow, undone with it."""

    class Inner(CompensatableTask[Part, str]):
        async def run(self, ctx: Context[Any]) -> tuple[Literal[Part.Y], str]:
            world.ran(ctx)
            return Part.Y, "inner"

        async def compensate(self, ctx: Context[Any], output: str) -> None:
            world.ran(ctx, "undo")

    async def rest(ctx: Context[Any]) -> Literal[Part.OVER]:
        world.ran(ctx)
        return Part.OVER

    async def refused(ctx: Context[Data]) -> Literal[Step.END]:
        world.ran(ctx)
        raise ValueError("refused")

    within = Workflow(Part, checkpoints=world.store, start=Part.X).exits(Part.OVER)
    within.register(Part.X, Inner()).register(Part.Y, rest)
    made = flow(world).register(Step.A, Book(world, Step.B))
    return closed(made.register(Step.B, within.as_task(Step.C)).register(Step.C, refused))


def cancelled(world: World) -> Workflow[Any, Any]:
    """A booking, and then a long wait, in which the end is asked for."""

    async def wait(ctx: Context[Data]) -> Literal[Step.END]:
        world.ran(ctx)
        await ctx.sleep(100)
        return Step.END

    return closed(flow(world).register(Step.A, Book(world, Step.B)).register(Step.B, wait))


async def cancel(world: World) -> None:
    while not world.times("ran", "r/2/B"):
        await asyncio.sleep(0.5)
    await world.cancel()


def large_saga(world: World) -> Workflow[Any, Any]:
    """Eight bookings, twenty more side by side, a payment, and then a refusal."""

    async def book(ctx: Context[Data]) -> str:
        world.ran(ctx)
        number = int(ctx.branch_name)
        await asyncio.sleep(0.01 * (number % 5))
        return f"booking {number}"

    async def take_back(ctx: Context[Data], value: str) -> None:
        world.ran(ctx, "undo")

    async def pay(ctx: Context[Data]) -> Literal[Step.END]:
        world.ran(ctx)
        await ctx.effect("pay", paid(world, "pay"), verify=asked)
        raise ValueError("refused")

    async def asked() -> int | None:
        return 5 if world.times("pay") else None

    bookings = [Branch(book, name=str(number), compensate=take_back) for number in range(20)]
    made, states = flow(world), list(Step)
    for state, following in zip(states[:8], states[1:9], strict=True):
        made.register(state, Book(world, following))
    made.register(Step.K, Split(bookings, then=Step.J))
    return made.register(Step.J, pay)


CASES = {
    "saga": Case(saga),
    "order": Case(order, two_words, looked),
    "split": Case(split),
    "steps": Case(steps),
    "batch": Case(batch),
    "parts": Case(parts),
    "cancelled": Case(cancelled, cancel),
}
