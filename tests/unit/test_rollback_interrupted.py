"""A cancellation that comes in the very moment a rollback begins."""

from __future__ import annotations

import asyncio
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from cano import CompensatableTask, Context, MemoryCheckpoints, RollbackStarted, RunQuery, Workflow
from cano.events import Event
from cano.testing import run


class Step(StrEnum):
    BOOK = auto()
    FAIL = auto()
    END = auto()


class Book(CompensatableTask[Step, str]):
    def __init__(self) -> None:
        self.undone: list[str] = []

    async def run(self, ctx: Context[Any]) -> tuple[Literal[Step.FAIL], str]:
        return Step.FAIL, "seat"

    async def compensate(self, ctx: Context[Any], output: str) -> None:
        self.undone.append(output)


async def fail(ctx: Context[Any]) -> Literal[Step.END]:
    raise ValueError("sold out")


class SlowStore(MemoryCheckpoints):
    """A disk that takes a second for the beginning of a rollback."""

    def append(self, run_id: str, epoch: int, events: Any, status: Any = None, /) -> Any:
        done = super().append(run_id, epoch, events, status)
        if not any(isinstance(event, RollbackStarted) for event in events):
            return done
        slow: _Answer = _Answer()
        asyncio.get_running_loop().call_later(1, slow.set_result, None)
        return slow


class _Answer(asyncio.Future[None]):
    def cancel(self, msg: Any = None) -> bool:
        return False


@pytest.mark.parametrize("durable", [True, False])
def test_the_rollback_goes_on(durable: bool) -> None:
    """Whoever awaits the run is cancelled while it is written down: all is undone, then it ends."""
    seen: list[Event] = []
    task = Book()

    async def main() -> list[str]:
        store = SlowStore() if durable else None
        flow = Workflow(Step, checkpoints=store, observers=[seen.append]).exits(Step.END)
        flow.register(Step.BOOK, task).register(Step.FAIL, fail)
        running = asyncio.ensure_future(flow.run(Step.BOOK, run_id="r"))
        await asyncio.sleep(0.5)
        running.cancel()
        await asyncio.wait((running,))
        if store is None:
            return []
        return [str(each.status) for each in await store.runs(RunQuery())]

    statuses = run(main())
    assert ["seat"] == task.undone
    assert (["failed"] if durable else []) == statuses
    assert "RunFailed" == type(seen[-1]).__name__
