"""A run watched through its handle: events as they happen, status, state and data."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import pytest

from cano import (
    Context,
    Event,
    Resources,
    RunCancelled,
    RunFailed,
    RunHandle,
    StateEntered,
    Workflow,
    on,
)
from cano.errors import RunCancelledError
from cano.testing import run


class Step(Enum):
    A = "a"
    B = "b"
    DONE = "done"


@dataclass
class Order:
    total: int = 0


async def nap(ctx: Context[Any]) -> Literal[Step.B]:
    await asyncio.sleep(10)
    return Step.B


async def finish(ctx: Context[Any]) -> Literal[Step.DONE]:
    return Step.DONE


async def fail(ctx: Context[Any]) -> Step:
    raise ValueError("no")


def flow_of(a: Any = nap, b: Any = finish, **settings: Any) -> Workflow[Step, Any]:
    return Workflow(Step, **settings).register(Step.A, a).register(Step.B, b).exits(Step.DONE)


async def collect(handle: RunHandle[Step, Any]) -> list[Event]:
    return [event async for event in handle.events()]


def names(events: list[Event]) -> list[str]:
    return [f"{type(event).__name__} {event.state}" for event in events]


WHOLE = [
    "RunStarted A",
    "StateEntered A", "TaskStarted A", "TaskSucceeded A",
    "StateEntered B", "TaskStarted B", "TaskSucceeded B",
    "StateEntered DONE",
    "RunFinished DONE",
]  # fmt: skip


@pytest.mark.parametrize("observers", [[], [on(RunFailed)(print)], [lambda event: None]])
def test_asked_before_the_first_step(observers: list[Any]) -> None:
    """The events are all there are, whoever else observes and whatever was compiled for them."""

    async def main() -> list[Event]:
        return await collect(await flow_of(observers=observers).start_run(Step.A))

    told = run(main())

    assert WHOLE == names(told)
    assert list(range(1, 10)) == [event.sequence for event in told]


def test_asked_in_the_middle() -> None:
    """The events are those from then on; a visit that had begun goes on untold."""

    async def main() -> list[Event]:
        handle = await flow_of().start_run(Step.A)
        await asyncio.sleep(5)
        return await collect(handle)

    assert WHOLE[4:] == names(run(main()))


def test_asked_after_the_end() -> None:
    """There are no more."""

    async def main() -> list[Event]:
        handle = await flow_of().start_run(Step.A)
        await handle.result()
        return await collect(handle)

    assert [] == run(main())


def test_several_watchers() -> None:
    """Each gets everything since it asked; one that leaves early takes nothing from the others.

    They ask from tasks of their own, and so when the run's first visit has begun.
    """

    async def first(handle: RunHandle[Step, Any]) -> list[Event]:
        async for event in handle.events():
            return [event]
        return []

    async def late(handle: RunHandle[Step, Any]) -> list[Event]:
        await asyncio.sleep(5)
        return await collect(handle)

    async def main() -> list[list[Event]]:
        handle = await flow_of().start_run(Step.A)
        return await asyncio.gather(collect(handle), first(handle), late(handle), collect(handle))

    rest = WHOLE[4:]

    assert [rest, rest[:1], rest, rest] == [names(told) for told in run(main())]


@pytest.mark.parametrize("after", [None, 0, 5])
def test_of_a_cancelled_run(after: float | None) -> None:
    """The closing event comes last; a run that never began has none, but the wait for it ends."""

    async def main() -> tuple[list[Event], list[Event]]:
        handle = await flow_of().start_run(Step.A)
        told: list[Event] = []
        handle.watch(told.append)
        following = asyncio.ensure_future(collect(handle))
        if after is not None:
            await asyncio.sleep(after)
        await handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle.result()
        return told, await following

    told, followed = run(main())
    expected = [*WHOLE[:3], "TaskCancelled A", "RunCancelled A"] if after is not None else []

    assert expected == names(told)
    assert expected[-1:] == names(followed)[-1:]


@pytest.mark.parametrize("task", [fail, finish])
def test_a_watcher_sees_the_end(task: Any) -> None:
    """Failed or finished: the closing event is seen, exactly once, and the iteration ends."""

    async def main() -> list[Event]:
        handle = await flow_of(task).start_run(Step.A)
        told = await collect(handle)
        with contextlib.suppress(ValueError):
            await handle.result()
        return told

    told = run(main())

    assert ("RunFailed A" if task is fail else "RunFinished DONE") == names(told)[-1]
    assert 1 == len([name for name in names(told) if name.startswith("Run") and "St" not in name])


def test_a_run_whose_setup_fails_has_no_events() -> None:
    """The wait for events ends with the run."""

    class Broken:
        async def setup(self) -> None:
            await asyncio.sleep(1)
            raise OSError

    async def main() -> list[Event]:
        handle = await flow_of(resources=Resources(broken=Broken())).start_run(Step.A)
        told = await collect(handle)
        with pytest.raises(OSError):
            await handle.result()
        return told

    assert [] == run(main())


def test_an_abandoned_watch_does_not_hold_the_run() -> None:
    """Whoever stops watching leaves the run alone."""

    async def main() -> Any:
        handle = await flow_of().start_run(Step.A)
        events = handle.events()
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        return await handle.result()

    assert Step.DONE == run(main())


def test_watchers_do_not_meet() -> None:
    """Events of one run do not reach a watcher of another run of the same workflow."""

    async def main() -> list[list[Event]]:
        flow = flow_of()
        handles = [await flow.start_run(Step.A, run_id=name) for name in "xy"]
        return await asyncio.gather(*map(collect, handles))

    first, second = run(main())

    assert ({"x"}, {"y"}) == ({e.run_id for e in first}, {e.run_id for e in second})


def test_status_and_state() -> None:
    """A handle knows how far its run has come."""
    seen: list[Any] = []

    async def main() -> None:
        handle = await flow_of(data=Order).start_run(Step.A, run_id="r")

        def look() -> None:
            seen.append((handle.status, handle.state, handle.done))

        look()
        await asyncio.sleep(5)
        look()
        await handle.result()
        look()

    run(main())

    assert [
        ("new", None, False),
        ("running", Step.A, False),
        ("finished", Step.DONE, True),
    ] == seen


@pytest.mark.parametrize(("task", "expected"), [(fail, "failed"), (nap, "cancelled")])
def test_status_of_what_did_not_finish(task: Any, expected: str) -> None:
    """A run that failed or was cancelled says so, and where."""

    async def main() -> tuple[str, Any]:
        handle = await flow_of(task).start_run(Step.A)
        await asyncio.sleep(1)
        await handle.cancel()
        with pytest.raises((ValueError, RunCancelledError)):
            await handle.result()
        return handle.status, handle.state

    assert (expected, Step.A) == run(main())


def test_data() -> None:
    """The data of a run is to be had from its handle, during the run and after."""

    async def count(ctx: Context[Order]) -> Literal[Step.B]:
        ctx.data.total = 1
        await asyncio.sleep(10)
        ctx.data.total = 2
        return Step.B

    async def main() -> list[int]:
        handle = await flow_of(count, data=Order).start_run(Step.A)
        seen = [(await handle.data()).total]
        await asyncio.sleep(5)
        seen.append((await handle.data()).total)
        await handle.result()
        return [*seen, (await handle.data()).total]

    assert [0, 1, 2] == run(main())


def test_repr() -> None:
    """A handle shows its run: name, workflow, status and state."""

    async def main() -> list[str]:
        handle = await flow_of(name="Orders").start_run(Step.A, run_id="r")
        shown = [repr(handle)]
        await handle.result()
        return [*shown, repr(handle)]

    expected = ["<RunHandle 'r' of Orders: new>", "<RunHandle 'r' of Orders: finished in DONE>"]
    assert expected == run(main())


def test_an_observer_is_told_while_somebody_watches() -> None:
    """A watcher takes nothing from the workflow's own observers, and adds nothing to them."""
    told: list[Event] = []

    async def main() -> None:
        flow = flow_of(observers=[on(StateEntered, RunCancelled)(told.append)])
        await collect(await flow.start_run(Step.A))

    run(main())

    assert ["StateEntered A", "StateEntered B", "StateEntered DONE"] == names(told)
