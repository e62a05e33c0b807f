"""The tools that make things go wrong, and how wrong exactly."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum
from typing import Any, Literal

import pytest

from cano.checkpoints.memory import MemoryCheckpoints
from cano.checkpoints.store import CheckpointStore, NewRun, Owner, RunQuery, Status
from cano.errors import CheckpointError, RunExistsError, RunLostError
from cano.events import RunFinished, RunStarted, StateEntered
from cano.testing import run
from cano.testing.contracts import check_checkpoint_store
from cano.testing.faults import FailTimes, FaultyStore, SimulatedCrash

ANN = Owner("ann", "here", 1)


async def work(store: CheckpointStore) -> None:
    """Five durable writes to one run: a start, an event, a take-over, an event, an end."""
    await store.create(NewRun("a7", "orders", "lost", 1.0), [RunStarted(sequence=1)])
    await store.append("a7", 1, [StateEntered(sequence=2)])
    await store.claim("a7", "ann", 2.0)
    await store.append("a7", 2, [StateEntered(sequence=4)])
    await store.append(
        "a7", 2, [StateEntered(sequence=5), RunFinished(sequence=6)], Status.FINISHED
    )


WRITTEN = [
    ["RunStarted"], ["StateEntered"], ["RunClaimed"], ["StateEntered"],
    ["StateEntered", "RunFinished"],
]  # fmt: skip


async def kinds(store: CheckpointStore) -> list[str]:
    return [type(event).__name__ for event in await store.load("a7")]


def test_without_faults_it_is_the_store() -> None:
    """A faulty store without faults keeps the whole contract."""
    run(check_checkpoint_store(lambda: FaultyStore(MemoryCheckpoints()), persistent=True))


def test_with_latency_it_is_the_store() -> None:
    """A slow store keeps the whole contract."""
    run(check_checkpoint_store(lambda: FaultyStore(MemoryCheckpoints(), latency=0.01)))


def test_writes_are_counted() -> None:
    """Durable writes are counted, and the events they wrote are listed in order."""

    async def main() -> None:
        store = FaultyStore(MemoryCheckpoints())
        await work(store)
        await store.summary("a7")
        await store.renew(ANN, 1.0, 2.0)

        assert 5 == store.writes
        assert [("a7", kind) for write in WRITTEN for kind in write] == store.written
        assert repr(store) == f"<FaultyStore: alive after 5 writes, around {store.store!r}>"

    run(main())


@pytest.mark.parametrize("latency", [0.0, 0.5])
@pytest.mark.parametrize("n", range(1, 6))
def test_crash_before(n: int, latency: float) -> None:
    """A crash before write n leaves what the writes before it wrote, and nothing else."""

    async def main() -> None:
        inner = MemoryCheckpoints()
        store = FaultyStore(inner, crash_before=n, latency=latency)
        with pytest.raises(SimulatedCrash, match=f"before write {n}$"):
            await work(store)

        expected = [kind for write in WRITTEN[: n - 1] for kind in write]
        assert expected == await kinds(inner)
        assert expected == [kind for _, kind in store.written]
        assert store.dead

    run(main())


@pytest.mark.parametrize("latency", [0.0, 0.5])
@pytest.mark.parametrize("n", range(1, 6))
def test_crash_after(n: int, latency: float) -> None:
    """A crash after write n leaves what it wrote, although its caller never learns of it."""

    async def main() -> None:
        inner = MemoryCheckpoints()
        store = FaultyStore(inner, crash_after=n, latency=latency)
        with pytest.raises(SimulatedCrash, match=f"after write {n}$"):
            await work(store)

        expected = [kind for write in WRITTEN[:n] for kind in write]
        assert expected == await kinds(inner)
        assert expected == [kind for _, kind in store.written]
        assert store.dead

    run(main())


def test_a_reopening_counts() -> None:
    """Reopening is a durable write like claiming."""

    async def main() -> None:
        for fault, expected in [({"crash_before": 3}, 2), ({"crash_after": 3}, 3)]:
            inner = MemoryCheckpoints()
            store = FaultyStore(inner, **fault)
            await store.create(NewRun("a7", "orders", "ann", 1.0), [RunStarted(sequence=1)])
            await store.append("a7", 1, [StateEntered(sequence=2)], Status.FAILED)
            with pytest.raises(SimulatedCrash):
                await store.reopen("a7", "ben", 2.0)
            assert expected == len(await inner.load("a7"))

    run(main())


def test_the_dead_do_nothing() -> None:
    """After a crash every call crashes, except closing, which the system does for the dead."""

    async def main() -> None:
        inner = MemoryCheckpoints()
        store = FaultyStore(inner, crash_after=5)
        told: list[str] = []
        store.listen(told.append)
        with suppress(SimulatedCrash):
            await work(store)
        told.clear()
        calls: list[tuple[str, Any]] = [
            ("create", (NewRun("b8", "orders", "ann", 1.0), [])),
            ("append", ("a7", 2, [])), ("claim", ("a7", "ann", 1.0)),
            ("reopen", ("a7", "ann", 1.0)), ("release", ("a7", 2, Status.WAITING)),
            ("renew", (ANN, 1.0, 2.0)), ("owners", ("here", 1.0)), ("expire", ("ann",)),
            ("load", ("a7",)), ("summary", ("a7",)), ("runs", (RunQuery(),)),
            ("due", ("orders", 1.0, 1, 1)), ("send", ("a7", "go", b"1", 1.0)), ("inbox", ("a7",)),
            ("define", ("f", b"1")), ("definition", ("f",)), ("delete", (["a7"],)),
            ("ended", (None, 1.0, 0, 1)), ("check", ()), ("note", ("k", b"1", None)),
            ("noted", ("k",)),
        ]  # fmt: skip
        for name, arguments in calls:
            with pytest.raises(SimulatedCrash, match="died at write 5"):
                await getattr(store, name)(*arguments)
        with pytest.raises(SimulatedCrash):
            store.listen(told.append)
        await inner.create(NewRun("b8", "orders", "ann", 1.0), [])
        await inner.send("b8", "go", b"1", 1.0)
        await asyncio.sleep(1)

        await store.close()
        public = {name for name in vars(CheckpointStore) if not name.startswith("_")}
        assert {"listen", "close"} == public - {name for name, _ in calls}
        assert [] == told
        assert 6 == len(await inner.load("a7"))
        assert "dead after 5 writes" in repr(store)

    run(main())


def test_a_crash_is_no_exception() -> None:
    """Code that handles every `Exception` does not survive a crash."""
    assert not issubclass(SimulatedCrash, Exception)


def test_a_crash_hits_every_waiter() -> None:
    """Who waits for an earlier write when the process dies does not learn how that went."""

    async def main() -> None:
        inner = MemoryCheckpoints()
        store = FaultyStore(inner, crash_after=2, latency=1.0)
        first = store.create(NewRun("a7", "orders", "ann", 1.0), [RunStarted(sequence=1)])
        second = store.append("a7", 1, [StateEntered(sequence=2)])
        for future in (first, second):
            with pytest.raises(SimulatedCrash):
                await future

        assert ["RunStarted", "StateEntered"] == await kinds(inner)

    run(main())


def test_a_crash_during_a_call() -> None:
    """A call that was under way when the process died does not come back."""

    async def main() -> None:
        store = FaultyStore(MemoryCheckpoints(), crash_before=1, latency=1.0)
        look = asyncio.ensure_future(store.runs(RunQuery()))
        await asyncio.sleep(0.5)
        with pytest.raises(SimulatedCrash):
            store.append("a7", 1, [])
        with pytest.raises(SimulatedCrash):
            await look

    run(main())


@pytest.mark.parametrize("n", range(1, 6))
def test_fail_at(n: int) -> None:
    """Write n fails once with CheckpointError and writes nothing; made again it succeeds."""

    async def main() -> None:
        inner = MemoryCheckpoints()
        store = FaultyStore(inner, fail_at=n)
        with pytest.raises(CheckpointError, match=f"^write {n} failed, because a test says so$"):
            await work(store)
        expected = [kind for write in WRITTEN[: n - 1] for kind in write]
        assert expected == await kinds(inner)
        assert n == store.writes

        await store.create(NewRun("b8", "orders", "ann", 1.0), [RunStarted(sequence=1)])
        assert 1 == len(await store.load("b8"))

    run(main())


def test_unavailable_for_a_while() -> None:
    """Within the block every call fails and nothing is written or counted; after it all is well."""

    async def main() -> None:
        store = FaultyStore(MemoryCheckpoints())
        with store.unavailable():
            refused = store.append("a7", 1, [StateEntered(sequence=1)])
            with pytest.raises(CheckpointError, match="the store is unavailable"):
                await refused
            for call in (store.load("a7"), store.claim("a7", "ann", 1.0), store.runs(RunQuery())):
                with pytest.raises(CheckpointError, match="the store is unavailable"):
                    await call
            with pytest.raises(CheckpointError, match="the store is unavailable"):
                store.listen(print)
        assert 0 == store.writes

        await work(store)
        assert 5 == store.writes

    run(main())


def test_refusals_pass_through() -> None:
    """What the real store refuses is refused, counts as a write, and is not listed as written."""

    async def main() -> None:
        store = FaultyStore(MemoryCheckpoints())
        await work(store)
        before = list(store.written)
        with pytest.raises(RunExistsError):
            await store.create(NewRun("a7", "orders", "ann", 1.0), [RunStarted(sequence=1)])
        with pytest.raises(RunLostError):
            await store.append("a7", 1, [StateEntered(sequence=7)])

        assert 7 == store.writes
        assert before == store.written

    run(main())


def test_latency() -> None:
    """Every answer takes as long as it is told, by the clock of the loop."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = FaultyStore(MemoryCheckpoints(), latency=2.0)
        before = loop.time()
        await work(store)
        assert 10.0 == loop.time() - before
        await store.load("a7")
        assert 12.0 == loop.time() - before

    run(main())


