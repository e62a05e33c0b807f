"""Steps that never suspend: they must not keep the rest of the program from its work."""

from __future__ import annotations

import asyncio
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import Context, Done, MemoryCheckpoints, More, RunTimeoutError, SteppedTask, Workflow
from cano.testing import run


class Step(StrEnum):
    COUNT = auto()
    END = auto()


class Count(SteppedTask[Step, int]):
    """Counts, without an end unless it is told one."""

    def __init__(self, end: int = 1_000_000) -> None:
        self.end = end
        self.steps = 0

    async def step(
        self, ctx: Context[Any], cursor: int | None
    ) -> More[int] | Done[Literal[Step.END]]:
        self.steps += 1
        return Done(Step.END) if self.steps >= self.end else More(self.steps)


@pytest.mark.parametrize("durable", [False, True])
def test_it_can_be_cancelled(durable: bool) -> None:
    """A visit that never suspends hears of a cancellation all the same."""

    async def main() -> int:
        task = Count()
        flow = Workflow(Step, checkpoints=MemoryCheckpoints() if durable else None)
        flow.register(Step.COUNT, task).exits(Step.END)
        running = asyncio.ensure_future(flow.run(Step.COUNT))
        for _ in range(20):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return task.steps

    assert 0 < run(main()) < 20_000


def test_it_can_be_out_of_time() -> None:
    """The timeout of the run ends it."""
    flow = Workflow(Step, timeout=0.02).register(Step.COUNT, Count()).exits(Step.END)
    with pytest.raises(RunTimeoutError):
        asyncio.run(flow.run(Step.COUNT))


def test_others_have_their_turn() -> None:
    """Two such runs go on side by side."""

    async def main() -> int:
        first, second = Count(10_000), Count(20_000)
        flows = [Workflow(Step).register(Step.COUNT, t).exits(Step.END) for t in (first, second)]
        tasks = [asyncio.ensure_future(flow.run(Step.COUNT)) for flow in flows]
        await tasks[0]
        meanwhile = second.steps
        await tasks[1]
        return meanwhile

    assert 5_000 < run(main()) < 20_000
