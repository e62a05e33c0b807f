"""Histories in memory, beyond what the contract asks of every store."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from cano.checkpoints.memory import MemoryCheckpoints
from cano.checkpoints.store import CheckpointStore, Claim, NewRun, Owner, RunQuery, Status
from cano.errors import (
    CheckpointError,
    CorruptHistoryError,
    RunEndedError,
    RunExistsError,
    RunLostError,
    RunNotFoundError,
    RunOwnedError,
)
from cano.events import RunFailed, RunStarted, StateEntered
from cano.testing import run


def new(run_id: str = "a7") -> NewRun:
    return NewRun(run_id, "orders", "ann", 1.0)


async def begun(*run_ids: str) -> MemoryCheckpoints:
    """A store with these runs, each with one event."""
    store = MemoryCheckpoints()
    for run_id in run_ids or ("a7",):
        await store.create(new(run_id), [RunStarted(run_id=run_id, sequence=1, state="START")])
    return store


def test_it_is_a_store() -> None:
    """It has every method of the contract, and can be used as a context manager."""

    async def main() -> None:
        async with MemoryCheckpoints() as store:
            assert isinstance(store, CheckpointStore)
            await store.create(new(), [])
        assert 1 == len(await store.runs(RunQuery()))  # what it keeps, it keeps as long as it lives

    run(main())


def test_repr_counts_runs() -> None:
    """Its repr says how many runs there are, and how many of them are open."""

    async def main() -> None:
        store = await begun("a", "b", "c")
        await store.append("b", 1, [RunFailed(sequence=2)], Status.FAILED)

        assert "<MemoryCheckpoints: 3 runs, 2 of them open>" == repr(store)

    run(main())


def test_an_append_is_done_at_once() -> None:
    """What create and append return is done when they return it: nothing has to be waited for."""

    async def main() -> None:
        store = MemoryCheckpoints()

        assert store.create(new(), []).done()
        assert store.append("a7", 1, [StateEntered(sequence=1)]).done()
        refused = store.append("a7", 2, [StateEntered(sequence=2)])
        assert refused.done()
        assert isinstance(refused.exception(), RunLostError)

    run(main())


def test_events_are_kept_as_json() -> None:
    """An event is kept as the JSON that a file would hold."""

    async def main() -> None:
        store = await begun()
        patch = {"total": msgspec.Raw(b"12")}
        await store.append("a7", 1, [StateEntered(sequence=2, state="SHIP", patch=patch)])

        expected = b'{"type":"StateEntered","patch":{"total":12},"sequence":2,"state":"SHIP"}'
        assert expected == store._runs["a7"].events[1]

    run(main())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b'{"type":"StateEntered","sequence":2', "^event 2 of run 'a7': Input data was truncated"),
        (b'{"type":"Nonsense","sequence":2}', "^event 2 of run 'a7': Invalid value 'Nonsense'"),
        (b'{"type":"StateEntered","sequence":"x"}', "^event 2 of run 'a7': Expected `int`"),
        (b'{"type":"StateEntered","sequence":5}', "^event 2 of run 'a7' is numbered 5$"),
        (b"\xff", "^event 2 of run 'a7'"),
    ],
)
def test_a_corrupt_event_is_named(row: bytes, message: str) -> None:
    """An event that cannot be read is named by run and number, by check() too; others are read."""

    async def main() -> None:
        store = await begun("a7", "b8")
        for number in (2, 3):
            await store.append("a7", 1, [StateEntered(sequence=number)])
        store._runs["a7"].events[1] = row

        with pytest.raises(CorruptHistoryError, match=message) as caught:
            await store.load("a7")
        assert [str(caught.value)] == await store.check()
        assert 1 == len(await store.load("a7", 0, 1))
        assert 1 == len(await store.load("a7", 2))
        assert 1 == len(await store.load("b8"))

    run(main())


def test_what_cannot_be_written_is_refused() -> None:
    """An event that JSON cannot hold is an error that names it, and none of its append is kept."""

    async def main() -> None:
        store = await begun()
        events = [StateEntered(sequence=2), RunFailed(sequence=3, error="\ud800")]
        with pytest.raises(CheckpointError, match="^RunFailed cannot be kept: .*surrogates"):
            await store.append("a7", 1, events, Status.FAILED)

        assert 1 == len(await store.load("a7"))
        assert Status.RUNNING == (await store.summary("a7")).status

    run(main())


def test_a_gap_is_refused() -> None:
    """A number beyond the next one is refused: the history would have a hole."""

    async def main() -> None:
        store = await begun()
        with pytest.raises(CheckpointError, match="StateEntered 3 came before event 2") as caught:
            await store.append("a7", 1, [StateEntered(sequence=3)])

        assert not isinstance(caught.value, RunLostError)
        assert 1 == len(await store.load("a7"))

    run(main())


def test_refusals_say_why() -> None:
    """Each refusal names the run, what is the matter, and what to do about it where that helps."""

    async def main() -> None:
        store = await begun("a7", "over", "done", "free")
        await store.renew(Owner("ann"), 0.0, 60.0)
        await store.append("over", 1, [StateEntered(sequence=2)], Status.FAILED)
        await store.append("done", 1, [StateEntered(sequence=2)], Status.FINISHED)
        await store.release("free", 1, Status.WAITING)
        for kind, message, call in [
            (RunExistsError, "'a7' exists already; resume it, or choose", store.create(new(), [])),
            (RunLostError, "'a7' is at epoch 1, not at epoch 3", store.append("a7", 3, [])),
            (RunLostError, "'b8' is deleted, not at epoch 1", store.append("b8", 1, [])),
            (RunLostError, "'a7' has an event 1 already, and no StateEntered",
             store.append("a7", 1, [StateEntered(sequence=1)])),
            (RunOwnedError, "'a7' belongs to 'ann' until 60.000; wait", store.claim("a7", "b", 9.0)),
            (RunOwnedError, "'free' is waiting, not over; resume", store.reopen("free", "b", 9.0)),
            (RunEndedError, "'over' is over: failed; there is nothing", store.claim("over", "b", 9.0)),
            (RunEndedError, "'done' has finished; it never moves", store.reopen("done", "b", 9.0)),
            (RunEndedError, "'over' is over: failed; nobody reads 'go'",
             store.send("over", "go", b"1", 9.0)),
            (RunNotFoundError, "there is no run 'x' here", store.summary("x")),
        ]:  # fmt: skip
            with pytest.raises(kind) as caught:
                await call
            assert message in str(caught.value)

    run(main())


def test_letting_go_of_nothing() -> None:
    """Letting go of a run that is not there is no error: somebody deleted it."""

    async def main() -> None:
        await MemoryCheckpoints().release("nobody", 1, Status.WAITING)

    run(main())


def test_threads_race_for_a_run() -> None:
    """Of several threads that claim a run, each on its own loop, exactly one gets it."""

    async def claim(store: MemoryCheckpoints, run_id: str, owner: str) -> Claim | None:
        try:
            return await store.claim(run_id, owner, 2.0)
        except RunOwnedError:
            return None

    async def race(store: MemoryCheckpoints, owner: str) -> list[str]:
        await store.renew(Owner(owner), 2.0, 60.0)
        return [f"run-{n}" for n in range(50) if await claim(store, f"run-{n}", owner)]

    store = asyncio.run(begun(*(f"run-{n}" for n in range(50))))
    with ThreadPoolExecutor(4) as threads:
        races = [
            threads.submit(lambda n=n: asyncio.run(race(store, f"owner-{n}"))) for n in range(4)
        ]
        won = [run_id for race_ in races for run_id in race_.result()]

    assert sorted(f"run-{n}" for n in range(50)) == sorted(won)


def test_a_closed_loop_is_told_no_more() -> None:
    """Whoever listened on a loop that is closed is forgotten, and harms nobody."""
    store = asyncio.run(begun())
    told: list[str] = []

    async def listen() -> None:
        store.listen(told.append)

    async def send() -> None:
        await store.send("a7", "go", b"1", 1.0)

    asyncio.run(listen())
    asyncio.run(send())

    assert [] == told
    assert {} == store._listeners


def test_it_keeps_no_garbage() -> None:
    """A thousand runs that ended and were deleted leave nothing behind."""

    async def main() -> None:
        store = MemoryCheckpoints()
        for n in range(1_000):
            await store.create(new(f"r{n}"), [RunStarted(sequence=1)])
            await store.append(f"r{n}", 1, [RunFailed(sequence=2)], Status.FAILED)

        assert 1_000 == await store.delete(await store.ended(None, 10.0, 0, 5_000))
        assert ({}, {}) == (store._runs, store._open)

    run(main())
