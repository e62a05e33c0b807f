"""The lease of one scope: held while it is needed, given up when it is not."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from cano import CheckpointError, MemoryCheckpoints
from cano._keeper import Keeper
from cano._process import here
from cano.checkpoints.store import CheckpointStore, Owner
from cano.testing import run
from cano.testing.faults import FaultyStore


class Counting(FaultyStore):
    def __init__(self, store: CheckpointStore) -> None:
        super().__init__(store)
        self.renewed: list[float] = []

    async def renew(self, owner: Owner, now: float, until: float, /) -> bool:
        self.renewed.append(asyncio.get_running_loop().time())
        return await super().renew(owner, now, until)


def test_the_lease_is_renewed_every_third_of_it() -> None:
    """While a scope is open the heartbeat goes on, on a timer of its own."""

    async def main() -> list[float]:
        keeper = Keeper(store := Counting(MemoryCheckpoints()), 15)
        keeper.open = True
        await keeper.ready()
        await asyncio.sleep(16)
        await keeper.close()
        await asyncio.sleep(100)
        return store.renewed

    assert [0, 5, 10, 15] == run(main())


def test_an_unused_lease_is_left_to_end() -> None:
    """Without runs and without a scope the heartbeat stops by itself."""

    async def main() -> int:
        keeper = Keeper(store := Counting(MemoryCheckpoints()), 15)
        await keeper.ready()
        await asyncio.sleep(1000)
        return len(store.renewed)

    assert 1 == run(main())


def test_a_hundred_starts_renew_once() -> None:
    """Who finds a fresh lease, or one that is being renewed, writes nothing."""

    async def main() -> int:
        keeper = Keeper(store := Counting(MemoryCheckpoints()), 15)
        await asyncio.gather(*(keeper.ready() for _ in range(100)))
        await asyncio.sleep(3)
        await keeper.ready()
        return len(store.renewed)

    assert 1 == run(main())


def test_an_old_lease_is_renewed_before_it_is_relied_on() -> None:
    """A run is begun only under a lease with half of its time left."""

    async def main() -> list[float]:
        keeper = Keeper(store := Counting(MemoryCheckpoints()), 15)
        await keeper.ready()
        await asyncio.sleep(8)
        await keeper.ready()
        return store.renewed

    assert [0, 8] == run(main())


def test_a_store_that_fails_fails_the_start() -> None:
    """No lease, no run; the next start tries again."""

    async def main() -> None:
        store = FaultyStore(MemoryCheckpoints())
        keeper = Keeper(store, 15)
        with store.unavailable(), pytest.raises(CheckpointError, match="unavailable"):
            await keeper.ready()
        await keeper.ready()

    run(main())


def test_a_failing_heartbeat_is_logged_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """The heartbeat outlives a store that fails for a while."""

    async def main() -> list[float]:
        keeper = Keeper(store := Counting(MemoryCheckpoints()), 15)
        keeper.open = True
        await keeper.ready()
        with store.unavailable():
            await asyncio.sleep(7)
        await asyncio.sleep(5)
        await keeper.close()
        return store.renewed

    with caplog.at_level(logging.WARNING, "cano"):
        assert [0, 5, 10] == run(main())
    assert "the store could not be asked" in caplog.text


def test_closing_gives_the_lease_up() -> None:
    """Nobody has to wait for the lease of a scope that was closed."""

    async def main() -> list[Any]:
        store = MemoryCheckpoints()
        keeper = Keeper(store, 15)
        await keeper.ready()
        assert 1 == len(await store.owners(here(), keeper.now()))
        await keeper.close()
        return list(await store.owners(here(), keeper.now()))

    assert [] == run(main())


def test_the_leases_of_the_dead_are_ended() -> None:
    """An owner of this machine whose process is gone holds nothing; others keep what they have."""

    async def main() -> list[str]:
        store = MemoryCheckpoints()
        keeper = Keeper(store, 15)
        now = keeper.now()
        await store.renew(Owner("gone", here(), 2**22 - 1, "1"), now, now + 100)
        await store.renew(Owner("far", "elsewhere", 2**22 - 1, "1"), now, now + 100)
        await keeper.ready()
        await keeper.bury()
        left = [*await store.owners(here(), now), *await store.owners("elsewhere", now)]
        return sorted(owner.id for owner in left)

    found = run(main())
    assert "far" in found
    assert "gone" not in found
    assert 2 == len(found)


def test_word_of_a_run_wakes_whoever_waits_for_it() -> None:
    """A message for one run wakes those who wait for it, or for any; a time is kept too."""

    async def main() -> list[tuple[str, float]]:
        store = MemoryCheckpoints()
        keeper = Keeper(store, 15)
        woken: list[tuple[str, float]] = []

        async def wait(name: str, seconds: float) -> None:
            with keeper.word_of(name) as word:
                await asyncio.wait((word,), timeout=seconds)
            woken.append((name, asyncio.get_running_loop().time()))

        waiting = [asyncio.ensure_future(wait(name, 10)) for name in ("r", "s", "")]
        await asyncio.sleep(1)
        store._tell("r")
        await asyncio.wait(waiting)
        return sorted(woken)

    assert [("", 1), ("r", 1), ("s", 10)] == run(main())