class Step(Enum):
    WORK = 1
    DONE = 2


def test_fail_times() -> None:
    """It fails as often as it is told, with what it is told, and succeeds from there on."""

    async def main() -> None:
        task = FailTimes(2, TimeoutError, then=Step.DONE)
        for number in (1, 2):
            with pytest.raises(
                TimeoutError, match=f"^failure {number} of 2, because a test says so"
            ):
                await task(object())
        assert Step.DONE is await task(object())
        assert Step.DONE is await task(1, item=2)
        assert 4 == task.calls
        assert "FailTimes(2, then=<Step.DONE: 2>)" == repr(task)

    run(main())


def test_fail_times_with_an_error_of_ones_own() -> None:
    """An exception is raised as it is, without the tracebacks of earlier times."""
    error = ValueError("no such order")
    task = FailTimes(3, error, then=None)

    def depth() -> int:
        with pytest.raises(ValueError, match="no such order") as caught:
            run(task())
        assert error is caught.value
        return len(caught.traceback)

    assert 1 == len({depth() for _ in range(3)})
    assert run(task()) is None


def test_fail_times_never() -> None:
    """With zero it does not fail at all."""

    async def main() -> Literal["done"]:
        task: FailTimes[Literal["done"]] = FailTimes(0, then="done")
        return await task()

    assert "done" == run(main())
