"""Bugs of the engine that `crash_everywhere` has found, kept found."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

from cano import CompensatableTask, Context, Pending, PollTask, Ready, Workflow
from cano.testing.crash import World, crash_everywhere


class Step(StrEnum):
    A = auto()
    B = auto()
    END = auto()


@dataclass
class Data:
    paid: int = 0


def test_a_clock_set_back_while_a_poll_pays() -> None:
    """What a poll did stays done when its process dies and the clock of the next one is behind."""

    def make(world: World) -> Workflow[Step, Data]:
        class Paying(PollTask[Step]):
            async def poll(self, ctx: Context[Data]) -> Ready[Literal[Step.END]] | Pending:
                async def pay() -> int:
                    world.did("pay", ctx.data.paid + 1)
                    return ctx.data.paid + 1

                ctx.data.paid = await ctx.effect("rent", pay)
                return Ready(Step.END) if ctx.data.paid == 3 else Pending(5, save=True)

        flow = Workflow(Step, data=Data, checkpoints=world.store)
        return flow.register(Step.A, Paying()).exits(Step.B, Step.END)

    def resolve(world: World, name: str) -> int | None:
        return sum(deed.what == "pay" for deed in world.ledger) or None

    report = crash_everywhere(make, start=Step.A, resolve=resolve, faults=["backward"])

    assert report.writes == report.points


def test_a_shutdown_while_a_cancelled_run_is_undone() -> None:
    """Whoever holds the handle learns what could not be undone, though its process is stopped."""

    def make(world: World) -> Workflow[Step, Data]:
        class Book(CompensatableTask[Step, str]):
            async def run(self, ctx: Context[Data]) -> tuple[Literal[Step.B], str]:
                return Step.B, "seat"

            async def compensate(self, ctx: Context[Data], output: str) -> None:
                raise ConnectionError("cannot free the seat")

        async def wait(ctx: Context[Data]) -> Literal[Step.END]:
            world.ran(ctx)
            await ctx.sleep(100)
            return Step.END

        flow = Workflow(Step, data=Data, checkpoints=world.store).exits(Step.END)
        return flow.register(Step.A, Book()).register(Step.B, wait)

    async def outside(world: World) -> None:
        await asyncio.sleep(10)
        await world.cancel()

    report = crash_everywhere(make, start=Step.A, outside=outside, faults=["shutdown"])

    assert {"shutdown": report.writes} == report.faults
