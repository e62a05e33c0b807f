"""Whoever comes, leaves or gives up, and in whatever order: the first in line are inside."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from cano import Bulkhead, BulkheadFullError
from cano.testing import run

Action = tuple[str, int]

actions = st.tuples(st.sampled_from(["come", "leave", "give up", "wait"]), st.integers(0, 9))


class Model:
    """Calls in the order of arrival; the first *limit* of those that are left are inside."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.line: list[int] = []

    @property
    def inside(self) -> list[int]:
        return self.line[: self.limit]


class Real:
    """The same through a `Bulkhead`: calls that stay until they are told to leave."""

    def __init__(self, limit: int) -> None:
        self.narrow = Bulkhead(limit)
        self.peak = 0
        self.inside: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    def come(self, number: int) -> None:
        self.gates[number] = asyncio.Event()
        self.tasks[number] = asyncio.ensure_future(self.narrow(self.stay)(number))

    async def stay(self, number: int) -> None:
        self.inside.append(number)
        self.peak = max(self.peak, len(self.inside))
        try:
            await self.gates[number].wait()
        finally:
            self.inside.remove(number)


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


@given(st.integers(1, 3), st.lists(actions, max_size=40))
def test_the_first_in_line_are_inside(limit: int, script: list[Action]) -> None:
    """After any script of arrivals, departures and cancellations no place is lost or doubled."""

    async def main() -> None:
        model, real = Model(limit), Real(limit)
        coming = 0
        for action, which in script:
            if action == "wait":
                await settle()
                assert model.inside == sorted(real.inside)
            elif action == "come":
                real.come(coming)
                model.line.append(coming)
                coming += 1
            elif model.line:
                number = model.line[which % len(model.line)]
                if action == "give up":
                    real.tasks[number].cancel()
                elif number in real.inside:
                    real.gates[number].set()
                else:
                    continue
                model.line.remove(number)
        await settle()
        assert model.inside == sorted(real.inside)
        assert real.peak <= limit
        waiting = len(model.line) - len(model.inside)
        assert f"<Bulkhead {len(model.inside)}/{limit}, {waiting} waiting>" == repr(real.narrow)
        for task in real.tasks.values():
            task.cancel()
        await settle()
        assert f"<Bulkhead 0/{limit}, 0 waiting>" == repr(real.narrow)

    run(main())


class Visit(NamedTuple):
    """A call that comes, stays if it is let in, and may be cancelled some time after it came."""

    pause: int
    stay: int
    gives_up: int | None


visits = st.builds(Visit, st.integers(0, 4), st.integers(0, 12), st.none() | st.integers(0, 15))


@given(st.integers(1, 3), st.integers(0, 10), st.lists(visits, max_size=20))
def test_patience_has_an_end(limit: int, max_wait: int, script: list[Visit]) -> None:
    """Nobody waits for longer than *max_wait*, nobody overtakes, and every place comes back."""
    narrow = Bulkhead(limit, max_wait=max_wait)
    inside: list[int] = []
    entered: list[int] = []
    waited: dict[int, float] = {}
    refused: dict[int, float] = {}

    async def call(number: int, stay: int) -> None:
        loop = asyncio.get_running_loop()
        came = loop.time()
        try:
            async with narrow:
                waited[number] = loop.time() - came
                entered.append(number)
                inside.append(number)
                assert len(inside) <= limit
                try:
                    await asyncio.sleep(stay)
                finally:
                    inside.remove(number)
        except BulkheadFullError:
            refused[number] = loop.time() - came

    async def main() -> None:
        tasks: list[asyncio.Task[None]] = []
        for number, (pause, stay, gives_up) in enumerate(script):
            await asyncio.sleep(pause)
            task = asyncio.ensure_future(call(number, stay))
            if gives_up is not None:
                asyncio.get_running_loop().call_later(gives_up, task.cancel)
            tasks.append(task)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends)
        assert f"<Bulkhead 0/{limit}, 0 waiting>" == repr(narrow)

    run(main())
    assert sorted(entered) == entered
    assert all(seconds <= max_wait for seconds in waited.values())
    assert {max_wait} >= set(refused.values())
