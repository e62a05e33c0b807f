"""The pen of a run: numbers in order, one failure ends it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cano import CheckpointError, MemoryCheckpoints, RunLostError
from cano._journal import Journal
from cano.checkpoints.store import CheckpointStore, NewRun, Owner, Status
from cano.events import Event, RunFinished, RunStarted, StateEntered
from cano.testing import run
from cano.testing.faults import FaultyStore


async def begun(store: CheckpointStore, told: list[Event]) -> Journal:
    await store.renew(Owner("o"), 0, 100)
    journal = Journal(store, "r")
    await journal.create(NewRun("r", "flow", "o", 1.0), [RunStarted(state="A")], told.append)
    return journal


def test_numbers_are_taken_in_order() -> None:
    """Whoever writes side by side gets numbers in the order of asking, told in that order."""

    async def main() -> list[tuple[int, str, float]]:
        told: list[Event] = []
        journal = await begun(FaultyStore(MemoryCheckpoints(), latency=0.1), told)
        await asyncio.gather(
            *(journal.write([StateEntered(state=name)], 2.0, None, told.append) for name in "BCD")
        )
        return [(event.sequence, event.state, event.time) for event in told]

    assert [(1, "A", 1.0), (2, "B", 2.0), (3, "C", 2.0), (4, "D", 2.0)] == run(main())


def test_deferred_events_come_first() -> None:
    """What was deferred is written before, and together with, what is written next."""

    async def main() -> tuple[list[str], int]:
        told: list[Event] = []
        store = FaultyStore(MemoryCheckpoints())
        journal = await begun(store, told)
        journal.defer(StateEntered(state="B"))
        assert 1 == len(told)
        await journal.write([RunFinished(state="C")], 2.0, Status.FINISHED, told.append)
        return [event.state for event in await store.load("r")], store.writes

    assert (["A", "B", "C"], 2) == run(main())


def test_nobody_is_told_of_what_failed() -> None:
    """A failed append is not folded, and whoever writes afterwards is told the same error."""

    async def main() -> None:
        told: list[Event] = []
        journal = await begun(FaultyStore(MemoryCheckpoints(), fail_at=2), told)
        with pytest.raises(CheckpointError) as first:
            await journal.write([StateEntered(state="B")], 2.0, None, told.append)
        with pytest.raises(CheckpointError) as second:
            await journal.write([StateEntered(state="C")], 2.0, None, told.append)
        assert first.value is second.value
        assert 1 == len(told)

    run(main())


def test_a_cancellation_waits_for_the_disk() -> None:
    """There is no half of an append: it is told of, and the cancellation delivered after it."""

    async def main() -> tuple[int, bool, Any]:
        told: list[Event] = []
        journal = await begun(FaultyStore(MemoryCheckpoints(), latency=1), told)
        task = asyncio.ensure_future(
            journal.write([StateEntered(state="B")], 2.0, None, told.append)
        )
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait((task,))
        return len(told), task.cancelled(), journal.broken

    assert (2, True, None) == run(main())


def test_an_error_of_another_kind_is_a_checkpoint_error_afterwards() -> None:
    """Whatever a store raises, the next writer hears of it as CheckpointError, with its cause."""

    class Odd(MemoryCheckpoints):
        def append(self, *more: Any) -> asyncio.Future[None]:
            future = super().append("nobody", 1, [])
            future.exception()
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            failed.set_exception(OSError("disk gone"))
            return failed

    async def main() -> None:
        told: list[Event] = []
        journal = await begun(Odd(), told)
        with pytest.raises(OSError, match="disk gone"):
            await journal.write([StateEntered(state="B")], 2.0, None, told.append)
        with pytest.raises(CheckpointError, match="the store raised OSError: disk gone") as error:
            await journal.write([StateEntered(state="B")], 2.0, None, told.append)
        assert isinstance(error.value.__cause__, OSError)

    run(main())


def test_an_old_epoch_writes_nothing() -> None:
    """Whoever lost the run learns it here."""

    async def main() -> int:
        store = MemoryCheckpoints()
        told: list[Event] = []
        journal = await begun(store, told)
        await store.expire("o")
        await store.renew(Owner("other"), 0, 100)
        await store.claim("r", "other", 3.0)
        with pytest.raises(RunLostError):
            await journal.write([StateEntered(state="B")], 4.0, None, told.append)
        return len(await store.load("r"))

    assert 2 == run(main())
