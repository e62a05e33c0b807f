"""One timer for many."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

from cano.scheduler._clockwork import Clockwork
from cano.scheduler.settings import _maker
from cano.testing import run


class Sleeper:
    def __init__(self, name: str) -> None:
        self.name = name
        self.wakes: float | None = None


class World:
    """A clockwork, and who was woken when, in seconds from the beginning."""

    def __init__(self) -> None:
        self.woken: list[tuple[str, float]] = []
        self.jumps: list[tuple[float, float]] = []
        self.clock: Clockwork[Sleeper] = Clockwork(self.wake, self.jumped)
        self.zero = self.clock.now()

    def wake(self, sleeper: Sleeper, now: float) -> None:
        self.woken.append((sleeper.name, round(now - self.zero, 3)))

    def jumped(self, by: float, now: float) -> None:
        self.jumps.append((by, round(now - self.zero, 3)))

    def set(self, sleeper: Sleeper, when: float | None) -> None:
        self.clock.set(sleeper, None if when is None else self.zero + when)


def test_the_earliest_first() -> None:
    """Sleepers are woken in the order of their times, in whatever order they were set."""

    async def main() -> None:
        world = World()
        for name, when in {"c": 30, "a": 10, "b": 20}.items():
            world.set(Sleeper(name), when)
        await asyncio.sleep(100)
        assert [("a", 10), ("b", 20), ("c", 30)] == world.woken
        assert inf == world.clock.earliest

    run(main())


def test_the_last_word_counts() -> None:
    """A sleeper that is set anew, or to never, is not woken when it was to be before."""

    async def main() -> None:
        world = World()
        later, never, sooner = Sleeper("later"), Sleeper("never"), Sleeper("sooner")
        for sleeper in (later, never, sooner):
            world.set(sleeper, 50)
        world.set(later, 70)
        world.set(never, None)
        world.set(sooner, 5)
        await asyncio.sleep(100)
        assert [("sooner", 5), ("later", 70)] == world.woken

    run(main())


def test_what_was_set_anew_is_not_kept() -> None:
    """The heap does not grow with how often sleepers are set."""

    async def main() -> None:
        world = World()
        sleepers = [Sleeper(str(number)) for number in range(10)]
        for turn in range(1000):
            for sleeper in sleepers:
                world.set(sleeper, 100_000 - turn)
        assert len(world.clock._heap) <= 2 * 10 + 64
        await asyncio.sleep(100_000)
        assert 10 == len(world.woken)

    run(main())


def test_a_jump_is_noticed_within_a_minute() -> None:
    """The clock on the wall is looked at once a minute while anybody waits."""

    async def main() -> None:
        world = World()
        loop: Any = asyncio.get_running_loop()
        world.set(Sleeper("a"), 4000)
        await asyncio.sleep(90)
        loop.wall_offset += 3600
        await asyncio.sleep(31)
        assert [(3600, 3720)] == world.jumps
        await asyncio.sleep(300)
        assert [("a", 4000)] == world.woken

    run(main())


def test_nobody_waits() -> None:
    """Without sleepers there is no timer, and after the stop none rings."""

    async def main() -> None:
        world = World()
        assert world.clock._timer is None
        world.set(Sleeper("a"), 10)
        world.clock.stop()
        world.set(Sleeper("b"), 5)
        await asyncio.sleep(100)
        assert [] == world.woken

    run(main())


def test_data_from_what_does_not_tell_what_it_asks_for() -> None:
    """A builtin has no signature; it is called with nothing."""
    make = _maker(dict)
    assert make is not None
    assert {} == make(5.0)
